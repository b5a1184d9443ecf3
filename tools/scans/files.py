"""Pages out of PDF, TIFF and image files, and back: with their resolution, color and kind."""

import dataclasses
import io
import math

import numpy as np
import pypdfium2
from PIL import ExifTags, Image, TiffImagePlugin
from pypdfium2 import raw
from scipy import ndimage

from common import files, images
from common.cli import UserError
from tools import metadata

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
MIN_LETTER = 12  # pixels from line to line that text needs to be legible
HAIR = 1e-5  # of an image's side, by which it is drawn smaller
MIN_IMAGE = 64  # pixels; a smaller image is a fill
INVISIBLE = raw.FPDF_TEXTRENDERMODE_INVISIBLE


@dataclasses.dataclass
class Page:
    """An upright page."""

    pixels: np.ndarray  # uint8, shape (height, width, 1 or 3)
    dpi: tuple | None = None  # pixels per inch (along x, along y), if the file tells
    bilevel: bool = False  # whether it is black and white only, in 1 bit
    compression: str | None = None  # Pillow's name of a TIFF's
    sheet: pypdfium2.PdfPage | None = None  # the page of a PDF that it was rendered from
    unchanged: bool = False  # whether cleaning left it as it was
    lowered: str = ""  # says what has a lower resolution than in the file
    metadata: dict = dataclasses.field(default_factory=dict)  # what `metadata.read` returns

    @property
    def stays(self):
        """Whether it stays in its PDF as it is. A scan in 1 bit is written anew, as one image."""
        return self.sheet is not None and self.unchanged and not self.bilevel

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
    files.check_file(path)
    with open(path, "rb") as file:
        is_pdf = b"%PDF-" in file.read(1024)
    if is_pdf:
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


def holds_only_pages(path, kind, count):
    """Return whether an image file is of a kind and holds `count` plain, upright pages, no more.

    A file may be named otherwise, or hold other frames, such as a thumbnail or an animation. A
    plain page has at most 8 bits, no transparency and no color profile.
    """
    with images.open_image(path) as image:
        if image.format != kind.upper() or getattr(image, "n_frames", 1) != count:
            return False
        for number in range(count):
            image.seek(number)
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            opaque = image.mode in ("1", "L", "P", "RGB") and not image.has_transparency_data
            if not upright or not opaque or image.info.get("icc_profile"):
                return False
    return True


def _read_frame(image, number, path):
    """Return the `Page` of a Pillow image's frame."""
    image.seek(number)
    images.check_pixels(path, *image.size)
    image.load()  # here, because errors below are ignored: reading EXIF data loads the image
    return Page(
        images.to_pixels(image, path),
        metadata.read_dpi(image),
        bilevel=image.mode == "1",
        compression=image.info.get("compression") if image.format == "TIFF" else None,
        metadata=metadata.read(image),
    )


def _check_count(path, count, multipage):
    if count > 1 and not multipage:
        raise UserError(f"{path}: holds {count} pages; use --format pdf or tiff")


def _read_pdf(path, multipage):
    try:
        pdf = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise UserError(
                f"{path}: protected by a password; remove it first: "
                f"qpdf --decrypt --password=... {path} decrypted.pdf"
            ) from None
        raise UserError(f"{path}: damaged, or a PDF without pages") from None
    if raw.FPDF_GetSecurityHandlerRevision(pdf) != -1:
        raise UserError(
            f"{path}: opens without a password, but is encrypted against changes; decrypt it "
            f"first: qpdf --decrypt {path} decrypted.pdf"
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
    placed, font_sizes, other = _content(sheet, path)
    dpi, bilevel = _find_resolution(placed, font_sizes, (right - left) * (top - bottom))
    size = [(right - left) / 72 * dpi[0], (top - bottom) / 72 * dpi[1]]
    shrink = min(1, math.sqrt(images.MAX_PIXELS / max(size[0] * size[1], 1)))
    width, height = (max(1, round(side * shrink - 1e-3)) for side in size)
    height = min(height, images.MAX_PIXELS // width)
    bitmap = pypdfium2.PdfBitmap.new_native(width, height, raw.FPDFBitmap_BGR)
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
    if rotation:
        sheet.set_rotation(0)
    for item in sheet.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
        # PDFium stretches an image by a pixel if its edge is beyond one by a rounding error.
        smaller = pypdfium2.PdfMatrix().scale(1 - HAIR, 1 - HAIR).translate(HAIR / 2, HAIR / 2)
        item.set_matrix(smaller.multiply(item.get_matrix()))
    # PdfPage.render() takes only one resolution for both directions.
    raw.FPDF_RenderPageBitmap(bitmap, sheet, 0, 0, width, height, 0, 0)
    if rotation:
        sheet.set_rotation(rotation)
    pixels = bitmap.to_numpy()[..., ::-1]
    # A 1-bit image may be a stencil that is painted in a color, or have a stamp beside it.
    bilevel = bilevel and bool((pixels == pixels[..., :1]).all())
    if bilevel and (other or any(image.bits > 1 for image in placed)):
        bilevel = not _has_gray_area(pixels[..., 0])
    pixels = pixels[..., :1] if bilevel else pixels
    pixels = np.ascontiguousarray(np.rot90(pixels, -rotation // 90))
    finest = max([max(dpi), *(max(image.dpi) for image in placed)])
    dpi = [value * shrink for value in dpi]
    lowered = f"{finest:.0f} dpi lowered to {max(dpi):.0f}" if finest > 1.02 * max(dpi) else ""
    dpi = tuple(dpi[::-1] if rotation % 180 else dpi)
    return Page(pixels, dpi, bilevel, sheet=sheet, lowered=lowered)


def _has_gray_area(gray):
    """Return whether pixels, uint8 (height, width), show gray elsewhere than at edges of black."""
    between = (gray > 32) & (gray < 224)
    return bool(between.any()) and bool(ndimage.binary_erosion(between, np.ones((5, 5))).any())


@dataclasses.dataclass(frozen=True)
class _PlacedImage:
    """An image on a PDF's page: points² that it covers, (dpi along x, along y), bits per pixel."""

    area: float
    dpi: tuple
    bits: int


def _content(sheet, path):
    """Return what is on a PDF's page.

    (List of `_PlacedImage`, font sizes of visible text in points, whether anything but images and
    invisible text is there). Raises UserError if an image is too large.
    """
    placed = []
    font_sizes = []
    other = False
    page_left, page_bottom, page_right, page_top = sheet.get_bbox()
    for item in sheet.get_objects():
        matrix, container = item.get_matrix(), item.container
        while container is not None:
            matrix = matrix.multiply(container.get_matrix())
            container = container.container
        a, b, c, d = matrix.get()[:4]
        if item.type == raw.FPDF_PAGEOBJ_IMAGE:
            width, height = item.get_px_size()
            bits = item.get_metadata().bits_per_pixel
            if width * height * max(bits, 1) > 24 * images.MAX_PIXELS:
                raise images.too_large(path)
            left, bottom, right, top = matrix.on_rect(0, 0, 1, 1)
            shown_width = min(right, page_right) - max(left, page_left)
            shown_height = min(top, page_top) - max(bottom, page_bottom)
            area = min(max(0, shown_width) * max(0, shown_height), abs(a * d - b * c))
            if area and width * height >= MIN_IMAGE:
                dpi = width / math.hypot(a, b) * 72, height / math.hypot(c, d) * 72
                dpi = dpi if abs(a) >= abs(b) else dpi[::-1]
                placed.append(_PlacedImage(area, dpi, bits))
        elif item.type == raw.FPDF_PAGEOBJ_TEXT:
            if raw.FPDFTextObj_GetTextRenderMode(item) != INVISIBLE:
                font_sizes.append(item.get_font_size() * math.hypot(c, d))
                other = True
        elif item.type != raw.FPDF_PAGEOBJ_FORM:
            other = True
    return placed, font_sizes, other


def _find_resolution(placed, font_sizes, page_area):
    """Return (dpi along x, along y) of a PDF's page before rotation, and whether it may be 1-bit.

    It is the highest resolution so that images of at least this resolution cover half of the page.
    If visible text is too small for it, it is raised, to at most twice as many pixels.
    """
    covering = []
    covered = 0
    for image in sorted(placed, key=lambda image: math.prod(image.dpi), reverse=True):
        covering.append(image)
        covered += image.area
        if covered > 0.499 * page_area:  # half, but for rounding
            break
    else:
        return (DEFAULT_DPI, DEFAULT_DPI), False
    dpi = covering[-1].dpi
    if font_sizes:
        pixels = min(font_sizes) / 72 * min(dpi)
        raised = np.clip(MIN_LETTER / max(pixels, 1), 1, math.sqrt(2))
        dpi = tuple(float(value * raised) for value in dpi)
    return dpi, all(image.bits == 1 for image in covering)


# ---------------------------------------------------------------- writing


def write_pages(pages, path, max_bytes):
    """Write pages into a new file, whose suffix is its kind; return what was lost, a list of texts.

    `pages` is an iterator over `Page`; no more than one is held at a time. JPEG and WebP lower
    their quality, down to 75, to be no larger than `max_bytes`.
    """
    kind = KINDS[path.suffix.lower()]
    if kind == "pdf":
        return _write_pdf(pages, path)
    lost = set()
    if kind == "tiff":
        with _TiffWriter(path, new=True) as file:
            for page in pages:
                lost |= _lost(page, kind)
                _save(page, file, kind)
                file.newFrame()
    else:
        [page] = pages
        lost |= _lost(page, kind)
        for quality in QUALITIES:
            _save(page, path, kind, quality)
            if kind not in NO_BILEVEL or path.stat().st_size <= max_bytes:
                break
    return sorted(lost, reverse=True)


def _lost(page, kind):
    """Return what a file of a kind cannot hold of a page besides its pixels, a set of texts."""
    names = sorted(set(page.metadata) - set(metadata.writable(page.metadata, kind)))
    lost = {f"metadata is lost ({', '.join(names)})"} if names else set()
    if page.sheet and kind != "pdf":
        if _text_of(page.sheet):
            lost.add("the text layer is lost; only PDF keeps it")
        if raw.FPDFPage_GetAnnotCount(page.sheet) > 0:
            lost.add("annotations are lost; only PDF keeps them")
        if raw.FPDF_GetSignatureCount(page.sheet.pdf) > 0:
            lost.add("its signature is lost")
    return lost


class _TiffWriter(TiffImagePlugin.AppendingTiffWriter):
    """Pillow's does not know when it is closed, for which Python 3.13 prints a traceback."""

    def close(self):
        try:
            super().close()
        finally:
            io.BytesIO.close(self)


def _save(page, file, kind, quality=90):
    options = metadata.save_options(page.metadata, kind, page.dpi)
    if kind == "tiff":
        compression = "tiff_adobe_deflate"
        if page.bilevel:
            compression = "group4"
        elif page.compression in TIFF_COMPRESSIONS:
            compression = page.compression
        options["compression"] = compression
        if compression in ("tiff_lzw", "tiff_adobe_deflate", "zstd"):
            options["tiffinfo"][317] = 2  # horizontal differencing
    if kind in ("jpeg", "webp") or options.get("compression") == "jpeg":
        options["quality"] = quality
    page.image().save(file, format=kind.upper(), **options)


def _write_pdf(pages, path):
    """Write pages as a PDF; a page of a PDF goes back into it, as a picture if it changed."""
    pdf = None
    texts = {}  # of the sheets that become pictures
    lost = []
    for number, page in enumerate(pages, start=1):
        if pdf is None:
            pdf = page.sheet.pdf if page.sheet else pypdfium2.PdfDocument.new()
        if page.stays:
            page.sheet.close()
            continue
        dpi = page.dpi or (DEFAULT_DPI, DEFAULT_DPI)
        height, width = page.pixels.shape[:2]
        if page.sheet is None:
            sheet = pdf.new_page(width / dpi[0] * 72, height / dpi[1] * 72)
        else:
            sheet = page.sheet
            texts[number] = _text_of(sheet)
            _hide_text(sheet)
        lost += [f"page {number}: {text}" for text in _lost(page, "pdf")]
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
    if raw.FPDF_GetSignatureCount(pdf) > 0:
        lost.append("its signature is no longer valid")
    pdf.save(path, flags=raw.FPDF_NO_INCREMENTAL)
    # Only the written file shows it: when PDFium saves, it drops the text of Type 3 fonts.
    with pypdfium2.PdfDocument(path) as written:
        for number, text in texts.items():
            if _text_of(written[number - 1]) != text:
                lost.append(f"page {number}: some of the text layer is lost")
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
    visible.
    """
    for item in list(sheet.get_objects(max_depth=1)):
        if item.type == raw.FPDF_PAGEOBJ_TEXT:
            raw.FPDFTextObj_SetTextRenderMode(item, INVISIBLE)
        elif not (item.type == raw.FPDF_PAGEOBJ_FORM and _is_invisible(sheet, item)):
            sheet.remove_obj(item)


def _is_invisible(sheet, group):
    """Return whether a group of a PDF's page holds invisible text only."""
    return all(
        item.type == raw.FPDF_PAGEOBJ_TEXT and raw.FPDFTextObj_GetTextRenderMode(item) == INVISIBLE
        for item in sheet.get_objects(form=group, level=1)
        if item.type != raw.FPDF_PAGEOBJ_FORM
    )


def _text_of(sheet):
    """Return the words on a PDF's page."""
    return sheet.get_textpage().get_text_bounded().split()
