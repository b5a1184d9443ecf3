"""Reading and writing the reader's own image files."""

import contextlib
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common import UserError


def read_grey(path, ground="black"):
    """Return an image file as float32 in [0, 1], shape (height, width, 1).

    Colour is turned to grey, transparency is laid on `ground`, 16 bits are kept, and a photo is
    turned the way its EXIF orientation says.

    Raises:
        UserError: there is no such file, or it is no image that Pillow reads.
    """
    try:
        with Image.open(path) as file:
            if getattr(file, "n_frames", 1) > 1:
                raise UserError(f"{path}: holds {file.n_frames} pages; split it, one to a file")
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):
                grey = np.asarray(image, "float32") / 65535
            elif image.mode in ("I", "F"):  # Pillow's modes for 16 bits in some formats, and more
                grey = np.asarray(image, "float32")
                grey = grey / (65535 if image.mode == "I" else max(float(grey.max()), 1.0))
            else:
                if image.has_transparency_data:
                    image = image.convert("RGBA")
                    image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
                grey = np.asarray(image.convert("L"), "float32") / 255
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image; PNG, JPEG and TIFF files are read") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error})") from None
    return np.clip(grey, 0, 1)[..., np.newaxis]


def read_colour(path):
    """Return an image file as float32 in [0, 1], shape (height, width, 3); all else as `read_grey`.

    Raises:
        UserError: as for `read_grey`.
    """
    grey = read_grey(path)  # says what is wrong with the file
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode not in ("RGB", "RGBA", "P", "CMYK", "YCbCr"):
            return np.repeat(grey, 3, axis=-1)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return np.asarray(image.convert("RGB"), "float32") / 255


def write_image(path, image):
    """Write float values in [0, 1], shape (height, width, 1 or 3), as 8 bits, whole or not at all.

    Three channels that are all the same are written as one.
    """
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    with write_whole(path) as temporary:
        # Pillow's own JPEG quality of 75 leaves smears around letters.
        options = {"quality": 95} if temporary.suffix.lower() in (".jpg", ".jpeg") else {}
        Image.fromarray(pixels).save(temporary, **options)


@contextlib.contextmanager
def write_whole(path):
    """Give a temporary name beside `path` to write to; move it to `path` if no error came up.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); choose another --output-dir"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def pad_to_multiple(image, multiple, plus=0):
    """Return the image with its last rows and columns mirrored until both sides fit.

    Args:
        image: shape (height, width, channels).
        multiple: what height and width shall be divisible by,
        plus: after this has been taken off.
    """
    height, width = ((plus - side) % multiple for side in image.shape[:2])
    # "symmetric" works for any size, "reflect" would need more pixels than it adds.
    return np.pad(image, [(0, height), (0, width), (0, 0)], mode="symmetric")


def in_tiles(function, image, tile, margin):
    """Return function(image), worked out on one piece of the image after the other.

    Args:
        function: from (height, width, channels) to the same shape; what it makes of a pixel
            depends on nothing further away than `margin`.
        image: shape (height, width, channels).
        tile: side of the pieces in pixels, a multiple of whatever the function's input must be;
        margin: so is this, the width of what is shown around each piece.
    """
    result = np.empty_like(image)
    for top in range(0, image.shape[0], tile):
        for left in range(0, image.shape[1], tile):
            above, before = max(top - margin, 0), max(left - margin, 0)
            around = image[above : top + tile + margin, before : left + tile + margin]
            piece = function(around)[top - above :, left - before :][:tile, :tile]
            result[top : top + tile, left : left + tile] = piece
    return result


def fit_square(image, side):
    """Return an image, shape (height, width, 1), scaled into a black square of (side, side, 1)."""
    picture = Image.fromarray(image[..., 0])
    picture = ImageOps.pad(picture, (side, side), Image.Resampling.BOX, color=0)
    return np.clip(np.asarray(picture), 0, 1)[..., np.newaxis]


def targets(inputs, folder, ending=None):
    """Return [(input, path to write)]: in `folder`, named as the input with another ending.

    Without `ending` the name stays as it is, unless it is none that an image can be written to.

    Raises:
        UserError: two inputs would write the same file, or an input would be overwritten.
    """

    def name(path):
        known = path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
        return path.name if known and ending is None else f"{path.stem}{ending or '.png'}"

    pairs = [(path, Path(folder) / name(path)) for path in map(Path, inputs)]
    writers = {}
    for path, target in pairs:
        if target in writers:
            raise UserError(f"{writers[target]} and {path} would both become {target}; rename one")
        if target.resolve() == path.resolve():
            raise UserError(f"{path} would be overwritten; choose another --output-dir")
        writers[target] = path
    return pairs
