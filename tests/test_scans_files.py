"""tools/scans: formats. The network is replaced by a function that turns light gray white."""

import ctypes
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image
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


def add_text(pdf, sheet, text, group=False, color=None):
    """Write text on a page, in a color, (red, green, blue), or invisible."""
    owner = pypdfium2.PdfDocument.new() if group else pdf
    line = raw.FPDFPageObj_NewTextObj(owner, b"Helvetica", 9.0)
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


def add_to_pdf(path, color):
    """Write visible text on the first page of a PDF."""
    pdf = pypdfium2.PdfDocument(path.read_bytes())
    sheet = pdf[0]
    add_text(pdf, sheet, "RECEIVED", color=color)
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
    noise = np.random.default_rng(0).integers(0, 120, (400, 400), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=85)
    assert clean(tmp_path / "a.jpg", tmp_path / "b.jpg")["notes"] == []
    Image.fromarray(noise).save(tmp_path / "c.jpg", quality=20)
    [note] = clean(tmp_path / "c.jpg", tmp_path / "d.jpg")["notes"]
    assert note.startswith("grew from ")


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


def test_text_over_a_coarse_picture_is_legible(tmp_path):
    path = tmp_path / "a.pdf"
    image_pdf(path, [Image.fromarray(scan())], (72, 72))
    assert next(files.read_pages(path)).dpi == pytest.approx((72, 72))
    add_to_pdf(path, (0, 0, 0))
    assert next(files.read_pages(path)).dpi == pytest.approx((300, 300))


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


def test_a_pdf_with_a_password_is_refused(tmp_path):
    secret = "0" * 64
    encrypt = f"<</Filter/Standard/V 1/R 2/P -4/O<{secret}>/U<{secret}>>>"
    (tmp_path / "a.pdf").write_text(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
        f"trailer<</Root 1 0 R/Size 4/ID[<00><00>]/Encrypt {encrypt}>>\n"
    )
    with pytest.raises(UserError, match=r"a.pdf: protected by a password; remove it"):
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
