"""NoisyOffice: scanned pages, dirty and clean, from a folder or a download, or synthetic."""

import dataclasses
import functools
import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np

from common import data, files, images
from common.cli import UserError
from common.training import seed_for
from synthetic import pages

UCI_URL = "https://archive.ics.uci.edu/static/public/318/noisyoffice.zip"
MIN_PAGES = 5  # different clean pages, if they are the user's own
MAX_BYTES = 100_000_000  # size limit of the unpacked archive, which has 30 million bytes
_LAYOUTS = [  # Kaggle's and UCI's: folder of dirty pages, folder of clean pages
    ("train", "train_cleaned"),
    ("simulated_noisy_images_grayscale", "clean_images_grayscale"),
]
_KINDS = {"c": "coffee", "f": "folds", "p": "footprints", "w": "wrinkles"}
_FAMILIES = {"TR": "train", "VA": "validation", "TE": "test"}


@dataclasses.dataclass
class Page:
    """A dirty page and the same page clean: uint8, shape (height, width, 1)."""

    name: str
    kind: str  # of dirt
    dirty: np.ndarray
    clean: np.ndarray

    def cut(self, rows):
        """Return the page cropped to some rows, a slice."""
        return Page(self.name, self.kind, self.dirty[rows], self.clean[rows])

    def as_floats(self):
        """Return (dirty, clean), each float32 in [0, 1], shape (height, width, 1)."""
        return self.dirty.astype("float32") / 255, self.clean.astype("float32") / 255


@dataclasses.dataclass
class Documents:
    """Pages of mixed sizes in three splits, each a list of `Page`."""

    name: str
    source: str  # "local", "cache", "download" or "synthetic"
    train: list
    validation: list
    test: list

    def summary(self):
        """Return the `dataset` entry of metrics.json."""
        counts = {"train": len(self.train), "val": len(self.validation), "test": len(self.test)}
        return {"name": self.name, "source": self.source, **counts}

    def __str__(self):
        counts = f"{len(self.train):,} training and {len(self.test):,} test pages"
        return f"{self.name} ({self.source}), {counts}"


def load_noisy_office(settings):
    """Return NoisyOffice as `Documents` whose splits share neither text nor dirt.

    All pages of a family share text and dirt. UCI marks families TR, VA and TE; in Kaggle's files
    the family is the file number modulo 3. The test pages are a family of their own, and UCI's VA
    is for validation. Kaggle lacks clean pages for the third family, so rows of the training pages
    are held out instead.

    `settings` has data_dir, synthetic, limit and seed, as `cli.Train`. --data-dir may hold Kaggle's
    folders (train, train_cleaned), UCI's (SimulatedNoisyOffice), or the user's own pages in dirty/
    and clean/. Without --data-dir, UCI's archive is read from Keras's cache or downloaded; if the
    download fails, pages are synthetic.

    Raises UserError if --data-dir or the cache holds no such pages, or a page cannot be read.
    """
    name = "NoisyOffice"
    source = "local"
    folder = settings.data_dir
    limit = settings.limit
    synthetic = settings.synthetic
    if folder:
        own = _read_own(folder, settings)
        if own:
            return Documents(f"{data.OWN_PREFIX} {folder.resolve().name}", source, *own)
        families = _read_families(_png_files(folder), folder, limit)
    elif not synthetic:
        try:
            contents, source = _cache_or_download()
            families = _read_families(contents, "the downloaded archive", limit)
        except data.DownloadError as error:
            data.warn_synthetic(name, error, "synthetic pages")
            synthetic = True
    if synthetic:
        name, source = "synthetic pages", "synthetic"
        families = _synthetic_pages(limit, settings.seed)
    train, validation, test = families
    if not (train and test):
        raise UserError(
            f"{folder or 'the downloaded archive'}: {len(train)} training and {len(test)} test "
            "pages; both are needed: file numbers that are 2 and 0 modulo 3 (UCI: TR and TE)"
        )
    if not validation:
        train, validation = _hold_out(train)
    return Documents(name, source, train, validation, test)


def pad_and_stack(pages):
    """Return (dirty, clean) as two arrays; smaller pages are padded by mirroring.

    Both are float32 in [0, 1], shape (n, height, width, 1); height and width are multiples of 32.
    """
    sides = np.max([page.dirty.shape[:2] for page in pages], axis=0)
    height, width = np.ceil(sides / 32).astype(int) * 32

    def pad(image):
        missing = [(0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)]
        return np.pad(image, missing, mode="symmetric").astype("float32") / 255

    dirty = np.stack([pad(page.dirty) for page in pages])
    return dirty, np.stack([pad(page.clean) for page in pages])


# Kaggle's training pages repeat one text in three sizes (files 1 to 72 small, 73 to 144 large, 145
# to 216 normal), with the same dirt, pixel by pixel.
_TRAINING_ROWS = [225, 336, 336]  # first rows, for training, of each size
_HELD_OUT_ROWS = slice(364, None)  # of normal pages: text that no training rows reach
_WIDE_FACES = range(193, 217)  # typewriter faces, whose pages end earlier in the text


def _hold_out(pages):
    """Return (training pages, validation pages), cut so that they share neither text nor dirt.

    The last lines of the pages in normal size are held out. From all other pages, the same rows and
    the same part of the text are dropped.
    """
    train, validation = [], []
    for page in pages:
        number = int(page.name) if page.name.isdecimal() else 0  # UCI's names have none
        rows = min(_TRAINING_ROWS[(number - 1) // 72 % 3], page.dirty.shape[0] * 4 // 5)
        train.append(page.cut(slice(rows)))
        if 144 < number < _WIDE_FACES.start:
            validation.append(page.cut(_HELD_OUT_ROWS))
    if not validation:  # too few pages
        validation = [page.cut(slice(page.dirty.shape[0] * 17 // 20, None)) for page in pages]
    return train, validation


def _synthetic_pages(limit, seed):
    """Return 96 training, 12 validation and 24 test pages, fewer with a limit."""
    families = []
    for part, count in (("train", 96), ("validation", 12), ("test", 24)):
        made = pages.make_pages(min(limit or count, count), seed=seed_for(seed, "pages", part))
        families.append([Page(str(n), kind, *pair) for n, (*pair, kind, _) in enumerate(made)])
    return families


def _png_files(folder):
    """Return {path: function that returns the content} of the PNG files below a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold NoisyOffice")
    paths = sorted(path for pattern in ("*/*", "*/*/*", "*/*/*/*") for path in folder.glob(pattern))
    return {path: functools.partial(files.read, path) for path in paths if path.suffix == ".png"}


def _zipped_png_files(content, name, depth=0):
    """Return the same as `_png_files` for a zip and the zips in it, without unpacking to disk."""
    archive, contents = zipfile.ZipFile(io.BytesIO(content)), {}
    if depth > 1 or sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
        raise ValueError("a zip within zips, or too large")
    for entry in archive.infolist():
        path = Path(name, entry.filename)
        if path.suffix == ".zip":
            contents |= _zipped_png_files(archive.read(entry), path, depth + 1)
        elif path.suffix == ".png":
            contents[path] = functools.partial(archive.read, entry)
    return contents


def _cache_or_download():
    """Return `_zipped_png_files` of UCI's archive, and "cache" or "download"."""
    archive = data.keras_cache() / "noisyoffice.zip"
    source = data.download(UCI_URL, archive)
    content = files.read(archive)
    try:
        return _zipped_png_files(content, archive), source
    except Exception as error:  # zipfile and zlib raise many kinds
        raise UserError(f"{archive}: damaged ({error}); delete it") from None


def _read_families(contents, place, limit):
    """Return pages as three lists: training, validation (may be empty), test."""
    for dirty, clean in _LAYOUTS:
        paths = [path for path in contents if path.parent.name == dirty and path.name[0] != "."]
        described = {path: _describe(path) for path in paths}
        families = []
        for family in ("train", "validation", "test"):
            chosen = [path for path in paths if described[path][0] == family]
            # In the order of a hash, so that a limit keeps all fonts and all kinds of dirt.
            chosen = sorted(chosen, key=lambda path: seed_for(path.name))[:limit]
            members = []
            for path in sorted(chosen, key=lambda path: (path.stem.zfill(9), path.name)):
                _, kind, clean_name = described[path]
                clean_path = path.parent.with_name(clean) / clean_name
                if clean_path not in contents:
                    raise UserError(f"{path}: the clean page {clean_path} is missing")
                members.append(_read_page(kind, path, clean_path, contents))
            families.append(members)
        if paths:
            return families
    layouts = (
        "neither Kaggle's train/ nor UCI's simulated_noisy_images_grayscale/ nor dirty/ and clean/"
    )
    raise UserError(f"no NoisyOffice in {place}: {layouts}")


def _describe(path):
    """Return the family, the kind of dirt and the clean file's name of a dirty page."""
    match = re.fullmatch(r"(Font\w{3})_Noise([cfpw])_(TR|VA|TE)", path.stem)
    if match:
        font, kind, partition = match.groups()
        return _FAMILIES[partition], _KINDS[kind], f"{font}_Clean_{partition}.png"
    if re.fullmatch("[0-9]{1,9}", path.stem):
        number = int(path.stem)
        family = {2: "train", 0: "test"}.get(number % 3)
        return family, list(_KINDS.values())[(number - 1) // 3 % 4], path.name
    raise UserError(f"{path}: neither Kaggle's name (a number) nor UCI's (FontABC_NoiseD_EE)")


def _read_own(folder, settings):
    """Return the user's own pages as three lists, or None if there are no dirty/ and clean/.

    The two files of a pair have the same name, apart from the suffix. Duplicate pairs are dropped.
    The seed shuffles the clean pages; 75% are for training, 10% for validation, 15% for testing.
    Pairs that share a clean page are in the same split.
    """
    dirty, clean = (
        {
            path.stem: path
            for path in sorted((folder / part).glob("*"))
            if images.is_picture_name(path)
        }
        for part in ("dirty", "clean")
    )
    if not (dirty and clean):
        return None
    pages = {}  # {hash of the clean page: {content of both: page}}
    for name, path in dirty.items():
        if name not in clean:
            raise UserError(f"{path}: the clean page is missing in {folder / 'clean'}")
        page = _read_page("own", path, clean[name], {})
        key = hashlib.sha256(page.clean.tobytes()).hexdigest()
        pages.setdefault(key, {}).setdefault(page.dirty.tobytes(), page)
    if len(pages) < MIN_PAGES:
        raise UserError(f"{folder}: {len(pages)} different clean pages; {MIN_PAGES} are needed")
    groups = [list(group.values()) for group in pages.values()]
    rng = np.random.default_rng(seed_for(settings.seed, "split"))
    return [
        [page for index in part for page in groups[index]][: settings.limit]
        for part in data.split_indices(len(groups), rng)
    ]


def _read_page(kind, path, clean_path, contents):
    """Return the `Page` in two files. `contents` is as in `_png_files`, or empty."""
    dirty, clean = (
        np.round(images.read_gray(file, "white", contents.get(file)) * 255).astype(np.uint8)
        for file in (path, clean_path)
    )
    if dirty.shape != clean.shape:
        raise UserError(f"{path} and {clean_path}: different sizes")
    return Page(path.stem, kind, dirty, clean)
