"""watermark_ae.py: the networks, the loss, and what is computed."""

import math

import keras
import numpy as np
import pytest
from conftest import report_of
from scipy.stats import norm

import watermark_ae as script
from common import data, metrics

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


# ---------------------------------------------------------------- what is computed


def test_wanted_psnr_rises_and_validation_is_by_the_last():
    wanted = keras.Variable(1.0, trainable=False)
    callback = script.RaisePsnr(wanted, psnr=20, epochs=10, steps_per_epoch=10)

    def psnr(epoch, batch):
        callback.on_epoch_begin(epoch)
        callback.on_train_batch_begin(batch)
        return -10 * math.log10(float(wanted.numpy()))

    assert psnr(0, 0) == pytest.approx(6)
    assert psnr(1, 0) == pytest.approx(6)
    assert psnr(4, 0) == pytest.approx(13)
    assert psnr(7, 0) == pytest.approx(20, rel=1e-5)
    assert psnr(9, 9) == pytest.approx(20, rel=1e-5)
    psnr(0, 0)
    callback.on_test_begin()
    assert -10 * math.log10(float(wanted.numpy())) == pytest.approx(20, rel=1e-5)


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
    marked = script.hide_in_last_bit(x, bits)
    assert np.abs(marked - x).max() <= 1.51 / 255
    assert metrics.bit_accuracy(bits, script.read_last_bit(marked)) == 1
    middle = 0.4 + 0.2 * x  # nothing is clipped
    noisy = script.noisy(script.hide_in_last_bit(middle, np.round(x)), 0.1)
    accuracy = metrics.bit_accuracy(np.round(x), script.read_last_bit(noisy))
    assert accuracy == pytest.approx(0.5, abs=0.03)


def test_bit_accuracy_by_hand():
    bits, p = np.array([0, 1, 1, 0.0]), np.array([0.2, 0.9, 0.4, 0.6])
    assert metrics.bit_accuracy(bits, p) == 0.5


# ---------------------------------------------------------------- the script as a whole


def test_the_published_recipe_trains_with_its_own_loss(capsys):
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
    assert metrics.psnr(images, marked) == pytest.approx(25, abs=0.1)
    assert metrics.bit_accuracy(bits, script.read_quantised(marked, step)) > 0.97
    # Levels of like parity lie two steps apart: noise beyond half a step is read wrong.
    found = script.read_quantised(script.noisy(marked, step / 4), step)
    assert 0.9 < metrics.bit_accuracy(bits, found) < 0.98
