"""Does cleaning a page help to read it? Tesseract's character error rate, dirty and cleaned.

The pages are synthetic, so that their text is known; no network was trained on them. Each is read
as it is, after a background-median filter, after the network, and as it was before the dirt, all
enlarged three times, because Tesseract wants letters of a scan at 300 dpi.

Run it:
  python benchmarks/ocr.py                    the model in models/, 40 pages, in five minutes
  python benchmarks/ocr.py --model runs/clean_documents/model.keras --pages 10
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import command_line, metrics, trained_models  # noqa: E402
from applications import page_cleaning  # noqa: E402
from synthetic import pages  # noqa: E402

import clean_documents  # noqa: E402
import time_to_quality  # noqa: E402

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

ENLARGE = 3


def edit_distance(one, other):
    """Return the least number of insertions, deletions and replacements from one text to the other.

    Wagner and Fischer 1974, https://doi.org/10.1145/321796.321811
    """
    columns = np.arange(len(other) + 1)
    letters = np.array(list(other), dtype="U1")
    row = columns.copy()
    for number, letter in enumerate(one, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        # What an insertion costs comes from the left, letter by letter: a running minimum.
        row = np.minimum.accumulate(np.append(number, changed) - columns) + columns
    return int(row[-1])


def read(page, folder):
    """Return the text that Tesseract reads on a page, float32 of shape (height, width, 1)."""
    height, width = page.shape[:2]
    picture = Image.fromarray(np.round(page[..., 0] * 255).astype(np.uint8))
    picture = picture.resize((width * ENLARGE, height * ENLARGE), Image.Resampling.BICUBIC)
    path = Path(folder) / "page.png"
    picture.save(path, dpi=(300, 300))
    done = subprocess.run(
        ["tesseract", str(path), "stdout", "--psm", "6", "-l", "eng"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
    )
    return done.stdout


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = ROOT / "models" / "clean_documents.keras"
    parser.add_argument("--model", default=shipped, help="of clean_documents.py")
    parser.add_argument("--pages", type=command_line.whole(1), default=40)
    parser.add_argument("--results", type=Path, default=time_to_quality.RESULTS)
    args = parser.parse_args(argv)
    if not shutil.which("tesseract"):
        print("Nothing measured: Tesseract is missing (Debian: apt install tesseract-ocr).")
        return
    network = trained_models.load_model(args.model, {"unet": "clean_documents"})[0]
    methods = {
        "dirty": lambda dirty: dirty,
        "background_median": clean_documents.background_median,
        "cleaned": page_cleaning.cleaner(network),
    }
    errors, letters = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for number, page in enumerate(pages.pages(args.pages, seed=100, scale=1)):
            dirty, clean, kind, lines = page
            text = " ".join(lines)
            variants = {
                name: method(dirty.astype("float32") / 255) for name, method in methods.items()
            }
            variants["clean"] = clean.astype("float32") / 255
            for name, picture in variants.items():
                found = " ".join(read(picture, folder).split())
                for group in (kind, "all"):
                    key = name, group
                    errors[key] = errors.get(key, 0) + edit_distance(text, found)
                    letters[key] = letters.get(key, 0) + len(text)
            print(f"page {number + 1} of {args.pages}", flush=True)
    print("\nCharacter error rate:")
    groups = ["all", *sorted({group for _, group in errors} - {"all"})]
    rates = {
        name: {g: errors[name, g] / letters[name, g] for g in groups}
        for name in [*methods, "clean"]
    }
    metrics.print_table(rates)
    rates = {name: rate["all"] for name, rate in rates.items()}
    time_to_quality.store(args.results, "ocr", {"pages": args.pages, "error_rate": rates})


if __name__ == "__main__":
    command_line.start(main)
