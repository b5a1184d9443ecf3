import math

import keras
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from common import metrics, noise


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
    assert table == {
        "noisy": {"mse": metrics.mse(clean, noisy), "psnr": metrics.psnr(clean, noisy)}
    }


def test_gaussian_noise_statistics():
    grey = np.full((40, 50, 50, 1), 0.5, "float32")
    noisy = noise.gaussian(grey, 0.1, seed=3)
    added = (noisy - grey).ravel()
    n = added.size
    assert noisy.dtype == np.float32
    assert abs(added.mean()) < 4 * 0.1 / math.sqrt(n)
    assert added.std() == pytest.approx(0.1, abs=4 * 0.1 / math.sqrt(2 * n))
    assert abs(np.corrcoef(noisy[:, :-1].ravel(), noisy[:, 1:].ravel())[0, 1]) < 0.02
    np.testing.assert_array_equal(noisy, noise.gaussian(grey, 0.1, seed=3))
    assert not np.array_equal(noisy, noise.gaussian(grey, 0.1, seed=4))


def test_gaussian_noise_is_clipped_and_leaves_its_input():
    black = np.zeros((10, 20, 20, 1), "float32")
    noisy = noise.gaussian(black, 0.5, seed=0)
    assert noisy.min() == 0
    assert noisy.max() == 1
    # Half of the values are below zero; 2.28% lie above two standard deviations.
    assert (noisy == 0).mean() == pytest.approx(0.5, abs=0.04)
    assert (noisy == 1).mean() == pytest.approx(0.0228, abs=0.012)
    assert black.max() == 0


def test_pca_against_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    train, test = rng.random((50, 4, 3, 1)), rng.random((5, 4, 3, 1))
    mean = train.mean(0)
    axes = np.linalg.svd((train - mean).reshape(50, 12))[2][:3]
    expected = ((test - mean).reshape(5, 12) @ axes.T @ axes).reshape(test.shape) + mean
    components = metrics.principal_components(train)
    np.testing.assert_allclose(metrics.rebuild(test, *components, 3), expected, atol=1e-10)
    np.testing.assert_allclose(metrics.rebuild(test, *components, 12), test, atol=1e-10)


def test_ink_by_hand():
    truth = np.array([1, 1, 1, 0, 0, 0], bool)
    page = np.where(truth, 0.2, 0.9).astype("float32").reshape(2, 3, 1)
    np.testing.assert_array_equal(metrics.ink(page).ravel(), truth)
    assert not metrics.ink(np.ones((4, 4, 1), "float32")).any()
