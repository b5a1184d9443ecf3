"""Pages out of PDF, TIFF and image files, and back: with their resolution, colour and kind."""

import contextlib
import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pypdfium2
from PIL import Image, TiffImagePlugin
from pypdfium2 import raw

from common import UserError, image_files

KINDS = {  # what can be written, by its ending
    **{".pdf": "pdf", ".tif": "tiff", ".tiff": "tiff", ".png": "png", ".bmp": "bmp"},
    **{".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"},
}
SEVERAL = ("pdf", "tiff")  # kinds that hold more than one page
GREY_ONLY = ("jpeg", "webp")  # kinds without 1-bit pages
_TIFF_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "jpeg")
_QUALITIES = (95, 90, 85, 75)  # of JPEG and WebP; below, letters are smeared
_DPI = 300  # where a file does not say
_LEGIBLE = 150  # dpi that text takes
_RESOLUTION_TAGS = 282, 283, 296  # along x, along y, unit; of TIFF and EXIF
_INVISIBLE = raw.FPDF_TEXTRENDERMODE_INVISIBLE


@dataclasses.dataclass
class Page:
    """A page as it stands upright.

    Attributes:
        pixels: uint8, shape (height, width, 1 or 3).
        dpi: pixels per inch (along x, along y), or None where the file does not say.
        bilevel: whether it is black and white only, in 1 bit.
        compression: Pillow's name of a TIFF's, or None.
        sheet: the page of a PDF that it was made from, or None.
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


def read_pages(path, several=True):
    """Give each `Page` of a PDF, a TIFF or an image file, one after the other.

    Raises:
        UserError: the file can't be read, a page has too many pixels, the PDF is protected by a
            password, or there is more than one page, and `several` is False.
    """
    path = Path(path)
    if _is_pdf(path):
        yield from _read_pdf(path, several)
        return
    with image_files.open_image(path) as image:
        numbers = image_files.pages_of_tiff(image) if image.format == "TIFF" else [0]
        _see_that_one(path, len(numbers), several)
        *before, last = numbers or [0]
        for number in before:
            yield _read_frame(image, number, path)
        page = _read_frame(image, last, path)
    yield page  # when Pillow's copy of it is gone


def read_first_page(path):
    """Return the first `Page` of a file. If that is a PDF, all other pages are removed from it.

    Raises UserError as `read_pages` does.
    """
    path = Path(path)
    page = next(read_pages(path), None)
    if page is None:
        raise UserError(f"{path}: holds no page")
    if page.sheet:
        for number in reversed(range(1, len(page.sheet.pdf))):
            del page.sheet.pdf[number]
    return page


def _read_frame(image, number, path):
    """Return the `Page` of a Pillow image's frame."""
    image.seek(number)
    image_files.see_that_it_fits(path, *image.size)
    image.load()  # as in image_files: reading EXIF would hide an error
    dpi = _dpi_of(image)
    if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # lying on its side
        dpi = dpi and dpi[::-1]
    compression = image.info.get("compression") if image.format == "TIFF" else None
    return Page(image_files.to_pixels(image, path), dpi, image.mode == "1", compression)


def _is_pdf(path):
    with contextlib.suppress(OSError):  # said by what opens it next
        if path.is_file():
            with path.open("rb") as file:
                return b"%PDF-" in file.read(1024)
    return False


def _see_that_one(path, count, several):
    if count > 1 and not several:
        raise UserError(f"{path}: holds {count} pages; take --format pdf or tiff")


def _dpi_of(image):
    """Return an image's resolution (along x, along y) in pixels per inch, or None."""
    dpi = image.info.get("dpi")
    if not dpi:
        with contextlib.suppress(Exception):  # damaged EXIF data
            exif = image.getexif()
            inch = {2: 1, 3: 2.54}.get(exif.get(_RESOLUTION_TAGS[2], 2), 0)
            dpi = [float(exif[tag]) * inch for tag in _RESOLUTION_TAGS[:2]]
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = map(float, dpi)
        if 1 < x < 1e5 and 1 < y < 1e5:
            return x, y
    return None


def _read_pdf(path, several):
    try:
        pdf = pypdfium2.PdfDocument(path)
        protected = raw.FPDF_GetSecurityHandlerRevision(pdf) != -1
    except pypdfium2.PdfiumError as error:
        protected = error.err_code == raw.FPDF_ERR_PASSWORD
        if not protected:
            raise UserError(
                f"{path}: cannot be read as a PDF; damaged, or without a page"
            ) from None
    if protected:
        way_out = "remove that first, as qpdf does: qpdf --decrypt --password=… a.pdf b.pdf"
        raise UserError(f"{path}: is protected by a password; {way_out}")
    _see_that_one(path, len(pdf), several)
    for number in range(len(pdf)):
        try:
            yield _read_sheet(pdf[number], path)
        except pypdfium2.PdfiumError as error:
            raise UserError(f"{path}: page {number + 1} cannot be read ({error})") from None


def _read_sheet(sheet, path):
    """Return the `Page` that a page of a PDF shows, without its annotations: these stay in it."""
    rotation = sheet.get_rotation()
    left, bottom, right, top = sheet.get_bbox()
    dpi, bilevel = _resolution(sheet, path)
    size = [(right - left) / 72 * dpi[0], (top - bottom) / 72 * dpi[1]]
    shrink = min(1, math.sqrt(image_files.MAX_PIXELS / max(size[0] * size[1], 1)))
    width, height = (max(1, round(side * shrink - 1e-3)) for side in size)
    height = min(height, image_files.MAX_PIXELS // width)
    bitmap = pypdfium2.PdfBitmap.new_native(width, height, raw.FPDFBitmap_BGR)
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
    if rotation:
        sheet.set_rotation(0)
    # Not PdfPage.render(): it takes only one resolution.
    raw.FPDF_RenderPageBitmap(bitmap, sheet, 0, 0, width, height, 0, 0)
    if rotation:
        sheet.set_rotation(rotation)
    pixels = bitmap.to_numpy()[..., ::-1]
    # A 1-bit image may be a stencil that is painted in a colour, or have a stamp beside it.
    bilevel = bilevel and bool((pixels == pixels[..., :1]).all())
    pixels = pixels[..., :1] if bilevel else pixels
    pixels = np.ascontiguousarray(np.rot90(pixels, -rotation // 90))
    dpi = [value * shrink for value in dpi]
    return Page(pixels, tuple(dpi[::-1] if rotation % 180 else dpi), bilevel, sheet=sheet)


def _resolution(sheet, path):
    """Return (dpi along x, along y) of a PDF's page, not turned, and whether it is 1-bit.

    It is that of the image with the most pixels, if this covers half of the page. Where there is
    text to be seen, an image under _LEGIBLE does not count.
    """
    left, bottom, right, top = sheet.get_bbox()
    most, dpi, bits, text = 0, (_DPI, _DPI), set(), False
    for item in sheet.get_objects():
        if item.type == raw.FPDF_PAGEOBJ_IMAGE:
            matrix, around = item.get_matrix(), item.container
            while around is not None:
                matrix, around = matrix.multiply(around.get_matrix()), around.container
            a, b, c, d = matrix.get()[:4]
            width, height = item.get_px_size()
            bits.add(item.get_metadata().bits_per_pixel)
            if width * height * max(bits) > 24 * image_files.MAX_PIXELS:
                image_files.see_that_it_fits(path, image_files.MAX_PIXELS, 2)
            covers = abs(a * d - b * c) > 0.5 * (right - left) * (top - bottom)
            if width * height > most and covers:
                most = width * height
                along = width / math.hypot(a, b) * 72, height / math.hypot(c, d) * 72
                dpi = along if abs(a) >= abs(b) else along[::-1]
        elif item.type in (raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_SHADING):
            bits.add(24)
        elif item.type == raw.FPDF_PAGEOBJ_TEXT:
            text = text or raw.FPDFTextObj_GetTextRenderMode(item) != _INVISIBLE
    if text and min(dpi) < _LEGIBLE:
        dpi = tuple(max(value, _DPI) for value in dpi)
    return dpi, bool(most) and bits == {1}


# ---------------------------------------------------------------- writing


def write_pages(pages, path, at_most):
    """Write pages into one file, whose ending says the kind.

    Args:
        pages: gives each `Page`; no more than one is held at a time.
        path: the file, new.
        at_most: a size in bytes that JPEG and WebP lower their quality for, down to 75.

    Returns:
        What could not be kept, as a list of texts.
    """
    kind = KINDS[path.suffix.lower()]
    if kind == "pdf":
        return _write_pdf(pages, path)
    lost = set()
    if kind == "tiff":
        with _TiffWriter(path, new=True) as file:
            for page in pages:
                lost |= _lost_in_images(page.sheet)
                _save(page, file, kind)
                file.newFrame()
    else:
        [page] = pages
        lost |= _lost_in_images(page.sheet)
        for quality in _QUALITIES:
            _save(page, path, kind, quality)
            if kind not in GREY_ONLY or path.stat().st_size <= at_most:
                break
    return sorted(lost, reverse=True)


def _lost_in_images(sheet):
    """Return what an image can't hold of a page of a PDF (None: there is none), as a set."""
    if sheet is None:
        return set()
    lost = {"the text layer is lost; only PDF keeps it"} if _text_of(sheet) else set()
    if raw.FPDFPage_GetAnnotCount(sheet) > 0:
        lost.add("annotations are lost; only PDF keeps them")
    return lost


class _TiffWriter(TiffImagePlugin.AppendingTiffWriter):
    """Pillow's, which does not know when it is closed: Python 3.13 prints a traceback for it."""

    def close(self):
        try:
            super().close()
        finally:
            io.BytesIO.close(self)


def _save(page, file, kind, quality=90):
    image = page.image()
    options = {"dpi": page.dpi} if page.dpi else {}
    if kind == "tiff":
        kept = page.compression if page.compression in _TIFF_COMPRESSIONS else "tiff_adobe_deflate"
        options["compression"] = "group4" if page.bilevel else kept
        if options["compression"] in ("tiff_lzw", "tiff_adobe_deflate", "zstd"):
            options["tiffinfo"] = {317: 2}  # the difference to the left
    if kind in ("jpeg", "webp") or options.get("compression") == "jpeg":
        options["quality"] = quality
    if kind == "webp" and page.dpi:
        options["exif"] = Image.Exif()
        for tag, value in zip(_RESOLUTION_TAGS, (*page.dpi, 2), strict=True):
            options["exif"][tag] = value
    image.save(file, format=kind.upper(), **options)


def _write_pdf(pages, path):
    """Write pages as a PDF; those from a PDF go back into it, and all but the picture is kept."""
    pdf, notes = None, []
    for number, page in enumerate(pages, 1):
        dpi = page.dpi or (_DPI, _DPI)
        height, width = page.pixels.shape[:2]
        if pdf is None:
            pdf = page.sheet.pdf if page.sheet else pypdfium2.PdfDocument.new()
        if page.sheet is None:
            sheet = pdf.new_page(width / dpi[0] * 72, height / dpi[1] * 72)
        else:
            sheet = page.sheet
            if not _leave_invisible_text(sheet):
                notes.append(f"page {number}: some of the text layer is lost")
        left, bottom, right, top = sheet.get_bbox()
        turned = dataclasses.replace(page, pixels=np.rot90(page.pixels, sheet.get_rotation() // 90))
        with pypdfium2.PdfDocument(_pdf_of(turned)) as carrier:
            own_width, own_height = carrier.get_page_size(0)
            picture = carrier.page_as_xobject(0, pdf).as_pageobject()
        matrix = pypdfium2.PdfMatrix().scale(
            (right - left) / own_width, (top - bottom) / own_height
        )
        picture.set_matrix(matrix.translate(left, bottom))
        sheet.insert_obj(picture)
        sheet.gen_content()
        sheet.close()  # or all the pages would be held in memory
    pdf.save(path, flags=raw.FPDF_NO_INCREMENTAL)
    return notes


def _pdf_of(page):
    """Return the bytes of a PDF that shows a page's image, losslessly: 1 bit as G4, else deflated.

    So no more than the compressed images of a long PDF are held in memory.
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


def _leave_invisible_text(sheet):
    """Remove all that is visible from a PDF's page but text, which becomes invisible.

    Return whether all text is kept.

    Recognised text often stands in a group (form XObject) of its own, which is kept if there is
    nothing to be seen in it.
    """
    before = _text_of(sheet)
    for item in list(sheet.get_objects(max_depth=1)):
        if item.type == raw.FPDF_PAGEOBJ_TEXT:
            raw.FPDFTextObj_SetTextRenderMode(item, _INVISIBLE)
        elif not (item.type == raw.FPDF_PAGEOBJ_FORM and _is_unseen(sheet, item)):
            sheet.remove_obj(item)
    return _text_of(sheet) == before


def _is_unseen(sheet, form):
    """Say whether a group of a PDF's page holds invisible text alone."""
    return all(
        item.type == raw.FPDF_PAGEOBJ_TEXT and raw.FPDFTextObj_GetTextRenderMode(item) == _INVISIBLE
        for item in sheet.get_objects(form=form, level=1)
        if item.type != raw.FPDF_PAGEOBJ_FORM
    )


def _text_of(sheet):
    with contextlib.closing(sheet.get_textpage()) as text:
        return text.get_text_bounded()
