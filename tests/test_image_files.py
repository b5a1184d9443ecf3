import io
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from applications import inputs
from applications.denoising import denoise, in_tiles, pad_to_multiple
from common import UserError, files, image_files


def photo(height=60, width=80):
    """Return a smooth colour picture, uint8 (height, width, 3)."""
    y, x = np.mgrid[0 : 255 : height * 1j, 0 : 255 : width * 1j]
    return np.stack([y, x, 255 - x], -1).astype(np.uint8)


def test_formats_and_depths_agree(tmp_path):
    grey = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
    expected = grey[..., None].astype("float32") / 255
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "colour.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(expected[..., 0]).save(tmp_path / "float.tif")
    opaque = np.dstack([grey] * 3 + [np.full_like(grey, 255)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    for path in tmp_path.iterdir():
        image = image_files.read_grey(path)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, expected, atol=1e-6, err_msg=path.name)
        colour = image_files.read_colour(path)
        np.testing.assert_allclose(colour, np.repeat(expected, 3, -1), atol=1e-6, err_msg=path.name)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "avif", "bmp", "gif", "jp2"])
def test_every_format_of_the_list_is_read_whatever_its_name(tmp_path, ending):
    Image.fromarray(photo()).save(tmp_path / f"a.{ending}")
    (tmp_path / f"a.{ending}").rename(tmp_path / "a.txt")
    expected = photo().astype("float32") / 255
    found = image_files.read_colour(tmp_path / "a.txt")
    assert found.shape == (60, 80, 3)
    assert np.abs(found - expected).mean() < 0.06


def test_of_a_phones_mpo_the_first_frame_is_read(tmp_path):
    first, second = Image.fromarray(photo()), Image.new("RGB", (80, 60), "red")
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    found = image_files.read_colour(tmp_path / "a.jpg")
    assert np.abs(found - photo() / 255).mean() < 0.03


def test_postscript_is_not_run_whatever_its_name(tmp_path):
    """Pillow would hand it to Ghostscript, and a program in it could write files."""
    written = tmp_path / "written.txt"
    text = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({written}) (w) file closefile\n"
    (tmp_path / "scan.png").write_text(text)
    with pytest.raises(UserError, match="not an image that can be read"):
        image_files.read_grey(tmp_path / "scan.png")
    assert not written.exists()
    assert not {"EPS", "PDF", "WMF", "FPX", "MIC"} & set(image_files.FORMATS)


def test_a_heic_photo_is_answered_with_how_to_convert_it(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(UserError, match=r"HEIC photo; convert it first.*magick a.heic a.jpg"):
        image_files.read_grey(tmp_path / "photo.jpg")


def test_transparent_pixels_show_the_ground(tmp_path):
    Image.new("RGBA", (5, 4), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert image_files.read_grey(tmp_path / "clear.png").max() == 0
    assert image_files.read_grey(tmp_path / "clear.png", ground="white").min() == 1


def test_exif_rotation_is_applied_and_damaged_exif_ignored(tmp_path):
    image = Image.new("L", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert image_files.read_grey(tmp_path / "turned.jpg").shape == (30, 20, 1)
    image.save(tmp_path / "damaged.jpg", exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff" + bytes(20))
    assert image_files.read_grey(tmp_path / "damaged.jpg").shape == (20, 30, 1)


def test_tiffs_of_several_pages_and_pyramids(tmp_path):
    page, small = Image.new("L", (40, 30), 90), Image.new("L", (20, 15), 90)
    page.save(tmp_path / "two.tif", save_all=True, append_images=[page])
    with pytest.raises(UserError, match="holds 2 pages; split it"):
        image_files.read_grey(tmp_path / "two.tif")
    small.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "pyramid.tif", save_all=True, append_images=[small])
    assert image_files.read_grey(tmp_path / "pyramid.tif").shape == (30, 40, 1)


def cut(path, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_finite(path, tmp_path):
    Image.fromarray(np.full((5, 5), np.nan, "float32")).save(path, format="TIFF")


def fifo(path, tmp_path):
    os.mkfifo(path)


def loop(path, tmp_path):
    path.symlink_to(path)


def bomb(path, tmp_path):
    content = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(content, "png")
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path, _: path.write_text("text"), "not an image that can be read"),
        (lambda path, _: path.write_bytes(b""), "not an image that can be read"),
        (lambda path, _: None, "no such file"),
        (lambda path, _: path.mkdir(), "not a file"),
        (fifo, "not a file"),
        (loop, "not a file"),
        (cut, "cannot be read as an image"),
        (not_finite, "values that are not finite"),
        (bomb, "more than 100 megapixels"),
    ],
)
def test_bad_files_are_named(tmp_path, make, words, recwarn):
    path = tmp_path / "bad.png"
    make(path, tmp_path)
    with pytest.raises(UserError, match=words) as info:
        image_files.read_grey(path)
    assert "bad.png" in str(info.value)
    assert not recwarn.list


# ---------------------------------------------------------------- writing


def test_write_and_read_back(tmp_path):
    image = np.linspace(-0.1, 1.1, 77, dtype="float32").reshape(7, 11, 1)
    image_files.write_image(tmp_path / "new" / "out.png", image)
    back = image_files.read_grey(tmp_path / "new" / "out.png")
    np.testing.assert_allclose(back, np.clip(image, 0, 1), atol=0.5 / 255 + 1e-6)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.png"]
    assert Image.open(tmp_path / "new" / "out.png").mode == "L"


def test_a_failed_write_leaves_nothing_and_what_stands_there_is_kept(tmp_path):
    path = tmp_path / "file.txt"

    def write_half():
        with files.write_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(UserError, match="it exists"), files.write_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    with files.write_whole(path, replace=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    path.unlink()
    with pytest.raises(UserError, match="it exists"), files.write_whole(path):
        path.write_text("the reader's, meanwhile")
    assert path.read_text() == "the reader's, meanwhile"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_names_carry_machine_and_process(tmp_path, monkeypatch):
    monkeypatch.setattr(files.platform, "node", lambda: "a/b.example")
    with files.write_beside(tmp_path / "x.png", "run-1-") as temporary:
        temporary.write_text("whole")
    name = rf"\.run-1-a-b-example-{os.getpid()}-[0-9a-f]{{16}}\.png"
    assert re.fullmatch(name, temporary.name)
    assert list(tmp_path.iterdir()) == [temporary]


def test_names_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("x" * 250 + ".png")
    image_files.write_image(path, np.zeros((2, 2, 1)))
    assert path.is_file()


def test_unwritable_folders_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"choose another --output-dir"):
        image_files.write_image(tmp_path / "file" / "out.png", np.zeros((2, 2, 1)))
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"choose another --output-dir"):
            files.output_folder(folder, "name")


def test_each_run_gets_a_folder_of_its_own(tmp_path):
    names = [files.output_folder(None, "name").name for _ in range(3)]
    assert names == ["name", "name_2", "name_3"]
    assert str(files.output_folder("mine", "name")) == "mine"
    assert str(files.output_folder("mine", "name")) == "mine"


def test_outputs_keep_names_and_never_collide_nor_replace(tmp_path):
    for name in ("a/x.png", "b/y.JPG", "b/z.gif", "b/x.PNG", "c/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    out = tmp_path / "out"
    pairs = inputs.output_paths([tmp_path / n for n in ("a/x.png", "b/y.JPG", "b/z.gif")], out)
    assert [target.name for _, target in pairs] == ["x.png", "y.JPG", "z.png"]
    twice = inputs.output_paths([tmp_path / "a/x.png"] * 2, out)
    assert [target.name for _, target in twice] == ["x.png"]
    for other in ("c/x.png", "b/x.PNG"):  # the second where case does not count
        with pytest.raises(UserError, match="would both become"):
            inputs.output_paths([tmp_path / "a/x.png", tmp_path / other], out)
    with pytest.raises(UserError, match=r"a/x.png: exists already; choose another"):
        inputs.output_paths([tmp_path / "a/x.png"], tmp_path / "a")
    with pytest.raises(UserError, match=r"none.png: no such file"):
        inputs.output_paths([tmp_path / "none.png"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- tiles


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (27, 30), (3, 5)])
def test_padding_mirrors_up_to_the_multiple(size):
    image = np.random.default_rng(0).random((*size, 1))
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (-(-size[0] // 4) * 4, -(-size[1] // 4) * 4, 1)
    np.testing.assert_array_equal(padded[: size[0], : size[1]], image)
    if size == (27, 30):
        np.testing.assert_array_equal(padded[27, :30], image[26])


def test_padding_to_four_more_than_a_multiple_of_eight():
    for side, padded in [(1, 4), (4, 4), (5, 12), (28, 28), (29, 36)]:
        assert pad_to_multiple(np.ones((side, 4, 1)), 8, plus=4).shape == (padded, 4, 1)


@pytest.mark.parametrize("plus", [0, 4])
def test_tiles_are_put_where_they_belong(plus):
    image = np.random.default_rng(0).uniform(size=(40 + plus, 56 + plus, 1)).astype("float32")
    seen = []

    def function(piece):
        seen.append(piece.shape)
        return 2 * piece

    np.testing.assert_array_equal(in_tiles(function, image, 16, 8, plus), 2 * image)
    assert max(shape[0] for shape in seen) == 32 + plus
    assert {shape[0] % 8 for shape in seen} == {plus}
    assert len(seen) == 12


@pytest.mark.parametrize("script", ["denoise_mnist", "denoise_fashion", "denoise_fashion_unet"])
def test_a_large_picture_takes_little_memory_and_shows_no_seam(script, monkeypatch):
    import keras

    import denoise_fashion
    import denoise_mnist
    from applications import denoising
    from common import trained_models

    build, multiple, plus = {
        "denoise_mnist": (denoise_mnist.build_denoiser, 4, 0),
        "denoise_fashion": (denoise_fashion.build_autoencoder, 8, 4),
        "denoise_fashion_unet": (denoise_fashion.build_unet, 8, 4),
    }[script]
    network = build(None, None)
    path = trained_models.SHIPPED / f"{script}.keras"
    network.set_weights(keras.saving.load_model(path, compile=False).get_weights())
    image = np.random.default_rng(0).uniform(size=(151, 205, 1)).astype("float32")
    framed = np.pad(image, [(48, 48), (48, 48), (0, 0)], mode="symmetric")
    padded = pad_to_multiple(framed, multiple, plus)
    whole = np.asarray(network(padded[None]))[0, 48:199, 48:253]
    monkeypatch.setattr(denoising, "TILE", 64)
    tiled = denoise(network, image, multiple, plus)
    assert tiled.shape == image.shape
    assert np.abs(tiled - whole).max() < 1 / 255
    monkeypatch.setattr(denoising, "MARGIN", 0)
    assert np.abs(denoise(network, image, multiple, plus) - whole).max() > 1 / 255


def test_ghostscript_is_not_called(tmp_path, monkeypatch):
    """Even where it is installed."""
    called = []
    monkeypatch.setattr(subprocess, "check_call", lambda *words, **options: called.append(words))
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/true")
    Image.new("L", (9, 9)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.tif")
    with pytest.raises(UserError):
        image_files.read_grey(tmp_path / "a.tif")
    assert not called
