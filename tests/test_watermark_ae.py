"""watermark_ae.py: the networks, the loss, and what is computed."""

import math

import keras
import numpy as np
import pytest
from conftest import contents, report_of, without_figures
from PIL import Image
from scipy.stats import norm

import watermark_ae as script
from common import UserError, data, metrics, trained_models

VALUES = [kind for kind in script.KINDS if kind != "bits"]

# ---------------------------------------------------------------- networks


def test_parameters_and_shapes_are_the_tutorials():
    parts = script.build_encoder(), script.build_decoder(), script.build_extractor()
    assert [part.count_params() for part in parts] == [593, 547, 537]
    assert [part.output_shape for part in parts] == [(None, 28, 28, 1)] * 3
    whole = script.build_watermark()
    assert whole.count_params() == 1_677
    assert set(whole.output) == {"marked", "recovered"}


def test_slope_0_is_relu():
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype("float32")
    encoder = script.build_encoder(slope=0.0)
    assert np.asarray(encoder(x)).min() == 0
    leaky = script.build_encoder(slope=0.2)
    leaky.set_weights(encoder.get_weights())
    assert np.asarray(leaky(x)).min() < 0


def test_noise_is_there_in_training_only():
    model = script.build_watermark(noise=0.5)
    x = {"image": np.zeros((1, 28, 28, 1)), "watermark": np.ones((1, 28, 28, 1))}
    calm = [np.asarray(model(x, training=False)["recovered"]) for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    assert not np.array_equal(calm[0], model(x, training=True)["recovered"])


@pytest.mark.parametrize("kind", script.KINDS)
def test_the_last_activation_lets_through_what_w_may_be(kind):
    model = script.build_watermark(kind=kind)
    assert model.count_params() == 1_677
    extractor = model.get_layer("extractor")
    x = 40 * np.random.default_rng(0).standard_normal((4, 28, 28, 1)).astype("float32")
    found = np.asarray(extractor(x))
    _, least, most = script.KINDS[kind]
    assert found.min() == pytest.approx(least, abs=0.01)
    assert found.max() == pytest.approx(most, abs=0.01) if kind != "positive" else found.max() > 2


def test_a_relu_as_the_last_activation_starts_alive():
    black = np.zeros((1, 28, 28, 1), "float32")
    assert np.asarray(script.build_extractor(activation="relu")(black)).min() == 1


# ---------------------------------------------------------------- kinds of W


def test_bits_are_zero_or_one_at_random():
    bits = script.random_watermarks("bits", (50, 28, 28, 1), 3)
    assert set(np.unique(bits)) == {0, 1}
    assert bits.mean() == pytest.approx(0.5, abs=0.02)
    assert np.corrcoef(bits[:, :, 1:].ravel(), bits[:, :, :-1].ravel())[0, 1] < 0.03


@pytest.mark.parametrize("kind", VALUES)
def test_values_fill_their_range_in_squares_of_some_sizes(kind):
    _, least, most = script.KINDS[kind]
    w = script.random_watermarks(kind, (200, 28, 28, 1), 3)
    assert w.dtype == np.float32
    assert least <= w.min() < least + 0.01
    assert most - 0.01 < w.max() <= most
    assert w.mean() == pytest.approx((least + most) / 2, abs=0.05)
    np.testing.assert_array_equal(w, script.random_watermarks(kind, w.shape, 3))
    assert not np.array_equal(w, script.random_watermarks(kind, w.shape, 4))
    sides = [28 // len(np.unique(x[0])) for x in w]
    assert set(sides) == {1, 2, 4, 7}
    for x, side in zip(w, sides, strict=True):
        corners = x[::side, ::side, 0]
        np.testing.assert_array_equal(x[..., 0], np.kron(corners, np.ones((side, side))))
        assert len(np.unique(corners)) > 0.9 * corners.size


@pytest.mark.parametrize("kind", VALUES)
def test_the_loss_of_values_is_one_for_who_knows_but_their_mean(kind):
    """Whatever the range, so that it weighs as much as the loss of bits does."""
    _, least, most = script.KINDS[kind]
    w = np.linspace(least, most, 28 * 28).reshape(1, 28, 28, 1).astype("float32")
    loss, metric = script.of_kind(kind)
    mean = np.full_like(w, (least + most) / 2)
    assert np.mean(loss(w, mean)) == pytest.approx(1, abs=0.01)
    assert np.asarray(loss(w, mean)).shape == (1, 28, 28)
    assert np.mean(loss(w, w)) == 0
    assert np.asarray(metric(w, w + 0.1 * (most - least))) == pytest.approx([20], abs=1e-3)
    assert script.rightness(kind, w, w + 0.1 * (most - least)) == pytest.approx(20, abs=1e-3)
    assert script.of_kind("bits") == ("binary_crossentropy", "binary_accuracy")


def logo(name="logo.png", ground=(0, 0, 0, 0)):
    """Write a dark disc with a lighter half on a transparent ground, 60x40 pixels."""
    y, x = np.mgrid[:40, :60]
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[:] = ground
    pixels[np.hypot(y - 20, x - 30) < 15] = (0, 0, 0, 255)
    pixels[(np.hypot(y - 20, x - 30) < 15) & (x > 30)] = (120, 120, 120, 255)
    Image.fromarray(pixels).save(name)
    return name


def test_a_logo_is_fitted_into_the_range_of_w():
    grey = script.read_logo(logo(), "grey")
    assert grey.shape == (28, 28, 1)
    assert grey[0, 0] == 1  # where it is transparent, white: it is dark ink
    assert grey[14, 10] == 0
    assert grey[14, 17] == pytest.approx(120 / 255, abs=0.02)
    np.testing.assert_allclose(script.read_logo("logo.png", "signed"), 2 * grey - 1)
    np.testing.assert_allclose(script.read_logo("logo.png", "positive"), 2 * grey)
    bits = script.read_logo("logo.png", "bits")
    assert set(np.unique(bits)) == {0, 1}
    assert grey[bits == 1].min() >= grey[bits == 0].max()
    assert (bits[0, 0], bits[14, 10]) == (1, 0)


def test_a_picture_that_is_the_same_all_over_is_refused():
    Image.new("RGB", (50, 50), "#777").save("even.png")
    with pytest.raises(UserError, match=r"even\.png: the same grey all over"):
        script.read_logo("even.png", "grey")


def test_four_last_bits_hold_sixteen_levels():
    rng = np.random.default_rng(0)
    x, w = rng.uniform(size=(2, 5, 28, 28, 1)).astype("float32")
    marked = script.hide_in_last_bits(x, w, 4)
    assert np.abs(marked - x).max() <= 15.51 / 255
    np.testing.assert_allclose(script.read_last_bits(marked, 4), np.round(15 * w) / 15, atol=1e-6)


@pytest.mark.parametrize("kind", ["bits", "signed"])
def test_a_picture_is_hidden_in_each_image(kind, capsys, error_of):
    words = ["--synthetic", "--limit", "20", "--watermark-image", logo()]
    script.main([*words, "--epochs", "1", "--watermark", kind, "--output-dir", "run"])
    report, measure = report_of("run"), "bit_accuracy" if kind == "bits" else "watermark_psnr"
    assert report["architecture"] == kind
    assert {"logo_psnr", f"logo_{measure}", f"logo_{measure}_noise_0.1"} <= {*report["test"]}
    classical = report["baselines"]["least_significant_bit" if kind == "bits" else "four_last_bits"]
    assert classical[measure] == 1 if kind == "bits" else classical[measure] > 34
    names = {path.name for path in contents("run")}
    assert names >= {"watermark_image.png", "watermarks.png", "noise.png"}
    # The file alone says what kind of W its networks hide.
    model = trained_models.load_model("run/model.keras", script.Settings.names)
    assert model[1] == kind
    with without_figures():
        script.main([*words, "--model", "run/model.keras", "--output-dir", "again"])
    assert report_of("again")["test"] == pytest.approx(report["test"], rel=1e-5)
    assert report_of("again")["architecture"] == kind
    capsys.readouterr()
    line = error_of(script.main, "--model", "run/model.keras", "--watermark", kind)
    assert "--watermark has no effect here; it is for training" in line


def test_a_picture_that_cannot_be_read_stops_all_before_it_begins(error_of, tmp_path):
    words = "--synthetic", "--limit", "20", "--output-dir", "run"
    assert "none.png: no such file" in error_of(
        script.main, *words, "--watermark-image", "none.png"
    )
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- what is computed


def test_wanted_psnr_rises_and_validation_is_by_the_last():
    wanted = keras.Variable(1.0, trainable=False)
    callback = script.RaisePsnr(wanted, psnr=20, epochs=10, steps_per_epoch=100)

    def psnr(epoch, batch):
        callback.on_epoch_begin(epoch)
        callback.on_train_batch_begin(batch)
        return -10 * math.log10(float(wanted.numpy()))

    assert psnr(0, 0) == pytest.approx(6)
    assert psnr(1, 0) == pytest.approx(6)
    assert psnr(4, 0) == pytest.approx(13)
    assert psnr(7, 0) == pytest.approx(20, rel=1e-5)
    assert psnr(9, 99) == pytest.approx(20, rel=1e-5)
    psnr(0, 0)
    callback.on_test_begin()
    assert -10 * math.log10(float(wanted.numpy())) == pytest.approx(20, rel=1e-5)
    # A training too short for that learns to write bits first.
    callback = script.RaisePsnr(wanted, psnr=20, epochs=2, steps_per_epoch=40)
    assert psnr(1, 39) == pytest.approx(6)


def test_limit_of_one_pixel_against_drawn_noise():
    assert script.one_pixel_limit(0.1, 0.1) == pytest.approx(0.7602, abs=1e-4)
    assert script.one_pixel_limit(0.1, 0.5) == pytest.approx(0.5562, abs=1e-4)
    rng, r, sigma = np.random.default_rng(0), 0.08, 0.1
    bits = rng.integers(0, 2, 200_000)
    seen = bits * r * math.sqrt(2) + sigma * rng.standard_normal(200_000)
    right = np.mean((seen > r / math.sqrt(2)) == bits)
    assert right == pytest.approx(script.one_pixel_limit(r, sigma), abs=5e-3)


def test_last_bit_is_perfect_without_noise_and_chance_with_any():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(20, 24, 24, 1)).astype("float32")
    bits = rng.integers(0, 2, x.shape).astype("float32")
    marked = script.hide_in_last_bits(x, bits)
    assert np.abs(marked - x).max() <= 1.51 / 255
    assert metrics.bit_accuracy(bits, script.read_last_bits(marked)) == 1
    middle = 0.4 + 0.2 * x  # nothing is clipped
    noisy = script.noisy(script.hide_in_last_bits(middle, np.round(x)), 0.1)
    accuracy = metrics.bit_accuracy(np.round(x), script.read_last_bits(noisy))
    assert accuracy == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("kind", ["bits", "signed"])
def test_black_pixels_and_strokes_are_told_apart(kind):
    image = np.zeros((2, 28, 28, 1), "float32")
    image[:, 10:20] = 0.5
    w = script.random_watermarks(kind, image.shape, 0)
    wrong = 1 - w if kind == "bits" else w + 0.2
    found = script.evaluate(kind, image, w, image, lambda x: np.where(image > 0, wrong, w))
    measure, best, worst = ("bit_accuracy", 1, 0) if kind == "bits" else ("watermark_psnr", 100, 20)
    assert found[f"{measure}_black"] == best
    assert found[f"{measure}_stroke"] == pytest.approx(worst, abs=1e-3)
    assert found["psnr"] == 100


def test_bit_accuracy_by_hand():
    bits, p = np.array([0, 1, 1, 0.0]), np.array([0.2, 0.9, 0.4, 0.6])
    assert metrics.bit_accuracy(bits, p) == 0.5


# ---------------------------------------------------------------- the script as a whole


def test_the_published_recipe_trains_with_its_own_loss(figures_left_out):
    words = "--synthetic --limit 20 --epochs 1 --recipe published --output-dir x"
    script.main(words.split())
    report = report_of("x")
    assert report["parameters"] == 1_677
    assert (report["batch_size"], report["learning_rate"]) == (64, 1.0)
    assert report["baselines"]["least_significant_bit"]["bit_accuracy"] == 1
    assert report["test"].keys() == report["baselines"]["least_significant_bit"].keys()


def test_real_digits_are_mostly_black(real_data):
    digits = data.load_mnist(real_data)
    assert 0.75 < np.mean(digits.x_test == 0) < 0.85
    assert norm.cdf(1 / math.sqrt(2)) == pytest.approx(0.76, abs=1e-3)


def test_quantisation_hides_bits_at_the_quality_it_is_asked_for():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(30, 20, 20, 1)).astype("float32")
    bits = rng.integers(0, 2, images.shape).astype("float32")
    marked, step = script.quantise(images, bits, 25.0)
    assert metrics.psnr(images, marked) == pytest.approx(25.3, abs=0.35)
    assert metrics.bit_accuracy(bits, script.read_quantised(marked, step)) == 1  # in white, too
    # Levels of like parity lie two steps apart: noise beyond half a step is read wrong.
    found = script.read_quantised(script.noisy(marked, step / 4), step)
    assert 0.9 < metrics.bit_accuracy(bits, found) < 0.98
    white = np.ones_like(images)
    marked, step = script.quantise(white, bits, 25.0)
    assert metrics.psnr(white, marked) >= 25
    assert metrics.bit_accuracy(bits, script.read_quantised(marked, step)) == 1
