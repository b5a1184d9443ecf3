"""Datasets: from a local folder, else Keras's cache, else a download, else a drawn stand-in."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import math
import os
import re
import shutil
import struct
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import skimage

from common import UserError, images, synthetic
from common.synthetic import textures

UCI_URL = "https://archive.ics.uci.edu/static/public/318/noisyoffice.zip"
KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
SECONDS_WITHOUT_DATA = 15  # a download that delivers nothing for this long is given up
ENOUGH_TO_WAIT_ON = 10_000  # bytes in that time; a trickle counts as nothing


@dataclasses.dataclass
class Images:
    """A dataset of small grey images, split in three.

    Images are float32 in [0, 1], shape (n, 28, 28, 1); labels are integers, shape (n,).
    `source` is "local", "cache", "download" or "synthetic".
    """

    name: str
    source: str
    class_names: list
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def first_of_each_class(self):
        """Return the index of the first test image of each class."""
        return [int((self.y_test == label).argmax()) for label in range(len(self.class_names))]

    def summary(self):
        """Return the `dataset` entry of metrics.json."""
        return {
            "name": self.name,
            "source": self.source,
            "train": len(self.x_train),
            "validation": len(self.x_validation),
            "test": len(self.x_test),
        }

    def __str__(self):
        return f"{self.name} ({self.source}), {len(self.x_train):,} training images"


@dataclasses.dataclass
class _Source:
    """Where one dataset may be found, and what is drawn when it is nowhere."""

    name: str
    class_names: list
    npz: str | None  # Keras's single file, if it has one
    folders: list  # where its IDX files may stand below a data folder
    downloads: dict  # path below the URL and below Keras's cache: SHA-256, or None
    stand_in_name: str
    stand_in: callable


_MNIST = _Source(
    name="MNIST",
    class_names=[str(digit) for digit in range(10)],
    npz="mnist.npz",
    folders=["MNIST/raw", "mnist", "MNIST", "."],
    downloads={"mnist.npz": "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"},
    stand_in_name="synthetic digits",
    stand_in=synthetic.digits,
)


def load_mnist(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return MNIST as `Images`, its last tenth of training images (at most 5,000) held out.

    Args:
        data_dir: only this folder is read: Keras's mnist.npz, or IDX files plain or gzipped, also
            below MNIST/raw as torchvision keeps them. None: Keras's cache, then a download, and
            where neither works drawn digits, which is said loudly.
        synthetic: draw the digits without looking for MNIST.
        limit: use this many training images (validation included) and as many test images.
        seed: of the drawn digits.

    Raises:
        UserError: `data_dir` holds no MNIST, or a broken one.
    """
    return _load(_MNIST, data_dir, synthetic, limit, seed)


_FASHION_MNIST = _Source(
    name="Fashion-MNIST",
    class_names=[
        "T-shirt",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    npz=None,
    folders=["FashionMNIST/raw", "fashion-mnist", "FashionMNIST", "."],
    downloads={
        f"fashion-mnist/{part}-{kind}-ubyte.gz": None  # Keras keeps no checksums of these
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    },
    stand_in_name="synthetic garments",
    stand_in=synthetic.garments,
)


def load_fashion_mnist(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return Fashion-MNIST as `Images`; arguments and errors are those of `load_mnist`.

    In a folder it is looked for as four IDX files plain or gzipped, also below fashion-mnist as
    Keras keeps them and below FashionMNIST/raw as torchvision does.
    """
    return _load(_FASHION_MNIST, data_dir, synthetic, limit, seed)


def _load(source, data_dir, draw, limit, seed):
    name = source.name
    if draw:
        arrays, origin = _draw(source, limit, seed), "synthetic"
    elif data_dir is not None:
        arrays, origin = _read_folder(source, Path(data_dir)), "local"
    else:
        try:
            arrays, origin = _read_cache_or_download(source)
        except (UserError, OSError) as error:
            _say_stand_in(name, error, source.stand_in_name.split()[-1])
            arrays, origin = _draw(source, limit, seed), "synthetic"
    if origin == "synthetic":
        name = source.stand_in_name
    (x_train, y_train), (x_test, y_test) = [(x[:limit], y[:limit]) for x, y in arrays]
    held_out = min(math.ceil(len(x_train) / 10), 5_000)
    split = len(x_train) - held_out
    return Images(
        name,
        origin,
        source.class_names,
        _to_float(x_train[:split]),
        y_train[:split],
        _to_float(x_train[split:]),
        y_train[split:],
        _to_float(x_test),
        y_test,
    )


def _to_float(images):
    return images[..., np.newaxis].astype("float32") / 255


def _draw(source, limit, seed):
    """Draw 10,000 training and 2,000 test images, fewer under a limit, from unlike seeds."""
    return [
        source.stand_in(min(limit or count, count), seed=[seed, part])
        for part, count in enumerate([10_000, 2_000])
    ]


def _read_folder(source, folder):
    """Return ((x_train, y_train), (x_test, y_test)), uint8, from the files in a folder."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; --data-dir wants the one that holds {source.name}"
        )
    looked_for = []
    if source.npz:
        looked_for.append(folder / source.npz)
        if looked_for[-1].is_file():
            return _read_npz(looked_for[-1])
    for place in source.folders:
        looked_for.append(folder / place / "train-images-idx3-ubyte[.gz]")
        paths = [_find_idx(folder / place, part, kind) for part, kind in _IDX_FILES]
        if any(paths):
            for path, (part, kind) in zip(paths, _IDX_FILES, strict=True):
                if path is None:
                    missing = folder / place / f"{part}-{kind}-ubyte[.gz]"
                    raise UserError(
                        f"{missing}: missing, though others of its four files are there"
                    )
            arrays = [_read_idx(path) for path in paths]
            for part in (0, 2):
                _check_pair(arrays[part], arrays[part + 1], f"{paths[part]} and {paths[part + 1]}")
            return (arrays[0], arrays[1]), (arrays[2], arrays[3])
    places = ", ".join(str(path) for path in looked_for)
    raise UserError(f"no {source.name} in {folder}; looked for {places}")


_IDX_FILES = [
    ("train", "images-idx3"),
    ("train", "labels-idx1"),
    ("t10k", "images-idx3"),
    ("t10k", "labels-idx1"),
]


def _find_idx(folder, part, kind):
    for name in (f"{part}-{kind}-ubyte", f"{part}-{kind.replace('-', '.')}-ubyte"):
        for ending in ("", ".gz"):
            if (folder / (name + ending)).is_file():
                return folder / (name + ending)
    return None


def _read_idx(path):
    """Return the uint8 array of an IDX file (https://yann.lecun.org/exdb/mnist/), plain or gzipped.

    Raises:
        UserError: the file is cut off, is no IDX file of bytes, or holds more than it says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken or cut off ({error}); get the file again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    dimensions = 3 if "idx3" in path.name else 1
    expected = 0x0800 + dimensions
    header_size = 4 + 4 * dimensions
    if len(content) < header_size:
        raise UserError(f"{path}: cut off in its header; get the file again")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", content[:header_size])
    if magic != expected:
        raise UserError(
            f"{path}: magic number {magic:#x} instead of {expected:#x}; not what its name says"
        )
    if len(content) - header_size != math.prod(shape):
        raise UserError(
            f"{path}: holds {len(content) - header_size:,} values, its header says "
            f"{math.prod(shape):,}; cut off or damaged, get the file again"
        )
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as archive:
            x_train, y_train, x_test, y_test = (
                archive[key] for key in ("x_train", "y_train", "x_test", "y_test")
            )
    except KeyError as error:
        raise UserError(f"{path}: not Keras's mnist.npz ({error.args[0]})") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: broken or cut off ({reason}); get the file again") from None
    _check_pair(x_train, y_train, f"{path}, training part")
    _check_pair(x_test, y_test, f"{path}, test part")
    return (x_train, y_train), (x_test, y_test)


def _check_pair(images, labels, where):
    if images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise UserError(f"{where}: images of {images.dtype} {images.shape[1:]}, not uint8 (28, 28)")
    if len(images) != len(labels):
        raise UserError(f"{where}: {len(images):,} images but {len(labels):,} labels")
    if len(images) == 0:
        raise UserError(f"{where}: no images")


def _read_cache_or_download(source):
    cache = _keras_cache()
    if all((cache / name).is_file() for name in source.downloads):
        try:
            return _read_folder(source, cache), "cache"
        except UserError as error:
            print(f"{error} (downloading it again)", flush=True)
    for name, sha256 in source.downloads.items():
        download(KERAS_URL + Path(name).name, cache / name, sha256)
    return _read_folder(source, cache), "download"


# In the order of their names; the last ones are held out.
_PICTURES = [
    *("astronaut.png", "brick.png", "camera.png", "clock_motion.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("page.png", "retina.jpg", "chelsea.png", "coffee.png", "rocket.jpg"),
]
_SIDE = 64


def load_pictures(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return pieces of 64x64 pixels as `Images`, of one class: half textures, half pictures.

    The textures are drawn, the pictures those that scikit-image brings. One picture (a cat) is for
    validation, two (a cup, a rocket) for the test, with textures of their own.

    Args:
        data_dir: must be None.
        synthetic: textures alone.
        limit: use this many pieces for training (validation included) and as many for the test.
        seed: of the textures, and of where pieces are cut.

    Raises:
        UserError: `data_dir` is given.
    """
    if data_dir is not None:
        raise UserError(
            "pictures for watermarks come with scikit-image; leave --data-dir out, or take "
            "--architecture tutorial"
        )
    folder, parts = Path(skimage.__file__).parent / "data", []
    for part, (count, names) in enumerate(
        [(6_000, _PICTURES[:-3]), (500, _PICTURES[-3:-2]), (1_000, _PICTURES[-2:])]
    ):
        count = min(limit or count, count)
        paths = [folder / name for name in names if (folder / name).is_file() and not synthetic]
        pieces = list(textures(count // 2 if paths else count, _SIDE, [seed, part]))
        rng, pictures = np.random.default_rng([seed, 3, part]), list(map(images.read_grey, paths))
        while len(pieces) < count:
            picture = pictures[rng.integers(len(pictures))]
            top, left = (rng.integers(side - _SIDE + 1) for side in picture.shape[:2])
            piece = picture[top : top + _SIDE, left : left + _SIDE, 0]
            pieces.append(np.round(piece * 255).astype(np.uint8))
        chosen = rng.permutation(count)
        parts += [_to_float(np.stack(pieces)[chosen]), np.zeros(count, int)]
    name, source = "pictures and textures", "local"
    if synthetic:
        name, source = "textures", "synthetic"
    return Images(name, source, ["picture"], *parts)


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

    def __str__(self):
        return f"{self.name} ({self.source}), {len(self.train)} training pages"


_PAGE_FOLDERS = [
    *(".", "noisy-office", "denoising-dirty-documents", "NoisyOffice"),
    "SimulatedNoisyOffice",
]
_UCI = ("simulated_noisy_images_grayscale", "clean_images_grayscale")
_UCI_KINDS = {"c": "coffee", "f": "folds", "p": "footprints", "w": "wrinkles"}


def load_documents(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return NoisyOffice as `Documents`, with no text and no dirt of the test pages in training.

    Four files share each clean page, and pages of one family their text and their dirt. So the
    test pages are another family. Kaggle numbers its files so that the remainder by 3 is the
    family: 2 is for training, its last sixth of clean pages for validation, and 0 for the test.
    UCI names them: TR, VA and TE.

    Args:
        data_dir: only this folder is read, in Kaggle's layout (train, train_cleaned) or UCI's
            (SimulatedNoisyOffice). None: Keras's cache, then a download from UCI, and where
            neither works drawn pages, which is said loudly.
        synthetic: draw the pages without looking for NoisyOffice.
        limit: use this many training pages (validation included) and as many test pages.
        seed: of the drawn pages.

    Raises:
        UserError: `data_dir` holds no such pages, a page without its twin, twins of two sizes, or
            a file that can't be read.
    """
    name = "NoisyOffice"
    if synthetic:
        families, origin = _draw_pages(limit, seed), "synthetic"
    elif data_dir is not None:
        families, origin = _read_pages(Path(data_dir), limit), "local"
    else:
        try:
            families, origin = _cached_or_downloaded_pages(limit)
        except (UserError, OSError) as error:
            _say_stand_in(name, error, "pages")
            families, origin = _draw_pages(limit, seed), "synthetic"
    if origin == "synthetic":
        name = "synthetic pages"
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


def _draw_pages(limit, seed):
    """Draw 96 training and 24 test pages, fewer under a limit, from unlike seeds."""
    train, test = (
        [
            Page(str(number), kind, dirty, clean)
            for number, (dirty, clean, kind, _) in enumerate(
                synthetic.pages(min(limit or count, count), seed=[seed, part])
            )
        ]
        for part, count in enumerate([96, 24])
    )
    return train, [], test


def _read_pages(folder, limit=None):
    """Return the pages of a folder as three lists: training, validation (may be empty), test."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data-dir wants the one with NoisyOffice")
    for place in _PAGE_FOLDERS:
        for noisy, clean in (("train", "train_cleaned"), _UCI):
            for base in (folder / place, folder / place / "SimulatedNoisyOffice"):
                if (base / noisy).is_dir():
                    return _read_pairs(base / noisy, base / clean, limit)
    places = ", ".join(str(folder / place / "train") for place in _PAGE_FOLDERS)
    raise UserError(f"no NoisyOffice in {folder}; looked for {places}, and for UCI's {_UCI[0]}")


def _read_pairs(noisy_folder, clean_folder, limit):
    families = {"train": [], "validation": [], "test": []}
    paths = [path for path in noisy_folder.glob("*.png") if not path.name.startswith(".")]
    for path in sorted(paths, key=lambda path: (path.stem.zfill(9), path.name)):
        family, kind, twin = _place_page(path)
        if family is None or len(families[family]) >= (limit or math.inf):
            continue
        if not (clean_folder / twin).is_file():
            raise UserError(f"{path}: its clean twin {clean_folder / twin} is missing")
        dirty, clean = (
            np.round(images.read_grey(file) * 255).astype(np.uint8)
            for file in (path, clean_folder / twin)
        )
        if dirty.shape != clean.shape:
            sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (dirty, clean))
            raise UserError(f"{path} and its twin {clean_folder / twin} differ in size: {sizes}")
        families[family].append(Page(path.stem, kind, dirty, clean))
    return families["train"], families["validation"], families["test"]


def _place_page(path):
    """Return family, kind of dirt and the clean twin's name, from what a file is called."""
    match = re.fullmatch(r"(Font\w{3})_Noise([cfpw])_(TR|VA|TE)", path.stem)
    if match:
        font, kind, partition = match.groups()
        family = {"TR": "train", "VA": "validation", "TE": "test"}[partition]
        return family, _UCI_KINDS[kind], f"{font}_Clean_{partition}.png"
    if path.stem.isdigit():
        number = int(path.stem)
        family = {2: "train", 0: "test"}.get(number % 3)
        return family, list(_UCI_KINDS.values())[(number - 1) // 3 % 4], path.name
    raise UserError(f"{path}: neither Kaggle's name (a number) nor UCI's (FontABC_NoiseD_EE)")


def _cached_or_downloaded_pages(limit):
    folder = _keras_cache() / "noisy-office"
    if folder.is_dir():
        try:
            return _read_pages(folder, limit), "cache"
        except UserError as error:
            print(f"{error} (downloading it again)", flush=True)
    archive = folder.with_name("noisyoffice.zip")
    download(UCI_URL, archive)
    try:
        unpack_pages(archive, folder)
    finally:
        archive.unlink(missing_ok=True)
    return _read_pages(folder, limit), "download"


def unpack_pages(archive, folder):
    """Unpack NoisyOffice's simulated pages from UCI's zip, or from a zip within it.

    Only files whose last two names are those of a page are taken, and they are put where those
    say: whatever else an entry's path holds can't lead out of the folder.

    Args:
        archive: the zip file.
        folder: replaced as a whole, when all of it is unpacked.

    Raises:
        UserError: the archive is broken or holds no pages.
    """
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    try:
        with zipfile.ZipFile(archive) as outer:
            count = _unpack(outer, temporary / "SimulatedNoisyOffice")
        if count == 0:
            raise UserError(f"{archive}: no pages of NoisyOffice in it")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{archive}: broken or cut off ({error}); get the file again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(archive, folder):
    count = 0
    for entry in archive.infolist():
        parts = re.split(r"[/\\]", entry.filename)
        if parts[-1].lower().endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(archive.read(entry))) as inner:
                count += _unpack(inner, folder)
        elif len(parts) > 1 and parts[-2] in _UCI and re.fullmatch(r"Font\w+\.png", parts[-1]):
            target = folder / parts[-2] / parts[-1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))
            count += 1
    return count


def _keras_cache():
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def _say_stand_in(name, error, stand_in):
    print(
        f"\n*** NOT {name}: it could not be downloaded ({error}). Training on drawn {stand_in} "
        "instead. For the real thing give its folder with --data-dir. ***\n",
        flush=True,
    )


def download(url, path, sha256=None, patience=None):
    """Fetch a file whole or not at all.

    The work is done in a thread that is left behind when nothing arrives, because neither a name
    server nor a proxy that keeps silent can be interrupted.

    Args:
        url: what to fetch.
        path: where to keep it; nothing stands there before it is complete and checked.
        sha256: the checksum it must have, in hexadecimal.
        patience: seconds without a single byte after which it is given up.

    Raises:
        UserError: the server does not answer, refuses, cuts off or sends something else.
    """
    path = Path(path)
    patience = SECONDS_WITHOUT_DATA if patience is None else patience
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    state = {"bytes": 0, "size": None, "error": None, "given_up": False}

    def fetch():
        digest = hashlib.sha256()
        try:
            with urllib.request.urlopen(url, timeout=patience) as answer:
                if state["given_up"]:
                    return
                state["size"] = int(answer.headers.get("Content-Length") or 0) or None
                with partial.open("wb") as file:
                    while (chunk := answer.read1(1 << 16)) and not state["given_up"]:
                        digest.update(chunk)
                        file.write(chunk)
                        state["bytes"] += len(chunk)
            if state["size"] and state["bytes"] < state["size"]:
                state["error"] = f"cut off after {state['bytes']:,} of {state['size']:,} bytes"
            elif sha256 and digest.hexdigest() != sha256:
                state["error"] = "the file does not have the expected SHA-256 checksum"
        except urllib.error.HTTPError as error:
            state["error"] = f"the server answered {error.code} {error.reason}"
        except (OSError, ValueError) as error:
            state["error"] = str(getattr(error, "reason", None) or error)

    print(f"Downloading {url}", flush=True)
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    seen, last_progress, last_line = 0, time.monotonic(), time.monotonic()
    try:
        while thread.is_alive():
            thread.join(0.1)
            now = time.monotonic()
            if state["bytes"] - seen > ENOUGH_TO_WAIT_ON:
                seen, last_progress = state["bytes"], now
            if now - last_line > 2 and seen:
                of = f" of {state['size'] / 1e6:.1f}" if state["size"] else ""
                print(f"  {seen / 1e6:.1f}{of} MB", flush=True)
                last_line = now
            if now - last_progress > patience:
                state["given_up"] = True
                raise UserError(f"{url}: no data for {patience:g} seconds")
        if state["error"]:
            raise UserError(f"{url}: {state['error']}")
        os.replace(partial, path)
    finally:
        state["given_up"] = True
        with contextlib.suppress(OSError):
            partial.unlink()
