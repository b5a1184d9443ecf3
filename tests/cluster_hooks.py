"""What tests make dask's workers do: preloaded by them, not by the process that is tested.

HOOKS names a folder. While it holds `hold`, a number, a worker stops in mid-page once that many
outputs are in `out`, and says so by a file of its process's number. A file called fatal.png ends
its worker. Each loading of a model is a line in `loads`.
"""

import os
import time
from pathlib import Path

import keras
import tensorflow

from applications import page_cleaning, page_files

FOLDER = Path(os.environ.get("HOOKS", ""))


def outputs(folder):
    """Return the files in an output folder, but for hidden ones and the record."""
    return [p for p in folder.rglob("[!.]*.*") if p.is_file() and p.name != "cleaned.json"]


def load_model(path, **options):
    threads = tensorflow.config.threading.get_intra_op_parallelism_threads()
    with (FOLDER / "loads").open("a") as file:
        file.write(f"{os.getpid()} {threads}\n")
    return real_load(path, **options)


def holding():
    try:
        return len(outputs(FOLDER / "out")) >= int((FOLDER / "hold").read_text())
    except FileNotFoundError:
        return False


def write_pages(pages, path, at_most):
    path.write_bytes(b"half a page")
    while holding():
        (FOLDER / f"holding {os.getpid()}").touch()
        time.sleep(0.05)
    return real_write(pages, path, at_most)


def write_cleaned(clean, source, path, options):
    if source.name == "fatal.png":
        os._exit(1)
    return real_clean(clean, source, path, options)


# Dask imports a preloaded file twice.
if "DASK_DISTRIBUTED__WORKER__PRELOAD" in os.environ and "real_load" not in globals():
    real_load, keras.saving.load_model = keras.saving.load_model, load_model
    real_write, page_files.write_pages = page_files.write_pages, write_pages
    real_clean, page_cleaning.write_cleaned = page_cleaning.write_cleaned, write_cleaned
