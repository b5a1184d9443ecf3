from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import denoise_mnist
from common import images
from common.cli import UserError
from synthetic.digits import digits
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


def four(pen, light=1.0, ink=0.2, paper=0.85):
    """Return a photo of a four, (300, 400, 1); `pen` is a share of its height, 160 pixels."""
    cover = Image.new("L", (1600, 1200))
    draw = ImageDraw.Draw(cover)
    for line in ([(700, 280), (600, 680), (1050, 680)], [(920, 480), (890, 920)]):
        draw.line(line, fill=255, width=round(640 * pen))
    cover = np.asarray(cover.resize((400, 300), Image.Resampling.BOX), "float32") / 255
    picture = light * (paper + (ink - paper) * cover)
    picture = picture + np.random.default_rng(0).normal(0, 0.01, picture.shape)
    return np.clip(picture, 0, 1).astype("float32")[..., np.newaxis]


def correlation(image, other):
    """Return that of two digits, of which one may be shifted by the rounding of its center."""
    shifts = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    shifted = [np.roll(image, shift, (0, 1)).ravel() for shift in shifts]
    return max(np.corrcoef(each, other.ravel())[0, 1] for each in shifted)


@pytest.mark.parametrize(("ink", "paper"), [(0.2, 0.85), (0.85, 0.2)])
@pytest.mark.parametrize(("pen", "angle"), [(0.1, 0), (0.1, 2), (0.1, 4), (0.25, 1), (0.05, 5)])
def test_a_shadow_changes_nothing(pen, angle, ink, paper):
    """One that deepens across the sheet, and one with a straight edge."""
    expected, _ = small_images.prepare(four(pen, 1.0, ink, paper), "MNIST")
    y, x = np.mgrid[-150:150, -200:200]
    depth = (np.cos(angle) * x + np.sin(angle) * y) / 250  # from -1 to 1
    for light in (0.7 - 0.25 * depth, np.where(depth > 0.5, 0.5, 1)):
        digit, inverted = small_images.prepare(four(pen, light, ink, paper), "MNIST")
        assert inverted == (ink < paper)
        assert correlation(digit, expected) > 0.95


@pytest.mark.parametrize("pen", [0.019, 0.026, 0.04, 0.056])
def test_strokes_of_a_thin_pen_become_as_thick_as_in_mnist(pen):
    digit, _ = small_images.prepare(four(pen), "MNIST")
    thicker, _ = small_images.prepare(four(0.1), "MNIST")  # 2 of 20 pixels
    assert correlation(digit, thicker) > 0.9
    assert digit.sum() == pytest.approx(thicker.sum(), rel=0.15)


def test_enlarged_digits_are_neither_evened_nor_thickened(monkeypatch):
    small = digits(5, seed=0)[0]
    enlarged = [np.asarray(Image.fromarray(each).resize((252, 252)), "float32") for each in small]
    pictures = [picture[..., np.newaxis] / 255 for picture in enlarged]
    pictures += [1 - picture for picture in pictures]
    prepared = [small_images.prepare(picture, "MNIST")[0] for picture in pictures]
    monkeypatch.setattr(small_images, "remove_shadow", lambda picture: picture)
    monkeypatch.setattr(small_images, "thicken", lambda image, strokes: image)
    for picture, digit in zip(pictures, prepared, strict=True):
        np.testing.assert_array_equal(digit, small_images.prepare(picture, "MNIST")[0])


def test_clothes_fill_the_square_and_own_pictures_are_not_cropped():
    shirt, _ = small_images.prepare(seven(), "Fashion-MNIST")
    rows = np.flatnonzero(shirt[..., 0].max(1) > 0.5)
    assert (rows[0], rows[-1]) == (0, 27)
    own, inverted = small_images.prepare(seven(), "own pictures: cats")
    assert not inverted
    np.testing.assert_array_equal(own, images.fit_square(seven(), 28))


@pytest.mark.parametrize("name", ["MNIST", "Fashion-MNIST"])
def test_many_similar_spots_are_no_specks(name):
    picture = np.zeros((400, 400, 1), "float32")
    for top, left in np.ndindex(7, 7):
        side = 14 + (top + left) % 3
        picture[40 + 50 * top :, 40 + 50 * left :][:side, :side] = 1
    prepared, inverted = small_images.prepare(picture, name)
    assert not inverted
    rows, columns = np.nonzero(prepared[..., 0] > 0.1)
    assert np.ptp(rows) >= 19
    assert np.ptp(columns) >= 19


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
