"""Reading and writing the user's image files."""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common import files
from common.cli import UserError

# What is opened, whatever a file's suffix. PostScript is not included: Pillow would run it. MPO
# files, photos with two frames from some phones, open as JPEG.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000")
# Files in a folder with other suffixes are ignored. HEIC cannot be read, which a message says.
SUFFIXES = ".png .jpg .jpeg .jfif .mpo .tif .tiff .webp .avif .bmp .gif .jp2 .heic".split()
WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
MAX_PIXELS = 100_000_000
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_NOT_A_PAGE = 1 | 4  # bits of TIFF's tag 254, NewSubfileType: a reduced copy, a mask


def is_picture_name(path):
    """Return whether a file's name is that of a picture: a suffix in SUFFIXES, and not hidden."""
    return path.suffix.lower() in SUFFIXES and path.name[0] != "."


def read_gray(path, background="black", content=None):
    """Return an image file as float32 in [0, 1], shape (height, width, 1).

    EXIF orientation is applied, color becomes gray (ITU-R BT.601), transparent pixels show the
    `background`, 16 bits are kept, and of several frames the first is read. ICC profiles are not
    applied. `content` is a function that returns the file's bytes, if not the path's.

    Raises UserError if the file is missing or damaged, has more than MAX_PIXELS, is not in FORMATS,
    or is a TIFF with several pages.
    """
    return _read(path, background, "L", content)


def read_color(path):
    """Return an image file like `read_gray`, but in color: shape (height, width, 3)."""
    return _read(path, "black", "RGB")


def read_visible(path, color=False):
    """Like `read_gray`, but on white if the picture is invisible on black, such as black ink.

    With `color` it is like `read_color`, unless all of the picture is gray.
    """
    mode = "RGB" if color else "L"
    image = _read(path, "black", mode)
    image = image if np.ptp(image) > 0.2 else _read(path, "white", mode)
    return image[..., :1] if (image == image[..., :1]).all() else image


def _read(path, background, mode, content=None):
    with open_image(path, content) as image:
        count = len(tiff_pages(image)) if image.format == "TIFF" else 1
        if count > 1:
            raise UserError(f"{path}: holds {count} pages; split it into one file per page")
        values = _values(image, path, background, mode)
    if values.dtype == np.uint8:
        values = values.astype("float32")
        values /= 255  # in place: a photo may be large
    return np.repeat(values, 3, axis=-1) if mode == "RGB" and values.shape[-1] == 1 else values


@contextlib.contextmanager
def open_image(path, content=None):
    """Yield a file as a Pillow image. Raises UserError if it cannot be read."""
    content = content() if content else files.read(path)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=FORMATS) as image,
        ):
            check_pixels(path, *image.size)
            yield image
    except Image.DecompressionBombError:  # Pillow's own limit, which is higher
        raise too_large(path) from None
    except UnidentifiedImageError:
        reason = f"{', '.join(FORMATS)} are"
        if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
            reason = "a HEIC photo; convert it first, for example: magick photo.heic photo.jpg"
        raise UserError(f"{path}: not an image that can be read; {reason}") from None
    except UserError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders raise
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def too_large(path, max_megapixels=MAX_PIXELS // 10**6):
    """Return the UserError for an image of more than `max_megapixels`."""
    return UserError(
        f"{path}: has more than {max_megapixels} megapixels; scale it down or crop it first"
    )


def check_pixels(path, width, height, max_megapixels=MAX_PIXELS // 10**6):
    """Raise UserError if an image has more than `max_megapixels`."""
    if width * height > max_megapixels * 10**6:
        raise too_large(path, max_megapixels)


def to_pixels(image, path):
    """Return a Pillow image as uint8, upright: (height, width, 3), or (height, width, 1) if gray.

    Transparent pixels become white.
    """
    values = _values(image, path, "white")
    return values if values.dtype == np.uint8 else np.round(values * 255).astype(np.uint8)


def _values(image, path, background, mode=None):
    """Return an upright image as uint8 in a mode (None: gray or RGB), or as float32 if deep."""
    image = _upright(image, background)
    if not _is_deep(image):
        mode = mode or ("L" if image.mode in ("1", "L") else "RGB")
        return np.atleast_3d(np.asarray(image.convert(mode)))
    pixels = np.asarray(image, "float32")[..., np.newaxis]
    brightest = float(pixels.max())
    if not np.isfinite(pixels).all() or brightest < 0:
        raise UserError(f"{path}: holds values that are not finite, or all below zero")
    white = 1 if image.mode == "F" else 255 if image.mode == "I" and brightest <= 255 else 65_535
    return np.clip(pixels / max(brightest, white), 0, 1)


def _upright(image, background):
    image.load()  # here, because errors of exif_transpose are ignored below
    with contextlib.suppress(Exception):  # damaged EXIF is no reason to reject a picture
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data and not _is_deep(image):
        gray = image.mode == "LA"
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        image = image.convert("L" if gray else "RGB")
    return image


def _is_deep(image):
    """Return whether an image has more than 8 bits per channel."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def tiff_pages(image):
    """Return the numbers of those frames of a TIFF that are pages, not thumbnails or masks."""
    numbers = []
    for number in range(image.n_frames):
        image.seek(number)
        if not int(image.tag_v2.get(254, 0)) & _NOT_A_PAGE:
            numbers.append(number)
    image.seek(0)
    return numbers


def luminance(pixels):
    """Return the luminance of colors, (..., 3) to (...), as Pillow and JPEG have it: BT.601."""
    return pixels @ np.array([0.299, 0.587, 0.114], "float32")


def write_image(path, image):
    """Write values in [0, 1], shape (height, width, 1 or 3), with 8 bits per channel.

    The suffix determines the format. Three equal channels are written as one. Raises UserError if
    the file exists or cannot be written.
    """
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    # For JPEG, Pillow's default quality, 75, leaves artifacts around letters.
    options = {"quality": 95} if Path(path).suffix.lower() in (".jpg", ".jpeg") else {}
    with files.write_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, **options)
    print(f"Wrote {files.printable(path)}", flush=True)


def output_paths(inputs, output_dir, name, suffixes=WRITTEN_SUFFIXES):
    """Return [(input, output path)] for image files, once all of them have been read.

    Outputs go to `output_dir`; None: a new folder in runs/, called `name`. Each has the name of its
    input, but the first of `suffixes` if the input's own is not one of these.

    Raises UserError if an input cannot be read, or an output exists.
    """
    inputs = list(dict.fromkeys(Path(path) for path in inputs))
    for path in inputs:
        read_gray(path)
    names = [
        path.name if path.suffix.lower() in suffixes else f"{path.stem}{suffixes[0]}"
        for path in inputs
    ]
    folder = files.output_folder(output_dir, name)
    files.ensure_not_taken(folder, names)
    return [(path, folder / name) for path, name in zip(inputs, names, strict=True)]


def border_of(image):
    """Return the gray values of an image's border, a fourteenth of its side wide, shape (n,)."""
    width = max(1, min(image.shape[:2]) // 14)
    edge = np.ones(image.shape, bool)
    edge[width:-width, width:-width] = False
    return image[edge]


def resize(image, height, width, method):
    """Return an image, shape (height, width, 1), resized; values stay in [0, 1]."""
    picture = Image.fromarray(image[..., 0]).resize((width, height), method)
    return np.clip(np.asarray(picture), 0, 1)[..., np.newaxis]


def resize_to(image, side, method=Image.Resampling.BOX):
    """Return an image, (height, width, 1), resized so that its longer side has `side` pixels."""
    height, width = (max(1, round(n * side / max(image.shape[:2]))) for n in image.shape[:2])
    return resize(image, height, width, method)


def fit_square(image, side, background=None):
    """Return an image, shape (height, width, 1), fitted into (side, side, 1).

    Its aspect ratio is kept. The rest is filled with `background`, by default the median of the
    image's border.
    """
    background = np.median(border_of(image)) if background is None else background
    piece = resize_to(image, side)
    height, width = piece.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side, 1), background, "float32")
    square[top : top + height, left : left + width] = piece
    return square
