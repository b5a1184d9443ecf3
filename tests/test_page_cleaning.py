"""Cleaning files: formats, colour, names, the record. The network is a stand-in: what is light
becomes white."""

import ctypes
import importlib.machinery
import json
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from conftest import ROOT, contents
from PIL import Image, ImageDraw
from pypdfium2 import raw

import clean_documents as script
from applications import page_cleaning, page_files, page_ink, page_record
from applications.page_cleaning import Options, clean_file
from applications.page_ink import lost_ink
from common import UserError, files, image_files

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
    """Return (grey pixels as numbers, dpi) of a PDF's first page or of an image."""
    page = next(page_files.read_pages(path))
    return page.pixels.mean(-1), page.dpi


def clean(source, target, options=SAME):
    return clean_file(whiten, Path(source), Path(target), options)


def image_pdf(path, pictures, dpi=(100, 100), text="", group=False, rotation=0, crop=None):
    """Write a PDF of one picture on each page, with a line of invisible text."""
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


def add_text(pdf, sheet, text, group=False, colour=None):
    """Write text on a page, in a colour, (red, green, blue), or else invisible."""
    owner = pypdfium2.PdfDocument.new() if group else pdf
    line = raw.FPDFPageObj_NewTextObj(owner, b"Helvetica", 9.0)
    content = ctypes.create_string_buffer((text + "\0").encode("utf-16-le"))
    raw.FPDFText_SetText(line, ctypes.cast(content, ctypes.POINTER(ctypes.c_ushort)))
    if colour:
        raw.FPDFPageObj_SetFillColor(line, *colour, 255)
    else:
        raw.FPDFTextObj_SetTextRenderMode(line, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
    if group:
        carrier = owner.new_page(*sheet.get_size())
        raw.FPDFPage_InsertObject(carrier, line)
        carrier.gen_content()
        sheet.insert_obj(owner.page_as_xobject(0, pdf).as_pageobject())
    else:
        raw.FPDFPage_InsertObject(sheet, line)


def text_of(path):
    return pypdfium2.PdfDocument(path)[0].get_textpage().get_text_bounded()


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "bmp"])
@pytest.mark.parametrize("dpi", [(300, 300), (200, 100), None])
def test_images_keep_format_size_and_resolution(tmp_path, ending, dpi):
    source, target = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    options = {"dpi": dpi} if dpi else {}
    if ending == "webp" and dpi:
        options = {"exif": Image.Exif()}
        options["exif"].update({282: dpi[0], 283: dpi[1], 296: 2})
    Image.fromarray(scan()).save(source, **options)
    stored = pixels_of(source)[1]
    assert clean(source, target)["pages"] == 1
    with Image.open(source) as before, Image.open(target) as after:
        assert (after.format, after.size) == (before.format, before.size)
    pixels, found = pixels_of(target)
    assert found == (pytest.approx(dpi, rel=0.01) if dpi else stored)
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


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_every_page_of_a_tiff_is_cleaned_and_reduced_copies_are_none(tmp_path):
    pages = [Image.fromarray(scan(ink=ink)) for ink in (0, 40, 80)]
    small = Image.fromarray(scan(60, 45))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    several = [small, *pages[1:]]
    pages[0].save(
        tmp_path / "a.tif",
        save_all=True,
        append_images=several,
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
    result = clean(tmp_path / "a.tif", tmp_path / "b.tif")
    assert result["notes"] == []
    with Image.open(tmp_path / "b.tif") as image:
        assert (image.mode, image.info["compression"]) == ("1", "group4")
        np.testing.assert_array_equal(np.asarray(image), np.asarray(page))
    assert (tmp_path / "b.tif").stat().st_size <= (tmp_path / "a.tif").stat().st_size


@pytest.mark.parametrize("ending", ["png", "tif", "pdf"])
def test_bilevel_pages(tmp_path, ending):
    Image.fromarray(scan(600, 400)).save(tmp_path / "a.png", dpi=(300, 300))
    clean(tmp_path / "a.png", tmp_path / f"b.{ending}", Options(bilevel=True))
    if ending == "pdf":
        [image] = pypdfium2.PdfDocument(tmp_path / "b.pdf")[0].get_objects([raw.FPDF_PAGEOBJ_IMAGE])
        assert image.get_metadata().bits_per_pixel == 1
        assert image.get_filters() == ["CCITTFaxDecode"]
    else:
        assert Image.open(tmp_path / f"b.{ending}").mode == "1"
    assert set(np.unique(pixels_of(tmp_path / f"b.{ending}")[0])) == {0, 255}


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
    pairs = zip(*(page_files.read_pages(tmp_path / n) for n in ("a.pdf", "b.pdf")), strict=True)
    for old, new in pairs:
        assert new.dpi == pytest.approx((100, 200) if rotation % 180 else (200, 100))
        expected = np.round(whiten(old.pixels / np.float32(255)) * 255)
        np.testing.assert_array_equal(new.pixels, expected)
        assert new.pixels.min() < 255


@pytest.mark.parametrize("group", [False, True])
def test_an_invisible_text_layer_is_kept(tmp_path, group):
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(scan())], text="what was read", group=group)
    assert clean(tmp_path / "a.pdf", tmp_path / "b.pdf")["notes"] == []
    assert text_of(tmp_path / "b.pdf") == text_of(tmp_path / "a.pdf") == "what was read"
    assert set(np.unique(pixels_of(tmp_path / "b.pdf")[0])) == {20, 40, 255}
    # What is cleaned once more has the same pages, not one more layer.
    clean(tmp_path / "b.pdf", tmp_path / "c.pdf")
    assert (tmp_path / "c.pdf").stat().st_size < 1.2 * (tmp_path / "b.pdf").stat().st_size


def test_text_that_cannot_be_kept_is_said(tmp_path):
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(scan())], text="what was read")
    assert clean(tmp_path / "a.pdf", tmp_path / "b.tif")["notes"] == [
        "the text layer is lost; only PDF keeps it"
    ]
    assert pixels_of(tmp_path / "b.tif")[1] == pytest.approx((100, 100))


def add_to_pdf(path, **options):
    """Write visible text on the first page of a PDF."""
    pdf = pypdfium2.PdfDocument(path.read_bytes())
    sheet = pdf[0]
    add_text(pdf, sheet, "RECEIVED", **options)
    sheet.gen_content()
    pdf.save(path)


@pytest.mark.parametrize("colour", [(0, 0, 255), (0, 0, 0)])
def test_a_stamp_on_a_page_of_one_bit_stays(tmp_path, colour):
    path = tmp_path / "a.pdf"
    Image.fromarray(scan(300, 400)).convert("1", dither=0).save(path, resolution=200)
    [without] = page_files.read_pages(path)
    assert without.bilevel
    add_to_pdf(path, colour=colour)
    [page] = page_files.read_pages(path)
    assert page.bilevel == (colour == (0, 0, 0))
    stamp = (page.pixels != without.pixels).any(-1)
    assert stamp.sum() > 300
    found = page.pixels[stamp].mean(0)
    assert found[0] < 150
    assert len(found) == 1 if page.bilevel else found[2] - found[0] > 90


def test_text_is_legible_over_a_coarse_picture(tmp_path):
    path = tmp_path / "a.pdf"
    image_pdf(path, [Image.fromarray(scan())], (72, 72))
    assert next(page_files.read_pages(path)).dpi == pytest.approx((72, 72))
    add_to_pdf(path, colour=(0, 0, 0))
    assert next(page_files.read_pages(path)).dpi == pytest.approx((300, 300))


def test_annotations_that_cannot_be_kept_are_said(tmp_path):
    pdf = pypdfium2.PdfDocument.new()
    raw.FPDFPage_CreateAnnot(pdf.new_page(50, 50), raw.FPDF_ANNOT_HIGHLIGHT)
    pdf.save(tmp_path / "a.pdf")
    assert clean(tmp_path / "a.pdf", tmp_path / "b.pdf")["notes"] == []
    assert clean(tmp_path / "a.pdf", tmp_path / "b.png")["notes"] == [
        "annotations are lost; only PDF keeps them"
    ]


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


def test_several_pages_do_not_fit_into_one_image(tmp_path):
    image_pdf(tmp_path / "a.pdf", [Image.fromarray(scan())] * 2)
    with pytest.raises(UserError, match=r"a.pdf: holds 2 pages; take --format pdf or tiff"):
        clean(tmp_path / "a.pdf", tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_a_password_is_asked_to_be_removed(tmp_path):
    secret = "0" * 64
    encrypt = f"<</Filter/Standard/V 1/R 2/P -4/O<{secret}>/U<{secret}>>>"
    (tmp_path / "a.pdf").write_text(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        "2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        "3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
        f"trailer<</Root 1 0 R/Size 4/ID[<00><00>]/Encrypt {encrypt}>>\n"
    )
    with pytest.raises(UserError, match=r"a.pdf: is protected by a password; remove that first"):
        clean(tmp_path / "a.pdf", tmp_path / "b.pdf")


def test_a_pdf_that_is_none(tmp_path):
    (tmp_path / "a.pdf").write_text("%PDF-1.4\nnothing")
    with pytest.raises(UserError, match=r"a.pdf: cannot be read as a PDF"):
        clean(tmp_path / "a.pdf", tmp_path / "b.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


@pytest.mark.parametrize("ending", ["pdf", "png"])
def test_a_pdf_without_pages(tmp_path, ending):
    pypdfium2.PdfDocument.new().save(tmp_path / "a.pdf")
    with pytest.raises(
        UserError, match=r"a.pdf: cannot be read as a PDF; damaged, or without a page"
    ):
        clean(tmp_path / "a.pdf", tmp_path / f"b.{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


def test_pages_beyond_a_hundred_megapixels(tmp_path, monkeypatch):
    assert image_files.MAX_PIXELS == 100_000_000
    monkeypatch.setattr(image_files, "MAX_PIXELS", 10_000)
    small, large = Image.fromarray(scan(90, 90)), Image.fromarray(scan())
    for name, pages in (("a.png", [large]), ("b.tif", [small, large.copy()])):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(UserError, match=f"{name}: has more than .* scale it down"):
            clean(tmp_path / name, tmp_path / f"out_{name}")
    # A page of a PDF can be shown at any resolution.
    image_pdf(tmp_path / "c.pdf", [large])
    clean(tmp_path / "c.pdf", tmp_path / "d.pdf")
    old, new = (pypdfium2.PdfDocument(tmp_path / name)[0] for name in ("c.pdf", "d.pdf"))
    assert new.get_size() == old.get_size()
    assert pixels_of(tmp_path / "d.pdf")[0].size <= 10_000


def test_growth_is_said_and_a_jpeg_gives_up_quality_first(tmp_path):
    noise = np.random.default_rng(0).integers(0, 120, (400, 400), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=85)
    assert clean(tmp_path / "a.jpg", tmp_path / "b.jpg")["notes"] == []
    Image.fromarray(noise).save(tmp_path / "c.jpg", quality=20)
    [note] = clean(tmp_path / "c.jpg", tmp_path / "d.jpg")["notes"]
    assert note.startswith("grew from ")


# ---------------------------------------------------------------- colour and ink


def stamped():
    """Return tan paper with black lines, a red stamp and a yellow marker, uint8 (240, 240, 3)."""
    page = Image.new("RGB", (240, 240), (225, 205, 175))
    pen = ImageDraw.Draw(page)
    for top in range(20, 220, 20):
        pen.line((20, top, 220, top), fill=(40, 38, 35), width=3)
    pen.rectangle((60, 85, 160, 155), outline=(190, 30, 40), width=6)
    pen.rectangle((150, 185, 220, 195), fill=(225, 190, 30))
    return np.asarray(page)


def test_coloured_ink_keeps_its_colour_and_paper_turns_white():
    cleaned, _ = page_cleaning.clean_page(whiten, stamped())
    assert cleaned.shape == (240, 240, 3)
    np.testing.assert_array_equal(cleaned[:15], 255)
    red, green, blue = cleaned[120, 62].astype(int)
    assert red > 190
    assert max(green, blue) < 80
    red, green, blue = cleaned[190, 180].astype(int)
    assert min(red, green) > 200
    assert blue < 80
    assert np.ptp(cleaned[40, 100].astype(int)) == 0
    assert cleaned[40, 100].max() < 80


def test_a_strong_colour_stays_whatever_the_network_says():
    cleaned, _ = page_cleaning.clean_page(np.ones_like, stamped())
    assert cleaned[120, 62, 0] > 190 > 80 > cleaned[120, 62, 1]
    np.testing.assert_array_equal(cleaned[40, 25:200], 255)


def test_grey_is_grey_and_a_grey_scan_in_colour_becomes_one_channel():
    cleaned, _ = page_cleaning.clean_page(whiten, stamped(), colour=False)
    assert cleaned.shape == (240, 240, 1)
    assert cleaned[120, 62, 0] < 80
    grey = np.repeat(scan()[..., np.newaxis], 3, -1)
    assert page_cleaning.clean_page(whiten, grey)[0].shape == (120, 90, 1)


def test_lost_ink_is_found_and_none_on_a_page_that_keeps_it():
    rng = np.random.default_rng(0)
    clean_page = np.ones((400, 400, 1), "float32")
    clean_page[20:380:20, 20:380] = clean_page[21:380:20, 20:380] = 0.3
    shade = np.linspace(0.6, 0.9, 400, dtype="float32")[:, None, None]
    dirty = np.clip(clean_page * shade + rng.normal(0, 0.02, clean_page.shape), 0, 1)
    dirty = dirty.astype("float32")
    assert lost_ink(dirty, clean_page) == 0
    half = clean_page.copy()
    half[200:] = 1
    assert 0.4 < lost_ink(dirty, half) < 0.6
    assert lost_ink(dirty, np.ones_like(dirty)) == 1


def test_lost_ink_is_said_on_the_line_of_its_file(tmp_path):
    Image.fromarray(scan()).save(tmp_path / "a.png")
    [note] = clean_file(np.ones_like, tmp_path / "a.png", tmp_path / "b.png", SAME)["notes"]
    assert note == "page 1: 100% of what looks like ink is gone, compare"


# ---------------------------------------------------------------- names, the record, the loop


@pytest.fixture
def run(monkeypatch):
    """Return a function that cleans files as the script does, and gives the exit code."""
    monkeypatch.setattr(page_cleaning, "cleaner", lambda network: whiten)

    def clean(*inputs, force=False, weights=0, out="out", **options):
        network = types.SimpleNamespace(
            name="clean_documents", get_weights=lambda: [np.full(3, weights)]
        )
        return page_cleaning.clean_files(network, inputs, out, Options(**options), force)

    return clean


def write_scans(*names):
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan(ink=number)).save(name)


def written(folder="out"):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(folder)) for path in files)


def test_outputs_keep_names_and_subfolders(run, capsys):
    write_scans("in/a.png", "in/deep/b.JPG", "in/deep/c.gif", "in/.hidden/d.png", "in/._a.png")
    Path("in/notes.txt").write_text("no scan")
    assert run("in") == 0
    assert written() == ["a.png", "cleaned.json", "deep/b.JPG", "deep/c.png"]
    assert "3 of 3 files are in out" in capsys.readouterr().out
    run("in", out="pdf", format="pdf")
    assert written("pdf") == ["a.pdf", "cleaned.json", "deep/b.pdf", "deep/c.pdf"]
    run("in", out="bits", bilevel=True)
    assert written("bits") == ["a.png", "cleaned.json", "deep/b.tif", "deep/c.png"]


def test_a_pattern_that_the_shell_left(run):
    write_scans("a1.png", "a2.png", "b[1].png")
    assert run("a?.png", "b[1].png") == 0
    assert written() == ["a1.png", "a2.png", "b[1].png", "cleaned.json"]
    with pytest.raises(UserError, match=r"c\*.png: no file matches"):
        run("c*.png")


def test_what_is_cleaned_already_is_not_taken_out_of_a_folder(run):
    write_scans("in/a.png")
    run("in", out="elsewhere")
    Path("elsewhere").rename("in/cleaned")
    run("in")
    assert written() == ["a.png", "cleaned.json"]


def test_the_record_says_what_became_of_what(run):
    write_scans("a.png")
    run("a.png", grey=True)
    entry = json.loads(Path("out/cleaned.json").read_text())["a.png"]
    assert entry["input"] == str(Path("a.png").resolve())
    assert entry["input_sha256"] == files.sha256("a.png")
    assert entry["sha256"] == files.sha256("out/a.png")
    assert entry["options"] == {"format": "same", "bilevel": False, "grey": True}
    assert len(entry["model"]) == 64


def test_the_same_again_is_skipped(run, capsys):
    write_scans("a.png", "b.png")
    run("a.png")
    time = os.stat("out/a.png").st_mtime_ns
    assert run("a.png", "b.png") == 0
    assert os.stat("out/a.png").st_mtime_ns == time
    assert "1 of 2 files are there already" in capsys.readouterr().out
    assert written() == ["a.png", "b.png", "cleaned.json"]


@pytest.mark.parametrize("change", ["file", "content", "model", "options", "unlisted"])
def test_something_else_of_that_name_is_refused_and_forced(run, change):
    write_scans("a.png", "other/a.png", "b.png")
    run("a.png")
    before = contents("out")
    inputs, options, words = ["b.png", "a.png"], {}, "a.png, which has changed since; --force"
    if change == "file":
        inputs, words = ["b.png", "other/a.png"], r"/a.png, not from other/a.png; --force"
    elif change == "content":
        Image.fromarray(scan(ink=99)).save("a.png")
    elif change == "model":
        options, words = {"weights": 1}, "a.png, cleaned by another model"
    elif change == "options":
        options, words = {"grey": True}, "a.png, cleaned with other options"
    else:
        Path("out/cleaned.json").write_text("{}")
        before, words = contents("out"), "out/a.png: exists already"
    with pytest.raises(UserError, match=words):
        run(*inputs, **options)
    assert contents("out") == before
    if change == "unlisted":
        with pytest.raises(UserError, match=words):
            run(*inputs, force=True)
        assert contents("out") == before
    else:
        assert run(*inputs, force=True, **options) == 0
        assert run(*inputs, **options) == 0


def test_force_does_not_replace_what_was_changed_since(run):
    write_scans("a.png")
    run("a.png")
    Path("out/a.png").write_text("mine now")
    before = contents("out")
    with pytest.raises(UserError, match=r"out/a.png: was changed after it was cleaned"):
        run("a.png", grey=True, force=True)
    assert contents("out") == before


@pytest.mark.parametrize(
    ("inputs", "out", "words"),
    [
        (["a.png", "none.png"], "out", "none.png: no such file"),
        (["a.png", "empty"], "out", "empty: holds no PDF and no image"),
        (["a.png", "x/a.png"], "out", r"a.png and x/a.png would both become a.png"),
        (["a.png"], ".", "a.png: lies in .; choose another"),
        (["x"], "x", "x/a.png: lies in x; choose another"),
    ],
)
def test_inputs_are_checked_before_the_first_is_cleaned(run, inputs, out, words):
    write_scans("a.png", "x/a.png")
    Path("empty").mkdir()
    before = contents(".")
    with pytest.raises(UserError, match=words):
        run(*inputs, out=out)
    assert contents(".") == before
    assert not Path("out").exists()


@pytest.mark.parametrize("text", ["[1]", '{"a.png": 1}', '{"a.png": {}}', "{", "\xff"])
def test_a_record_that_is_none_is_refused(run, text):
    write_scans("a.png")
    Path("out").mkdir()
    Path("out/cleaned.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"cleaned.json: not a record of cleaned pages"):
        run("a.png")
    assert written() == ["cleaned.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="no fifos")
def test_pipes_in_the_output_folder_are_not_waited_for(run):
    write_scans("a.png", "b.png")
    run("a.png")
    Path("out/a.png").unlink()
    os.mkfifo("out/a.png")
    with pytest.raises(UserError, match=r"out/a.png: not a file"):
        run("a.png", force=True)
    Path("out/cleaned.json").unlink()
    os.mkfifo("out/cleaned.json")
    with pytest.raises(UserError, match=r"cleaned.json: not a record of cleaned pages"):
        run("b.png")


def test_an_output_folder_that_is_a_link_to_itself(run):
    write_scans("a.png")
    Path("out").symlink_to("out")
    with pytest.raises(UserError, match=r"out: can't be written to"):
        run("a.png")


def test_one_bad_file_does_not_stop_the_others(run, capsys):
    write_scans("in/a.png", "in/c.png")
    Path("in/b.png").write_text("text")
    assert run("in") == 1
    streams = capsys.readouterr()
    assert "in/b.png: not an image" in streams.err
    assert "Failed: in/b.png" in streams.out
    assert "2 of 3 files are in out" in streams.out
    assert written() == ["a.png", "c.png", "cleaned.json"]
    assert set(json.loads(Path("out/cleaned.json").read_text())) == {"a.png", "c.png"}
    with pytest.raises(UserError, match=r"in/b.png: not an image"):
        run("in/b.png")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that can't be read")
def test_a_file_that_fails_while_it_is_read_is_the_one_named(run):
    Path("a.png").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"a.png: cannot be read \(Input/output error\)"):
        run("a.png")


@pytest.mark.parametrize("out", ["out", "new/out", None])
def test_where_nothing_could_be_cleaned_nothing_is_left(run, capsys, out):
    Path("in/deep").mkdir(parents=True)
    Path("in/a.png").write_text("text")
    Path("in/deep/b.png").write_text("text")
    assert run("in", out=out) == 1
    with pytest.raises(UserError, match="not an image"):
        run("in/a.png", out=out)
    assert written(".") == ["in/a.png", "in/deep/b.png"]
    assert [path.name for path in Path().iterdir()] == ["in"]
    write_scans("in/a.png")
    assert run("in", out=out) == 1
    [folder] = [Path(out)] if out else Path("runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "cleaned.json"]


def test_folders_that_were_there_before_stay(run):
    Path("in/deep").mkdir(parents=True)
    Path("in/deep/b.png").write_text("text")
    Path("in/c.png").write_text("text")
    Path("out/deep").mkdir(parents=True)
    assert run("in") == 1
    assert [path.name for path in Path("out").rglob("*")] == ["deep"]
    Path("out/cleaned.json").write_text("{}")
    assert run("in") == 1
    assert written() == ["cleaned.json"]


def test_after_ctrl_c_the_same_command_goes_on(run, monkeypatch):
    write_scans("in/a.png", "in/b.png", "in/c.png")
    real, names = page_cleaning.clean_file, []

    def stop_in_the_second(clean, source, *rest):
        names.append(source.name)
        if source.name == "b.png":

            def clean(page):
                raise KeyboardInterrupt

        return real(clean, source, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(page_cleaning, "clean_file", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt) as info:
            run("in")
    assert names == ["a.png", "b.png"]
    assert info.value.__notes__[0].startswith("1 of 3 files are in out; the same command")
    assert written() == ["a.png", "cleaned.json"]
    time = os.stat("out/a.png").st_mtime_ns
    assert run("in") == 0
    assert os.stat("out/a.png").st_mtime_ns == time
    assert written() == ["a.png", "b.png", "c.png", "cleaned.json"]


def test_after_a_kill_the_same_command_goes_on(run, monkeypatch):
    """The process dies before the record learns of the page that was just written."""
    write_scans("in/a.png", "in/b.png")

    def die(*words):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(page_record.Record, "add", die)
        patch.setattr(page_record.Record, "close", lambda record: None)
        with pytest.raises(SystemExit):
            run("in")
    assert written() == ["a.png", "cleaned.json"]
    before = contents("out")
    for options in ({"grey": True}, {"grey": True, "force": True}):
        with pytest.raises(UserError, match=r"out/a.png: its run was killed .* without --force"):
            run("in", **options)
        assert contents("out") == before
    time = os.stat("out/a.png").st_mtime_ns
    assert run("in") == 0
    assert os.stat("out/a.png").st_mtime_ns == time
    assert written() == ["a.png", "b.png", "cleaned.json"]


def test_flags_without_effect_are_refused(error_of):
    assert "--force has no effect here" in error_of(script.main, "--force")
    words = ("--force", "--input", "a.png")
    assert "--force has no effect without --output-dir" in error_of(script.main, *words)
    assert "exclude each other" in error_of(script.main, "--input", "a", "--bilevel", "--grey")
    words = ("--input", "a", "--bilevel", "--format", "jpeg")
    assert "has no 1-bit pages" in error_of(script.main, *words)


def test_dask_that_is_not_installed(error_of, monkeypatch):
    words = ("--input", "a.png", "--dask", "local")
    monkeypatch.setitem(sys.modules, "distributed", None)
    way_out = "--dask needs packages of its own: pip install -r requirements-cluster.txt"
    assert way_out in error_of(script.main, *words)
    assert (ROOT / "requirements-cluster.txt").is_file()
    there = types.ModuleType("distributed")
    there.__spec__ = importlib.machinery.ModuleSpec("distributed", None)
    monkeypatch.setitem(sys.modules, "distributed", there)
    assert "a.png: no such file" in error_of(script.main, *words)
    assert "--dask has no effect here; it is for --input" in error_of(script.main, *words[2:])
    assert "'host' is neither local nor" in error_of(script.main, *words[:3], "host")


def test_progress_is_said_where_there_is_no_terminal(run, monkeypatch, capsys):
    write_scans("in/a.png", "in/b.png", "in/c.png")
    monkeypatch.setattr(page_cleaning, "SECONDS_BETWEEN_LINES", 0)
    run("in")
    out = capsys.readouterr().out
    assert re.search(r"^1 of 3 files, [\d.,]+ pages/s, 0:00:\d\d left$", out, re.M)
    assert re.search(r"^3 pages in 0:00:\d\d, [\d.,]+ pages/s$", out, re.M)


def test_failures_go_to_the_stream_of_errors_beside_a_bar(run, monkeypatch, capsys):
    write_scans("in/a.png", "in/b.png")
    Path("in/c.png").write_text("text")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich draws its bar
    assert run("in") == 1
    said = capsys.readouterr()
    assert "━" in said.out
    assert said.err.startswith("in/c.png: not an image")


def test_names_that_are_no_text(run, capsys):
    name = os.fsdecode(b"a\xff\x1b[b].png")
    try:
        write_scans(name)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    assert run(name) == 0
    assert r"a\udcff\x1b[b].png" in capsys.readouterr().out
    assert run(name) == 0


@pytest.mark.parametrize(
    ("dark", "light", "stays"), [(0.05, 0.7, True), (0.05, 0.4, False), (0.6, 0.75, False)]
)
def test_strokes_much_fainter_than_strong_ink_are_not_blackened(dark, light, stays):
    page = np.full((600, 500, 1), 0.9, "float32")
    for top in range(20, 280, 20):
        page[top : top + 6, 40:460] = dark
        page[top + 300 : top + 306, 40:460] = light
    cleaned = np.where(page < 0.9, 0, 1).astype("float32")
    before = cleaned.copy()
    page_ink.leave_faint(page, cleaned)
    assert (cleaned[:300] == before[:300]).all()
    if stays:
        faint = page[320:326, 50:450]
        np.testing.assert_allclose(cleaned[320:326, 50:450], faint / 0.9, atol=0.01)
    else:
        assert (cleaned == before).all()


def test_strokes_of_a_large_page_are_sorted_as_those_of_a_small_one(monkeypatch):
    rng = np.random.default_rng(0)
    page = np.full((900, 700, 1), 0.95, "float32")
    for top in range(20, 860, 30):
        page[top : top + 9, 40 : int(rng.integers(200, 660))] = 0.05 if top < 400 else 0.7
    results = []
    for pixels in (10**6, 10**5):
        monkeypatch.setattr(page_ink, "LOOKED_AT", pixels)
        cleaned = np.where(page < 0.9, 0, 1).astype("float32")
        page_ink.leave_faint(page, cleaned)
        results.append(cleaned)
    assert (results[0][420:] > 0.7).all()
    assert np.mean(np.abs(results[0] - results[1]) > 0.02) < 0.002
