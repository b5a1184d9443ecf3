from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import denoise_mnist
from common import images
from common.cli import UserError
from tools import small_images


def seven(ink=0, paper=255, size=(300, 200)):
    """Return a picture of a seven, thick strokes off the center, (height, width, 1) in [0, 1]."""
    image = Image.new("L", size, paper)
    ImageDraw.Draw(image).line([(40, 30), (120, 30), (70, 170)], fill=ink, width=16)
    return np.asarray(image, "float32")[..., np.newaxis] / 255


@pytest.mark.parametrize(
    ("ink", "paper", "inverted"), [(0, 255, True), (255, 0, False), (60, 170, True)]
)
def test_dark_on_light_is_inverted_also_under_noise(ink, paper, inverted):
    picture = seven(ink, paper)
    noise = np.random.default_rng(0).normal(0, 0.3, picture.shape)
    for image in (picture, np.clip(picture + noise, 0, 1).astype("float32")):
        result, was_inverted = small_images.light_on_dark(image)
        assert was_inverted == inverted
        np.testing.assert_array_equal(result, 1 - image if inverted else image)


def test_a_picture_without_a_background_is_not_inverted():
    rng = np.random.default_rng(0)
    for image in (np.full((50, 50, 1), 0.5), rng.random((200, 200, 1))):
        assert not small_images.light_on_dark(image.astype("float32"))[1]


def test_inversion_depends_on_what_the_model_was_trained_on():
    for name, invert, inverted in (
        ("MNIST", True, True),
        ("synthetic clothes", True, True),
        ("", True, True),
        ("MNIST", False, False),
        ("own pictures: cats", True, False),
    ):
        assert small_images.prepare(seven(), name, invert)[1] == inverted


def test_a_digit_becomes_as_in_mnist():
    digit, inverted = small_images.prepare(seven(), "MNIST")
    assert inverted
    assert digit.shape == (28, 28, 1)
    assert digit.dtype == np.float32
    assert digit.max() > 0.95
    rows, columns = np.nonzero(digit[..., 0] > 0.1)
    assert np.ptp(rows) + 1 == 20
    assert np.ptp(columns) + 1 < 20
    weights = digit[..., 0] / digit.sum()
    for axis in (0, 1):
        center_of_mass = (weights.sum(1 - axis) * np.arange(28)).sum()
        assert center_of_mass == pytest.approx(13.5, abs=0.6)
    light, inverted = small_images.prepare(seven(ink=255, paper=0), "MNIST")
    assert not inverted
    np.testing.assert_allclose(light, digit, atol=0.01)
    # Gray paper and a speck of dust change nothing.
    gray = seven(ink=50, paper=180)
    gray[190, 290] = 0
    np.testing.assert_allclose(small_images.prepare(gray, "MNIST")[0], digit, atol=0.05)


def test_28x28_pixels_are_not_changed():
    image = np.random.default_rng(0).random((28, 28, 1), dtype="float32")
    for name in ("MNIST", "Fashion-MNIST", "own pictures: cats", ""):
        np.testing.assert_array_equal(small_images.prepare(image, name)[0], image)


def test_clothes_fill_the_square_and_own_pictures_are_not_cropped():
    shirt, _ = small_images.prepare(seven(), "Fashion-MNIST")
    rows = np.flatnonzero(shirt[..., 0].max(1) > 0.5)
    assert (rows[0], rows[-1]) == (0, 27)
    own, inverted = small_images.prepare(seven(), "own pictures: cats")
    assert not inverted
    np.testing.assert_array_equal(own, images.fit_square(seven(), 28))


def test_pictures_without_anything_lighter_than_their_border():
    blank = np.ones((600, 500, 1), "float32")
    blank[np.random.default_rng(0).random(blank.shape) < 0.3] = 0.98
    dark = blank.copy()
    dark[200:400, 200:300] = 0
    for picture in (blank, dark, np.zeros((1, 9, 1), "float32")):
        for name in ("MNIST", "Fashion-MNIST"):
            image, inverted = small_images.prepare(picture, name, invert=False)
            assert image.shape == (28, 28, 1)
            assert np.isfinite(image).all()
            assert not inverted


@pytest.mark.parametrize("size", [(28, 28), (1, 3), (1500, 900)])
def test_a_sheet_of_pictures_of_any_size(size, tmp_path):
    picture = np.random.default_rng(0).random((*size, 1), dtype="float32")
    prepared, _ = small_images.prepare(picture, "MNIST")
    path = tmp_path / "sheet.png"
    small_images.write_sheet(path, picture, prepared, {"denoised": prepared, "again": prepared})
    with Image.open(path) as sheet:
        assert sheet.width > 800
        assert np.asarray(sheet.convert("L")).std() > 5
    with pytest.raises(UserError, match="exists"):
        small_images.write_sheet(path, picture, prepared, {"denoised": prepared})


def test_a_denoised_digit_is_inverted_back_and_has_a_sheet():
    images.write_image(Path("seven.png"), seven())
    denoise_mnist.main(["--input", "seven.png", "--output-dir", "out"])
    result = images.read_gray("out/seven.png")
    assert result.shape == (28, 28, 1)
    assert np.median(result) > 0.8
    denoise_mnist.main(["--input", "seven.png", "--no-invert", "--output-dir", "kept"])
    assert {path.name for path in Path("kept").iterdir()} == {"seven.png", "seven_sheet.png"}
