"""Pages out of PDF, TIFF and image files, and back: with their resolution, color and kind."""

import contextlib
import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pypdfium2
from PIL import Image, TiffImagePlugin
from pypdfium2 import raw

from common import images
from common.cli import UserError

KINDS = {  # that can be written, by suffix
    ".pdf": "pdf",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
    ".bmp": "bmp",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}
MULTIPAGE = ("pdf", "tiff")  # kinds that can hold more than one page
NO_BILEVEL = ("jpeg", "webp")  # kinds without 1-bit pages
TIFF_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "jpeg")
QUALITIES = (95, 90, 85, 75)  # of JPEG and WebP; below, letters are smeared
DEFAULT_DPI = 300  # if a file does not tell
MIN_TEXT_DPI = 150  # that text needs to be legible
RESOLUTION_TAGS = 282, 283, 296  # along x, along y, unit; in TIFF and EXIF
INVISIBLE = raw.FPDF_TEXTRENDERMODE_INVISIBLE


@dataclasses.dataclass
class Page:
    """An upright page.

    Attributes:
        pixels: uint8, shape (height, width, 1 or 3).
        dpi: pixels per inch (along x, along y), or None if the file does not tell.
        bilevel: whether it is black and white only, in 1 bit.
        compression: Pillow's name of a TIFF's, or None.
        sheet: the page of a PDF that it was rendered from, or None.
    """

    pixels: np.ndarray
    dpi: tuple | None = None
    bilevel: bool = False
    compression: str | None = None
    sheet: pypdfium2.PdfPage | None = None

    def image(self):
        """Return it as a Pillow image of mode 1, L or RGB."""
        pixels = self.pixels[..., 0] if self.pixels.shape[2] == 1 else self.pixels
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return image.convert("L").point(lambda v: 255 * (v > 127), "1") if self.bilevel else image


# ---------------------------------------------------------------- reading


def read_pages(path, multipage=True):
    """Yield each `Page` of a PDF, a TIFF or an image file.

    Raises UserError if the file cannot be read, a page has too many pixels, a PDF is protected by a
    password, or there are several pages and `multipage` is false.
    """
    path = Path(path)
    if _is_pdf(path):
        yield from _read_pdf(path, multipage)
        return
    with images.open_image(path) as image:
        numbers = images.tiff_pages(image) if image.format == "TIFF" else [0]
        _check_count(path, len(numbers), multipage)
        *others, last = numbers or [0]
        for number in others:
            yield _read_frame(image, number, path)
        page = _read_frame(image, last, path)
    yield page  # once Pillow's copy of it is gone


def read_first_page(path):
    """Return the first `Page` of a file. If that is a PDF, the other pages are removed from it.

    Raises UserError as `read_pages` does.
    """
    page = next(read_pages(path))
    if page.sheet:
        for number in reversed(range(1, len(page.sheet.pdf))):
            del page.sheet.pdf[number]
    return page


def _read_frame(image, number, path):
    """Return the `Page` of a Pillow image's frame."""
    image.seek(number)
    images.check_pixels(path, *image.size)
    image.load()  # here, because errors below are ignored: reading EXIF data loads the image
    dpi = _read_dpi(image)
    if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # lying on its side
        dpi = dpi and dpi[::-1]
    compression = image.info.get("compression") if image.format == "TIFF" else None
    return Page(images.to_pixels(image, path), dpi, image.mode == "1", compression)


def _is_pdf(path):
    with contextlib.suppress(OSError):  # open_image reports it
        if path.is_file():
            with path.open("rb") as file:
                return b"%PDF-" in file.read(1024)
    return False


def _check_count(path, count, multipage):
    if count > 1 and not multipage:
        raise UserError(f"{path}: holds {count} pages; use --format pdf or tiff")


def _read_dpi(image):
    """Return an image's resolution (along x, along y) in pixels per inch, or None."""
    dpi = image.info.get("dpi")
    if not dpi:
        with contextlib.suppress(Exception):  # damaged EXIF data
            exif = image.getexif()
            inch = {2: 1, 3: 2.54}.get(exif.get(RESOLUTION_TAGS[2], 2), 0)
            dpi = [float(exif[tag]) * inch for tag in RESOLUTION_TAGS[:2]]
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = map(float, dpi)
        if 1 < x < 1e5 and 1 < y < 1e5:
            return x, y
    return None


def _read_pdf(path, multipage):
    try:
        pdf = pypdfium2.PdfDocument(path)
        protected = raw.FPDF_GetSecurityHandlerRevision(pdf) != -1
    except pypdfium2.PdfiumError as error:
        protected = error.err_code == raw.FPDF_ERR_PASSWORD
        if not protected:
            raise UserError(f"{path}: damaged, or a PDF without pages") from None
    if protected:
        raise UserError(
            f"{path}: protected by a password; remove it, for example with qpdf --decrypt"
        )
    _check_count(path, len(pdf), multipage)
    for number in range(len(pdf)):
        try:
            yield _render(pdf[number], path)
        except pypdfium2.PdfiumError as error:
            raise UserError(f"{path}: page {number + 1} cannot be read ({error})") from None


def _render(sheet, path):
    """Return the `Page` that a page of a PDF shows, without its annotations, which stay in it."""
    rotation = sheet.get_rotation()
    left, bottom, right, top = sheet.get_bbox()
    dpi, bilevel = _find_resolution(sheet, path)
    size = [(right - left) / 72 * dpi[0], (top - bottom) / 72 * dpi[1]]
    shrink = min(1, math.sqrt(images.MAX_PIXELS / max(size[0] * size[1], 1)))
    width, height = (max(1, round(side * shrink - 1e-3)) for side in size)
    height = min(height, images.MAX_PIXELS // width)
    bitmap = pypdfium2.PdfBitmap.new_native(width, height, raw.FPDFBitmap_BGR)
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
    if rotation:
        sheet.set_rotation(0)
    # PdfPage.render() takes only one resolution for both directions.
    raw.FPDF_RenderPageBitmap(bitmap, sheet, 0, 0, width, height, 0, 0)
    if rotation:
        sheet.set_rotation(rotation)
    pixels = bitmap.to_numpy()[..., ::-1]
    # A 1-bit image may be a stencil that is painted in a color, or have a stamp beside it.
    bilevel = bilevel and bool((pixels == pixels[..., :1]).all())
    pixels = pixels[..., :1] if bilevel else pixels
    pixels = np.ascontiguousarray(np.rot90(pixels, -rotation // 90))
    dpi = [value * shrink for value in dpi]
    return Page(pixels, tuple(dpi[::-1] if rotation % 180 else dpi), bilevel, sheet=sheet)


def _find_resolution(sheet, path):
    """Return (dpi along x, along y) of a PDF's page before rotation, and whether it is 1-bit.

    It is that of the image with the most pixels, if this covers half of the page. If there is
    visible text, an image below MIN_TEXT_DPI does not count.
    """
    left, bottom, right, top = sheet.get_bbox()
    max_pixels, dpi, bits, text = 0, (DEFAULT_DPI, DEFAULT_DPI), set(), False
    for item in sheet.get_objects():
        if item.type == raw.FPDF_PAGEOBJ_IMAGE:
            matrix, container = item.get_matrix(), item.container
            while container is not None:
                matrix = matrix.multiply(container.get_matrix())
                container = container.container
            a, b, c, d = matrix.get()[:4]
            width, height = item.get_px_size()
            bits.add(item.get_metadata().bits_per_pixel)
            if width * height * max(bits) > 24 * images.MAX_PIXELS:
                images.check_pixels(path, images.MAX_PIXELS, 2)  # raises
            covers = abs(a * d - b * c) > 0.5 * (right - left) * (top - bottom)
            if width * height > max_pixels and covers:
                max_pixels = width * height
                along = width / math.hypot(a, b) * 72, height / math.hypot(c, d) * 72
                dpi = along if abs(a) >= abs(b) else along[::-1]
        elif item.type in (raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_SHADING):
            bits.add(24)
        elif item.type == raw.FPDF_PAGEOBJ_TEXT:
            text = text or raw.FPDFTextObj_GetTextRenderMode(item) != INVISIBLE
    if text and min(dpi) < MIN_TEXT_DPI:
        dpi = tuple(max(value, DEFAULT_DPI) for value in dpi)
    return dpi, bool(max_pixels) and bits == {1}


# ---------------------------------------------------------------- writing


def write_pages(pages, path, max_bytes):
    """Write pages into a new file, whose suffix is its kind; return what was lost, a list of texts.

    Args:
        pages: iterator over `Page`; no more than one is held at a time.
        path: the file.
        max_bytes: JPEG and WebP lower their quality, down to 75, to be no larger than that.
    """
    kind = KINDS[path.suffix.lower()]
    if kind == "pdf":
        return _write_pdf(pages, path)
    lost = set()
    if kind == "tiff":
        with _TiffWriter(path, new=True) as file:
            for page in pages:
                lost |= _lost_outside_pdf(page.sheet)
                _save(page, file, kind)
                file.newFrame()
    else:
        [page] = pages
        lost |= _lost_outside_pdf(page.sheet)
        for quality in QUALITIES:
            _save(page, path, kind, quality)
            if kind not in NO_BILEVEL or path.stat().st_size <= max_bytes:
                break
    return sorted(lost, reverse=True)


def _lost_outside_pdf(sheet):
    """Return what an image cannot hold of a page of a PDF, a set of texts."""
    if sheet is None:
        return set()
    lost = {"the text layer is lost; only PDF keeps it"} if _text_of(sheet) else set()
    if raw.FPDFPage_GetAnnotCount(sheet) > 0:
        lost.add("annotations are lost; only PDF keeps them")
    return lost


class _TiffWriter(TiffImagePlugin.AppendingTiffWriter):
    """Pillow's does not know when it is closed, for which Python 3.13 prints a traceback."""

    def close(self):
        try:
            super().close()
        finally:
            io.BytesIO.close(self)


def _save(page, file, kind, quality=90):
    image = page.image()
    options = {"dpi": page.dpi} if page.dpi else {}
    if kind == "tiff":
        compression = "tiff_adobe_deflate"
        if page.compression in TIFF_COMPRESSIONS:
            compression = page.compression
        options["compression"] = "group4" if page.bilevel else compression
        if options["compression"] in ("tiff_lzw", "tiff_adobe_deflate", "zstd"):
            options["tiffinfo"] = {317: 2}  # horizontal differencing
    if kind in ("jpeg", "webp") or options.get("compression") == "jpeg":
        options["quality"] = quality
    if kind == "webp" and page.dpi:
        options["exif"] = Image.Exif()
        for tag, value in zip(RESOLUTION_TAGS, (*page.dpi, 2), strict=True):
            options["exif"][tag] = value
    image.save(file, format=kind.upper(), **options)


def _write_pdf(pages, path):
    """Write pages as a PDF; a page of a PDF goes back into it, where only its picture changes."""
    pdf, lost = None, []
    for number, page in enumerate(pages, start=1):
        dpi = page.dpi or (DEFAULT_DPI, DEFAULT_DPI)
        height, width = page.pixels.shape[:2]
        if pdf is None:
            pdf = page.sheet.pdf if page.sheet else pypdfium2.PdfDocument.new()
        if page.sheet is None:
            sheet = pdf.new_page(width / dpi[0] * 72, height / dpi[1] * 72)
        else:
            sheet = page.sheet
            if not _hide_text(sheet):
                lost.append(f"page {number}: some of the text layer is lost")
        left, bottom, right, top = sheet.get_bbox()
        turned = dataclasses.replace(page, pixels=np.rot90(page.pixels, sheet.get_rotation() // 90))
        with pypdfium2.PdfDocument(_pdf_of(turned)) as carrier:
            carrier_width, carrier_height = carrier.get_page_size(0)
            picture = carrier.page_as_xobject(0, pdf).as_pageobject()
        x_scale, y_scale = (right - left) / carrier_width, (top - bottom) / carrier_height
        matrix = pypdfium2.PdfMatrix().scale(x_scale, y_scale)
        picture.set_matrix(matrix.translate(left, bottom))
        sheet.insert_obj(picture)
        sheet.gen_content()
        sheet.close()  # otherwise all pages would be held in memory
    pdf.save(path, flags=raw.FPDF_NO_INCREMENTAL)
    return lost


def _pdf_of(page):
    """Return a PDF of a page's image as bytes, without loss: 1 bit as G4, otherwise deflated.

    So of a long PDF only compressed images are held in memory.
    """
    content = io.BytesIO()
    if page.bilevel:
        page.image().save(content, "PDF")
    else:
        with pypdfium2.PdfDocument.new() as pdf:
            sheet, image = pdf.new_page(1, 1), pypdfium2.PdfImage.new(pdf)
            image.set_bitmap(pypdfium2.PdfBitmap.from_pil(page.image()))
            sheet.insert_obj(image)
            sheet.gen_content()
            pdf.save(content)
    return content.getvalue()


def _hide_text(sheet):
    """Remove everything but text from a PDF's page, and make the text invisible.

    Recognized text is often in a group (form XObject) of its own, which stays if nothing in it is
    visible. Return whether all text is still there.
    """
    before = _text_of(sheet)
    for item in list(sheet.get_objects(max_depth=1)):
        if item.type == raw.FPDF_PAGEOBJ_TEXT:
            raw.FPDFTextObj_SetTextRenderMode(item, INVISIBLE)
        elif not (item.type == raw.FPDF_PAGEOBJ_FORM and _is_invisible(sheet, item)):
            sheet.remove_obj(item)
    return _text_of(sheet) == before


def _is_invisible(sheet, group):
    """Return whether a group of a PDF's page holds invisible text only."""
    return all(
        item.type == raw.FPDF_PAGEOBJ_TEXT and raw.FPDFTextObj_GetTextRenderMode(item) == INVISIBLE
        for item in sheet.get_objects(form=group, level=1)
        if item.type != raw.FPDF_PAGEOBJ_FORM
    )


def _text_of(sheet):
    with contextlib.closing(sheet.get_textpage()) as text:
        return text.get_text_bounded()
