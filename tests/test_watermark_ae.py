import math

import keras
import numpy as np
import pytest
from conftest import metrics_of
from PIL import Image
from scipy.stats import norm

import evaluation.watermark_ae as judge
import watermark_ae
from common import data, metrics, training
from common.cli import UserError

# ---------------------------------------------------------------- networks


def test_parameters_and_shapes_are_the_articles():
    networks = [
        watermark_ae.build_encoder(),
        watermark_ae.build_decoder(),
        watermark_ae.build_extractor(),
    ]
    assert [network.count_params() for network in networks] == [593, 547, 537]
    assert [network.output_shape for network in networks] == [(None, 28, 28, 1)] * 3
    model = watermark_ae.build_watermark()
    assert (model.name, model.count_params()) == ("watermark_ae", 1_677)
    assert set(model.output) == {"marked", "recovered"}


def test_other_sizes_and_channels():
    model = watermark_ae.build_watermark(32, 40, 3)
    assert model.output["marked"].shape == (None, 32, 40, 3)
    assert model.output["recovered"].shape == (None, 32, 40, 1)


def test_slope_0_is_relu():
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype("float32")
    encoder = watermark_ae.build_encoder(slope=0.0)
    assert np.asarray(encoder(x)).min() == 0
    leaky = watermark_ae.build_encoder(slope=0.2)
    leaky.set_weights(encoder.get_weights())
    assert np.asarray(leaky(x)).min() < 0


def test_noise_is_added_in_training_only():
    model = watermark_ae.build_watermark(noise=0.5)
    x = {"image": np.zeros((1, 28, 28, 1)), "watermark": np.ones((1, 28, 28, 1))}
    outputs = [np.asarray(model(x, training=False)["recovered"]) for _ in range(2)]
    np.testing.assert_array_equal(*outputs)
    assert not np.array_equal(outputs[0], model(x, training=True)["recovered"])


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [("sigmoid", 0, 1), ("tanh", -1, 1), ("relu", 0, math.inf), (None, -math.inf, math.inf)],
)
def test_the_last_activation_decides_the_values_of_w(activation, low, high):
    extractor = watermark_ae.build_watermark(activation=activation).get_layer("extractor")
    assert extractor.count_params() == 537
    x = 40 * np.random.default_rng(0).standard_normal((4, 28, 28, 1)).astype("float32")
    w = np.asarray(extractor(x))
    assert w.min() == pytest.approx(low, abs=0.01) if math.isfinite(low) else w.min() < -2
    assert w.max() == pytest.approx(high, abs=0.01) if math.isfinite(high) else w.max() > 2


def test_a_relu_as_the_last_activation_starts_above_zero():
    black = np.zeros((1, 28, 28, 1), "float32")
    assert np.asarray(watermark_ae.build_extractor(activation="relu")(black)).min() == 1


# ---------------------------------------------------------------- W


def test_bits_are_zero_or_one_at_random():
    bits = watermark_ae.random_watermarks("bits", (50, 28, 28, 1), 3)
    assert set(np.unique(bits)) == {0, 1}
    assert bits.mean() == pytest.approx(0.5, abs=0.02)
    assert np.corrcoef(bits[:, :, 1:].ravel(), bits[:, :, :-1].ravel())[0, 1] < 0.03


def test_gray_values_fill_squares_of_some_sizes():
    w = watermark_ae.random_watermarks("gray", (200, 28, 28, 1), 3)
    assert w.dtype == np.float32
    assert 0 <= w.min() < 0.01
    assert 0.99 < w.max() <= 1
    assert w.mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(w, watermark_ae.random_watermarks("gray", w.shape, 3))
    assert not np.array_equal(w, watermark_ae.random_watermarks("gray", w.shape, 4))
    sides = [28 // len(np.unique(x[0])) for x in w]
    assert set(sides) == {1, 2, 4, 7}
    for x, side in zip(w, sides, strict=True):
        corners = x[::side, ::side, 0]
        np.testing.assert_array_equal(x[..., 0], np.kron(corners, np.ones((side, side))))
        assert len(np.unique(corners)) > 0.9 * corners.size


def write_logo(name="logo.png"):
    """Write a black disc with a gray right half on a transparent background, 60x40 pixels."""
    y, x = np.mgrid[:40, :60]
    disc = np.hypot(y - 20, x - 30) < 15
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[disc] = (0, 0, 0, 255)
    pixels[disc & (x > 30)] = (120, 120, 120, 255)
    Image.fromarray(pixels).save(name)
    return name


def test_a_logo_becomes_a_w():
    gray = watermark_ae.read_watermark_image(write_logo(), "gray")
    assert gray.shape == (28, 28, 1)
    assert gray[0, 0] == 1  # white where it is transparent, because the ink is dark
    assert gray[14, 10] == 0
    assert gray[14, 17] == pytest.approx(120 / 255, abs=0.02)
    bits = watermark_ae.read_watermark_image("logo.png", "bits")
    assert set(np.unique(bits)) == {0, 1}
    assert gray[bits == 1].min() >= gray[bits == 0].max()
    assert (bits[0, 0], bits[14, 10]) == (1, 0)


def test_a_logo_without_contrast_is_refused():
    Image.new("RGB", (50, 50), "#777").save("even.png")
    with pytest.raises(UserError, match=r"even\.png: uniformly gray"):
        watermark_ae.read_watermark_image("even.png", "gray")


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("flags", "weight"),
    [("", 3), ("--image-weight 6", 6), ("--watermark gray", 0.3), ("--recipe published", 1)],
)
def test_the_loss_by_hand(flags, weight, monkeypatch):
    """For values that are 0 and 1 in turn, extracted as 0.5 everywhere, and images off by 0.1."""
    compiled = []
    monkeypatch.setattr(keras.Model, "fit", lambda model, *args, **options: compiled.append(model))
    with pytest.raises(UserError, match="training diverged"):  # it has saved no model
        watermark_ae.main(f"--synthetic --limit 20 {flags}".split())
    image = np.zeros((2, 28, 28, 1), "float32")
    bits = np.tile(np.eye(2, dtype="float32"), (14, 14))[np.newaxis, ..., np.newaxis].repeat(2, 0)
    outputs = {"marked": image + np.float32(0.1), "recovered": np.full_like(bits, 0.5)}
    [model] = compiled
    loss = model.compute_loss(y={"marked": image, "recovered": bits}, y_pred=outputs)
    assert float(loss) == pytest.approx(weight * 0.01 + 0.25, rel=1e-4)


@pytest.mark.parametrize("kind", ["bits", "gray"])
def test_a_picture_is_embedded_in_each_image(kind):
    arguments = ["--synthetic", "--limit", "20", "--watermark-image", write_logo()]
    arguments += ["--epochs", "1", "--steps-per-epoch", "2"]
    watermark_ae.main([*arguments, "--watermark", kind, "--output-dir", "run"])
    report, metric = metrics_of("run"), "bit_accuracy" if kind == "bits" else "watermark_psnr"
    assert report["settings"]["watermark"] == kind
    assert {"logo_psnr", f"logo_{metric}", f"logo_{metric}_noise_0.1"} <= {*report["test"]}
    if kind == "bits":
        assert report["baselines"]["least significant bit"][metric] == 1
        assert report["baselines"]["quantization"][metric] == 1
    else:
        assert report["baselines"]["four last bits"][metric] > 34
    with Image.open("run/watermark_image.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 5
    # The model's name says which kind of W its networks embed.
    assert training.load_model("run/model.keras", watermark_ae.NAMES[kind])
    watermark_ae.main([*arguments, "--model", "run/model.keras", "--output-dir", "again"])
    assert metrics_of("again")["test"] == pytest.approx(report["test"], rel=1e-5)
    assert metrics_of("again")["settings"]["watermark"] == kind


def test_a_logo_that_cannot_be_read_stops_everything(error_of, tmp_path):
    arguments = "--synthetic", "--limit", "20", "--output-dir", "run"
    line = error_of(watermark_ae.main, *arguments, "--watermark-image", "none.png")
    assert "none.png: no such file" in line
    assert not (tmp_path / "run").exists()


def test_the_published_recipe_has_its_own_networks_and_noise():
    arguments = "--synthetic --limit 20 --epochs 1 --recipe published --output-dir x"
    watermark_ae.main(arguments.split())
    report = metrics_of("x")
    assert report["parameters"] == 1_677
    settings = report["settings"]
    assert [settings[name] for name in ("batch_size", "learning_rate", "noise")] == [64, 1.0, 0.5]
    assert report["test"].keys() == report["baselines"]["least significant bit"].keys()
    with pytest.raises(ValueError, match="--image-weight must be positive"):
        watermark_ae.Train(image_weight=0)


# ---------------------------------------------------------------- evaluation


def test_the_limit_of_one_pixel_against_simulated_noise():
    assert judge.one_pixel_limit(0.1, 0.1) == pytest.approx(0.7602, abs=1e-4)
    assert judge.one_pixel_limit(0.1, 0.1) == pytest.approx(norm.cdf(1 / math.sqrt(2)))
    assert judge.one_pixel_limit(0.1, 0.5) == pytest.approx(0.5562, abs=1e-4)
    rng, r, sigma = np.random.default_rng(0), 0.08, 0.1
    bits = rng.integers(0, 2, 200_000)
    pixels = bits * r * math.sqrt(2) + sigma * rng.standard_normal(200_000)
    correct = np.mean((pixels > r / math.sqrt(2)) == bits)
    assert correct == pytest.approx(judge.one_pixel_limit(r, sigma), abs=5e-3)


def test_the_last_bit_is_perfect_without_noise_and_chance_with_any():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(20, 24, 24, 1)).astype("float32")
    bits = rng.integers(0, 2, x.shape).astype("float32")
    marked = judge.embed_in_last_bits(x, bits)
    assert np.abs(marked - x).max() <= 1.51 / 255
    assert metrics.bit_accuracy(bits, judge.extract_last_bits(marked)) == 1
    middle = 0.4 + 0.2 * x  # nothing is clipped
    noisy = judge.add_noise(judge.embed_in_last_bits(middle, bits), 0.1)
    accuracy = metrics.bit_accuracy(bits, judge.extract_last_bits(noisy))
    assert accuracy == pytest.approx(0.5, abs=0.03)


def test_four_last_bits_hold_sixteen_levels():
    x, w = np.random.default_rng(0).uniform(size=(2, 5, 28, 28, 1)).astype("float32")
    marked = judge.embed_in_last_bits(x, w, 4)
    assert np.abs(marked - x).max() <= 15.51 / 255
    levels = judge.extract_last_bits(marked, 4)
    np.testing.assert_allclose(levels, np.round(15 * w) / 15, atol=1e-6)


def test_quantization_embeds_bits_at_the_quality_that_is_asked_for():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(30, 20, 20, 1)).astype("float32")
    bits = rng.integers(0, 2, images.shape).astype("float32")
    marked, step = judge.embed_by_quantization(images, bits, 25.0)
    assert metrics.psnr(images, marked) == pytest.approx(25.3, abs=0.35)
    assert metrics.bit_accuracy(bits, judge.extract_quantized(marked, step)) == 1
    # Levels of the same parity are two steps apart: noise beyond half a step gives a wrong bit.
    recovered = judge.extract_quantized(judge.add_noise(marked, step / 4), step)
    assert 0.9 < metrics.bit_accuracy(bits, recovered) < 0.98
    white = np.ones_like(images)
    marked, step = judge.embed_by_quantization(white, bits, 25.0)
    assert marked.max() <= 1  # where it would be clipped and lost
    assert metrics.psnr(white, marked) >= 25
    assert metrics.bit_accuracy(bits, judge.extract_quantized(marked, step)) == 1


@pytest.mark.parametrize("kind", ["bits", "gray"])
def test_black_pixels_and_strokes_are_measured_apart(kind):
    image = np.zeros((2, 28, 28, 1), "float32")
    image[:, 10:20] = 0.5
    w = watermark_ae.random_watermarks(kind, image.shape, 0)
    wrong = 1 - w if kind == "bits" else w + 0.1
    results = judge.evaluate(kind, image, w, image, lambda x: np.where(image > 0, wrong, w))
    metric, best, worst = ("bit_accuracy", 1, 0) if kind == "bits" else ("watermark_psnr", 100, 20)
    assert results[f"{metric}_black"] == best
    assert results[f"{metric}_stroke"] == pytest.approx(worst, abs=1e-3)
    assert results["psnr"] == 100


def test_real_digits_are_mostly_black(real_data):
    digits = data.load_mnist(watermark_ae.Train(data_dir=real_data))
    assert 0.75 < np.mean(digits.x_test == 0) < 0.85
