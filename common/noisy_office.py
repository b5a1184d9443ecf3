"""NoisyOffice: scanned pages, dirty and clean, from a folder, a download, or synthetic."""

import dataclasses
import functools
import io
import math
import re
import zipfile
from pathlib import Path

import numpy as np

from common import UserError, data, image_files
from synthetic import pages

UCI_URL = "https://archive.ics.uci.edu/static/public/318/noisyoffice.zip"
_LAYOUTS = [  # Kaggle's and UCI's: folder of dirty pages, of clean ones
    ("train", "train_cleaned"),
    ("simulated_noisy_images_grayscale", "clean_images_grayscale"),
]
_KINDS = {"c": "coffee", "f": "folds", "p": "footprints", "w": "wrinkles"}
_FAMILIES = {"TR": "train", "VA": "validation", "TE": "test"}
MOST_BYTES = 100_000_000  # of the unpacked archive, which has 30 million


@dataclasses.dataclass
class Page:
    """A dirty page and its clean twin: uint8, shape (height, width, 1). `kind` names its dirt."""

    name: str
    kind: str
    dirty: np.ndarray
    clean: np.ndarray


@dataclasses.dataclass
class Documents:
    """Pages of mixed sizes, split in three: lists of `Page`.

    `source` is "local", "cache", "download" or "synthetic".
    """

    name: str
    source: str
    train: list
    validation: list
    test: list

    def summary(self):
        """Return the `dataset` entry of metrics.json."""
        parts = {part: len(getattr(self, part)) for part in ("train", "validation", "test")}
        return {"name": self.name, "source": self.source, **parts}


def load_noisy_office(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return NoisyOffice as `Documents`, with no text and no dirt of the test pages in training.

    Four files share each clean page, and pages of one family their text and their dirt. So the
    test pages are another family. Kaggle numbers its files so that the remainder by 3 is the
    family: 2 is for training, its last sixth of clean pages for validation, and 0 for the test.
    UCI names them: TR, VA and TE.

    Args:
        data_dir: only this folder is read, in Kaggle's layout (train, train_cleaned) or UCI's
            (SimulatedNoisyOffice). None: Keras's cache, then a download from UCI, and where
            neither works synthetic pages, which is said loudly.
        synthetic: make synthetic pages without looking for NoisyOffice.
        limit: use this many training pages (validation included) and as many test pages.
        seed: of the synthetic pages.

    Raises:
        UserError: `data_dir` holds no such pages, a page without its twin, twins of two sizes, or
            a file that can't be read.
    """
    name, origin = "NoisyOffice", "local"
    if data_dir is not None:
        families = _read_pairs(_files_below(Path(data_dir)), data_dir, limit)
    elif not synthetic:
        try:
            found, origin = _cache_or_download()
            families = _read_pairs(found, "the downloaded archive", limit)
        except data.DownloadError as error:
            data.say_stand_in(name, error, "synthetic pages")
            synthetic = True
    if synthetic:
        name, origin = "synthetic pages", "synthetic"
        families = _synthetic_pages(limit, seed)
    train, validation, test = families
    if not (train and test):
        raise UserError(
            f"{data_dir}: {len(train)} training and {len(test)} test pages; both families are "
            "needed, files whose number leaves 2 and 0 by 3 (UCI: TR and TE)"
        )
    if not validation:
        texts = list(dict.fromkeys(page.clean.tobytes() for page in train))
        if len(texts) == 1:
            raise UserError(
                f"{data_dir}: all training pages have one text, none is left to hold out"
            )
        held_out = texts[-math.ceil(len(texts) / 6) :]
        validation = [page for page in train if page.clean.tobytes() in held_out]
        train = [page for page in train if page.clean.tobytes() not in held_out]
    return Documents(name, origin, train, validation, test)


def _synthetic_pages(limit, seed):
    """Return 96 training and 24 test pages, fewer under a limit, from unlike seeds."""
    train, test = (
        [
            Page(str(number), kind, dirty, clean)
            for number, (dirty, clean, kind, _) in enumerate(
                pages.pages(min(limit or count, count), seed=[seed, part])
            )
        ]
        for part, count in enumerate([96, 24])
    )
    return train, [], test


# ---------------------------------------------------------------- files


def _files_below(folder):
    """Return {path: a function that returns its bytes} of the PNG files in and below a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data-dir wants the one with NoisyOffice")
    found = sorted(path for pattern in ("*/*", "*/*/*", "*/*/*/*") for path in folder.glob(pattern))
    return {path: path.read_bytes for path in found if path.suffix == ".png"}


def _files_in_zip(content, name, depth=0):
    """Return the same of a zip, and of the zips within it. Nothing is unpacked to the disk."""
    archive, found = zipfile.ZipFile(io.BytesIO(content)), {}
    if depth > 1 or sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
        raise UserError(f"{name}: a zip within zips, or too large")
    for entry in archive.infolist():
        path = Path(name, entry.filename)
        if path.suffix == ".zip":
            found |= _files_in_zip(archive.read(entry), path, depth + 1)
        elif path.suffix == ".png":
            found[path] = functools.partial(archive.read, entry)
    return found


def _cache_or_download():
    archive = data.keras_cache() / "noisyoffice.zip"
    origin = "cache" if archive.is_file() else "download"
    if origin == "download":
        data.download(UCI_URL, archive)
    try:
        return _files_in_zip(archive.read_bytes(), archive), origin
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"{archive}: damaged ({error}); delete it, to download it again") from None


def _read_pairs(files, where, limit=None):
    """Return pages as three lists: training, validation (may be empty), test."""
    families = {"train": [], "validation": [], "test": []}
    for noisy, clean in _LAYOUTS:
        paths = [path for path in files if path.parent.name == noisy and path.name[0] != "."]
        for path in sorted(paths, key=lambda path: (path.stem.zfill(9), path.name)):
            family, kind, name = _place_page(path)
            if family is None or len(families[family]) >= (limit or math.inf):
                continue
            twin = path.parent.with_name(clean) / name
            if twin not in files:
                raise UserError(f"{path}: its clean twin {twin} is missing")
            pair = [image_files.read_grey(file, content=files[file]()) for file in (path, twin)]
            dirty, cleaned = (np.round(image * 255).astype(np.uint8) for image in pair)
            if dirty.shape != cleaned.shape:
                raise UserError(
                    f"{path}: {dirty.shape[:2]}, but its twin {cleaned.shape[:2]} pixels"
                )
            families[family].append(Page(path.stem, kind, dirty, cleaned))
        if paths:
            return families.values()
    raise UserError(f"no NoisyOffice in {where}: neither Kaggle's train/ nor UCI's {noisy}/")


def _place_page(path):
    """Return family, kind of dirt and the clean twin's name, from what a file is called."""
    match = re.fullmatch(r"(Font\w{3})_Noise([cfpw])_(TR|VA|TE)", path.stem)
    if match:
        font, kind, partition = match.groups()
        return _FAMILIES[partition], _KINDS[kind], f"{font}_Clean_{partition}.png"
    if re.fullmatch("[0-9]{1,9}", path.stem):
        number = int(path.stem)
        family = {2: "train", 0: "test"}.get(number % 3)
        return family, list(_KINDS.values())[(number - 1) // 3 % 4], path.name
    raise UserError(f"{path}: neither Kaggle's name (a number) nor UCI's (FontABC_NoiseD_EE)")
