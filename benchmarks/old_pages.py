"""How well are pages cleaned that resemble none of the training pages?

DIR holds images of pages in img/ and, under the same names, their ink (black) in gt/: the layout
in which the pages of the DIBCO contests are distributed. They are free for research only, so they
are not part of this project, and nothing in it was trained on them.

Each page is scored by the F-measure of its ink: as it is, divided by its background, and cleaned,
each at Otsu's threshold, and as it is at Sauvola's threshold. The core of the ink is the ground
truth without its outermost pixels. It counts as lost where the page is lighter than 200 of 255.

Examples:
  python -m benchmarks.old_pages DIR    measure
  python -m benchmarks.tables           write the table of docs/results.md
"""

import itertools
from pathlib import Path

import numpy as np
import tyro
from scipy import ndimage
from skimage.filters import threshold_sauvola

from benchmarks.trainings import RESULTS, store
from common import cli, images, metrics, training
from common.cli import UserError
from evaluation.clean_documents import WIDE_WINDOW, background_median
from tools.scans.page import cleaner

CONTRASTS = (0, 50, 75, 100, 130, 256)  # limits of the classes, in gray levels


def contrast(page, truth):
    """Return by how many of 255 levels ink is darker than paper: the difference of the medians."""
    return 255 * float(np.median(page[~truth]) - np.median(page[truth]))


def measure(page, truth, clean):
    """Return {method: {"f": F-measure, "lost": lost share of the core}} for a page."""
    core = ndimage.binary_erosion(truth[..., 0], np.ones((3, 3)))
    divided = background_median(page, WIDE_WINDOW)
    results = {}
    for name, image in {"otsu": page, "division": divided, "cleaned": clean(page)}.items():
        lost = float(np.mean(np.round(image[core] * 255) >= 200)) if core.any() else 0.0
        results[name] = {"f": metrics.f_measure(metrics.ink(image), truth), "lost": lost}
    # with the usual window and k
    sauvola = page[..., 0] < threshold_sauvola(page[..., 0], 25, k=0.2)
    results["sauvola"] = {"f": metrics.f_measure(sauvola[..., np.newaxis], truth)}
    return results


def summarize(pages):
    """Return the number of pages, and the means of what `measure` returned for them."""
    summary = {"pages": len(pages)}
    for name, keys in pages[0].items():
        summary[name] = {key: float(np.mean([page[name][key] for page in pages])) for key in keys}
    return summary


def main(folder: tyro.conf.Positional[Path]):
    """Measure the pages in a folder.

    Args:
        folder: holds img/ and gt/.
    """
    clean = cleaner(training.load_model(None, "clean_documents"))
    pages = []  # (contrast, what `measure` returned)
    for path in sorted((folder / "img").glob("*.png")):
        page = images.read_gray(path)
        truth = images.read_gray(folder / "gt" / path.name) < 0.5
        pages.append((contrast(page, truth), measure(page, truth, clean)))
        print(path.name, flush=True)
    if not pages:
        raise UserError(f"{folder}: holds no img/*.png")
    classes = {}
    for low, high in itertools.pairwise(CONTRASTS):
        if chosen := [results for level, results in pages if low <= level < high]:
            classes[f"{low}-{min(high, 255)}"] = summarize(chosen)
    everything = summarize([results for _, results in pages])
    store(RESULTS, "old_pages", {"all": everything, "classes": classes})


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main, description=__doc__))
