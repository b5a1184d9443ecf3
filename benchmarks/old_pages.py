"""How well are pages cleaned that the network has never seen the like of?

DIR holds pictures of pages in img/ and, under the same names, what is ink on them in gt/ (black):
the layout in which the pages of the DIBCO contests are passed on. They are free for research, so
they are not part of this project, and no network in it was trained on them.

Each page is cleaned, made black and white at Otsu's threshold, and compared by the F-measure; so is
the page as it is, divided by its background, and as Sauvola's threshold has it. A stroke's core is
the truth less a pixel all round; it is lost where the cleaned page is lighter than 200 of 255.

Run it:
  python benchmarks/old_pages.py DIR            figures go to results.json
  python benchmarks/old_pages.py DIR --each     a line for each page, too
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line, image_files, metrics, trained_models  # noqa: E402
from applications import page_cleaning  # noqa: E402

import clean_documents  # noqa: E402
import time_to_quality  # noqa: E402

import numpy as np  # noqa: E402
from scipy import ndimage  # noqa: E402
from skimage.filters import threshold_sauvola  # noqa: E402

CLASSES = {"0-50": 50, "50-75": 75, "75-100": 100, "100-130": 130, "130-255": 256}


def sauvola(page):
    """Return what is ink by Sauvola's local threshold, with its usual window and k = 0.2."""
    return page[..., 0] < threshold_sauvola(page[..., 0], 25, k=0.2)


def contrast(page, truth):
    """Return by how many levels of 255 ink is darker than paper: the difference of the medians."""
    return 255 * float(np.median(page[~truth]) - np.median(page[truth]))


def measure(page, truth, clean):
    """Return {method: {"f", "lost"}} of one page: F-measure, and the share of cores lost."""
    divided = clean_documents.background_median(page, 63)
    grey = {"otsu": page, "division": divided, "cleaned": clean(page)}
    core = ndimage.binary_erosion(truth[..., 0], np.ones((3, 3)))
    found = {
        name: {
            "f": clean_documents.f_measure(metrics.ink(picture), truth),
            "lost": float(np.mean(np.round(picture[core] * 255) >= 200)) if core.any() else 0.0,
        }
        for name, picture in grey.items()
    }
    found["sauvola"] = {"f": clean_documents.f_measure(sauvola(page)[..., np.newaxis], truth)}
    return found


def summary(pages):
    """Return the means over pages: [(contrast, {method: {metric: value}})]."""
    result = {"pages": len(pages)}
    for name in pages[0][1]:
        keys = pages[0][1][name]
        result[name] = {key: float(np.mean([page[name][key] for _, page in pages])) for key in keys}
    behind = [page["division"]["f"] - page["cleaned"]["f"] for _, page in pages]
    return {**result, "more_than_5_points_below_division": sum(gap > 0.05 for gap in behind)}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = ROOT / "models" / "clean_documents.keras"
    parser.add_argument("folder", type=Path, metavar="DIR", help="with img/ and gt/")
    parser.add_argument("--model", default=shipped, help="of clean_documents.py")
    parser.add_argument("--each", action="store_true", help="a line for each page")
    parser.add_argument("--results", type=Path, default=time_to_quality.RESULTS)
    args = parser.parse_args(argv)
    network = trained_models.load_model(args.model, {"unet": "clean_documents"})[0]
    clean = page_cleaning.cleaner(network)
    pages = []
    for path in sorted((args.folder / "img").glob("*.png")):
        page = image_files.read_grey(path)
        truth = image_files.read_grey(args.folder / "gt" / path.name) < 0.5
        pages.append((contrast(page, truth), measure(page, truth, clean)))
        if args.each:
            grade, found = pages[-1]
            numbers = [f"{name} {found[name]['f']:.3f}" for name in found]
            lost = found["cleaned"]["lost"]
            print(path.name, f"contrast {grade:.0f}", *numbers, f"lost {lost:.1%}", flush=True)
    if not pages:
        raise UserError(f"{args.folder}: no img/*.png there")
    result, least = {"all": summary(pages), "classes": {}}, 0
    for name, most in CLASSES.items():
        if chosen := [page for page in pages if least <= page[0] < most]:
            result["classes"][name] = summary(chosen)
        least = most
    groups = {"all": result["all"], **result["classes"]}
    metrics.print_table(
        {
            f"{name} ({part['pages']} pages)": {
                **{method: part[method]["f"] for method in ("otsu", "sauvola", "division")},
                "cleaned": part["cleaned"]["f"],
                "cores lost": part["cleaned"]["lost"],
                "5 below": part["more_than_5_points_below_division"],
            }
            for name, part in groups.items()
        }
    )
    time_to_quality.store(args.results, "old_pages", result)


if __name__ == "__main__":
    command_line.start(main)
