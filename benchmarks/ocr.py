"""Does cleaning a page help OCR? Measure Tesseract's character error rate before and after.

The pages are synthetic, so their text is known, and none was used in training. Tesseract reads each
page as it is, divided by its median, cleaned by the model in models/, and as it was before the dirt
was added. All are enlarged three times, because Tesseract needs letters as large as at 300 dpi.

Examples:
  python -m benchmarks.ocr       measure; takes five minutes
  python -m benchmarks.tables    write the table of docs/results.md
"""

import collections
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tensorflow
import tyro
from PIL import Image

from benchmarks.trainings import RESULTS, store
from common import cli, training
from evaluation.clean_documents import background_median
from synthetic import pages
from tools.scans.page import cleaner

PAGES, ENLARGE = 40, 3


def edit_distance(one, other):
    """Return the minimum number of insertions, deletions and replacements between two texts."""
    one, other = (tensorflow.strings.unicode_decode([text], "UTF-8") for text in (one, other))
    [distance] = tensorflow.edit_distance(one.to_sparse(), other.to_sparse(), normalize=False)
    return int(distance)


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
    return " ".join(done.stdout.split())


def main():
    if not shutil.which("tesseract"):
        print("Nothing measured: Tesseract is missing (Debian: apt install tesseract-ocr).")
        return
    clean_page = cleaner(training.load_model(None, "clean_documents"))
    letters = 0
    errors = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        for dirty, clean, _, lines in pages.make_pages(PAGES, seed=100, scale=1):
            text = " ".join(lines)
            letters += len(text)
            page = dirty.astype("float32") / 255
            images = {
                "dirty": page,
                "background_median": background_median(page),
                "cleaned": clean_page(page),
                "clean": clean.astype("float32") / 255,
            }
            for name, image in images.items():
                errors[name] += edit_distance(text, read(image, folder))
    rates = {name: count / letters for name, count in errors.items()}
    training.print_table({"character error rate": rates})
    store(RESULTS, "ocr", {"pages": PAGES, "error_rate": rates})


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main, description=__doc__))
