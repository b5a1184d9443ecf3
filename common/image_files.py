"""Reading and writing the reader's own image files."""

import contextlib
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common import UserError
from common.files import printable, read, write_whole

# What is opened, whatever a file is called. PostScript is not among them: Pillow would run it.
# Of JPEG Pillow makes MPO, the photos with two frames of phones, where it finds them.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_NO_PAGE = 1 | 4  # bits of TIFF's tag 254, NewSubfileType: a copy in lower resolution, a mask
MAX_PIXELS = 100_000_000


def read_grey(path, ground="black", content=None):
    """Return an image file as float32 in [0, 1], shape (height, width, 1).

    Of a file with several frames (MPO, GIF, …) the first is read. EXIF orientation is applied.
    Colour becomes grey (ITU-R BT.601), transparency is laid on `ground`, and 16 bits are kept.
    Values are taken as they are stored: an ICC profile is not applied.

    `content` is a function that returns the file's bytes; None: it is read. Raises UserError if
    there is no such file, it is no image of `FORMATS`, it is damaged, it has more than
    `MAX_PIXELS`, or it is a TIFF of several pages.
    """
    return _read(path, ground, "L", content)


def read_colour(path):
    """Return an image file as `read_grey` does, in colour: shape (height, width, 3)."""
    return _read(path, "black", "RGB")


def _read(path, ground, mode, content=None):
    with open_image(path, content) as image:
        count = len(pages_of_tiff(image)) if image.format == "TIFF" else 1
        if count > 1:
            raise UserError(f"{path}: holds {count} pages; split it, one to a file")
        values = _values(image, path, ground, mode)
    if values.dtype == np.uint8:
        values = values.astype("float32")
        values /= 255  # in place: a photo may be large
    return np.repeat(values, 3, axis=-1) if mode == "RGB" and values.shape[-1] == 1 else values


@contextlib.contextmanager
def open_image(path, content=None):
    """Give the opened Pillow image of a file; errors of reading it become a UserError."""
    try:
        content = content() if content else read(path)
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content), formats=FORMATS) as image,
        ):
            see_that_it_fits(path, *image.size)
            yield image
    except Image.DecompressionBombError:
        see_that_it_fits(path, MAX_PIXELS, 2)
    except UnidentifiedImageError:
        way_out = f"{', '.join(FORMATS)} are"
        if content[4:8] == b"ftyp" and content[8:12] in _HEIC:
            way_out = "a HEIC photo; convert it first, as ImageMagick does: magick a.heic a.jpg"
        raise UserError(f"{path}: not an image that can be read; {way_out}") from None
    except UserError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders do
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def see_that_it_fits(path, width, height, most=None):
    """Raise UserError if an image has more than `most` megapixels (default: MAX_PIXELS).

    It would need more memory than a page may.
    """
    pixels = MAX_PIXELS if most is None else most * 10**6
    if width * height > pixels:
        most = f"{pixels // 10**6} megapixels"
        raise UserError(f"{path}: has more than {most}; scale it down or cut it first")


def to_pixels(image, path):
    """Return a Pillow image as 8 bits, upright: (height, width, 3), or 1 channel where it is grey.

    White shows where it is transparent; of a TIFF the page at hand is taken. It takes a quarter of
    the memory of floats.
    """
    values = _values(image, path, "white")
    return values if values.dtype == np.uint8 else np.round(values * 255).astype(np.uint8)


def _values(image, path, ground, mode=None):
    """Return an image as it stands upright, uint8, in a mode: L, RGB, or None for what it has.

    One of more than 8 bits has one channel, float32 in [0, 1].
    """
    image = _upright(image, ground)
    if not _is_deep(image):
        mode = mode or ("L" if image.mode in ("1", "L") else "RGB")
        return np.atleast_3d(np.asarray(image.convert(mode)))
    pixels = np.asarray(image, "float32")[..., np.newaxis]
    if not np.isfinite(pixels).all() or pixels.max() < 0:
        raise UserError(f"{path}: holds values that are not finite, or all below zero")
    return np.clip(pixels / max(float(pixels.max()), 1 if image.mode == "F" else 65_535), 0, 1)


def _upright(image, ground):
    """Return an image turned as its EXIF data say, with `ground` where it is transparent."""
    image.load()  # or reading EXIF does, and of damaged pixels black ones are left without an error
    with contextlib.suppress(Exception):  # damaged EXIF data are no reason to refuse a picture
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data and not _is_deep(image):
        grey, image = image.mode == "LA", image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
        image = image.convert("L" if grey else "RGB")
    return image


def _is_deep(image):
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def pages_of_tiff(image):
    """Return the numbers of a TIFF's frames that are pages, not copies in lower resolution."""
    numbers = []
    for number in range(image.n_frames):
        image.seek(number)
        if not int(image.tag_v2.get(254, 0)) & _NO_PAGE:
            numbers.append(number)
    image.seek(0)
    return numbers


def write_image(path, image):
    """Write float values in [0, 1], shape (height, width, 1 or 3), as 8 bits, whole or not at all.

    Three channels that are all the same are written as one. The ending says the format. Raises
    UserError if something of that name is there already, or it can't be written.
    """
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    with write_whole(path) as temporary:
        # Pillow's own JPEG quality of 75 leaves smears around letters.
        options = {"quality": 95} if temporary.suffix.lower() in (".jpg", ".jpeg") else {}
        Image.fromarray(pixels).save(temporary, **options)
    print(f"Wrote {printable(path)}", flush=True)
