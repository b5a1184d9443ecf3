"""How well are pages cleaned that resemble none of the training pages?

DIR holds images of pages in img/ and, under the same names, their ink in gt/ (black): the layout
in which the pages of the DIBCO contests are distributed. They are free for research only, so they
are not part of this project, and nothing in it was trained on them.

Each page is cleaned, made black and white at Otsu's threshold, and compared by the F-measure; so is
the page as it is, divided by its background, and at Sauvola's threshold. The core of the ink is the
truth without its outermost pixels; it is lost where the cleaned page is lighter than 200 of 255.

Examples:
  python -m benchmarks.old_pages DIR            results go to results.json
  python -m benchmarks.old_pages DIR --each     also a line for each page
"""

import dataclasses
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

CLASSES = {"0-50": 50, "50-75": 75, "75-100": 100, "100-130": 130, "130-255": 256}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    folder: tyro.conf.Positional[Path]
    """folder with img/ and gt/"""
    model: Path | None = None
    """of clean_documents.py; by default the one in models/"""
    each: bool = False
    """print a line for each page"""
    results: Path = RESULTS
    """file that the results go to"""


def contrast(page, truth):
    """Return by how many levels of 255 ink is darker than paper: the difference of the medians."""
    return 255 * float(np.median(page[~truth]) - np.median(page[truth]))


def measure(page, truth, clean):
    """Return {method: {"f", "lost"}} of a page: F-measure, and the lost share of the core."""
    core = ndimage.binary_erosion(truth[..., 0], np.ones((3, 3)))
    divided = background_median(page, WIDE_WINDOW)
    results = {}
    for name, image in {"otsu": page, "division": divided, "cleaned": clean(page)}.items():
        lost = float(np.mean(np.round(image[core] * 255) >= 200)) if core.any() else 0.0
        results[name] = {"f": metrics.f_measure(metrics.ink(image), truth), "lost": lost}
    # Sauvola's local threshold, with its usual window and k.
    sauvola = page[..., 0] < threshold_sauvola(page[..., 0], 25, k=0.2)
    results["sauvola"] = {"f": metrics.f_measure(sauvola[..., np.newaxis], truth)}
    return results


def summarize(pages):
    """Return the means over pages: a list of (contrast, what `measure` returned)."""
    summary = {"pages": len(pages)}
    for name, keys in pages[0][1].items():
        summary[name] = {
            key: float(np.mean([page[name][key] for _, page in pages])) for key in keys
        }
    behind = [page["division"]["f"] - page["cleaned"]["f"] for _, page in pages]
    return {**summary, "more_than_5_points_below_division": sum(gap > 0.05 for gap in behind)}


def main(argv=None):
    settings = tyro.cli(
        Settings, args=argv, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    clean = cleaner(training.load_model(settings.model, "clean_documents"))
    pages = []
    for path in sorted((settings.folder / "img").glob("*.png")):
        page = images.read_gray(path)
        truth = images.read_gray(settings.folder / "gt" / path.name) < 0.5
        pages.append((contrast(page, truth), measure(page, truth, clean)))
        if settings.each:
            level, results = pages[-1]
            scores = [f"{name} {results[name]['f']:.3f}" for name in results]
            lost = results["cleaned"]["lost"]
            print(path.name, f"contrast {level:.0f}", *scores, f"lost {lost:.1%}", flush=True)
    if not pages:
        raise UserError(f"{settings.folder}: holds no img/*.png")
    classes, low = {}, 0
    for name, high in CLASSES.items():
        if chosen := [page for page in pages if low <= page[0] < high]:
            classes[name] = summarize(chosen)
        low = high
    total = summarize(pages)
    training.print_table(
        {
            f"{name} ({group['pages']} pages)": {
                "otsu": group["otsu"]["f"],
                "sauvola": group["sauvola"]["f"],
                "division": group["division"]["f"],
                "cleaned": group["cleaned"]["f"],
                "cores lost": group["cleaned"]["lost"],
                "5 below": group["more_than_5_points_below_division"],
            }
            for name, group in ({"all": total} | classes).items()
        }
    )
    store(settings.results, "old_pages", {"all": total, "classes": classes})


if __name__ == "__main__":
    cli.run(main)
