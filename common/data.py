"""MNIST and Fashion-MNIST: from a folder, else Keras's cache, else a download, else synthetic."""

import dataclasses
import gzip
import math
import os
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pooch
import requests

from common import UserError
from common.batches import seed_for
from synthetic.clothes import clothes
from synthetic.digits import digits

KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
SECONDS_PER_READ, SECONDS_IN_ALL = 15, 300  # a download that takes longer is given up
MOST_BYTES = 500_000_000  # of an unpacked dataset; both of these have 55 million
LEAST_IMAGES = 10  # for training, and for the test


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

    def example_of_each_class(self):
        """Return {class name: index of its first test image}, of the classes that have one."""
        found = {name: self.y_test == label for label, name in enumerate(self.class_names)}
        return {name: int(where.argmax()) for name, where in found.items() if where.any()}

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
    folder: str  # in Keras's cache; torchvision's has the dataset's name without the hyphen
    checksums: dict  # of the files to download
    stand_in_name: str
    stand_in: callable


_MNIST = _Source(
    "MNIST",
    "0,1,2,3,4,5,6,7,8,9",
    "",
    # The checksum that Keras has, too.
    {"mnist.npz": "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"},
    "synthetic digits",
    digits,
)
_FASHION_MNIST = _Source(
    "Fashion-MNIST",
    "T-shirt,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    "fashion-mnist",
    # Published at https://github.com/zalandoresearch/fashion-mnist
    {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
    "synthetic clothes",
    clothes,
)


def load_mnist(data_dir=None, synthetic=False, limit=None, seed=0):
    """Return MNIST as `Images`, its last tenth of training images (at most 5,000) held out.

    Args:
        data_dir: only this folder is read: Keras's mnist.npz, or IDX files plain or gzipped, also
            in mnist/ and, as torchvision keeps them, in MNIST/raw/. None: Keras's cache, then a
            download, and where neither works synthetic digits, which is said loudly.
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
    floats = (_to_float(part) if part.ndim == 3 else part for part in parts)
    return Images(name, origin, source.class_names.split(","), *floats)


def _to_float(images):
    return images[..., np.newaxis].astype("float32") / 255


# ---------------------------------------------------------------- folders


def _read_folder(source, folder):
    """Return ((x_train, y_train), (x_test, y_test)), uint8, from the files in a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data-dir wants the one with {source.name}")
    places = [folder / source.name.replace("-", "") / "raw", folder / source.name.lower(), folder]
    looked_for = [str(place / "train-images-idx3-ubyte[.gz]") for place in places]
    if "mnist.npz" in source.checksums:
        if (folder / "mnist.npz").is_file():
            return _read_npz(folder / "mnist.npz")
        looked_for.insert(0, str(folder / "mnist.npz"))
    for place in places:
        paths = [_find_idx(place, part, kind) for part, kind in _IDX_FILES]
        if any(paths):
            for path, (part, kind) in zip(paths, _IDX_FILES, strict=True):
                if path is None:
                    missing = place / f"{part}-{kind}-ubyte[.gz]"
                    raise UserError(f"{missing}: missing, though others of its four files exist")
            arrays = [_read_idx(path) for path in paths]
            pairs = [(arrays[0], arrays[1]), (arrays[2], arrays[3])]
            for pair, files in zip(pairs, (paths[:2], paths[2:]), strict=True):
                _check_pair(*pair, f"{files[0]} and {files[1].name}")
            return pairs
    raise UserError(f"no {source.name} in {folder}; looked for {', '.join(looked_for)}")


_IDX_FILES = [(part, kind) for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def _find_idx(folder, part, kind):
    for name in (f"{part}-{kind}-ubyte", f"{part}-{kind.replace('-', '.')}-ubyte"):
        for ending in ("", ".gz"):
            if (folder / (name + ending)).is_file():
                return folder / (name + ending)
    return None


def _read_idx(path):
    """Return the uint8 array of an IDX file (https://yann.lecun.org/exdb/mnist/)."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(MOST_BYTES)
    except Exception as error:  # gzip and zlib raise a handful of kinds
        raise UserError(f"{path}: broken or cut off ({error}); get the file again") from None
    dimensions = 3 if "idx3" in path.name else 1
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise UserError(f"{path}: cut off in its header; get the file again")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", content[:header])
    if magic != 0x0800 + dimensions:
        raise UserError(
            f"{path}: magic number {magic:#x}, not {0x0800 + dimensions:#x} of its name"
        )
    if len(content) - header != math.prod(shape):
        held = len(content) - header
        raise UserError(f"{path}: holds {held:,} values, not {math.prod(shape):,}; get it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_npz(path):
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"unpacks to over {MOST_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as archive:
            keys = ("x_train", "y_train", "x_test", "y_test")
            x_train, y_train, x_test, y_test = (archive[key] for key in keys)
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise UserError(f"{path}: not Keras's mnist.npz, or damaged ({error})") from None
    _check_pair(x_train, y_train, f"{path}, training part")
    _check_pair(x_test, y_test, f"{path}, test part")
    return (x_train, y_train), (x_test, y_test)


def _check_pair(images, labels, where):
    if images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise UserError(f"{where}: images of {images.dtype} {images.shape}, not uint8 (n, 28, 28)")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where}: labels of {labels.dtype} {labels.shape}, not whole numbers (n,)")
    if len(images) != len(labels):
        raise UserError(f"{where}: {len(images):,} images but {len(labels):,} labels")
    if len(images) < LEAST_IMAGES:
        raise UserError(f"{where}: {len(images)} images; at least {LEAST_IMAGES} are needed")
    if not 0 <= labels.min() <= labels.max() <= 9:
        raise UserError(f"{where}: labels {labels.min()} to {labels.max()}, not 0 to 9")


# ---------------------------------------------------------------- downloads


class DownloadError(Exception):
    """The file could not be fetched. The message says why."""


def keras_cache():
    """Return the folder in which Keras keeps datasets: below KERAS_HOME, or ~/.keras."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def _cache_or_download(source):
    """Return Keras's cache with all files of a dataset in it, and whether that took a download."""
    folder = keras_cache() / source.folder
    missing = [name for name in source.checksums if not os.path.lexists(folder / name)]
    for name in missing:
        download(KERAS_URL + name, folder / name, source.checksums[name])
    return folder, "download" if missing else "cache"


def download(url, path, checksum=None):
    """Fetch a file whole or not at all. Nothing may stand at its path: pooch would replace it.

    Args:
        url: what to fetch.
        path: where to keep it.
        checksum: as pooch takes it, such as "md5:…"; None: any content will do.

    Raises:
        DownloadError: the server does not answer within SECONDS_PER_READ, takes longer than
            SECONDS_IN_ALL, refuses, cuts off, or sends something else.
    """
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


def say_stand_in(name, error, stand_in):
    """Tell the user, loudly, that synthetic data take the place of a dataset."""
    print(
        f"\n*** NOT {name}: it could not be downloaded ({error}). Training on {stand_in} instead. "
        "For the real data give their folder with --data-dir. ***\n",
        flush=True,
    )
