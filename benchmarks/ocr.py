"""Does cleaning a page help OCR? Tesseract's character error rate, dirty and cleaned.

The pages are synthetic, so that their text is known, and none was trained on. Tesseract reads each
as it is, divided by its median, cleaned by the network, and as it was before the dirt, all enlarged
three times, because it needs letters as large as in a scan at 300 dpi.

Examples:
  python -m benchmarks.ocr                    the model in models/, 40 pages, in five minutes
  python -m benchmarks.ocr --model runs/clean_documents/model.keras --pages 10
"""

import collections
import dataclasses
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from benchmarks.trainings import RESULTS, store
from common import cli, training
from evaluation.clean_documents import background_median
from synthetic import pages
from tools.scans.page import cleaner

ENLARGE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    model: Path | None = None
    """of clean_documents.py; by default the one in models/"""
    pages: int = 40
    """number of pages"""
    results: Path = RESULTS
    """file that the results go to"""


def edit_distance(one, other):
    """Return the minimum number of insertions, deletions and replacements between two texts.

    Wagner and Fischer 1974, https://doi.org/10.1145/321796.321811
    """
    columns = np.arange(len(other) + 1)
    letters = np.array(list(other), dtype="U1")
    row = columns.copy()
    for number, letter in enumerate(one, start=1):
        replaced = np.minimum(row[1:] + 1, row[:-1] + (letters != letter))
        # The cost of insertions is passed on from the left, letter by letter: a running minimum.
        row = np.minimum.accumulate(np.append(number, replaced) - columns) + columns
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
    return " ".join(done.stdout.split())


def main(argv=None):
    settings = tyro.cli(Settings, args=argv, description=__doc__)
    if not shutil.which("tesseract"):
        print("Nothing measured: Tesseract is missing (Debian: apt install tesseract-ocr).")
        return
    methods = {
        "dirty": lambda dirty: dirty,
        "background_median": background_median,
        "cleaned": cleaner(training.load_model(settings.model, "clean_documents")),
    }
    errors, letters = collections.Counter(), collections.Counter()  # by method and kind of dirt
    with tempfile.TemporaryDirectory() as folder:
        made = pages.pages(settings.pages, seed=100, scale=1)
        for number, (dirty, clean, kind, lines) in enumerate(made, start=1):
            text = " ".join(lines)
            page = dirty.astype("float32") / 255
            images = {name: method(page) for name, method in methods.items()}
            images["clean"] = clean.astype("float32") / 255
            for name, image in images.items():
                distance = edit_distance(text, read(image, folder))
                for group in (kind, "all"):
                    errors[name, group] += distance
                    letters[name, group] += len(text)
            print(f"page {number} of {settings.pages}", flush=True)
    groups = ["all", *sorted({group for _, group in errors} - {"all"})]
    rates = {
        name: {group: errors[name, group] / letters[name, group] for group in groups}
        for name in [*methods, "clean"]
    }
    print("\nCharacter error rate:")
    training.print_table(rates)
    rates = {name: rate["all"] for name, rate in rates.items()}
    store(settings.results, "ocr", {"pages": settings.pages, "error_rate": rates})


if __name__ == "__main__":
    cli.run(main)
