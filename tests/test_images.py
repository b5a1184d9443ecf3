import numpy as np
import pytest
from PIL import Image

from common import UserError, images


def test_formats_and_depths_agree(tmp_path):
    grey = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
    expected = grey[..., None].astype("float32") / 255
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "colour.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    opaque = np.dstack([grey] * 3 + [np.full_like(grey, 255)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    for path in tmp_path.glob("*.png"):
        image = images.read_grey(path)
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, expected, atol=1e-6, err_msg=path.name)


def test_transparent_pixels_are_black(tmp_path):
    Image.new("RGBA", (5, 4), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert images.read_grey(tmp_path / "clear.png").max() == 0


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("L", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert images.read_grey(tmp_path / "turned.jpg").shape == (30, 20, 1)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UserError, match=r"text.png: not an image"):
        images.read_grey(tmp_path / "text.png")
    with pytest.raises(UserError, match=r"none.png: no such file"):
        images.read_grey(tmp_path / "none.png")
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut.png: cannot be read"):
        images.read_grey(tmp_path / "cut.png")
    with pytest.raises(UserError, match="cannot be read"):
        images.read_grey(tmp_path)


def test_write_and_read_back(tmp_path):
    image = np.linspace(-0.1, 1.1, 77, dtype="float32").reshape(7, 11, 1)
    images.write_image(tmp_path / "new" / "out.png", image)
    back = images.read_grey(tmp_path / "new" / "out.png")
    np.testing.assert_allclose(back, np.clip(image, 0, 1), atol=0.5 / 255 + 1e-6)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.png"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with images.write_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"choose another --output-dir"):
        images.write_image(tmp_path / "file" / "out.png", np.zeros((2, 2, 1)))


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (27, 30), (3, 5)])
def test_padding_mirrors_up_to_the_multiple(size):
    image = np.random.default_rng(0).random((*size, 1))
    padded = images.pad_to_multiple(image, 4)
    assert padded.shape == (-(-size[0] // 4) * 4, -(-size[1] // 4) * 4, 1)
    np.testing.assert_array_equal(padded[: size[0], : size[1]], image)
    if size == (27, 30):
        np.testing.assert_array_equal(padded[27, :30], image[26])


def test_padding_to_four_more_than_a_multiple_of_eight():
    for side, padded in [(1, 4), (4, 4), (5, 12), (28, 28), (29, 36)]:
        assert images.pad_to_multiple(np.ones((side, 4, 1)), 8, plus=4).shape == (padded, 4, 1)


def test_targets_never_collide_nor_overwrite(tmp_path):
    pairs = images.targets(["a/x.png", "b/y.jpg"], tmp_path, "_new.png")
    assert [target.name for _, target in pairs] == ["x_new.png", "y_new.png"]
    with pytest.raises(UserError, match="would both become"):
        images.targets(["a/x.png", "b/x.jpg"], tmp_path, "_new.png")
    with pytest.raises(UserError, match="would be overwritten"):
        images.targets([tmp_path / "x.png"], tmp_path, ".png")
