import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from common import images
from common.cli import UserError


def photo(height=60, width=80):
    """Return a smooth color picture, uint8 (height, width, 3)."""
    y, x = np.mgrid[0 : 255 : height * 1j, 0 : 255 : width * 1j]
    return np.stack([y, x, 255 - x], -1).astype(np.uint8)


def test_formats_and_depths_agree(tmp_path):
    gray = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
    expected = gray[..., None].astype("float32") / 255
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray).convert("RGB").save(tmp_path / "color.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(gray.astype(np.int32)).save(tmp_path / "int32.tif")
    Image.fromarray(gray).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(expected[..., 0]).save(tmp_path / "float.tif")
    Image.fromarray(gray).convert("RGBA").save(tmp_path / "opaque.png")
    for path in tmp_path.iterdir():
        image = images.read_gray(path)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, expected, atol=1e-6, err_msg=path.name)
        color = images.read_color(path)
        np.testing.assert_allclose(color, np.repeat(expected, 3, -1), atol=1e-6, err_msg=path.name)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "avif", "bmp", "gif", "jp2"])
def test_every_format_of_the_list_is_read_whatever_its_name(tmp_path, ending):
    Image.fromarray(photo()).save(tmp_path / f"a.{ending}")
    (tmp_path / f"a.{ending}").rename(tmp_path / "a.txt")
    expected = photo().astype("float32") / 255
    read = images.read_color(tmp_path / "a.txt")
    assert read.shape == (60, 80, 3)
    assert np.abs(read - expected).mean() < 0.06


def test_of_a_phones_mpo_the_first_frame_is_read(tmp_path):
    first, second = Image.fromarray(photo()), Image.new("RGB", (80, 60), "red")
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    read = images.read_color(tmp_path / "a.jpg")
    assert np.abs(read - photo() / 255).mean() < 0.03


def test_postscript_is_not_run_whatever_its_name(tmp_path):
    """Pillow would hand it to Ghostscript, and a program in it could write files."""
    written = tmp_path / "written.txt"
    text = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({written}) (w) file closefile\n"
    (tmp_path / "scan.png").write_text(text)
    with pytest.raises(UserError, match="not an image that can be read"):
        images.read_gray(tmp_path / "scan.png")
    assert not written.exists()
    assert not {"EPS", "PDF", "WMF", "FPX", "MIC"} & set(images.FORMATS)


def test_a_heic_photo_is_answered_with_how_to_convert_it(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(UserError, match=r"HEIC photo; convert it first.*magick photo.heic"):
        images.read_gray(tmp_path / "photo.jpg")


def test_transparent_pixels_show_the_background(tmp_path):
    Image.new("RGBA", (5, 4), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert images.read_gray(tmp_path / "clear.png").max() == 0
    assert images.read_gray(tmp_path / "clear.png", background="white").min() == 1


def test_exif_rotation_is_applied_and_damaged_exif_ignored(tmp_path):
    image = Image.new("L", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert images.read_gray(tmp_path / "turned.jpg").shape == (30, 20, 1)
    image.save(tmp_path / "damaged.jpg", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff" + bytes(20))
    assert images.read_gray(tmp_path / "damaged.jpg").shape == (20, 30, 1)


def test_tiffs_of_several_pages_and_pyramids(tmp_path):
    page, small = Image.new("L", (40, 30), 90), Image.new("L", (20, 15), 90)
    page.save(tmp_path / "two.tif", save_all=True, append_images=[page])
    with pytest.raises(UserError, match="holds 2 pages; split it"):
        images.read_gray(tmp_path / "two.tif")
    small.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "pyramid.tif", save_all=True, append_images=[small])
    assert images.read_gray(tmp_path / "pyramid.tif").shape == (30, 40, 1)


def png(width, height, packed):
    """Return the content of a gray PNG file with these packed pixels."""
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    PngImagePlugin.putchunk(file, b"IDAT", packed)
    PngImagePlugin.putchunk(file, b"IEND")
    return file.getvalue()


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_finite(path):
    Image.fromarray(np.full((5, 5), np.nan, "float32")).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("text"), "not an image that can be read"),
        (lambda path: path.write_bytes(b""), "not an image that can be read"),
        (lambda path: os.mkfifo(path), "not a file"),
        (truncated, "cannot be read as an image"),
        (not_finite, "values that are not finite"),
        (lambda path: path.write_bytes(png(2**31 - 1, 2**31 - 1, b"")), "more than 100 megapixels"),
    ],
)
def test_bad_files_are_named(tmp_path, make, words, recwarn):
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(UserError, match=words) as info:
        images.read_gray(path)
    assert "bad.png" in str(info.value)
    assert not recwarn.list


def test_pixels_that_cannot_be_unpacked_do_not_become_black():
    packed = zlib.compress(np.random.default_rng(0).bytes(31 * 40))
    for broken in (b"hello", packed[:200] + b"\xff" * 20 + packed[220:], packed[:-4] + b"abcd"):
        Path("a.png").write_bytes(png(40, 30, broken))
        with pytest.raises(UserError, match=r"a.png: cannot be read as an image"):
            images.read_gray("a.png")


# ---------------------------------------------------------------- writing


def test_write_and_read_back(tmp_path):
    image = np.linspace(-0.1, 1.1, 77, dtype="float32").reshape(7, 11, 1)
    images.write_image(tmp_path / "new" / "out.png", image)
    back = images.read_gray(tmp_path / "new" / "out.png")
    np.testing.assert_allclose(back, np.clip(image, 0, 1), atol=0.5 / 255 + 1e-6)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.png"]
    assert Image.open(tmp_path / "new" / "out.png").mode == "L"


def test_names_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("x" * 250 + ".png")
    images.write_image(path, np.zeros((2, 2, 1)))
    assert path.is_file()


def test_unwritable_folders_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"use another --output-dir"):
        images.write_image(tmp_path / "file" / "out.png", np.zeros((2, 2, 1)))


def test_outputs_keep_names_and_never_collide(tmp_path):
    for name in ("a/x.png", "b/y.JPG", "b/z.gif", "b/x.PNG", "c/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    out = tmp_path / "out"
    inputs = [tmp_path / name for name in ("a/x.png", "b/y.JPG", "b/z.gif")]
    pairs = images.output_paths(inputs, out, "name")
    assert [target.name for _, target in pairs] == ["x.png", "y.JPG", "z.png"]
    twice = images.output_paths([tmp_path / "a/x.png"] * 2, out, "name")
    assert [target.name for _, target in twice] == ["x.png"]
    for other in ("c/x.png", "b/x.PNG"):  # the second where case does not count
        with pytest.raises(UserError, match="two outputs have this name"):
            images.output_paths([tmp_path / "a/x.png", tmp_path / other], out, "name")


def test_pictures_are_fitted_with_the_median_of_their_border():
    image = np.full((10, 40, 1), 0.25, "float32")
    image[3:7, 10:30] = 1
    fitted = images.fit_square(image, 28)
    assert fitted.shape == (28, 28, 1)
    assert (fitted[:10] == 0.25).all()
    assert fitted[14, 14] == 1
    square = np.random.default_rng(0).random((28, 28, 1), dtype="float32")
    np.testing.assert_array_equal(images.fit_square(square, 28), square)
    assert images.fit_square(np.ones((1, 900, 1), "float32"), 28).shape == (28, 28, 1)


def test_dark_ink_on_a_transparent_background_is_seen():
    ink = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(ink).rectangle([10, 10, 30, 30], fill=(0, 0, 0, 255))
    ink.save("ink.png")
    assert np.ptp(images.read_visible("ink.png")) == 1
