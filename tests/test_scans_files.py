"""tools/scans: formats."""

import ctypes
import io
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from conftest import whiten
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin
from pypdfium2 import raw

from common import images
from common.cli import UserError
from tools.scans import files
from tools.scans.document import Options, clean_file

BLACK, BLUE = (0, 0, 0), (0, 0, 255)


def scan(height=120, width=90, paper=200, ink=40):
    """Return a page with a frame and lines."""
    page = np.full((height, width), paper, np.uint8)
    page[10:-10:12, 12:-12] = ink
    page[10:-10, 12:16] = ink
    page[-8:-4, 20:30] = ink // 2  # no side is like another
    return Image.fromarray(page)


def bits(height=1200, width=900):
    return scan(height, width).convert("1", dither=Image.Dither.NONE)


def pixels_of(path):
    """Return (gray pixels as floats, dpi) of a PDF's first page or of an image."""
    page = next(files.read_pages(path))
    return page.pixels.mean(-1), page.dpi


def clean(source, target, **options):
    return clean_file(whiten, Path(source), Path(target), Options(**options))


# ---------------------------------------------------------------- images and TIFF


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("dpi", [(300, 300), (200, 100), None])
def test_images_keep_format_size_and_resolution(suffix, dpi):
    source, target = f"a.{suffix}", f"b.{suffix}"
    options = {"dpi": dpi} if dpi else {}
    if suffix == "webp" and dpi:
        options = {"exif": Image.Exif()}
        options["exif"].update({282: dpi[0], 283: dpi[1], 296: 2})
    scan().save(source, **options)
    stored = pixels_of(source)[1]
    assert clean(source, target)["pages"] == 1
    with Image.open(source) as before, Image.open(target) as after:
        assert (after.format, after.size) == (before.format, before.size)
    pixels, cleaned_dpi = pixels_of(target)
    assert cleaned_dpi == (pytest.approx(dpi, rel=0.01) if dpi else stored)
    assert np.percentile(pixels, 80) == 255
    assert np.abs(pixels[10:-10, 13:15] - 40).max() < 30


def test_sixteen_bits_become_eight():
    scan().save("a.png")
    Image.fromarray(np.asarray(scan()).astype(np.uint16) * 257).save("b.tiff")
    for name in ("a.png", "b.tiff"):
        clean(name, f"cleaned_{name}")
    np.testing.assert_array_equal(pixels_of("cleaned_a.png")[0], pixels_of("cleaned_b.tiff")[0])
    assert Image.open("cleaned_b.tiff").mode == "L"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_all_pages_of_a_tiff_are_cleaned_but_not_reduced_copies():
    first, *others = (scan(ink=ink) for ink in (0, 40, 80))
    small = scan(60, 45)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    options = {"dpi": (144, 72), "compression": "tiff_lzw"}
    first.save("a.tif", save_all=True, append_images=[small, *others], **options)
    assert clean("a.tif", "b.tif")["pages"] == 3
    with Image.open("b.tif") as image:
        assert image.n_frames == 3
        for number, ink in enumerate((0, 40, 80)):
            image.seek(number)
            assert image.size == (90, 120)
            assert {key: image.info[key] for key in options} == options
            assert sorted(set(np.asarray(image)[10:-10].ravel())) == [ink, 255]
    clean("a.tif", "a.pdf")
    assert [sheet.get_size() for sheet in pypdfium2.PdfDocument("a.pdf")] == [(45, 120)] * 3
    assert pixels_of("a.pdf")[1] == (144, 72)


@pytest.mark.parametrize(("compression", "share"), [("group4", 1), ("raw", 0.4)])
def test_a_one_bit_tiff_stays_one_and_does_not_grow(compression, share):
    bits().save("a.tif", compression=compression, dpi=(300, 300))
    assert clean("a.tif", "b.tif")["notes"] == []
    with Image.open("b.tif") as image:
        assert (image.mode, image.info["compression"]) == ("1", "group4")
        np.testing.assert_array_equal(np.asarray(image), np.asarray(bits()))
    assert Path("b.tif").stat().st_size <= share * Path("a.tif").stat().st_size


@pytest.mark.parametrize("suffix", ["png", "tif", "pdf"])
def test_bilevel_pages(suffix):
    scan(600, 400).save("a.png", dpi=(300, 300))
    clean("a.png", f"b.{suffix}", bilevel=True)
    if suffix == "pdf":
        [image] = pypdfium2.PdfDocument("b.pdf")[0].get_objects([raw.FPDF_PAGEOBJ_IMAGE])
        assert image.get_metadata().bits_per_pixel == 1
        assert image.get_filters() == ["CCITTFaxDecode"]
    else:
        assert Image.open(f"b.{suffix}").mode == "1"
    assert set(np.unique(pixels_of(f"b.{suffix}")[0])) == {0, 255}


def test_growth_is_reported_and_a_jpeg_lowers_its_quality_first():
    noise = Image.fromarray(np.random.default_rng(0).integers(80, 200, (400, 400), np.uint8))
    noise.save("a.jpg", quality=85)
    assert clean("a.jpg", "b.jpg")["notes"] == []
    noise.save("c.jpg", quality=20)
    [note] = clean("c.jpg", "d.jpg")["notes"]
    assert note.startswith("grew from ")


# ---------------------------------------------------------------- metadata

AUTHOR, COPYRIGHT = "Zoë".encode(), "© Zoë".encode("latin-1")
SIDEWAYS = Image.Exif()
SIDEWAYS[274] = 6
TAGS = {270: "a letter", 306: "2020:01:02 03:04:05", 315: AUTHOR, 33432: COPYRIGHT}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_an_image_file_that_is_clean_already_is_copied(name):
    """Other programs may compress better than Pillow does."""
    clean_page = scan(paper=255)
    if name == "a.png":
        clean_page = clean_page.quantize(4)
    options = {"a.tif": {"compression": "tiff_lzw"}, "a.jpg": {"quality": 100}}.get(name, {})
    clean_page.save(name, **options)
    clean(name, f"cleaned_{name}")
    assert Path(f"cleaned_{name}").read_bytes() == Path(name).read_bytes()
    clean(name, "changed.bmp")
    assert Image.open("changed.bmp", formats=["BMP"]).mode == "L"
    clean(name, "bilevel.tif", bilevel=True)
    assert Image.open("bilevel.tif", formats=["TIFF"]).mode == "1"
    with Image.open(name) as page:
        page.save("a.tiff", save_all=True, append_images=[scan(paper=200)])
    clean("a.tiff", "cleaned.tiff")
    assert [page.pixels.max() for page in files.read_pages("cleaned.tiff")] == [255, 255]


@pytest.mark.parametrize(
    ("name", "save_as", "options"),
    [
        ("a.png", "GIF", {}),
        ("a.jpg", "PNG", {}),
        ("a.png", "PDF", {}),
        ("a.png", "PNG", {"save_all": True, "append_images": [scan()]}),
        ("a.webp", "WEBP", {"lossless": True, "save_all": True, "append_images": [scan()]}),
        ("a.png", "PNG", {"transparency": 40}),
        ("a.jpg", "JPEG", {"quality": 100, "icc_profile": b"a profile"}),
        ("a.jpg", "JPEG", {"quality": 100, "exif": SIDEWAYS}),
    ],
)
def test_a_file_that_holds_more_than_its_clean_page_is_not_copied(name, save_as, options):
    scan(paper=255).save(name, save_as, **options)
    clean(name, f"cleaned_{name}")
    with Image.open(f"cleaned_{name}") as image:
        assert image.format == {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}[Path(name).suffix]
        assert (getattr(image, "n_frames", 1), image.has_transparency_data) == (1, False)
        assert (image.info.get("icc_profile"), image.getexif().get(274, 1)) == (None, 1)


def described(suffix):
    """Return Pillow's options to save an image with what it tells about itself."""
    exif = Image.Exif()
    exif.update(TAGS | {0x0112: 1, 34665: {36867: "2019:12:31 23:59:59", 40962: 90}})
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Author", "Zoë")
    return {
        "tif": {"tiffinfo": TAGS, "compression": "tiff_lzw"},
        "jpg": {"exif": exif, "xmp": b"<x/>", "comment": b"by hand"},
        "png": {"exif": exif, "pnginfo": text},
        "webp": {"exif": exif, "xmp": b"<x/>"},
        "gif": {"comment": b"by hand"},
    }[suffix]


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp"])
def test_what_an_image_tells_about_itself_is_kept(suffix):
    source, target = Path(f"a.{suffix}"), Path(f"b.{suffix}")
    scan().save(source, **described(suffix))
    assert clean(source, target)["notes"] == []
    with Image.open(source) as before, Image.open(target) as after:
        before.load()
        after.load()
        for tag in TAGS:
            assert after.getexif()[tag] == before.getexif()[tag]
        for key in ("xmp", "comment"):
            assert after.info.get(key) == before.info.get(key)
        assert getattr(after, "text", None) == getattr(before, "text", None)
        exif = after.getexif().get_ifd(34665)
        assert exif == ({} if suffix == "tif" else {36867: "2019:12:31 23:59:59"})
    assert AUTHOR in target.read_bytes()
    assert COPYRIGHT in target.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ("gif", "png", "metadata is lost (comment)"),
        ("jpg", "png", "metadata is lost (comment)"),
        ("jpg", "tif", "metadata is lost (EXIF, comment)"),
        ("jpg", "pdf", "page 1: metadata is lost (EXIF, XMP, comment, tags)"),
    ],
)
def test_what_a_format_cannot_tell_about_an_image_is_reported(old, new, note):
    scan().save(f"a.{old}", **described(old))
    assert clean(f"a.{old}", f"b.{new}")["notes"] == [note]


def test_damaged_or_too_long_metadata_is_left_out():
    scan().save("a.jpg", **described("jpg"))
    damaged = Path("a.jpg").read_bytes().replace(b"2019:12:31 23:59:59", b"\xff" * 19)
    Path("damaged.jpg").write_bytes(damaged.replace(b"Exif\0\0MM", b"Exif\0\0MX"))
    assert clean("damaged.jpg", "b.jpg")["notes"] == []
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "x" * 70_000)
    exif = Image.Exif()
    exif[270] = "x" * 70_000
    scan().save("long.png", pnginfo=text, exif=exif)
    assert "metadata is lost (XMP, tags)" in clean("long.png", "c.jpg")["notes"]


@pytest.mark.parametrize(
    ("exif", "xmp"),
    [
        (SIDEWAYS, b'<x tiff:Orientation="6"/>'),
        (Image.Exif(), b'<x tiff:Orientation="6"/>'),
        (Image.Exif(), b"<x><tiff:Orientation>6</tiff:Orientation></x>"),
    ],
)
def test_a_scan_lying_on_its_side_is_turned_with_its_resolution(exif, xmp):
    scan().save("a.jpg", exif=exif, xmp=xmp, dpi=(200, 100))
    clean("a.jpg", "b.jpg")
    with Image.open("b.jpg") as image:
        assert image.size == (120, 90)
        assert image.info["dpi"] == (100, 200)
        assert 0x0112 not in image.getexif()
        assert b"Orientation" not in image.info["xmp"]


# ---------------------------------------------------------------- PDF


def write_pdf(path, *pages):
    """Write a PDF. Each page is its size in points, and functions that add something to it."""
    pdf = pypdfium2.PdfDocument.new()
    for size, *steps in pages:
        sheet = pdf.new_page(*size)
        for step in steps:
            step(sheet)
        sheet.gen_content()
    pdf.save(path)


def page_of(*steps):
    """Write a PDF of one page, 72x96 points, and return it read."""
    write_pdf("a.pdf", ((72, 96), *steps))
    return next(files.read_pages("a.pdf"))


def picture_page(picture, dpi, *steps):
    """Return a page for `write_pdf` that is covered by a picture."""
    size = picture.width / dpi[0] * 72, picture.height / dpi[1] * 72
    return size, place(picture, 0, 0, *size), *steps


def place(picture, left, bottom, width, height):
    """Return a function that puts a picture on a page, in points, without loss."""

    def step(sheet):
        content = io.BytesIO()
        picture.convert("1" if picture.mode == "1" else "P").save(content, "PDF")
        carrier = pypdfium2.PdfDocument(content.getvalue())
        carrier_width, carrier_height = carrier.get_page_size(0)
        item = carrier.page_as_xobject(0, sheet.pdf).as_pageobject()
        matrix = pypdfium2.PdfMatrix().scale(width / carrier_width, height / carrier_height)
        item.set_matrix(matrix.translate(left, bottom))
        sheet.insert_obj(item)

    return step


def write(text, group=False, color=None, size=9.0):
    """Return a function that writes text on a page, in a color, or invisible; size in points."""

    def step(sheet):
        owner = pypdfium2.PdfDocument.new() if group else sheet.pdf
        line = raw.FPDFPageObj_NewTextObj(owner, b"Helvetica", size)
        content = ctypes.create_string_buffer((text + "\0").encode("utf-16-le"))
        raw.FPDFText_SetText(line, ctypes.cast(content, ctypes.POINTER(ctypes.c_ushort)))
        if color:
            raw.FPDFPageObj_SetFillColor(line, *color, 255)
        else:
            raw.FPDFTextObj_SetTextRenderMode(line, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
        carrier = owner.new_page(*sheet.get_size()) if group else sheet
        raw.FPDFPage_InsertObject(carrier, line)
        if group:
            carrier.gen_content()
            sheet.insert_obj(owner.page_as_xobject(0, sheet.pdf).as_pageobject())

    return step


def fill(gray):
    """Return a function that fills a PDF's page with a gray rectangle."""

    def step(sheet):
        rectangle = raw.FPDFPageObj_CreateNewRect(0, 0, *sheet.get_size())
        raw.FPDFPageObj_SetFillColor(rectangle, gray, gray, gray, 255)
        raw.FPDFPath_SetDrawMode(rectangle, raw.FPDF_FILLMODE_ALTERNATE, False)
        raw.FPDFPage_InsertObject(sheet, rectangle)

    return step


def text_of(path):
    return pypdfium2.PdfDocument(path)[0].get_textpage().get_text_bounded()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pdf_pages_keep_size_rotation_crop_resolution_and_every_pixel(rotation):
    crop = (9, 18, 54, 54)  # points; 125x50 pixels
    turn = [lambda sheet: sheet.set_rotation(rotation), lambda sheet: sheet.set_cropbox(*crop)]
    write_pdf("a.pdf", *(picture_page(scan(ink=ink), (200, 100), *turn) for ink in (0, 80)))
    assert clean("a.pdf", "b.pdf")["pages"] == 2
    before, after = pypdfium2.PdfDocument("a.pdf"), pypdfium2.PdfDocument("b.pdf")
    for old, new in zip(before, after, strict=True):
        assert new.get_size() == old.get_size()
        assert new.get_rotation() == rotation
        assert new.get_cropbox() == old.get_cropbox() == crop
        assert new.get_mediabox() == old.get_mediabox()
    for old, new in zip(files.read_pages("a.pdf"), files.read_pages("b.pdf"), strict=True):
        assert new.dpi == pytest.approx((100, 200) if rotation % 180 else (200, 100))
        expected = np.round(whiten(old.pixels / np.float32(255), None) * 255)
        np.testing.assert_array_equal(new.pixels, expected)
        assert new.pixels.min() < 255


@pytest.mark.parametrize(
    ("width", "height", "page_size"),
    [
        (1240, 1754, (595.276, 841.89)),  # A4 at 150 dpi, not to the pixel
        (1240, 1754, (595, 842)),
        (1748, 2480, (420, 595)),  # A5 at 300 dpi
    ],
)
def test_pixels_of_a_pdf_are_read_unchanged(width, height, page_size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), np.uint8))

    def cover(sheet):
        image = pypdfium2.PdfImage.new(sheet.pdf)
        image.set_bitmap(pypdfium2.PdfBitmap.from_pil(picture))
        image.set_matrix(pypdfium2.PdfMatrix().scale(*page_size))
        sheet.insert_obj(image)

    write_pdf("a.pdf", (page_size, cover))
    np.testing.assert_array_equal(next(files.read_pages("a.pdf")).pixels[..., 0], picture)


@pytest.mark.parametrize("group", [False, True])
def test_an_invisible_text_layer_stays_in_a_pdf_and_is_lost_elsewhere(group):
    write_pdf("a.pdf", picture_page(scan(), (100, 100), write("what was read", group)))
    assert clean("a.pdf", "b.pdf")["notes"] == []
    assert text_of("b.pdf") == text_of("a.pdf") == "what was read"
    assert set(np.unique(pixels_of("b.pdf")[0])) == {20, 40, 255}
    # Cleaned once more it does not get one more layer.
    clean("b.pdf", "c.pdf")
    assert Path("c.pdf").stat().st_size < 1.2 * Path("b.pdf").stat().st_size
    assert clean("a.pdf", "b.tif")["notes"] == ["the text layer is lost; only PDF keeps it"]
    assert pixels_of("b.tif")[1] == pytest.approx((100, 100))


def test_a_page_of_text_that_cleaning_leaves_as_it_is_stays_text():
    scanned = picture_page(scan(300, 200), (100, 100))
    write_pdf("a.pdf", ((200, 100), write("a letter", color=BLACK)), scanned)
    assert clean("a.pdf", "b.pdf")["notes"] == []
    text, picture = pypdfium2.PdfDocument("b.pdf")
    [line] = text.get_objects()
    assert line.type == raw.FPDF_PAGEOBJ_TEXT
    assert raw.FPDFTextObj_GetTextRenderMode(line) == raw.FPDF_TEXTRENDERMODE_FILL
    assert next(iter(picture.get_objects())).type == raw.FPDF_PAGEOBJ_FORM
    assert [page.pixels.max() for page in files.read_pages("b.pdf")] == [255, 255]
    clean("a.pdf", "c.tif")
    assert [page.pixels.max() for page in files.read_pages("c.tif")] == [255, 255]
    before, *others = (pixels_of(name)[0] for name in ("a.pdf", "b.pdf", "c.tif"))
    for after in others:
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(("font_type", "is_lost"), [(3, True), (42, False)])
def test_text_that_does_not_survive_is_reported(font_type, is_lost):
    figure = Figure(figsize=(4, 3))
    figure.text(0.1, 0.5, "drawn by matplotlib", color="red")
    with rc_context({"pdf.fonttype": font_type}):
        figure.savefig("a.pdf")
    notes = clean("a.pdf", "b.pdf", gray=True)["notes"]
    assert ("page 1: some of the text layer is lost" in notes) == is_lost
    assert (text_of("b.pdf") == "") == is_lost


def test_annotations_and_signatures_that_are_lost_are_reported():
    annotate = raw.FPDFPage_CreateAnnot
    write_pdf("a.pdf", ((50, 50), lambda sheet: annotate(sheet, raw.FPDF_ANNOT_HIGHLIGHT)))
    assert clean("a.pdf", "b.pdf")["notes"] == []
    assert clean("a.pdf", "b.png")["notes"] == ["annotations are lost; only PDF keeps them"]
    Path("signed.pdf").write_text(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R"
        "/AcroForm<</Fields[4 0 R]/SigFlags 3>>>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]/Annots[4 0 R]>>endobj\n"
        "4 0 obj<</Type/Annot/Subtype/Widget/FT/Sig/T(s)/Rect[0 0 0 0]/P 3 0 R/V 5 0 R>>endobj\n"
        "5 0 obj<</Type/Sig/Filter/Adobe.PPKLite/Contents<00>/ByteRange[0 1 2 3]>>endobj\n"
        "trailer<</Root 1 0 R/Size 6>>\n"
    )
    assert "its signature is no longer valid" in clean("signed.pdf", "c.pdf")["notes"]
    assert "its signature is lost" in clean("signed.pdf", "c.png")["notes"]


@pytest.mark.parametrize("color", [BLUE, BLACK])
def test_a_stamp_on_a_one_bit_page_stays(color):
    picture = place(bits(300, 400), 0, 0, 72, 96)
    without, page = page_of(picture), page_of(picture, write("RECEIVED", color=color))
    assert without.bilevel
    assert page.bilevel == (color == BLACK)
    stamp = (page.pixels != without.pixels).any(-1)
    assert stamp.sum() > 300
    mean = page.pixels[stamp].mean(0)
    assert mean[0] < 150
    assert len(mean) == 1 if page.bilevel else mean[2] - mean[0] > 90


@pytest.mark.parametrize(
    ("font_size", "expected"), [(None, 72), (9, 96), (12, 72), (4, 72 * 2**0.5)]
)
def test_a_coarse_picture_with_small_text_is_rendered_larger(font_size, expected):
    """To letters of 12 pixels, but at most to twice as many pixels."""
    steps = [write("small", color=BLACK, size=font_size)] if font_size else []
    write_pdf("a.pdf", picture_page(scan(), (72, 72), *steps))
    assert next(files.read_pages("a.pdf")).dpi == pytest.approx((expected, expected))


@pytest.mark.parametrize("strips", [1, 2, 8])
def test_strips_of_a_one_bit_scan_keep_its_resolution_and_depth(strips):
    rows, height = 1200 // strips, 96 / strips

    def strip(number):
        picture = bits().crop((0, rows * number, 900, rows * (number + 1)))
        return place(picture, 0, 96 - height * (number + 1), 72, height)

    page = page_of(*map(strip, range(strips)))
    assert page.bilevel
    assert page.dpi == pytest.approx((900, 900), rel=0.01)
    np.testing.assert_array_equal(page.pixels[..., 0], np.asarray(bits()) * 255)
    assert clean("a.pdf", "b.pdf")["notes"] == []


def test_of_two_halves_of_a_page_the_finer_one_counts():
    page = page_of(place(scan(200, 300), 0, 48, 72, 48), place(scan(100, 150), 0, 0, 72, 48))
    assert page.dpi == pytest.approx((300, 300), rel=0.01)
    assert not page.lowered


@pytest.mark.parametrize(("gray", "bilevel"), [(255, True), (200, False)])
def test_a_rectangle_behind_a_one_bit_image(gray, bilevel):
    page = page_of(fill(gray), place(bits(), 0, 16, 72, 80))
    assert page.bilevel == bilevel
    assert page.dpi == pytest.approx((900, 1080), rel=0.01)


def test_a_lower_resolution_is_reported(monkeypatch):
    stamp = Image.new("L", (450, 600), 40)
    page = page_of(place(scan(600, 450), 0, 0, 72, 96), place(stamp, 0, 0, 18, 24))
    assert page.dpi == pytest.approx((450, 450))
    assert clean("a.pdf", "b.pdf")["notes"][0] == "page 1: 1800 dpi lowered to 450"
    monkeypatch.setattr(images, "MAX_PIXELS", 30_000)
    page = page_of(fill(255))
    assert page.lowered == "300 dpi lowered to 150"
    assert page.dpi == pytest.approx((150, 150))
    assert page.pixels.size <= 3 * 30_000


def test_the_old_picture_is_not_left_in_a_pdf():
    noise = Image.fromarray(np.random.default_rng(0).integers(160, 255, (300, 300), np.uint8))
    write_pdf("a.pdf", picture_page(noise, (100, 100)))
    clean("a.pdf", "b.pdf")
    assert Path("a.pdf").stat().st_size > 80_000
    assert Path("b.pdf").stat().st_size < 10_000


def test_first_page_of_a_pdf_without_the_others():
    write_pdf("a.pdf", *(picture_page(scan(ink=ink), (100, 100)) for ink in (0, 80)))
    page = files.read_first_page("a.pdf")
    assert len(page.sheet.pdf) == 1
    assert page.pixels.min() == 0


# ---------------------------------------------------------------- errors


def encrypted(user):
    """Return an encrypted PDF with this hexadecimal /U."""
    return (
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
        "trailer<</Root 1 0 R/Size 4/ID[<00><00>]/Encrypt "
        f"<</Filter/Standard/V 1/R 2/P -4/O<{'0' * 64}>/U<{user}>>>>>\n"
    )


@pytest.mark.parametrize("suffix", ["pdf", "png"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("%PDF-1.4\nnothing", "a.pdf: damaged, or a PDF without pages"),
        ("", "a.pdf: damaged, or a PDF without pages"),
        (encrypted("0" * 64), "a.pdf: protected by a password; remove it first: qpdf"),
        # The PDF standard's check value of an empty user password.
        (
            encrypted("a2131391556101128e64737bb2f0fb1452b6beed66a7e0dbcc3276f389ab335f"),
            r"a.pdf: opens without .*: qpdf --decrypt \S*a.pdf",
        ),
    ],
)
def test_pdfs_that_are_refused(suffix, content, message):
    write_pdf("a.pdf")  # without pages
    if content:
        Path("a.pdf").write_text(content)
    with pytest.raises(UserError, match=message):
        clean("a.pdf", f"b.{suffix}")
    assert [path.name for path in Path().iterdir()] == ["a.pdf"]


def test_several_pages_do_not_fit_into_one_image():
    write_pdf("a.pdf", ((9, 9),), ((9, 9),))
    with pytest.raises(UserError, match=r"a.pdf: holds 2 pages; use --format pdf or tiff"):
        clean("a.pdf", "b.png")
    assert not Path("b.png").exists()


def test_pages_beyond_a_hundred_megapixels():
    small, large = Image.new("1", (90, 90)), Image.new("1", (10_001, 10_000))
    for name, pages in (("a.png", [large]), ("b.tif", [small, large])):
        pages[0].save(name, save_all=True, append_images=pages[1:])
        with pytest.raises(UserError, match=f"{name}: has more than 100 megapixels"):
            clean(name, f"out_{name}")
