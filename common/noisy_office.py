"""NoisyOffice: scanned pages, dirty and clean, from a folder, a download, or synthetic."""

import dataclasses
import functools
import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np

from common import UserError, data
from common.batches import seed_for
from common.files import read
from common.image_files import read_grey
from common.own_pictures import ENDINGS, split_by_hash
from synthetic import pages

UCI_URL = "https://archive.ics.uci.edu/static/public/318/noisyoffice.zip"
_LAYOUTS = [  # Kaggle's and UCI's: folder of dirty pages, of clean ones
    ("train", "train_cleaned"),
    ("simulated_noisy_images_grayscale", "clean_images_grayscale"),
]
_KINDS = {"c": "coffee", "f": "folds", "p": "footprints", "w": "wrinkles"}
_FAMILIES = {"TR": "train", "VA": "validation", "TE": "test"}
LEAST_SIDE = 32  # pixels, of a page
LEAST_PAGES = 5  # clean ones of the reader's own that differ
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
    """Return NoisyOffice as `Documents`: training, validation and test share no text and no dirt.

    Pages of one family (UCI: TR, VA, TE; Kaggle: the remainder of a file's number by 3) have their
    text and the dirt they lie on in common. So the test pages are another family. UCI's VA is for
    validation; Kaggle has no third family with clean pages, so there `_hold_out` parts of pages.

    Args:
        data_dir: only this folder is read, in Kaggle's layout (train, train_cleaned) or UCI's
            (SimulatedNoisyOffice), or pairs of one's own in dirty/ and clean/. None: Keras's cache,
            then a download from UCI, and where neither works synthetic pages, said loudly.
        synthetic: make synthetic pages without looking for NoisyOffice.
        limit: use this many training pages and as many test pages.
        seed: of the synthetic pages.

    Raises UserError if `data_dir` holds no such pages, too few, a page without its twin, twins of
    two sizes, or a file that can't be read.
    """
    name, origin = "NoisyOffice", "local"
    if data_dir is not None:
        own = _read_own(Path(data_dir), limit)
        if own:
            return Documents(f"{data.OWN} {Path(data_dir).resolve().name}", origin, *own)
        families = _read_families(_files_below(Path(data_dir)), data_dir, limit)
    elif not synthetic:
        try:
            found, origin = _cache_or_download()
            families = _read_families(found, "the downloaded archive", limit)
        except data.DownloadError as error:
            data.say_stand_in(name, error, "synthetic pages")
            synthetic = True
    if synthetic:
        name, origin = "synthetic pages", "synthetic"
        families = _synthetic_pages(limit, seed)
    train, validation, test = families
    if not (train and test):
        raise UserError(
            f"{data_dir or 'the downloaded archive'}: {len(train)} training and {len(test)} test "
            "pages; both families are needed, files whose number leaves 2 and 0 by 3 (UCI: TR and "
            "TE)"
        )
    if not validation:
        train, validation = _hold_out(train)
    return Documents(name, origin, train, validation, test)


# Kaggle's pages of family TR all begin with the same text, in three sizes: files 1 to 72 small, 73
# to 144 large, 145 to 216 normal. And all lie on the same dirt, pixel by pixel.
_ROWS_TO_TRAIN_ON = [225, 336, 336]  # by size: above what is held out
_ROWS_TO_HOLD_OUT = slice(364, None)  # of normal pages: text that only they go on to
_FACES_THAT_REPEAT = range(193, 217)  # typewriter faces, wide: they get no further than others do


def _hold_out(pages):
    """Return (training pages, validation pages) cut so that no text and no dirt is in both.

    The last lines of the pages in normal size are held out, with what the same rows of other pages
    hold, and all lines of other pages that go as far in the text.
    """
    train, validation = [], []
    for page in pages:
        number = int(page.name) if page.name.isdecimal() else 0  # UCI's has none
        rows = min(_ROWS_TO_TRAIN_ON[(number - 1) // 72 % 3], page.dirty.shape[0] * 4 // 5)
        train.append(_cut(page, slice(rows)))
        if 144 < number < _FACES_THAT_REPEAT.start:
            validation.append(_cut(page, _ROWS_TO_HOLD_OUT))
    if not validation:  # a few pages only: what is below what they train on
        validation = [_cut(page, slice(page.dirty.shape[0] * 17 // 20, None)) for page in pages]
    return train, validation


def _cut(page, rows):
    return Page(page.name, page.kind, page.dirty[rows], page.clean[rows])


def _synthetic_pages(limit, seed):
    """Return 96 training, 12 validation and 24 test pages, fewer under a limit."""
    families = []
    for part, count in (("train", 96), ("validation", 12), ("test", 24)):
        made = pages.pages(min(limit or count, count), seed=seed_for(seed, "pages", part))
        families.append([Page(str(n), kind, *pair) for n, (*pair, kind, _) in enumerate(made)])
    return families


# ---------------------------------------------------------------- files


def _files_below(folder):
    """Return {path: a function that returns its bytes} of the PNG files below a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data-dir wants the one with NoisyOffice")
    found = sorted(path for pattern in ("*/*", "*/*/*", "*/*/*/*") for path in folder.glob(pattern))
    return {path: functools.partial(read, path) for path in found if path.suffix == ".png"}


def _files_in_zip(content, name, depth=0):
    """Return the same of a zip, and of the zips within it. Nothing is unpacked to the disk."""
    archive, found = zipfile.ZipFile(io.BytesIO(content)), {}
    if depth > 1 or sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
        raise ValueError(f"{name}: a zip within zips, or too large")
    for entry in archive.infolist():
        path = Path(name, entry.filename)
        if path.suffix == ".zip":
            found |= _files_in_zip(archive.read(entry), path, depth + 1)
        elif path.suffix == ".png":
            found[path] = functools.partial(archive.read, entry)
    return found


def _cache_or_download():
    archive = data.keras_cache() / "noisyoffice.zip"
    origin = data.download(UCI_URL, archive)
    content = read(archive)
    try:
        return _files_in_zip(content, archive), origin
    except Exception as error:  # zipfile and zlib raise many kinds
        raise UserError(f"{archive}: damaged ({error}); delete it, to download it again") from None


def _read_families(files, where, limit=None):
    """Return pages as three lists: training, validation (may be empty), test."""
    for dirty, clean in _LAYOUTS:
        paths = [path for path in files if path.parent.name == dirty and path.name[0] != "."]
        places = {path: _place_page(path) for path in paths}
        families = []
        for family in ("train", "validation", "test"):
            chosen = [path for path in paths if places[path][0] == family]
            mixed = sorted(chosen, key=lambda path: seed_for(path.name))  # fonts and kinds of dirt
            chosen = sorted(mixed[:limit], key=lambda path: (path.stem.zfill(9), path.name))
            families.append([_read_with_twin(files, path, clean, *places[path]) for path in chosen])
        if paths:
            return families
    layouts = f"neither Kaggle's train/ nor UCI's {dirty}/ nor dirty/ and clean/"
    raise UserError(f"no NoisyOffice in {where}: {layouts}")


def _read_with_twin(files, path, clean, _, kind, name):
    twin = path.parent.with_name(clean) / name
    if twin not in files:
        raise UserError(f"{path}: its clean twin {twin} is missing")
    return _read_page(kind, path, twin, [files[path], files[twin]])


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


def _read_own(folder, limit=None):
    """Return the reader's own pages as three lists: training, validation, test.

    The pairs are files of one name in dirty/ and clean/; endings may differ. Those with the same
    clean page are in the same part. None: no such folders.
    """
    dirty, clean = {}, {}
    for found, part in ((dirty, "dirty"), (clean, "clean")):
        for path in sorted((folder / part).glob("*")):
            if path.suffix.lower() in ENDINGS:
                other = found.setdefault(path.stem, path)
                if other is not path:
                    raise UserError(f"{other} and {path} are pages of one name; rename one")
    if not (dirty and clean):
        return None
    pages = []
    for name, path in dirty.items():
        if name not in clean:
            raise UserError(f"{path}: its clean twin is missing in {folder / 'clean'}")
        pages.append(_read_page("own", path, clean[name]))
    hashes = [hashlib.sha256(page.clean.tobytes()).hexdigest() for page in pages]
    if len(set(hashes)) < LEAST_PAGES:
        found = f"{len(set(hashes))} clean pages that differ"
        raise UserError(f"{folder}: {found}; {LEAST_PAGES} are needed")
    return [[pages[n] for n in part][:limit] for part in split_by_hash(hashes, least=1)]


def _read_page(kind, path, twin, contents=(None, None)):
    """Return the `Page` of a dirty file and its clean twin; `contents` are as for `read_grey`."""
    dirty, clean = (
        np.round(read_grey(each, "white", content) * 255).astype(np.uint8)
        for each, content in zip((path, twin), contents, strict=True)
    )
    if dirty.shape != clean.shape:
        sizes = ["{1}x{0}".format(*page.shape) for page in (dirty, clean)]
        raise UserError(f"{path}: {sizes[0]} pixels, but {twin} has {sizes[1]}")
    if min(dirty.shape[:2]) < LEAST_SIDE:
        raise UserError(f"{path}: smaller than {LEAST_SIDE}x{LEAST_SIDE} pixels")
    return Page(path.stem, kind, dirty, clean)
