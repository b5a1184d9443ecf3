import math

import keras
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from common import metrics


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    clean = rng.random((5, 12, 10, 1), dtype="float32")
    return clean, np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype("float32")


def test_values_worked_out_by_hand():
    clean = np.zeros((2, 8, 8, 1), "float32")
    image = np.concatenate([np.full((1, 8, 8, 1), 0.1), np.full((1, 8, 8, 1), 0.01)])
    assert metrics.mse(clean, image) == pytest.approx((0.01 + 0.0001) / 2)
    assert metrics.psnr(clean, image) == pytest.approx((20 + 40) / 2)
    half = np.full((2, 8, 8, 1), 0.5)
    assert metrics.binary_crossentropy(clean, half) == pytest.approx(math.log(2))
    quarter = np.full((2, 8, 8, 1), 0.25)
    by_hand = -0.25 * math.log(0.5) - 0.75 * math.log(0.5)
    assert metrics.binary_crossentropy(quarter, half) == pytest.approx(by_hand)


def test_psnr_agrees_with_scikit_image(pair):
    theirs = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(*pair, strict=True)]
    assert metrics.psnr(*pair) == pytest.approx(np.mean(theirs), rel=1e-6)


def test_crossentropy_agrees_with_keras(pair):
    theirs = float(keras.ops.mean(keras.losses.binary_crossentropy(*pair)))
    assert metrics.binary_crossentropy(*pair) == pytest.approx(theirs, rel=1e-4)
    clean = np.ones((1, 2, 2, 1), "float32")  # the clipping: log(1e-7)
    assert metrics.binary_crossentropy(clean, 0 * clean) == pytest.approx(-math.log(1e-7))


def test_exact_images():
    clean = np.random.default_rng(0).random((3, 9, 9, 1), dtype="float32")
    assert metrics.psnr(clean, clean) == 100
    assert metrics.ssim(clean, clean) == pytest.approx(1)
    assert metrics.mse(clean, clean) == 0


def test_ssim_is_zero_for_unrelated_and_negative_for_inverted_images():
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 4, 64, 64, 1))
    assert abs(metrics.ssim(one, two)) < 0.05
    assert metrics.ssim(one, 1 - one) < -0.8


def test_median_filter():
    image = np.zeros((2, 5, 5, 1), "float32")
    image[0, 2, 2] = 1  # a lone pixel goes
    image[1, :, 3:] = 1  # an edge stays
    filtered = metrics.median_3x3(image)
    assert filtered[0].max() == 0
    np.testing.assert_array_equal(filtered[1], image[1])


def test_compare_names_rows_and_columns(pair):
    clean, noisy = pair
    table = metrics.compare(clean, {"noisy": noisy}, [metrics.mse, metrics.psnr])
    expected = {"mse": metrics.mse(clean, noisy), "psnr": metrics.psnr(clean, noisy)}
    assert table == {"noisy": expected}


def test_knn_accuracy_by_hand():
    codes = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    labels = np.array([0, 0, 1, 1, 1, 0])
    test_codes, test_labels = np.array([[0.05], [5.05], [5.05]]), np.array([0, 1, 0])
    assert metrics.knn_accuracy(codes, labels, test_codes, test_labels, k=3) == pytest.approx(2 / 3)


def test_bit_accuracy_by_hand():
    assert metrics.bit_accuracy(np.array([0, 0, 1, 1]), np.array([0.4, 0.6, 0.7, 0.9])) == 0.75


def test_ink_by_hand():
    truth = np.array([1, 1, 1, 0, 0, 0], bool)
    page = np.where(truth, 0.2, 0.9).astype("float32").reshape(2, 3, 1)
    np.testing.assert_array_equal(metrics.ink(page).ravel(), truth)
    assert not metrics.ink(np.ones((4, 4, 1), "float32")).any()


def test_f_measure_by_hand():
    predicted, truth = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 1], bool)
    # Precision 1/2, recall 1/3.
    assert metrics.f_measure(predicted, truth) == pytest.approx(2 * (1 / 6) / (5 / 6))
    assert metrics.f_measure(truth, truth) == 1
    assert metrics.f_measure(~truth, truth) == 0
