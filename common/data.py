"""MNIST, Fashion-MNIST or a folder of pictures, as small grayscale images in three splits.

The datasets come from --data-dir, from Keras's cache, or from a download. If the download fails,
synthetic images replace them, and a line says so.
"""

import dataclasses
import gzip
import hashlib
import io
import math
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch

from common import files, images
from common.cli import UserError
from common.training import seed_for
from synthetic.clothes import clothes
from synthetic.digits import digits

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
DOWNLOAD_TIMEOUT = 15  # seconds
MAX_BYTES = 500_000_000  # size limit of an unpacked dataset; MNIST has 55 million bytes
SIDE = 28  # pixels
OWN_PREFIX = "own pictures:"  # of the name of a dataset of the user's own pictures
MAX_PATCHES = 20_000
MIN_PICTURES = 30  # different ones


@dataclasses.dataclass
class Images:
    """Grayscale images in three splits.

    Images are float32 in [0, 1], shape (n, height, width, 1), labels integers, shape (n,).
    """

    name: str
    source: str  # "local", "cache", "download" or "synthetic"
    class_names: list
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def own(self):
        """Whether these are the user's own pictures."""
        return self.name.startswith(OWN_PREFIX)

    def examples(self, count=10):
        """Return {title: index} of test images: the first of each class, then the second, ..."""
        by_class = [np.flatnonzero(self.y_test == label) for label in range(len(self.class_names))]
        examples = {}
        for turn in range(count):
            for name, indices in zip(self.class_names, by_class, strict=True):
                if turn < len(indices) and len(examples) < count:
                    examples[f"{name} ({turn + 1})" if turn else name] = int(indices[turn])
        return examples

    def summary(self):
        """Return the `dataset` entry of metrics.json."""
        counts = {"train": len(self.x_train), "val": len(self.x_val), "test": len(self.x_test)}
        return {"name": self.name, "source": self.source, **counts}

    def __str__(self):
        counts = f"{len(self.x_train):,} training and {len(self.x_test):,} test images"
        return f"{self.name} ({self.source}), {counts}"


@dataclasses.dataclass(frozen=True)
class _Dataset:
    name: str
    class_names: list
    cache_folder: str  # below Keras's cache
    hashes: dict  # {file to download: its hash, in pooch's notation}
    stand_in: str  # name of the synthetic dataset
    make_images: Callable


_MNIST = _Dataset(
    name="MNIST",
    class_names=list("0123456789"),
    cache_folder="",
    hashes={"mnist.npz": "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"},
    stand_in="synthetic digits",
    make_images=digits,
)
_CLOTHES = "T-shirt,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_FASHION_MNIST = _Dataset(
    name="Fashion-MNIST",
    class_names=_CLOTHES.split(","),
    cache_folder="fashion-mnist",
    hashes={  # published at https://github.com/zalandoresearch/fashion-mnist
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
    stand_in="synthetic clothes",
    make_images=clothes,
)


def load_mnist(settings):
    """Return MNIST as `Images`. A tenth of the training images, at most 5,000, is for validation.

    `settings` has data_dir, synthetic, limit and seed, as `cli.Train`. --data-dir may hold Keras's
    mnist.npz, IDX files, or the user's own pictures.

    Raises UserError if --data-dir holds none of these, or if a file there or in Keras's cache is
    damaged.
    """
    return _load(_MNIST, settings)


def load_fashion_mnist(settings):
    """Return Fashion-MNIST as `Images`. As `load_mnist`, but without mnist.npz."""
    return _load(_FASHION_MNIST, settings)


def _load(dataset, settings):
    name = dataset.name
    origin = "local"
    arrays = None
    if settings.data_dir:
        arrays = _read_folder(dataset, settings.data_dir)
        if arrays is None:
            return load_pictures(settings)
    elif not settings.synthetic:
        try:
            folder, origin = _cache_or_download(dataset)
            arrays = _read_folder(dataset, folder)
        except DownloadError as error:
            warn_synthetic(name, error, dataset.stand_in)
        except UserError as error:
            raise UserError(f"{error}; delete it, and it will be downloaded again") from None
    if arrays is None:
        name = dataset.stand_in
        origin = "synthetic"
        arrays = []
        for part, count in (("train", 10_000), ("test", 2_000)):
            count = min(settings.limit or count, count)
            arrays += dataset.make_images(count, seed=seed_for(settings.seed, name, part))
    x, y, x_test, y_test = (array[: settings.limit] for array in arrays)
    x, x_test = (pixels[..., np.newaxis].astype("float32") / 255 for pixels in (x, x_test))
    split = len(x) - min(math.ceil(len(x) / 10), 5_000)
    return Images(
        name=name,
        source=origin,
        class_names=dataset.class_names,
        x_train=x[:split],
        y_train=y[:split],
        x_val=x[split:],
        y_val=y[split:],
        x_test=x_test,
        y_test=y_test,
    )


def warn_synthetic(name, error, stand_in):
    """Warn that synthetic data replaces a dataset."""
    print(
        f"\n*** NOT {name}: download failed ({error}). Training on {stand_in} instead. "
        "For the real data, download it and pass its folder with --data-dir. ***\n",
        flush=True,
    )


# ---------------------------------------------------------------- dataset files


def _read_folder(dataset, folder):
    """Return [x_train, y_train, x_test, y_test] as uint8, or None if the folder holds pictures."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold {dataset.name}")
    npz = folder / "mnist.npz"
    if dataset is _MNIST and os.path.lexists(npz):
        arrays, origin = _read_npz(npz), npz
    else:
        origin, paths = _find_idx_files(dataset, folder)
        if any(paths):
            if not all(paths):
                missing = origin / _IDX_FILES[paths.index(None)]
                raise UserError(f"{missing}-ubyte[.gz]: missing, while other files are there")
            arrays = [_read_idx(path) for path in paths]
        elif os.path.lexists(npz):
            raise UserError(
                f"{npz}: MNIST, not {dataset.name}; denoise_mnist.py takes it, and so does "
                "vae_fashion.py --dataset mnist"
            )
        elif any(_classes_in(folder).values()):
            return None
        else:
            raise UserError(f"{folder}: holds neither {dataset.name} nor pictures")
    x, y, x_test, y_test = arrays
    for pixels, labels in ((x, y), (x_test, y_test)):
        valid = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) >= 10
        valid = valid and labels.min() >= 0 and labels.max() <= 9
        if not valid or pixels.shape != (len(labels), SIDE, SIDE) or pixels.dtype != np.uint8:
            raise UserError(f"{origin}: not 28x28 images with one label from 0 to 9 each")
    return arrays


_IDX_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _find_idx_files(dataset, folder):
    """Return (folder, paths) of the IDX files; a path is None if that file is missing."""
    # torchvision's layout, or a folder with the dataset's name.
    places = [folder / dataset.name.replace("-", "") / "raw", folder / dataset.name.lower(), folder]
    for place in places:
        paths = [_find_idx(place, name) for name in _IDX_FILES]
        if any(paths):
            break
    return place, paths


def _find_idx(folder, name):
    """Return the path of an IDX file, or None. Some copies have a dot before "idx"."""
    paths = sorted(folder.glob(f"{name.replace('-idx', '?idx')}-ubyte*"))
    return next((path for path in paths if path.name.endswith(("-ubyte", "-ubyte.gz"))), None)


def _read_idx(path):
    """Return the uint8 array of an IDX file (https://yann.lecun.org/exdb/mnist/)."""
    content, dimensions = files.read(path), 3 if "idx3" in path.name else 1
    try:
        if path.suffix == ".gz":
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_BYTES)
        magic, *shape = struct.unpack_from(f">{1 + dimensions}I", content)
        if magic != 0x0800 + dimensions:
            raise ValueError(f"magic number {magic:#x}")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except Exception as error:  # gzip, zlib, struct and NumPy raise many kinds
        raise UserError(f"{path}: damaged ({error})") from None


def _read_npz(path):
    content = files.read(path)
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            raise ValueError("not a zip archive")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if sum(entry.file_size for entry in arrays.zip.infolist()) > MAX_BYTES:
                raise ValueError(f"unpacks to over {MAX_BYTES:,} bytes")
            return [np.asarray(arrays[key]) for key in ("x_train", "y_train", "x_test", "y_test")]
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise UserError(f"{path}: not Keras's mnist.npz, or damaged ({error})") from None


class DownloadError(Exception):
    """A download failed; the message says why."""


def keras_cache():
    """Return Keras's folder for datasets, in KERAS_HOME or ~/.keras."""
    return Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "datasets")


def _cache_or_download(dataset):
    """Return the cache folder with all files of a dataset, and "cache" or "download"."""
    folder = keras_cache() / dataset.cache_folder
    origins = [download(URL + name, folder / name, known) for name, known in dataset.hashes.items()]
    return folder, "download" if "download" in origins else "cache"


def download(url, path, known_hash=None):
    """Download a file unless it exists. Return "download" or "cache". Raises DownloadError."""
    if os.path.lexists(path):  # pooch would replace a file with another hash
        return "cache"
    print(f"Downloading {url}", flush=True)
    pooch.get_logger().setLevel("ERROR")
    downloader = pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT)
    try:
        pooch.retrieve(url, known_hash, path.name, path.parent, downloader=downloader)
    except Exception as error:  # requests, urllib3, pooch and the file system raise many kinds
        raise DownloadError(f"{url}: {error}") from None
    return "download"


# ---------------------------------------------------------------- the user's own pictures


def load_pictures(settings, patches=False):
    """Return the pictures in --data-dir as `Images`; subfolders are classes.

    Each picture is fitted into 28x28 pixels or, with `patches`, cut at full size into 28x28
    patches, about 20,000 in all. Duplicates are dropped. The seed shuffles the pictures; 75% of
    them are for training, 10% for validation and 15% for testing, and all patches of a picture are
    in the same split. Unreadable pictures are named and left out.

    Raises UserError if fewer than 30 different pictures can be read.
    """
    folder = settings.data_dir
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    classes = {name: paths for name, paths in _classes_in(folder).items() if paths}
    labeled = [(path, label) for label, paths in enumerate(classes.values()) for path in paths]
    print(f"Reading {len(labeled):,} pictures in {files.printable(folder)} ...", flush=True)
    pictures = {}  # {hash: (images, label)}
    errors = []
    for path, label in labeled:
        try:
            image = images.read_visible(path)
            if patches and min(image.shape[:2]) < SIDE:
                raise UserError(f"{path}: smaller than 28x28 pixels")
        except UserError as error:
            errors.append(files.printable(error))
            continue
        image = image if patches else images.fit_square(image, SIDE)
        key = hashlib.sha256(np.round(image * 255).astype(np.uint8).tobytes()).hexdigest()
        if patches:
            cut = _patches(image, MAX_PATCHES // len(labeled) + 1, key)
        else:
            cut = image[np.newaxis]
        pictures.setdefault(key, (cut, label))
    if errors:
        more = "; ..." if len(errors) > 3 else ""
        print(f"*** {len(errors)} left out. {'; '.join(errors[:3])}{more} ***")
    if len(pictures) < MIN_PICTURES:
        raise UserError(
            f"{folder}: {len(pictures)} different pictures can be read; {MIN_PICTURES} are needed"
        )
    names = list(map(files.printable, classes))
    parts = _split(list(pictures.values()), settings)
    kind = f"{OWN_PREFIX} patches of" if patches else OWN_PREFIX
    return Images(f"{kind} {files.printable(folder.resolve().name)}", "local", names, *parts)


def _classes_in(folder):
    """Return {class: paths of pictures}, as keras.utils.image_dataset_from_directory does.

    Each subfolder is a class. If no subfolder has pictures, the folder itself is the one class.
    """
    try:
        subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    classes = {subfolder.name: _pictures_below(subfolder) for subfolder in subfolders}
    if any(classes.values()):
        return classes
    return {folder.resolve().name: [path for path in folder.iterdir() if _is_picture(path)]}


def _pictures_below(folder):
    if folder.name.startswith("."):
        return []
    try:
        next(folder.iterdir(), None)  # rglob silently skips folders it may not read
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    return [path for path in sorted(folder.rglob("*")) if _is_picture(path)]


def _is_picture(path):
    return images.is_picture_name(path) and path.is_file()


def _patches(image, count, key):
    """Return at most `count` patches from random places, shape (n, 28, 28, 1).

    There are no more than fit into the image side by side.
    """
    count = min(count, image.size // SIDE**2)
    rng = np.random.default_rng(seed_for("patches", key))
    corners = rng.integers(0, np.subtract(image.shape[:2], SIDE - 1), (count, 2))
    return np.stack([image[top : top + SIDE, left : left + SIDE] for top, left in corners])


def split_indices(count, rng):
    """Return shuffled indices: 75% for training, 10% for validation, 15% for testing."""
    order = rng.permutation(count)
    test, val = max(round(0.15 * count), 1), max(round(0.1 * count), 1)
    return order[test + val :], order[test : test + val], order[:test]


def _split(pictures, settings):
    """Return [x_train, y_train, x_val, y_val, x_test, y_test] of (images, label) pairs."""
    rng = np.random.default_rng(seed_for(settings.seed, "split"))
    limit = settings.limit or math.inf
    parts = []
    for chosen, share in zip(split_indices(len(pictures), rng), (0.9, 0.1, 1), strict=True):
        cut, labels = zip(*(pictures[index] for index in chosen), strict=True)
        x = np.concatenate(cut)
        y = np.repeat(labels, [len(part) for part in cut])
        shuffled = rng.permutation(len(x))[: int(min(limit * share, len(x)))]
        parts += [x[shuffled], y[shuffled]]
    return parts
