"""tools/scans: formats. The network is replaced by a function that turns light gray white."""

import ctypes
import io
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image, PngImagePlugin
from pypdfium2 import raw

from common import images
from common.cli import UserError
from tools.scans import files
from tools.scans.document import Options, clean_file

SAME = Options()


def whiten(page):
    return np.where(page > 0.55, np.float32(1), page)


def scan(height=120, width=90, paper=200, ink=40):
    """Return a page with a frame and lines, uint8 (height, width)."""
    page = np.full((height, width), paper, np.uint8)
    page[10:-10:12, 12:-12] = ink
    page[10:-10, 12:16] = ink
    page[-8:-4, 20:30] = ink // 2  # no side is like another
    return page


def pixels_of(path):
    """Return (gray pixels as floats, dpi) of a PDF's first page or of an image."""
    page = next(files.read_pages(path))
    return page.pixels.mean(-1), page.dpi


def clean(source, target, options=SAME):
    return clean_file(whiten, Path(source), Path(target), options)


def image_pdf(path, pictures, dpi=(100, 100), text="", group=False, rotation=0, crop=None):
    """Write a PDF with one picture on each page, and a line of invisible text."""
    pdf = pypdfium2.PdfDocument.new()
    for picture in pictures:
        width, height = picture.width / dpi[0] * 72, picture.height / dpi[1] * 72
        sheet = pdf.new_page(width, height)
        image = pypdfium2.PdfImage.new(pdf)
        image.set_bitmap(pypdfium2.PdfBitmap.from_pil(picture))
        image.set_matrix(pypdfium2.PdfMatrix().scale(width, height))
        sheet.insert_obj(image)
        if text:
            add_text(pdf, sheet, text, group)
        sheet.gen_content()
        if rotation:
            sheet.set_rotation(rotation)
        if crop:
            sheet.set_cropbox(*crop)
    pdf.save(path)


def add_text(pdf, sheet, text, group=False, color=None, size=9.0):
    """Write text on a page, in a color, (red, green, blue), or invisible; size in points."""
    owner = pypdfium2.PdfDocument.new() if group else pdf
    line = raw.FPDFPageObj_NewTextObj(owner, b"Helvetica", size)
    content = ctypes.create_string_buffer((text + "\0").encode("utf-16-le"))
    raw.FPDFText_SetText(line, ctypes.cast(content, ctypes.POINTER(ctypes.c_ushort)))
    if color:
        red, green, blue = color
        raw.FPDFPageObj_SetFillColor(line, red, green, blue, 255)
    else:
        raw.FPDFTextObj_SetTextRenderMode(line, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
    if group:
        carrier = owner.new_page(*sheet.get_size())
        raw.FPDFPage_InsertObject(carrier, line)
        carrier.gen_content()
        sheet.insert_obj(owner.page_as_xobject(0, pdf).as_pageobject())
    else:
        raw.FPDFPage_InsertObject(sheet, line)


def add_to_pdf(path, color, size=9.0):
    """Write visible text on the first page of a PDF."""
    pdf = pypdfium2.PdfDocument(path.read_bytes())
    sheet = pdf[0]
    add_text(pdf, sheet, "RECEIVED", color=color, size=size)
    sheet.gen_content()
    pdf.save(path)


def text_of(path):
    return pypdfium2.PdfDocument(path)[0].get_textpage().get_text_bounded()


# ---------------------------------------------------------------- images and TIFF


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("dpi", [(300, 300), (200, 100), None])
def test_images_keep_format_size_and_resolution(tmp_path, suffix, dpi):
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    options = {"dpi": dpi} if dpi else {}
    if suffix == "webp" and dpi:
        options = {"exif": Image.Exif()}
        options["exif"].update({282: dpi[0], 283: dpi[1], 296: 2})
    Image.fromarray(scan()).save(source, **options)
    stored = pixels_of(source)[1]
    assert clean(source, target)["pages"] == 1
    with Image.open(source) as before, Image.open(target) as after:
        assert (after.format, after.size) == (before.format, before.size)
    pixels, cleaned_dpi = pixels_of(target)
    assert cleaned_dpi == (pytest.approx(dpi, rel=0.01) if dpi else stored)
    assert np.percentile(pixels, 80) == 255
    assert np.abs(pixels[10:-10, 13:15] - 40).max() < 30


def test_a_scan_lying_on_its_side_is_turned_with_its_resolution(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scan()).save(tmp_path / "a.jpg", exif=exif, dpi=(200, 100))
    clean(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.size == (120, 90)
        assert image.info["dpi"] == (100, 200)
        assert 0x0112 not in image.getexif()


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(scan()).save(tmp_path / "a.png")
    Image.fromarray(scan().astype(np.uint16) * 257).save(tmp_path / "b.tif")
    for name in ("a.png", "b.tif"):
        clean(tmp_path / name, tmp_path / f"cleaned_{name}")
    eight, sixteen = (pixels_of(tmp_path / f"cleaned_{name}")[0] for name in ("a.png", "b.tif"))
    np.testing.assert_array_equal(eight, sixteen)
    assert Image.open(tmp_path / "cleaned_b.tif").mode == "L"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_all_pages_of_a_tiff_are_cleaned_but_not_reduced_copies(tmp_path):
    pages = [Image.fromarray(scan(ink=ink)) for ink in (0, 40, 80)]
    small = Image.fromarray(scan(60, 45))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(
        tmp_path / "a.tif",
        save_all=True,
        append_images=[small, *pages[1:]],
        dpi=(150, 75),
        compression="tiff_lzw",
    )
    assert clean(tmp_path / "a.tif", tmp_path / "b.tif")["pages"] == 3
    with Image.open(tmp_path / "b.tif") as image:
        assert image.n_frames == 3
        for number, ink in enumerate((0, 40, 80)):
            image.seek(number)
            assert image.size == (90, 120)
            assert image.info["compression"] == "tiff_lzw"
            assert image.info["dpi"] == (150, 75)
            assert sorted(set(np.asarray(image)[10:-10].ravel())) == [ink, 255]


def test_a_one_bit_tiff_stays_one_and_does_not_grow(tmp_path):
    page = Image.fromarray(scan(1200, 900)).point(lambda v: 255 * (v > 128), "1")
    page.save(tmp_path / "a.tif", compression="group4", dpi=(300, 300))
    assert clean(tmp_path / "a.tif", tmp_path / "b.tif")["notes"] == []
    with Image.open(tmp_path / "b.tif") as image:
        assert (image.mode, image.info["compression"]) == ("1", "group4")
        np.testing.assert_array_equal(np.asarray(image), np.asarray(page))
    assert (tmp_path / "b.tif").stat().st_size <= (tmp_path / "a.tif").stat().st_size


@pytest.mark.parametrize("suffix", ["png", "tif", "pdf"])
def test_bilevel_pages(tmp_path, suffix):
    Image.fromarray(scan(600, 400)).save(tmp_path / "a.png", dpi=(300, 300))
    clean(tmp_path / "a.png", tmp_path / f"b.{suffix}", Options(bilevel=True))
    if suffix == "pdf":
        [image] = pypdfium2.PdfDocument(tmp_path / "b.pdf")[0].get_objects([raw.FPDF_PAGEOBJ_IMAGE])
        assert image.get_metadata().bits_per_pixel == 1
        assert image.get_filters() == ["CCITTFaxDecode"]
    else:
        assert Image.open(tmp_path / f"b.{suffix}").mode == "1"
    assert set(np.unique(pixels_of(tmp_path / f"b.{suffix}")[0])) == {0, 255}


def test_growth_is_reported_and_a_jpeg_lowers_its_quality_first(tmp_path):
    noise = np.random.default_rng(0).integers(80, 200, (400, 400), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=85)
    assert clean(tmp_path / "a.jpg", tmp_path / "b.jpg")["notes"] == []
    Image.fromarray(noise).save(tmp_path / "c.jpg", quality=20)
    [note] = clean(tmp_path / "c.jpg", tmp_path / "d.jpg")["notes"]
    assert note.startswith("grew from ")


AUTHOR, COPYRIGHT = "Zoë".encode(), "© Zoë".encode("latin-1")
TAGS = {270: "a letter", 306: "2020:01:02 03:04:05", 315: AUTHOR, 33432: COPYRIGHT}


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
    }[suffix]


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp"])
def test_what_an_image_tells_about_itself_is_kept(tmp_path, suffix):
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    Image.fromarray(scan()).save(source, **described(suffix))
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


def test_what_a_format_cannot_tell_about_an_image_is_reported(tmp_path):
    Image.fromarray(scan()).save(tmp_path / "a.jpg", **described("jpg"))
    for suffix, note in (
        ("png", "metadata is lost (comment)"),
        ("tif", "metadata is lost (EXIF, comment)"),
        ("pdf", "page 1: metadata is lost (EXIF, XMP, comment, tags)"),
    ):
        assert note in clean(tmp_path / "a.jpg", tmp_path / f"b.{suffix}")["notes"]
    damaged = (tmp_path / "a.jpg").read_bytes().replace(b"2019:12:31 23:59:59", b"\xff" * 19)
    (tmp_path / "damaged.jpg").write_bytes(damaged.replace(b"Exif\0\0MM", b"Exif\0\0MX"))
    clean(tmp_path / "damaged.jpg", tmp_path / "c.jpg")


# ---------------------------------------------------------------- PDF


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pdf_pages_keep_size_rotation_crop_resolution_and_every_pixel(tmp_path, rotation):
    pictures = [Image.fromarray(scan(ink=ink)) for ink in (0, 80)]
    crop = (9, 18, 54, 54)  # points; 125x50 pixels
    image_pdf(tmp_path / "a.pdf", pictures, (200, 100), rotation=rotation, crop=crop)
    assert clean(tmp_path / "a.pdf", tmp_path / "b.pdf")["pages"] == 2
    before, after = (pypdfium2.PdfDocument(tmp_path / name) for name in ("a.pdf", "b.pdf"))
    assert len(after) == 2
    for old, new in zip(before, after, strict=True):
        assert new.get_size() == old.get_size()
        assert new.get_rotation() == rotation
        assert new.get_cropbox() == old.get_cropbox() == crop
        assert new.get_mediabox() == old.get_mediabox()
    old_pages, new_pages = (files.read_pages(tmp_path / name) for name in ("a.pdf", "b.pdf"))
    for old, new in zip(old_pages, new_pages, strict=True):
        assert new.dpi == pytest.approx((100, 200) if rotation % 180 else (200, 100))
        expected = np.round(whiten(old.pixels / np.float32(255)) * 255)
        np.testing.assert_array_equal(new.pixels, expected)
        assert new.pixels.min() < 255


@pytest.mark.parametrize("group", [False, True])
def test_an_invisible_text_layer_stays(tmp_path, group):
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(scan())], text="what was read", group=group)
    assert clean(tmp_path / "a.pdf", tmp_path / "b.pdf")["notes"] == []
    assert text_of(tmp_path / "b.pdf") == text_of(tmp_path / "a.pdf") == "what was read"
    assert set(np.unique(pixels_of(tmp_path / "b.pdf")[0])) == {20, 40, 255}
    # Cleaned once more it does not get one more layer.
    clean(tmp_path / "b.pdf", tmp_path / "c.pdf")
    assert (tmp_path / "c.pdf").stat().st_size < 1.2 * (tmp_path / "b.pdf").stat().st_size


def test_lost_text_and_annotations_are_reported(tmp_path):
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(scan())], text="what was read")
    assert clean(tmp_path / "a.pdf", tmp_path / "b.tif")["notes"] == [
        "the text layer is lost; only PDF keeps it"
    ]
    assert pixels_of(tmp_path / "b.tif")[1] == pytest.approx((100, 100))
    pdf = pypdfium2.PdfDocument.new()
    raw.FPDFPage_CreateAnnot(pdf.new_page(50, 50), raw.FPDF_ANNOT_HIGHLIGHT)
    pdf.save(tmp_path / "c.pdf")
    assert clean(tmp_path / "c.pdf", tmp_path / "d.pdf")["notes"] == []
    assert clean(tmp_path / "c.pdf", tmp_path / "d.png")["notes"] == [
        "annotations are lost; only PDF keeps them"
    ]


@pytest.mark.parametrize("color", [(0, 0, 255), (0, 0, 0)])
def test_a_stamp_on_a_one_bit_page_stays(tmp_path, color):
    path = tmp_path / "a.pdf"
    Image.fromarray(scan(300, 400)).convert("1", dither=0).save(path, resolution=200)
    [without] = files.read_pages(path)
    assert without.bilevel
    add_to_pdf(path, color)
    [page] = files.read_pages(path)
    assert page.bilevel == (color == (0, 0, 0))
    stamp = (page.pixels != without.pixels).any(-1)
    assert stamp.sum() > 300
    mean = page.pixels[stamp].mean(0)
    assert mean[0] < 150
    assert len(mean) == 1 if page.bilevel else mean[2] - mean[0] > 90


@pytest.mark.parametrize(("font_size", "expected"), [(9, 96), (12, 72), (4, 72 * 2**0.5)])
def test_a_coarse_picture_with_small_text_is_rendered_larger(tmp_path, font_size, expected):
    """To letters of 12 pixels, but at most to twice as many pixels."""
    path = tmp_path / "a.pdf"
    image_pdf(path, [Image.fromarray(scan())], (72, 72))
    assert next(files.read_pages(path)).dpi == pytest.approx((72, 72))
    add_to_pdf(path, (0, 0, 0), font_size)
    assert next(files.read_pages(path)).dpi == pytest.approx((expected, expected))


def place(sheet, picture, left, bottom, width, height):
    """Put a picture on a page, in points; one of mode 1 stays 1-bit."""
    content = io.BytesIO()
    picture.save(content, "PDF")
    carrier = pypdfium2.PdfDocument(content.getvalue())
    carrier_width, carrier_height = carrier.get_page_size(0)
    item = carrier.page_as_xobject(0, sheet.pdf).as_pageobject()
    matrix = pypdfium2.PdfMatrix().scale(width / carrier_width, height / carrier_height)
    item.set_matrix(matrix.translate(left, bottom))
    sheet.insert_obj(item)


def fill(sheet, gray):
    """Fill a PDF's page with a gray rectangle."""
    rectangle = raw.FPDFPageObj_CreateNewRect(0, 0, *sheet.get_size())
    raw.FPDFPageObj_SetFillColor(rectangle, gray, gray, gray, 255)
    raw.FPDFPath_SetDrawMode(rectangle, raw.FPDF_FILLMODE_ALTERNATE, False)
    raw.FPDFPage_InsertObject(sheet, rectangle)


def page_of(path, *steps):
    """Write a PDF of one page, 72x96 points, to which functions add something; return it read."""
    pdf = pypdfium2.PdfDocument.new()
    sheet = pdf.new_page(72, 96)
    for step in steps:
        step(sheet)
    sheet.gen_content()
    pdf.save(path)
    return next(files.read_pages(path))


@pytest.mark.parametrize("strips", [1, 2, 8])
def test_strips_of_a_one_bit_scan_keep_its_resolution_and_depth(tmp_path, strips):
    picture = Image.fromarray(scan(1200, 900)).point(lambda v: 255 * (v > 128), "1")
    rows, height = 1200 // strips, 96 / strips

    def add(sheet):
        for number in range(strips):
            strip = picture.crop((0, rows * number, 900, rows * (number + 1)))
            place(sheet, strip, 0, 96 - height * (number + 1), 72, height)

    page = page_of(tmp_path / "a.pdf", add)
    assert page.bilevel
    assert page.dpi == pytest.approx((900, 900), rel=0.01)
    np.testing.assert_array_equal(page.pixels[..., 0], np.asarray(picture) * 255)
    assert clean(tmp_path / "a.pdf", tmp_path / "b.pdf")["notes"] == []


@pytest.mark.parametrize(("gray", "bilevel"), [(255, True), (200, False)])
def test_a_rectangle_behind_a_one_bit_image(tmp_path, gray, bilevel):
    picture = Image.fromarray(scan(1200, 900)).point(lambda v: 255 * (v > 128), "1")
    page = page_of(
        tmp_path / "a.pdf",
        lambda sheet: fill(sheet, gray),
        lambda sheet: place(sheet, picture, 0, 16, 72, 80),
    )
    assert page.bilevel == bilevel
    assert page.dpi == pytest.approx((900, 1080), rel=0.01)


def test_a_lower_resolution_is_reported(tmp_path, monkeypatch):
    large, stamp = Image.fromarray(scan(600, 450)), Image.new("L", (450, 600), 40)
    page = page_of(
        tmp_path / "a.pdf",
        lambda sheet: place(sheet, large, 0, 0, 72, 96),
        lambda sheet: place(sheet, stamp, 0, 0, 18, 24),
    )
    assert page.dpi == pytest.approx((450, 450))
    notes = clean(tmp_path / "a.pdf", tmp_path / "b.pdf")["notes"]
    assert notes[0] == "page 1: 1800 dpi lowered to 450"
    monkeypatch.setattr(images, "MAX_PIXELS", 30_000)
    page = page_of(tmp_path / "c.pdf", lambda sheet: fill(sheet, 255))
    assert page.lowered == "300 dpi lowered to 150"
    assert page.dpi == pytest.approx((150, 150))


def signed(path):
    """Write a PDF of one page with a signature that is not valid."""
    path.write_text(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R"
        "/AcroForm<</Fields[4 0 R]/SigFlags 3>>>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]/Annots[4 0 R]>>endobj\n"
        "4 0 obj<</Type/Annot/Subtype/Widget/FT/Sig/T(s)/Rect[0 0 0 0]/P 3 0 R/V 5 0 R>>endobj\n"
        "5 0 obj<</Type/Sig/Filter/Adobe.PPKLite/Contents<00>/ByteRange[0 1 2 3]>>endobj\n"
        "trailer<</Root 1 0 R/Size 6>>\n"
    )


def test_a_signature_that_becomes_invalid_is_reported(tmp_path):
    signed(tmp_path / "a.pdf")
    notes = clean(tmp_path / "a.pdf", tmp_path / "b.pdf")["notes"]
    assert "its signature is no longer valid" in notes
    assert "its signature is lost" in clean(tmp_path / "a.pdf", tmp_path / "b.png")["notes"]


def test_the_old_picture_is_not_left_in_a_pdf(tmp_path):
    noise = np.random.default_rng(0).integers(160, 255, (300, 300, 3), np.uint8)
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(noise)])
    clean(tmp_path / "a.pdf", tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").stat().st_size > 100_000
    assert (tmp_path / "b.pdf").stat().st_size < 10_000


def test_images_become_a_pdf_of_their_size(tmp_path):
    pages = [Image.fromarray(scan()), Image.fromarray(scan(60, 90))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], dpi=(90, 60))
    clean(tmp_path / "a.tif", tmp_path / "a.pdf")
    sizes = [sheet.get_size() for sheet in pypdfium2.PdfDocument(tmp_path / "a.pdf")]
    assert sizes == [(72, 144), (72, 72)]
    assert pixels_of(tmp_path / "a.pdf")[1] == (90, 60)


# ---------------------------------------------------------------- errors


def test_several_pages_do_not_fit_into_one_image(tmp_path):
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(scan())] * 2)
    with pytest.raises(UserError, match=r"a.pdf: holds 2 pages; use --format pdf or tiff"):
        clean(tmp_path / "a.pdf", tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


# The PDF standard's check value of an empty user password, with `encrypted`'s other values.
EMPTY_PASSWORD = "a2131391556101128e64737bb2f0fb1452b6beed66a7e0dbcc3276f389ab335f"


def encrypted(path, owner, user):
    """Write an encrypted PDF with these hexadecimal /O and /U."""
    encrypt = f"<</Filter/Standard/V 1/R 2/P -4/O<{owner}>/U<{user}>>>"
    path.write_text(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
        f"trailer<</Root 1 0 R/Size 4/ID[<00><00>]/Encrypt {encrypt}>>\n"
    )


def test_a_pdf_with_a_password_is_refused(tmp_path):
    encrypted(tmp_path / "a.pdf", "0" * 64, "0" * 64)
    with pytest.raises(UserError, match=r"a.pdf: protected by a password; remove it first: qpdf"):
        clean(tmp_path / "a.pdf", tmp_path / "b.pdf")


def test_an_encrypted_pdf_that_opens_without_a_password_is_refused_with_the_way_out(tmp_path):
    encrypted(tmp_path / "a.pdf", "0" * 64, EMPTY_PASSWORD)
    with pytest.raises(UserError, match=r"a.pdf: opens without .*: qpdf --decrypt \S*a.pdf"):
        clean(tmp_path / "a.pdf", tmp_path / "b.pdf")


@pytest.mark.parametrize("damaged", [True, False])
@pytest.mark.parametrize("suffix", ["pdf", "png"])
def test_a_pdf_that_is_damaged_or_has_no_pages(tmp_path, suffix, damaged):
    if damaged:
        (tmp_path / "a.pdf").write_text("%PDF-1.4\nnothing")
    else:
        pypdfium2.PdfDocument.new().save(tmp_path / "a.pdf")
    with pytest.raises(UserError, match=r"a.pdf: damaged, or a PDF without pages"):
        clean(tmp_path / "a.pdf", tmp_path / f"b.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


def test_pages_beyond_a_hundred_megapixels(tmp_path, monkeypatch):
    small, large = Image.new("1", (90, 90)), Image.new("1", (10_001, 10_000))
    for name, pages in (("a.png", [large]), ("b.tif", [small, large])):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(UserError, match=f"{name}: has more than 100 megapixels"):
            clean(tmp_path / name, tmp_path / f"out_{name}")
    # A page of a PDF can be rendered at any resolution.
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    image_pdf(tmp_path / "c.pdf", [Image.fromarray(scan())])
    clean(tmp_path / "c.pdf", tmp_path / "d.pdf")
    old, new = (pypdfium2.PdfDocument(tmp_path / name)[0] for name in ("c.pdf", "d.pdf"))
    assert new.get_size() == old.get_size()
    assert pixels_of(tmp_path / "d.pdf")[0].size <= 10_000


def test_first_page_of_a_pdf_without_the_others(tmp_path):
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(scan(ink=ink)) for ink in (0, 80)])
    page = files.read_first_page(tmp_path / "a.pdf")
    assert len(page.sheet.pdf) == 1
    assert page.pixels.min() == 0
