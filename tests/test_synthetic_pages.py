"""synthetic/pages.py and old_pages.py: reproducible, and similar to real pages in numbers."""

import numpy as np

from common import metrics
from synthetic import old_pages, pages


def test_pages_repeat_by_seed_and_resemble_real_ones():
    made = pages.make_pages(24, seed=3)
    again = pages.make_pages(2, seed=3)
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


def test_each_kind_of_dirt_changes_paper_and_leaves_letters():
    clean = pages.make_pages(1, seed=1, scale=1)[0][1]
    for kind in pages.KINDS:
        dirty = pages.add_stains(clean, seed=4, kind=kind)
        assert dirty.shape == clean.shape
        assert dirty.std() > 5
        letters, paper = dirty[clean < 50].mean(), dirty[clean == 255].mean()
        assert letters < 0.6 * paper
        np.testing.assert_array_equal(dirty, pages.add_stains(clean, seed=4, kind=kind))


def test_old_sheets_repeat_by_seed_and_vary_as_in_archives():
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
    # Some are blank but stained.
    assert any((clean == 1).all() and dirty.std() > 0.02 for dirty, clean in pairs)


def test_ink_that_shows_through_is_not_in_the_clean_page():
    """The back of a sheet darkens it, mirrored."""
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


def test_faint_ink_is_black_in_the_clean_page():
    front = np.zeros((128, 128), "float32")
    front[30:90, 40:46] = 1
    for seed in range(20):
        sheet = np.ones((128, 128), "float32")
        _, clean = old_pages.scan(np.random.default_rng(seed), front, None, sheet)
        if clean[0].min() == clean[-1].min() == clean[:, 0].min() == clean[:, -1].min() == 1:
            assert clean[40:80, 42:44].max() < 0.05 or clean[40:80, 42:44].min() == 1
