"""Metadata of image files: description, EXIF, XMP, resolution."""

import contextlib
import re

from PIL import ExifTags, Image, IptcImagePlugin, PngImagePlugin

WRITTEN = {  # by kind of file
    "tiff": ("tags", "XMP"),  # Pillow writes no EXIF into compressed TIFF
    "png": ("tags", "EXIF", "XMP", "PNG text"),
    "jpeg": ("tags", "EXIF", "XMP", "comment"),
    "webp": ("tags", "EXIF", "XMP"),
}
MAX_JPEG_BYTES = 65_000  # of EXIF, or of XMP, that fit into a JPEG file
RESOLUTION_TAGS = 282, 283, 296  # along x, along y, unit; in TIFF and EXIF
# Title, description, make and model of the device, name of the page, software, date, artist,
# computer, copyright, when it was taken, Windows' own five: what TIFF and EXIF say about a picture.
# Other tags say how it is stored.
DESCRIPTIVE_TAGS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432, 36867, *range(40091, 40096))
EXIF_TAG, GPS_TAG, XMP_TAG = 34665, 34853, 700
# Of EXIF: size, and notes whose offsets hold only in the old file.
STORAGE_TAGS = (37500, 40962, 40963, 40965)


def read(image):
    """Return what a Pillow image says about itself, for an upright copy: without an orientation.

    {"tags": {tag: value}, "EXIF": {tag of a part: {tag: value}}, "XMP": bytes, "comment": bytes of
    a JPEG or GIF, "PNG text": {keyword: text}, "IPTC": values}. What is missing or damaged is
    absent.
    """
    image.load()  # in PNG files it may follow the pixels
    tags = {}
    parts = {}
    iptc = None
    with contextlib.suppress(Exception):  # damaged EXIF data
        exif = image.getexif()
        described = {tag: _encoded(exif[tag]) for tag in DESCRIPTIVE_TAGS if tag in exif}
        ifds = {}
        for part in (EXIF_TAG, GPS_TAG):
            values = exif.get_ifd(part)
            ifd = {tag: _encoded(values[tag]) for tag in values if tag not in STORAGE_TAGS}
            if ifd:
                ifds[part] = ifd
        _exif(described | ifds)  # raises an error if they cannot be written
        tags, parts = described, ifds
    with contextlib.suppress(Exception):
        iptc = IptcImagePlugin.getiptcinfo(image)
    texts = getattr(image, "text", {})  # Pillow's dictionary of a PNG
    skipped = ("XML:com.adobe.xmp", "Raw profile type")
    orientation = rb'tiff:Orientation="\d"|<tiff:Orientation>\d</tiff:Orientation>'
    metadata = {
        "tags": tags,
        "EXIF": parts,
        "XMP": re.sub(orientation, b"", image.info.get("xmp", b"")),
        "comment": image.info.get("comment") if image.format in ("JPEG", "GIF") else None,
        "PNG text": {key: text for key, text in texts.items() if not key.startswith(skipped)},
        "IPTC": iptc,
    }
    return {name: value for name, value in metadata.items() if value}


def _encoded(value):
    """Return text beyond ASCII as bytes again: Pillow reads Latin-1, but writes only ASCII."""
    return value if not isinstance(value, str) or value.isascii() else value.encode("latin-1")


def _exif(tags):
    """Return EXIF data as bytes."""
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes()


def read_dpi(image):
    """Return pixels per inch (along x, along y) of a Pillow image once it is upright, or None."""
    dpi, turned = image.info.get("dpi"), False
    with contextlib.suppress(Exception):  # damaged EXIF data
        exif = image.getexif()
        turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        if not dpi:
            inch = {2: 1, 3: 2.54}.get(exif.get(RESOLUTION_TAGS[2], 2), 0)
            dpi = [float(exif[tag]) * inch for tag in RESOLUTION_TAGS[:2]]
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = map(float, dpi)
        if 1 < x < 1e5 and 1 < y < 1e5:
            return (y, x) if turned else (x, y)
    return None


def writable(metadata, kind):
    """Return the part of `read`'s result that a tiff, png, jpeg or webp file can hold."""
    part = {name: metadata[name] for name in WRITTEN.get(kind, ()) if name in metadata}
    if kind == "jpeg" and len(part.get("XMP", b"")) > MAX_JPEG_BYTES:
        del part["XMP"]
    if kind == "jpeg" and len(_exif(part.get("tags", {}) | part.get("EXIF", {}))) > MAX_JPEG_BYTES:
        part.pop("tags", None)
        part.pop("EXIF", None)
    return part


def save_options(metadata, kind, dpi=None):
    """Return options of Pillow's `Image.save` that write metadata and resolution into a file."""
    part = writable(metadata, kind)
    options = {"dpi": dpi} if dpi else {}
    tags, xmp = part.get("tags", {}), part.get("XMP", b"")
    if kind == "tiff":
        return options | {"tiffinfo": tags | ({XMP_TAG: xmp} if xmp else {})}
    exif = tags | part.get("EXIF", {})
    if kind == "webp" and dpi:
        exif |= dict(zip(RESOLUTION_TAGS, (*dpi, 2), strict=True))
    # Even an empty EXIF says 72 dpi.
    options |= {"exif": _exif(exif) if exif else b"", "xmp": xmp, "comment": part.get("comment")}
    if kind == "png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        for key, text in part.get("PNG text", {}).items():
            options["pnginfo"].add_itxt(key, text)
        if xmp:
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode(errors="replace"))
    return options
