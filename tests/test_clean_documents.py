"""clean_documents.py: the networks, what is computed, and what becomes of files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, python
from PIL import Image, ImageOps

import clean_documents as script
from applications import page_cleaning
from applications.denoising import pad_to_multiple
from common import metrics, noisy_office
from common.noisy_office import Page
from synthetic import pages

SHIPPED = ROOT / "models" / "clean_documents.keras"


@pytest.fixture(scope="module")
def shipped():
    return keras.saving.load_model(SHIPPED, compile=False)


@pytest.fixture(scope="module")
def page():
    """A synthetic page of odd size, (dirty, clean), each uint8 (h, w, 1)."""
    return pages.pages(1, seed=5, height=333, width=441, scale=1)[0][:2]


# ---------------------------------------------------------------- networks


def test_parameters_and_shapes():
    autoencoder, unet = script.build_autoencoder(), script.build_unet()
    assert autoencoder.count_params() == 38_145
    assert unet.count_params() == 817_873
    for network in (autoencoder, unet):
        assert network(np.zeros((1, 64, 96, 1))).shape == (1, 64, 96, 1)


def test_unet_starts_from_the_page_divided_by_its_paper():
    """Untrained it flattens a shade, keeps narrow strokes, and fills none of them up."""
    unet = script.build_unet()
    shade = np.linspace(0.4, 0.9, 128)[None, :, None, None] * np.ones((1, 128, 128, 1))
    strokes = np.ones((1, 128, 128, 1))
    strokes[:, 20:100, 40:48] = 0.3
    strokes[:, 20:100, 80:82] = 0.7
    found = np.asarray(unet((shade * strokes).astype("float32")))
    np.testing.assert_allclose(found[:, 24:104, 24:104], strokes[:, 24:104, 24:104], atol=0.07)


@pytest.mark.parametrize("wanted", [0.0, 1.0])
def test_a_network_that_has_gone_beyond_black_or_white_still_learns(wanted):
    """Clipping must not stop the gradient: with relu it did, and training died white."""
    unet = script.build_unet()
    change = unet.get_layer("change")
    change.set_weights([change.get_weights()[0], np.array([5.0 if wanted == 0 else -5.0])])
    page = np.random.default_rng(0).uniform(size=(1, 32, 32, 1)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(unet(page) - wanted))
    assert float(loss) == pytest.approx(1)
    assert abs(float(tape.gradient(loss, change.bias)[0])) > 0.1


def test_tiles_leave_no_seam(shipped, monkeypatch):
    """A page of faint and strong ink, cut into tiles that are small beside it."""
    dirty = script.old_pages_to_test(limit=10)[0].dirty.astype("float32") / 255
    dirty = np.concatenate([dirty, dirty[::-1]])[:899, :470]
    height, width = dirty.shape[:2]
    whole = np.asarray(shipped(pad_to_multiple(dirty, 32)[None]))[0, :height, :width]
    monkeypatch.setattr(page_cleaning, "SMALL", 0)  # one pass
    monkeypatch.setattr(page_cleaning, "leave_faint", lambda page, cleaned: None)
    monkeypatch.setattr(page_cleaning, "TILE", 256)
    tiled = page_cleaning.cleaner(shipped)(dirty)
    assert tiled.shape == dirty.shape
    assert np.quantile(np.abs(tiled - whole), 0.999) < 1 / 255
    # The margin is what makes it so.
    monkeypatch.setattr(page_cleaning, "MARGIN", 0)
    without = page_cleaning.cleaner(shipped)(dirty)
    assert np.quantile(np.abs(without - whole), 0.999) > 1 / 255


# ---------------------------------------------------------------- what is computed


def test_evaluate_pools_over_pixels():
    def flat(height, error, kind):
        clean = np.full((height, 10, 1), 255, np.uint8)
        return Page("", kind, clean - np.uint8(error), clean)

    pages = [flat(10, 51, "coffee"), flat(30, 0, "folds"), flat(20, 102, "coffee")]
    found = script.evaluate(lambda page: page, pages)
    assert found["rmse"] == pytest.approx(np.sqrt((10 * 0.04 + 20 * 0.16) / 60), rel=1e-5)
    assert found["rmse_coffee"] == pytest.approx(np.sqrt((10 * 0.04 + 20 * 0.16) / 30), rel=1e-5)
    assert found["rmse_folds"] == 0
    assert found["psnr"] == np.inf


def test_background_median_flattens_light_and_keeps_letters():
    ground = np.linspace(0.5, 1, 100)[:, None, None] * np.ones((100, 100, 1))
    letters = np.ones((100, 100, 1))
    letters[40:60, 50:53] = 0.2
    restored = script.background_median((ground * letters).astype("float32"))
    np.testing.assert_allclose(restored[20:80, 20:80], letters[20:80, 20:80], atol=0.03)


def test_the_piece_shown_is_where_dirt_lies_on_letters():
    clean = np.ones((300, 400, 1), "float32")
    clean[200:260:10, 250:350] = 0  # lines of text, far from the corner
    dirty = clean.copy()
    dirty[:40, :40] -= 0.5  # a stain on blank paper, and a fainter one on the text
    dirty[190:270, 240:360] *= 0.7
    rows, columns = script.dirtiest_piece(dirty, clean, 100, 200)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (100, 200)
    assert rows.start <= 210
    assert rows.stop >= 250
    assert columns.start <= 260
    assert columns.stop >= 340
    small = dirty[:50, :60], clean[:50, :60]
    rows, columns = script.dirtiest_piece(*small, 100, 200)
    assert small[0][rows, columns].shape == (50, 60, 1)


def test_f_measure_by_hand():
    truth = np.array([1, 1, 1, 0, 0, 0], bool)
    found = np.array([1, 1, 0, 1, 0, 0], bool)
    assert script.f_measure(found, truth) == pytest.approx(2 / 3)
    assert script.f_measure(truth, truth) == 1
    assert script.f_measure(~truth, truth) == 0
    nothing = np.zeros(6, bool)
    assert script.f_measure(nothing, nothing) == 1


def test_whole_pages_show_every_pixel_of_every_page():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (h, w, 1), dtype=np.uint8) for h, w in ((30, 50), (44, 33))]
    dirty, clean = script.whole_pages([Page("", "", p, 255 - p) for p in pictures])
    assert dirty.shape == clean.shape == (2, 64, 64, 1)
    for picture, seen in zip(pictures, dirty, strict=True):
        height, width, _ = picture.shape
        np.testing.assert_allclose(seen[:height, :width], picture / 255, atol=1e-6)
    np.testing.assert_allclose(clean, 1 - dirty, atol=1e-6)
    assert dirty.dtype == np.float32


def test_patches_keep_dirty_and_clean_together(page):
    both = Page("", "", page[1], page[1])
    rng = np.random.default_rng(0)
    for _ in range(20):
        dirty, clean = script.cut_patch(both, 128, False, rng)
        assert dirty.shape == (128, 128)
        np.testing.assert_array_equal(dirty, clean)
    changed = [script.cut_patch(both, 128, True, rng) for _ in range(40)]
    shares = np.mean([not np.array_equal(dirty, clean) for dirty, clean in changed])
    assert 0.25 < shares < 0.75
    assert all(part.min() >= 0 and part.max() <= 1 for pair in changed for part in pair)
    assert all(part.dtype == np.float32 for pair in changed for part in pair)


# ---------------------------------------------------------------- the script as a whole


def test_shipped_model_cleans_synthetic_pages(shipped):
    cleaner, errors = page_cleaning.cleaner(shipped), []
    for pair in pages.pages(10, seed=5, height=333, width=441, scale=1):
        dirty, clean = (part.astype("float32") / 255 for part in pair[:2])
        found = dirty, script.background_median(dirty), cleaner(dirty)
        errors.append([metrics.mse(clean, picture) for picture in found])
    errors = np.mean(errors, axis=0)
    assert errors[2] < min(errors[0] / 16, 0.6 * errors[1])
    assert SHIPPED.stat().st_size < 2e6


def test_input_files_keep_names_and_sizes(page, tmp_path):
    (tmp_path / "in").mkdir()
    grey = Image.fromarray(page[0][..., 0])
    grey.save("in/a.png")
    Image.merge("RGB", [grey, ImageOps.invert(grey), grey]).save("in/b.JPG", quality=95)
    Image.fromarray(page[0][..., 0].astype(np.uint16) * 257).save("in/c.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    grey.save("in/d.jpg", exif=exif)
    grey.crop((0, 0, 7, 3)).save("in/e.png")
    done = python(ROOT / "clean_documents.py", "--input", *sorted((tmp_path / "in").iterdir()))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "runs" / "clean_documents_cleaned"
    assert sorted(path.name for path in out.iterdir()) == [
        "a.png", "b.JPG", "c.tiff", "cleaned.json", "d.jpg", "e.png",
    ]  # fmt: skip
    sizes = {path.name: Image.open(path).size for path in out.iterdir() if path.suffix != ".json"}
    assert sizes["a.png"] == sizes["b.JPG"] == sizes["c.tiff"] == grey.size
    assert sizes["d.jpg"] == grey.size[::-1]
    assert sizes["e.png"] == (7, 3)
    eight, sixteen = (
        np.asarray(Image.open(out / name)).astype(int) for name in ("a.png", "c.tiff")
    )
    assert np.abs(eight - sixteen).max() <= 1
    assert metrics.mse(page[1][..., 0] / 255, eight / 255) < 0.01


def test_real_pages_come_out_as_readme_says(real_data, shipped):
    office = noisy_office.load_noisy_office(real_data)
    assert (len(office.train), len(office.validation), len(office.test)) == (72, 16, 36)
    dirty = script.evaluate(lambda page: page, office.test)
    assert dirty["rmse"] == pytest.approx(0.1536, abs=0.0001)
    cleaned = script.evaluate(page_cleaning.cleaner(shipped), office.test)
    assert cleaned["rmse"] == pytest.approx(0.0193, abs=0.0001)
