import numpy as np
from scipy import ndimage

from common import data, metrics
from synthetic import old_pages, pages, textures
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


def test_old_sheets_repeat_by_seed_and_cover_what_archives_have():
    sheets = old_pages.Sheets(24, seed=1, side=256)
    again = old_pages.Sheets(2, seed=1, side=256)
    for name in ("inks", "papers"):
        np.testing.assert_array_equal(getattr(sheets, name)[1], getattr(again, name)[1])
        assert len({sheet.tobytes() for sheet in getattr(sheets, name)}) == 24
    one, two = (sheets.patch(np.random.default_rng(5), 192) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    pairs = [sheets.patch(np.random.default_rng(number), 192) for number in range(100)]
    assert all(part.shape == (192, 192) and part.dtype == np.float32 for p in pairs for part in p)
    assert all(part.min() >= 0 and part.max() <= 1 for pair in pairs for part in pair)
    written = [(dirty, clean < 0.5) for dirty, clean in pairs if 0.01 < (clean < 0.5).mean() < 0.5]
    contrasts = [np.median(dirty[~is_ink]) - np.median(dirty[is_ink]) for dirty, is_ink in written]
    assert np.quantile(contrasts, 0.1) < 0.15  # faint ink
    assert np.quantile(contrasts, 0.9) > 0.35
    assert any(
        (clean == 1).all() and dirty.std() > 0.02 for dirty, clean in pairs
    )  # blank, stained


def test_what_shows_through_is_no_ink():
    """The back of a sheet darkens it, mirrored, and is not in the clean page."""
    back = np.zeros((128, 128), "float32")
    back[20:100, 10:30] = 1
    paper = np.ones((128, 128), "float32")
    darker = []
    for seed in range(20):
        dirty, clean = old_pages.scan(np.random.default_rng(seed), None, back, paper)
        if (clean == 1).all():  # no scanner's bed beside it
            darker.append(dirty[40:80, 108:114].mean() < dirty[40:80, 14:26].mean())
    assert len(darker) > 12
    assert np.mean(darker) > 0.8


def test_faint_ink_is_as_black_as_strong_ink_on_the_clean_page():
    front = np.zeros((128, 128), "float32")
    front[30:90, 40:46] = 1
    for seed in range(20):
        sheet = np.ones((128, 128), "float32")
        _, clean = old_pages.scan(np.random.default_rng(seed), front, None, sheet)
        if clean[0].min() == clean[-1].min() == clean[:, 0].min() == clean[:, -1].min() == 1:
            assert clean[40:80, 42:44].max() < 0.05 or clean[40:80, 42:44].min() == 1
