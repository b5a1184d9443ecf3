import numpy as np
from scipy import ndimage

from common import data, synthetic


def test_digits_look_like_mnist_in_numbers():
    images, labels = synthetic.digits(500, seed=1)
    assert images.shape == (500, 28, 28)
    assert images.dtype == np.uint8
    assert set(labels) == set(range(10))
    # MNIST: mean 33, 13% of the pixels bright, 9% grey, black corners.
    assert 28 < images.mean() < 42
    assert 0.10 < (images > 127).mean() < 0.17
    assert 0.05 < ((images > 20) & (images < 235)).mean() < 0.14
    assert images[:, 0, 0].max() == 0
    centres = [ndimage.center_of_mass(image) for image in images]
    assert np.abs(np.array(centres) - 13.5).max() <= 1  # whole pixels, and a tail cut off


def test_digits_repeat_by_seed_and_vary():
    one, _ = synthetic.digits(50, seed=7)
    np.testing.assert_array_equal(one, synthetic.digits(50, seed=7)[0])
    assert len(np.unique(one, axis=0)) == 50
    assert not np.array_equal(one, synthetic.digits(50, seed=8)[0])


def test_digits_can_be_told_apart():
    """The nearest of 1,000 other drawn digits mostly has the same label, as in MNIST."""
    images, labels = synthetic.digits(1_200, seed=2)
    flat = ndimage.gaussian_filter(images.astype("float32"), (0, 1, 1)).reshape(1_200, -1)
    distances = ((flat[:200, None] - flat[None, 200:]) ** 2).sum(-1)
    assert (labels[200:][distances.argmin(1)] == labels[:200]).mean() > 0.8


def test_a_model_of_drawn_digits_would_see_real_ones(real_data):
    """Real digits find their like among drawn ones far more often than by chance."""
    drawn, labels = synthetic.digits(2_000, seed=2)
    real = data.load_mnist(real_data)
    blur = [
        ndimage.gaussian_filter(x.astype("float32"), (0, 1, 1)).reshape(len(x), -1)
        for x in (drawn / 255, real.x_test[:300, ..., 0])
    ]
    nearest = [((blur[0] - image) ** 2).sum(1).argmin() for image in blur[1]]
    assert (labels[nearest] == real.y_test[:300]).mean() > 0.6


def test_garments_cover_ten_classes_and_repeat_by_seed():
    images, labels = synthetic.garments(300, seed=1)
    assert images.shape == (300, 28, 28)
    assert images.dtype == np.uint8
    assert set(labels) == set(range(10))
    np.testing.assert_array_equal(images, synthetic.garments(300, seed=1)[0])
    assert len(np.unique(images, axis=0)) == 300
    # Fashion-MNIST: mean 73, half of the pixels black.
    assert 50 < images.mean() < 90
    assert 0.35 < (images == 0).mean() < 0.65


def test_garments_can_be_told_apart_by_the_nearest_other():
    images, labels = synthetic.garments(1_200, seed=2)
    flat = images.reshape(1_200, -1).astype("float32")
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    nearest = (flat[:200] @ flat[200:].T).argmax(1)
    assert (labels[200:][nearest] == labels[:200]).mean() > 0.8


def test_real_garments_find_their_like_among_drawn_ones(real_data):
    drawn, labels = synthetic.garments(2_000, seed=2)
    real = data.load_fashion_mnist(real_data)
    flat = [
        ndimage.gaussian_filter(x.astype("float32"), (0, 1, 1)).reshape(len(x), -1)
        for x in (drawn, real.x_test[:300, ..., 0])
    ]
    flat = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in flat]
    nearest = (flat[1] @ flat[0].T).argmax(1)
    assert (labels[nearest] == real.y_test[:300]).mean() > 0.4  # chance: 0.1
