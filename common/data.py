"""MNIST and Fashion-MNIST: from a folder, else Keras's cache, else a download, else synthetic.

A folder may hold the reader's own pictures instead.
"""

import dataclasses
import gzip
import io
import math
import os
import struct
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pooch
import requests

from common import UserError, own_pictures
from common.batches import seed_for
from common.files import printable, read
from synthetic.clothes import clothes
from synthetic.digits import digits

KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
SECONDS_PER_READ, SECONDS_IN_ALL = 15, 300  # a download that takes longer is given up
MOST_BYTES = 500_000_000  # of an unpacked dataset; both of these have 55 million
LEAST_IMAGES = 10  # that differ, for training and for the test
OWN = "own pictures:"
OWN_PATCHES = f"{OWN} patches of"
DIGITS = ("MNIST", "synthetic digits")
CLOTHES = ("Fashion-MNIST", "synthetic clothes")


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

    @property
    def own(self):
        """Whether these are pictures of the reader's own."""
        return self.name.startswith(OWN)

    def examples(self, count=10):
        """Return {title: index of a test image}: the first of each class, `count` at most.

        Where these are fewer, the second of each follows, and so on.
        """
        found = [np.flatnonzero(self.y_test == label) for label in range(len(self.class_names))]
        titles = {}
        for turn in range(count):
            for name, places in zip(self.class_names, found, strict=True):
                if turn < len(places) and len(titles) < count:
                    titles[name + f" ({turn + 1})" * (turn > 0)] = int(places[turn])
        return titles

    def summary(self):
        """Return the `dataset` entry of metrics.json."""
        parts = {"train": self.x_train, "validation": self.x_validation, "test": self.x_test}
        counts = {name: len(part) for name, part in parts.items()}
        return {"name": self.name, "source": self.source, **counts}


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where one dataset may be found, and what stands in for it."""

    name: str
    class_names: str
    folder: str  # in Keras's cache
    checksums: dict  # of the files to download, as pooch takes them
    stand_in_name: str
    stand_in: callable


_MNIST = _Source(
    name="MNIST",
    class_names="0,1,2,3,4,5,6,7,8,9",
    folder="",
    checksums={  # Keras's own
        "mnist.npz": "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
    },
    stand_in_name="synthetic digits",
    stand_in=digits,
)
_FASHION_MNIST = _Source(
    name="Fashion-MNIST",
    class_names="T-shirt,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    folder="fashion-mnist",
    checksums={  # published at https://github.com/zalandoresearch/fashion-mnist
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
    stand_in_name="synthetic clothes",
    stand_in=clothes,
)


def load_mnist(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return MNIST as `Images`, its last tenth of training images (at most 5,000) held out.

    Args:
        data_dir: only this folder is read: Keras's mnist.npz, or IDX files plain or gzipped, also
            in mnist/ and, as torchvision keeps them, in MNIST/raw/; else pictures of any kind, see
            `load_pictures`. None: Keras's cache, then a download, then synthetic digits.
        synthetic: make synthetic digits without looking for MNIST.
        limit: use this many training images (validation included) and as many test images.
        seed: of the synthetic digits.

    Raises UserError if `data_dir` or Keras's cache holds no MNIST, or a broken one.
    """
    return _load(_MNIST, data_dir, synthetic, limit, seed)


def load_fashion_mnist(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return Fashion-MNIST as `Images`; arguments and errors are those of `load_mnist`.

    In a folder it is looked for as four IDX files, plain or gzipped, also in fashion-mnist/ and in
    FashionMNIST/raw/.
    """
    return _load(_FASHION_MNIST, data_dir, synthetic, limit, seed)


def _load(source, data_dir, synthetic, limit, seed):
    name, origin = source.name, "local"
    if data_dir is not None:
        arrays = _read_folder(source, Path(data_dir))
        if arrays is None:
            return load_pictures(data_dir, limit)
    elif not synthetic:
        try:
            folder, origin = _cache_or_download(source)
            arrays = _read_folder(source, folder)
        except DownloadError as error:
            say_stand_in(name, error, source.stand_in_name)
            synthetic = True
    if synthetic:
        name, origin = source.stand_in_name, "synthetic"
        arrays = [
            source.stand_in(min(limit or count, count), seed=seed_for(seed, name, part))
            for part, count in (("train", 10_000), ("test", 2_000))
        ]
    (x_train, y_train), (x_test, y_test) = [(x[:limit], y[:limit]) for x, y in arrays]
    split = len(x_train) - min(math.ceil(len(x_train) / 10), 5_000)
    parts = (x_train[:split], y_train[:split], x_train[split:], y_train[split:], x_test, y_test)
    floats = (p[..., None].astype("float32") / 255 if p.ndim == 3 else p for p in parts)
    return Images(name, origin, source.class_names.split(","), *floats)


def load_pictures(data_dir, limit=None, patches=False):
    """Return a folder of the reader's own pictures as `Images`; see `read_pictures`."""
    names, parts = own_pictures.read_pictures(Path(data_dir), limit, patches)
    name = f"{OWN_PATCHES if patches else OWN} {printable(Path(data_dir).resolve().name)}"
    return Images(name, "local", names, *parts)


# ---------------------------------------------------------------- folders


def _read_folder(source, folder):
    """Return ((x_train, y_train), (x_test, y_test)), uint8, from the files in a folder.

    None: it has none of them, but pictures.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data-dir wants the one with {source.name}")
    if source is _MNIST and (folder / "mnist.npz").is_file():
        return _read_npz(folder / "mnist.npz")
    places = [folder / source.name.replace("-", "") / "raw", folder / source.name.lower(), folder]
    for place in places:
        paths = {name: _find_idx(place, name) for name in _IDX_FILES}
        if any(paths.values()):
            for name, path in paths.items():
                if path is None:
                    missing = place / f"{name}-ubyte[.gz]"
                    raise UserError(f"{missing}: missing, though others of its four files exist")
            return _pairs([_read_idx(path) for path in paths.values()], place)
    if own_pictures.classes_in(folder):
        return None
    looked_for = [folder / "mnist.npz"] if source is _MNIST else []
    looked_for += [place / f"{_IDX_FILES[0]}-ubyte[.gz]" for place in places]
    where = f"no {source.name} in {folder}, and no pictures"
    raise UserError(f"{where}; looked for {', '.join(map(str, looked_for))}")


_IDX_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _find_idx(folder, name):
    """Return the path of an IDX file, or None. Some copies have a dot before idx."""
    found = sorted(folder.glob(f"{name.replace('-idx', '?idx')}-ubyte*"))
    return next((path for path in found if path.name.endswith(("-ubyte", "-ubyte.gz"))), None)


def _read_idx(path):
    """Return the uint8 array of an IDX file (https://yann.lecun.org/exdb/mnist/)."""
    content, dimensions = read(path), 3 if "idx3" in path.name else 1
    try:
        if path.suffix == ".gz":
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MOST_BYTES)
        magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    except Exception as error:  # gzip, zlib and struct raise a handful of kinds
        raise UserError(f"{path}: broken or cut off ({error}); get the file again") from None
    if magic != 0x0800 + dimensions:
        raise UserError(f"{path}: magic number {magic:#x}, not {0x0800 + dimensions:#x}")
    if len(values) != math.prod(shape):
        size = f"{len(values):,} values, not {math.prod(shape):,}"
        raise UserError(f"{path}: holds {size}; get it again")
    return values.reshape(shape)


def _read_npz(path):
    content = io.BytesIO(read(path))
    try:
        with zipfile.ZipFile(content) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"unpacks to over {MOST_BYTES:,} bytes")
        with np.load(content, allow_pickle=False) as archive:
            keys = "x_train", "y_train", "x_test", "y_test"
            arrays = [np.asarray(archive[key]) for key in keys]
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise UserError(f"{path}: not Keras's mnist.npz, or damaged ({error})") from None
    return _pairs(arrays, path)


def _pairs(arrays, where):
    """Return x_train, y_train, x_test and y_test as two pairs, seen to be what they should be."""
    pairs = arrays[:2], arrays[2:]
    for (x, y), part in zip(pairs, ("training", "test"), strict=True):
        fault = None
        if x.shape[1:] != (28, 28) or x.dtype != np.uint8:
            fault = f"images of {x.dtype} {x.shape}, not uint8 (n, 28, 28)"
        elif y.ndim != 1 or y.dtype.kind not in "iu":
            fault = f"labels of {y.dtype} {y.shape}, not whole numbers (n,)"
        elif len(x) != len(y):
            fault = f"{len(x):,} images but {len(y):,} labels"
        elif (count := len({image.tobytes() for image in x})) < LEAST_IMAGES:
            fault = f"{count} different images; at least {LEAST_IMAGES} are needed"
        elif not 0 <= y.min() <= y.max() <= 9:
            fault = f"labels {y.min()} to {y.max()}, not 0 to 9"
        if fault:
            raise UserError(f"{where}, {part} part: {fault}")
    return pairs


# ---------------------------------------------------------------- downloads


class DownloadError(Exception):
    """The file could not be fetched. The message says why."""


def keras_cache():
    """Return the folder in which Keras keeps datasets: below KERAS_HOME, or ~/.keras.

    Raises DownloadError for a user without a home.
    """
    try:
        return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"
    except RuntimeError:
        raise DownloadError("no home for Keras's cache; let KERAS_HOME name a folder") from None


def _cache_or_download(source):
    """Return Keras's cache with all files of a dataset in it, and whether that took a download."""
    folder, files = keras_cache() / source.folder, source.checksums.items()
    origins = [download(KERAS_URL + name, folder / name, checksum) for name, checksum in files]
    return folder, "download" if "download" in origins else "cache"


def download(url, path, checksum=None):
    """Fetch a file whole or not at all, and return "download", or "cache" if it is there already.

    `checksum` is as pooch takes it, such as "md5:…"; None: any content will do. Raises
    DownloadError if its folder can't be written to, or the server does not answer within
    SECONDS_PER_READ, takes longer than SECONDS_IN_ALL, refuses, cuts off, or sends something else.
    """
    if os.path.lexists(path):  # whatever it is: pooch would replace it
        return "cache"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        reason = f"{path.parent}: can't be written to ({error.strerror})"
        raise DownloadError(f"{reason}; let KERAS_HOME name another folder") from None
    print(f"Downloading {url}", flush=True)
    pooch.get_logger().setLevel("ERROR")
    deadline = time.monotonic() + SECONDS_IN_ALL

    def fetch(url, target, _):
        with requests.get(url, stream=True, timeout=SECONDS_PER_READ) as answer:
            answer.raise_for_status()
            with open(target, "wb") as file:
                while chunk := answer.raw.read1(1 << 16):
                    file.write(chunk)
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"not done after {SECONDS_IN_ALL} seconds")

    try:
        pooch.retrieve(url, checksum, path.name, path.parent, downloader=fetch)
    except Exception as error:  # of requests, urllib3 and pooch
        reason = "no answer" if isinstance(error, requests.ConnectionError) else error
        raise DownloadError(f"{url}: {reason}") from None
    return "download"


def say_stand_in(name, error, stand_in):
    """Tell the user, loudly, that synthetic data take the place of a dataset."""
    print(
        f"\n*** NOT {name}: it could not be downloaded ({error}). Training on {stand_in} instead. "
        "For the real data give their folder with --data-dir. ***\n",
        flush=True,
    )
