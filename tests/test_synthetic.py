import numpy as np
from scipy import ndimage

from common import data, metrics
from synthetic import pages, textures
from synthetic.clothes import clothes
from synthetic.digits import digits


def test_digits_look_like_mnist_in_numbers():
    images, labels = digits(500, seed=1)
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
    one, _ = digits(50, seed=7)
    np.testing.assert_array_equal(one, digits(50, seed=7)[0])
    assert len(np.unique(one, axis=0)) == 50
    assert not np.array_equal(one, digits(50, seed=8)[0])


def test_digits_can_be_told_apart():
    """The nearest of 1,000 other synthetic digits mostly has the same label, as in MNIST."""
    images, labels = digits(1_200, seed=2)
    flat = ndimage.gaussian_filter(images.astype("float32"), (0, 1, 1)).reshape(1_200, -1)
    distances = ((flat[:200, None] - flat[None, 200:]) ** 2).sum(-1)
    assert (labels[200:][distances.argmin(1)] == labels[:200]).mean() > 0.8


def test_a_model_of_synthetic_digits_would_see_real_ones(real_data):
    """Real digits find their like among synthetic ones far more often than by chance."""
    synthetic, labels = digits(2_000, seed=2)
    real = data.load_mnist(real_data)
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


def test_clothes_can_be_told_apart_by_the_nearest_other():
    images, labels = clothes(1_200, seed=2)
    flat = images.reshape(1_200, -1).astype("float32")
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    nearest = (flat[:200] @ flat[200:].T).argmax(1)
    assert (labels[200:][nearest] == labels[:200]).mean() > 0.8


def test_real_clothes_find_their_like_among_synthetic_ones(real_data):
    synthetic, labels = clothes(2_000, seed=2)
    real = data.load_fashion_mnist(real_data)
    flat = [
        ndimage.gaussian_filter(x.astype("float32"), (0, 1, 1)).reshape(len(x), -1)
        for x in (synthetic, real.x_test[:300, ..., 0])
    ]
    flat = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in flat]
    nearest = (flat[1] @ flat[0].T).argmax(1)
    assert (labels[nearest] == real.y_test[:300]).mean() > 0.4  # chance: 0.1


def test_made_pages_repeat_by_seed_and_look_like_the_real_ones_in_numbers():
    made = pages.pages(24, seed=3)
    again = pages.pages(2, seed=3)
    for one, two in zip(made, again, strict=False):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[3] == two[3]
    assert len({page[0].tobytes() for page in made}) == 24
    assert {page[2] for page in made} == set(pages.KINDS)
    dirty, clean = (np.stack([page[part] for page in made]) / 255 for part in (0, 1))
    # NoisyOffice: RMSE of the dirty pages 0.158, clean pages 0.92 on average, 70% pure white.
    assert 0.1 < metrics.mse(clean, dirty) ** 0.5 < 0.35
    assert 0.82 < clean.mean() < 0.96
    assert 0.55 < (clean == 1).mean() < 0.9
    assert all(len(page[3]) >= 2 for page in made)
    assert any(any(c.isdigit() for c in " ".join(page[3])) for page in made)


def test_each_kind_of_dirt_changes_paper_and_keeps_letters():
    clean = pages.pages(1, seed=1, scale=1)[0][1]
    for kind in pages.KINDS:
        dirty = pages.add_stains(clean, seed=4, kind=kind)
        assert dirty.shape == clean.shape
        assert dirty.std() > 5
        letters, paper = dirty[clean < 50].mean(), dirty[clean == 255].mean()
        assert letters < 0.6 * paper
        np.testing.assert_array_equal(dirty, pages.add_stains(clean, seed=4, kind=kind))


def test_textures_repeat_by_seed_and_differ():
    made = textures.textures(30, seed=1)
    assert made.shape == (30, 64, 64)
    assert len(np.unique(made, axis=0)) == 30
    np.testing.assert_array_equal(made[:3], textures.textures(3, seed=1))
