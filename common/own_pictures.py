"""Folders of the reader's own pictures as datasets: small images, or patches of large ones."""

import hashlib

import numpy as np
from PIL import Image

from common import UserError
from common.batches import seed_for
from common.files import printable
from common.image_files import read_grey

# Files with other endings are left out, HEIC is named: it can't be read, but it is a picture.
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".tif", ".tiff", ".webp", ".avif", ".bmp", ".gif"),
    *(".jp2", ".heic"),
)
SIDE = 28  # pixels, of the images and of the patches
PATCHES = 20_000  # of all pictures together
LEAST_PICTURES = 30  # that differ from one another


def _pictures(folder, paths):
    """Return which of some paths in a folder are pictures, sorted; hidden ones are not."""
    shown = (path for path in paths if path.suffix.lower() in ENDINGS and path.is_file())
    return sorted(p for p in shown if not any(x[0] == "." for x in p.relative_to(folder).parts))


def classes_in(folder):
    """Return {class: paths of its pictures}, as keras.utils.image_dataset_from_directory has it.

    Each subfolder with pictures below it is a class; pictures beside subfolders are left out.
    Without such a subfolder the pictures in `folder` are one class of its name. Hidden ones count
    as not there.
    """
    try:
        found = {sub.name: _pictures(folder, sub.rglob("*")) for sub in sorted(folder.iterdir())}
        if not any(found.values()):
            found = {folder.resolve().name: _pictures(folder, folder.iterdir())}
    except OSError as error:
        raise UserError(f"{folder}: can't be read ({error.strerror})") from None
    return {name: paths for name, paths in found.items() if paths}


def read_pictures(folder, limit=None, patches=False):
    """Return (names of the classes, parts) of a folder of pictures of any size and format.

    Each picture becomes grey and is fitted into 28x28 pixels, or with `patches` cut at full size
    into pieces of 28x28: some 20,000 of all, or as many as fit beside one another. A hash of what
    comes out decides which part a picture is in, so that copies of it, under any name and in any
    lossless format, stay together, and so do its patches. What can't be read is named and left out.

    The parts are x_train, y_train, x_validation, y_validation, x_test and y_test: float32 in
    [0, 1], shape (n, 28, 28, 1), and integers, shape (n,). `limit` is how many images to use for
    training (validation included), and for the test. Raises UserError if fewer than 30 pictures
    that differ can be read.
    """
    classes = classes_in(folder)
    files = [(path, label) for label, paths in enumerate(classes.values()) for path in paths]
    print(f"Reading {len(files):,} pictures in {printable(folder)} ...", flush=True)
    images, labels, hashes = [], [], []
    beside = {*_pictures(folder, folder.iterdir())} - {path for path, _ in files}
    faults = [f"{path}: beside the subfolders, in no class" for path in sorted(beside)]
    for path, label in files:
        try:
            picture = read_on_any_ground(path)
            if patches and min(picture.shape[:2]) < SIDE:
                raise UserError(f"{path}: smaller than a patch of {SIDE}x{SIDE} pixels")
        except UserError as error:
            faults.append(str(error))
            continue
        image = picture if patches else fit_square(picture, SIDE)
        levels = np.round(image * 255).astype(np.uint8)
        hashes.append(hashlib.sha256(repr(levels.shape).encode() + levels.tobytes()).hexdigest())
        share = PATCHES // len(files) + 1
        images.append(_patches(image, share, hashes[-1]) if patches else image[np.newaxis])
        labels.append(label)
    if faults:
        first = printable("; ".join(faults[:3])) + "; …" * (len(faults) > 3)
        print(f"*** {len(faults)} left out. {first} ***")
    if len(set(hashes)) < LEAST_PICTURES:
        found = f"{len(set(hashes))} pictures that differ and can be read"
        raise UserError(f"{folder}: {found}; at least {LEAST_PICTURES} are needed")
    parts, counts = [], []
    for chosen in split_by_hash(hashes, least=3):
        x = np.concatenate([images[n] for n in chosen])
        y = np.repeat([labels[n] for n in chosen], [len(images[n]) for n in chosen])
        mixed = np.random.default_rng(seed_for("mixed")).permutation(len(x))
        parts += [x[mixed], y[mixed]]
        counts.append(len(chosen))
    if limit:
        most = np.repeat([limit * 9 // 10, -(-limit // 10), limit], 2)
        parts = [part[:count] for part, count in zip(parts, most, strict=True)]
    what = "{}: {:,} to train on, {:,} for validation, {:,} for the test.".format
    print(what(f"Pictures of {len(classes):,} class{'es' * (len(classes) > 1)}", *counts))
    if patches or limit:
        print(what("Used" + " patches of 28x28 pixels" * patches, *map(len, parts[::2])))
    return list(map(printable, classes)), parts


def _patches(picture, count, name):
    """Return patches at random places, shape (n, 28, 28, 1), no more than fit side by side."""
    count = min(count, picture.size // SIDE**2)
    rng = np.random.default_rng(seed_for("patches", name))
    corners = rng.integers(0, np.subtract(picture.shape[:2], SIDE - 1), (count, 2))
    return np.stack([picture[top : top + SIDE, left : left + SIDE] for top, left in corners])


def split_by_hash(hashes, least):
    """Return three lists of indices, for training, validation and test: 75%, 10% and 15%.

    A hash stays in its part when further ones join it, but for the few that it takes to have
    `least` different ones for validation and for the test.
    """
    ordered = sorted(set(hashes))
    shares = [int(name[:8], 16) / 16**8 for name in ordered]
    test = max(sum(share < 0.15 for share in shares), least)
    validation = max(sum(share < 0.25 for share in shares) - test, least)
    place = {name: number for number, name in enumerate(ordered)}
    part = np.digitize([place[name] for name in hashes], [test, test + validation])
    return [np.flatnonzero(part == number).tolist() for number in (2, 1, 0)]


def read_on_any_ground(path):
    """Return `read_grey` of a picture, on white where it can't be seen on black: dark ink."""
    image = read_grey(path)
    return image if np.ptp(image) > 0.2 else read_grey(path, ground="white")


def border_of(image):
    """Return the grey values of the outer fourteenth of an image, shape (n,)."""
    wide = max(1, min(image.shape[:2]) // 14)
    edge = np.ones(image.shape, bool)
    edge[wide:-wide, wide:-wide] = False
    return image[edge]


def scaled(image, height, width, method=Image.Resampling.BOX):
    """Return an image, shape (height, width, 1), in another size; values stay in [0, 1]."""
    picture = Image.fromarray(image[..., 0]).resize((width, height), method)
    return np.clip(np.asarray(picture), 0, 1)[..., np.newaxis]


def fit_square(image, side, ground=None):
    """Return an image, shape (height, width, 1), fitted into (side, side, 1).

    Its proportions are kept; what is left over gets the grey value `ground`, or else the median of
    the border.
    """
    ground = np.median(border_of(image)) if ground is None else ground
    height, width = (max(1, round(n * side / max(image.shape[:2]))) for n in image.shape[:2])
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, 1), ground, "float32")
    square[top : top + height, left : left + width] = scaled(image, height, width)
    return square
