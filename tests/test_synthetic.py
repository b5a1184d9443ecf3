import numpy as np
from scipy import ndimage

from common import cli, data
from synthetic import textures
from synthetic.clothes import clothes
from synthetic.digits import digits


def test_digits_resemble_mnist():
    images, labels = digits(500, seed=1)
    assert images.shape == (500, 28, 28)
    assert images.dtype == np.uint8
    assert set(labels) == set(range(10))
    # MNIST: mean 33, 13% of the pixels bright, 9% gray, black corners.
    assert 28 < images.mean() < 42
    assert 0.10 < (images > 127).mean() < 0.17
    assert 0.05 < ((images > 20) & (images < 235)).mean() < 0.14
    assert images[:, 0, 0].max() == 0
    centers = [ndimage.center_of_mass(image) for image in images]
    assert np.abs(np.array(centers) - 13.5).max() <= 1  # whole pixels, and a tail cut off


def test_digits_repeat_by_seed_and_vary():
    one, _ = digits(50, seed=7)
    np.testing.assert_array_equal(one, digits(50, seed=7)[0])
    assert len(np.unique(one, axis=0)) == 50
    assert not np.array_equal(one, digits(50, seed=8)[0])


def test_digits_of_a_class_resemble_each_other():
    """The nearest of 1,000 other synthetic digits mostly has the same label, as in MNIST."""
    images, labels = digits(1_200, seed=2)
    flat = ndimage.gaussian_filter(images.astype("float32"), (0, 1, 1)).reshape(1_200, -1)
    distances = ((flat[:200, None] - flat[None, 200:]) ** 2).sum(-1)
    assert (labels[200:][distances.argmin(1)] == labels[:200]).mean() > 0.8


def test_real_digits_resemble_synthetic_ones_of_their_class(real_data):
    """The nearest synthetic digit has the same label far more often than by chance."""
    synthetic, labels = digits(2_000, seed=2)
    real = data.load_mnist(cli.Train(data_dir=real_data))
    blur = [
        ndimage.gaussian_filter(x.astype("float32"), (0, 1, 1)).reshape(len(x), -1)
        for x in (synthetic / 255, real.x_test[:300, ..., 0])
    ]
    nearest = [((blur[0] - image) ** 2).sum(1).argmin() for image in blur[1]]
    assert (labels[nearest] == real.y_test[:300]).mean() > 0.6


def test_clothes_cover_ten_classes_and_repeat_by_seed():
    images, labels = clothes(300, seed=1)
    assert images.shape == (300, 28, 28)
    assert images.dtype == np.uint8
    assert set(labels) == set(range(10))
    np.testing.assert_array_equal(images, clothes(300, seed=1)[0])
    assert len(np.unique(images, axis=0)) == 300
    # Fashion-MNIST: mean 73, half of the pixels black.
    assert 50 < images.mean() < 90
    assert 0.35 < (images == 0).mean() < 0.65


def test_clothes_of_a_class_resemble_each_other():
    images, labels = clothes(1_200, seed=2)
    flat = images.reshape(1_200, -1).astype("float32")
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    nearest = (flat[:200] @ flat[200:].T).argmax(1)
    assert (labels[200:][nearest] == labels[:200]).mean() > 0.8


def test_real_clothes_resemble_synthetic_ones_of_their_class(real_data):
    synthetic, labels = clothes(2_000, seed=2)
    real = data.load_fashion_mnist(cli.Train(data_dir=real_data))
    flat = [
        ndimage.gaussian_filter(x.astype("float32"), (0, 1, 1)).reshape(len(x), -1)
        for x in (synthetic, real.x_test[:300, ..., 0])
    ]
    flat = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in flat]
    nearest = (flat[1] @ flat[0].T).argmax(1)
    assert (labels[nearest] == real.y_test[:300]).mean() > 0.4  # chance: 0.1


def test_textures_repeat_by_seed_and_differ():
    images = textures.make_textures(30, seed=1)
    assert images.shape == (30, 64, 64)
    assert len(np.unique(images, axis=0)) == 30
    np.testing.assert_array_equal(images[:3], textures.make_textures(3, seed=1))
