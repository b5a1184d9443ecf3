"""clean_documents.py: the networks, the patches, what is computed, and files of the user."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, python
from PIL import Image, ImageOps

import clean_documents as script
from common import cli, metrics, noisy_office
from common.noisy_office import Page
from evaluation import clean_documents as evaluation
from synthetic import pages
from tools.scans.page import cleaner

SHIPPED = ROOT / "models" / "clean_documents.keras"


@pytest.fixture(scope="module")
def shipped():
    return keras.saving.load_model(SHIPPED, compile=False)


@pytest.fixture(scope="module")
def page():
    """A synthetic page of odd size, (dirty, clean), each uint8 (h, w, 1)."""
    return pages.make_pages(1, seed=5, height=333, width=441, scale=1)[0][:2]


# ---------------------------------------------------------------- networks


def test_parameters_and_shapes():
    autoencoder, unet = script.build_autoencoder(), script.build_unet()
    assert autoencoder.count_params() == 38_145
    assert unet.count_params() == 817_873
    for network in (autoencoder, unet):
        assert network(np.zeros((1, 64, 96, 1))).shape == (1, 64, 96, 1)
    for build in (script.build_autoencoder, script.build_unet):
        assert build(64, 96, channels=3).output.shape == (None, 64, 96, 3)
        with pytest.raises(ValueError, match="height and width must be"):
            build(65, 96)


def test_unet_starts_from_the_page_divided_by_its_paper():
    """Untrained it flattens a shade and keeps narrow strokes."""
    unet = script.build_unet()
    shade = np.linspace(0.4, 0.9, 128)[None, :, None, None] * np.ones((1, 128, 128, 1))
    strokes = np.ones((1, 128, 128, 1))
    strokes[:, 20:100, 40:48] = 0.3
    strokes[:, 20:100, 80:82] = 0.7
    divided = np.asarray(unet((shade * strokes).astype("float32")))
    np.testing.assert_allclose(divided[:, 24:104, 24:104], strokes[:, 24:104, 24:104], atol=0.07)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_outputs_beyond_black_or_white_still_have_a_gradient(target):
    """With a ReLU they had none, and training ended with white pages."""
    unet = script.build_unet()
    change = unet.get_layer("change")
    change.set_weights([change.get_weights()[0], np.array([5.0 if target == 0 else -5.0])])
    page = np.random.default_rng(0).uniform(size=(1, 32, 32, 1)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(unet(page) - target))
    assert float(loss) == pytest.approx(1)
    assert abs(float(tape.gradient(loss, change.bias)[0])) > 0.1


def test_shipped_model_cleans_synthetic_pages(shipped):
    clean_with_network, errors = cleaner(shipped), []
    for dirty, clean, _, _ in pages.make_pages(10, seed=5, height=333, width=441, scale=1):
        dirty, clean = (image.astype("float32") / 255 for image in (dirty, clean))
        results = dirty, evaluation.background_median(dirty), clean_with_network(dirty)
        errors.append([metrics.mse(clean, result) for result in results])
    dirty_error, median_error, error = np.mean(errors, axis=0)
    assert error < min(dirty_error / 16, 0.6 * median_error)
    assert SHIPPED.stat().st_size < 2e6


def test_real_pages_come_out_as_published(real_data, shipped):
    office = noisy_office.load_noisy_office(cli.Train(data_dir=real_data))
    assert (len(office.train), len(office.validation), len(office.test)) == (72, 16, 36)
    dirty = evaluation.evaluate(lambda page: page, office.test)
    assert dirty["rmse"] == pytest.approx(0.1536, abs=0.0001)
    cleaned = evaluation.evaluate(cleaner(shipped), office.test)
    assert cleaned["rmse"] == pytest.approx(0.0189, abs=0.0001)


# ---------------------------------------------------------------- patches


def test_patches_show_the_same_place_dirty_and_clean(page):
    clean_page = page[1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        dirty, clean = script.cut_patch(clean_page, clean_page, 128, rng)
        assert dirty.shape == (128, 128)
        np.testing.assert_array_equal(dirty, clean)
    varied = [script.cut_patch(clean_page, clean_page, 128, rng, vary=True) for _ in range(40)]
    share = np.mean([not np.array_equal(dirty, clean) for dirty, clean in varied])
    assert 0.25 < share < 0.75
    assert all(part.min() >= 0 and part.max() <= 1 for pair in varied for part in pair)
    assert all(part.dtype == np.float32 for pair in varied for part in pair)


@pytest.mark.parametrize("architecture", ["unet", "autoencoder"])
def test_batches_of_patches_depend_on_the_seed_alone(architecture, monkeypatch):
    monkeypatch.setattr(script, "OLD_SHEETS", 2)
    settings = script.Train(architecture=architecture, limit=10)
    office = noisy_office.load_noisy_office(cli.Train(synthetic=True, limit=10))
    make_batch = script.patch_maker(settings, office.train)
    one, two = make_batch(np.arange(6), 7), make_batch(np.arange(6), 7)
    other = make_batch(np.arange(6), 8)
    for part, again, another in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(part, again)
        assert part.shape == another.shape
    assert not np.array_equal(one[0], other[0])
    side = script.PATCH_SIDE[architecture]
    assert one[0].shape == one[1].shape == (6, side, side, 1)
    if architecture == "unet":
        assert set(np.unique(one[2])) <= {1.0, script.OTHER_WEIGHT}


def test_the_shipped_recipe_is_the_unets(error_of):
    model = ROOT / "models" / "clean_documents_autoencoder.keras"
    for arguments in (["--architecture", "autoencoder"], ["--model", model]):
        error = error_of(script.main, "--recipe", "shipped", *arguments)
        assert error == "error: --recipe shipped needs --architecture unet\n"


# ---------------------------------------------------------------- evaluation


def test_rmse_is_pooled_over_pixels():
    def flat(height, error, kind):
        clean = np.full((height, 10, 1), 255, np.uint8)
        return Page("", kind, clean - np.uint8(error), clean)

    pages = [flat(10, 51, "coffee"), flat(30, 0, "folds"), flat(20, 102, "coffee")]
    results = evaluation.evaluate(lambda page: page, pages)
    assert results["rmse"] == pytest.approx(np.sqrt((10 * 0.04 + 20 * 0.16) / 60), rel=1e-5)
    assert results["rmse_coffee"] == pytest.approx(np.sqrt((10 * 0.04 + 20 * 0.16) / 30), rel=1e-5)
    assert results["rmse_folds"] == 0
    # 100 dB for the exact page
    expected = (-10 * np.log10(0.04) + 100 - 10 * np.log10(0.16)) / 3
    assert results["psnr"] == pytest.approx(expected, rel=1e-5)


def test_background_median_flattens_light_and_keeps_letters():
    light = np.linspace(0.5, 1, 100)[:, None, None] * np.ones((100, 100, 1))
    letters = np.ones((100, 100, 1))
    letters[40:60, 50:53] = 0.2
    restored = evaluation.background_median((light * letters).astype("float32"))
    np.testing.assert_allclose(restored[20:80, 20:80], letters[20:80, 20:80], atol=0.03)


def test_the_piece_in_the_figure_is_where_dirt_covers_letters():
    clean = np.ones((300, 400, 1), "float32")
    clean[200:260:10, 250:350] = 0  # lines of text, far from the corner
    dirty = clean.copy()
    dirty[:40, :40] -= 0.5  # a stain on blank paper, and a fainter one on the text
    dirty[190:270, 240:360] *= 0.7
    rows, columns = evaluation.dirtiest_piece(dirty, clean, 100, 200)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (100, 200)
    assert rows.start <= 210 < 250 <= rows.stop
    assert columns.start <= 260 < 340 <= columns.stop
    rows, columns = evaluation.dirtiest_piece(dirty[:50, :60], clean[:50, :60], 100, 200)
    assert dirty[:50, :60][rows, columns].shape == (50, 60, 1)


# ---------------------------------------------------------------- files of the user


def test_input_files_keep_names_and_sizes(page, tmp_path):
    (tmp_path / "in").mkdir()
    gray = Image.fromarray(page[0][..., 0])
    gray.save("in/a.png")
    Image.merge("RGB", [gray, ImageOps.invert(gray), gray]).save("in/b.JPG", quality=95)
    gray.crop((0, 0, 7, 3)).save("in/c.png")
    done = python(ROOT / "clean_documents.py", "--input", *sorted((tmp_path / "in").iterdir()))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "clean_documents_cleaned"
    sizes = {path.name: Image.open(path).size for path in out.iterdir() if path.suffix != ".json"}
    assert sizes == {"a.png": gray.size, "b.JPG": gray.size, "c.png": (7, 3)}
    cleaned = np.asarray(Image.open(out / "a.png"))
    assert metrics.mse(page[1][..., 0] / 255, cleaned / 255) < 0.01
