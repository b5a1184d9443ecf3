import math

import numpy as np
import pytest
from conftest import ROOT, python, report_of
from PIL import Image

import denoise_fashion
from common import batches, data, image_files, metrics, noise, plotting, trained_models

SCRIPT = ROOT / "denoise_fashion.py"
QUICK = ["--synthetic", "--limit", "60", "--epochs", "2"]
BOTH = pytest.mark.parametrize("architecture", ["autoencoder", "unet"])


@BOTH
def test_parameters_and_shapes(architecture):
    model = denoise_fashion.BUILDERS[architecture]()
    assert model.count_params() == {"autoencoder": 49_761, "unet": 90_817}[architecture]
    assert model.input_shape == model.output_shape == (None, 28, 28, 1)
    assert model.get_layer("latent").output.shape == (None, 4, 4, 16)


@pytest.mark.parametrize("side", [4, 28, 29, 36, 44, 50])
def test_output_side_is_what_the_padding_counts_on(side):
    model = denoise_fashion.build_autoencoder(None, None)
    out = model.predict(np.zeros((1, side, 28, 1), "float32"), verbose=0)
    assert out.shape[1] == 8 * math.ceil(side / 8) - 4


def test_the_unet_starts_from_its_input_and_stays_in_range():
    model = denoise_fashion.build_unet()
    change = model.get_layer("change")
    image = np.random.default_rng(0).random((2, 28, 28, 1), dtype="float32")
    np.testing.assert_array_equal(model.predict(image, verbose=0), image)
    change.set_weights([change.get_weights()[0], np.array([5.0], "float32")])
    assert model.predict(image, verbose=0).max() == 1


# ---------------------------------------------------------------- noise


def test_salt_and_pepper_statistics():
    """Share, distribution and independence on a constant grey image, up to sampling error."""
    grey = np.full((250, 28, 28, 1), 100 / 255, "float32")
    noisy = noise.salt_and_pepper(grey, 0.1, seed=5)
    replaced = noisy != grey
    n = grey.size
    assert abs(replaced.mean() - 0.1) < 4 * math.sqrt(0.09 / n) + 0.1 * 0.003
    values = noisy[replaced]
    # Beta(0.5, 0.5): P(b < t) = (2 / π)·asin(√t); mean 1/2, variance 1/8.
    error = 4 / math.sqrt(len(values))
    for t in (0.1, 0.25, 0.5, 0.75, 0.9):
        expected = 2 / math.pi * math.asin(math.sqrt(t))
        assert abs((values < t).mean() - expected) < error * 0.5 + 0.005
    assert values.mean() == pytest.approx(0.5, abs=error * 0.36)
    assert values.var() == pytest.approx(1 / 8, abs=error * 0.13)
    extreme = ((values == 0) | (values == 1)).mean()
    assert extreme == pytest.approx(4 / math.pi * math.asin(math.sqrt(0.5 / 255)), abs=0.01)
    between = ((values > 37 / 255) & (values < 218 / 255)).mean()
    assert 0.47 < between < 0.55  # the docstring's "half"
    neighbours = (replaced[:, :-1] & replaced[:, 1:]).mean()
    assert neighbours == pytest.approx(0.01, abs=0.001)
    per_image = replaced.sum((1, 2, 3))
    assert per_image.std() == pytest.approx(math.sqrt(784 * 0.09), rel=0.2)


def test_salt_and_pepper_repeats_and_leaves_the_rest_alone():
    clean = np.random.default_rng(0).random((20, 30, 26, 1), dtype="float32")
    before = clean.copy()
    noisy = noise.salt_and_pepper(clean, 0.2, seed=[1, 2])
    np.testing.assert_array_equal(clean, before)
    assert noisy.dtype == np.float32
    assert abs((noisy == clean).mean() - 0.8) < 0.02  # bit for bit
    np.testing.assert_array_equal(noisy, noise.salt_and_pepper(clean, 0.2, seed=[1, 2]))
    assert not np.array_equal(noisy, noise.salt_and_pepper(clean, 0.2, seed=[1, 3]))
    np.testing.assert_array_equal(noise.salt_and_pepper(clean, 0, seed=0), clean)


def test_importing_imgaug_leaves_numpy_as_it_was():
    noise.salt_and_pepper(np.zeros((1, 4, 4, 1), "float32"), 0.1, seed=0)
    assert hasattr(np, "sctypes") == (np.__version__ < "2")


def test_missing_system_library_names_the_packages(tmp_path):
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file')"
    )
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "import denoise_fashion\n"
        "denoise_fashion.command_line.start(denoise_fashion.main, ['--synthetic', '--limit', '20'])"
    )
    done = python("-c", code)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "libGL.so.1" in done.stderr
    assert "apt install libgl1 libglib2.0-0" in done.stderr


def test_the_outlier_median_touches_outliers_only():
    """On a slope, which a plain median filter would leave alone, too, with two lone pixels."""
    clean = np.linspace(0, 1, 20, dtype="float32")[None, :, None, None] * np.ones((4, 1, 20, 1))
    noisy = noise.salt_and_pepper(clean.astype("float32"), 0.1, seed=0)
    restore = denoise_fashion.outlier_median(noisy, clean)
    restored = restore(noisy)
    assert metrics.psnr(clean, restored) > metrics.psnr(clean, noisy) + 8
    image = np.full((1, 9, 9, 1), 0.4, "float32")
    image[0, 2, 2] = 1
    image[0, 6, 5:7] = 0.45
    restored = restore(image)
    assert restored[0, 2, 2] == np.float32(0.4)
    assert (restored != image).sum() == 1


def test_the_outlier_medians_threshold_is_chosen_on_the_images_it_is_given():
    rng = np.random.default_rng(0)
    rough = rng.random((5, 28, 28, 1), dtype="float32")  # nothing in it is an outlier
    kept = denoise_fashion.outlier_median(rough, rough)(rough)
    assert (kept == rough).mean() > 0.95


# ---------------------------------------------------------------- runs


def test_the_unet_learns_to_beat_its_input(figures_left_out):
    words = "--synthetic --limit 1000 --epochs 8 --architecture unet"
    denoise_fashion.main(words.split())
    report = report_of("runs/denoise_fashion_unet")
    assert report["test"]["psnr"] > report["baselines"]["noisy_input"]["psnr"] + 4


def test_the_other_network_stands_in_the_table_only_if_it_knows_the_same(
    real_data, capsys, figures_left_out
):
    words = ["--data-dir", real_data, "--limit", "40", "--epochs", "1"]
    denoise_fashion.main(words)
    assert "\nunet " in capsys.readouterr().out
    denoise_fashion.main([*words, "--noise", "0.3"])
    assert "\nunet " not in capsys.readouterr().out
    denoise_fashion.main([*words[2:], "--synthetic"])
    assert "\nunet " not in capsys.readouterr().out


# ---------------------------------------------------------------- the reader's own images


@BOTH
@pytest.mark.parametrize(("height", "width"), [(28, 28), (61, 45), (1, 3)])
def test_input_of_any_size_keeps_its_size(architecture, height, width):
    piece = data.load_fashion_mnist(synthetic=True, limit=10).x_test[0]
    sheet = np.tile(piece, (3, 3, 1))[:height, :width]
    colour = np.repeat(np.round(sheet * 255).astype(np.uint8), 3, axis=-1)
    Image.fromarray(colour).save("photo.jpg")
    denoise_fashion.main(["--input", "photo.jpg", "--architecture", architecture])
    name = {"autoencoder": "denoise_fashion", "unet": "denoise_fashion_unet"}[architecture]
    result = image_files.read_grey(f"runs/{name}_denoised/photo.jpg")
    assert result.shape == (height, width, 1)


def test_input_takes_the_unet_where_nothing_was_trained(capsys):
    clean = data.load_fashion_mnist(synthetic=True, limit=10).x_test[3]
    noisy = noise.salt_and_pepper(clean[None], 0.1, seed=0)[0]
    image_files.write_image("noisy.png", noisy)
    denoise_fashion.main(["--input", "noisy.png", "--output-dir", "out"])
    assert "models/denoise_fashion_unet.keras" in capsys.readouterr().out
    restored = image_files.read_grey("out/noisy.png")
    gain = metrics.psnr(clean[None], restored[None]) - metrics.psnr(clean[None], noisy[None])
    assert gain > 5


def test_shipped_models_are_small_and_as_good_as_the_readme_says(real_data):
    clothes = data.load_fashion_mnist(real_data)
    noisy = noise.salt_and_pepper(clothes.x_test, 0.1, batches.seed_for("test"))
    psnr = {"median": metrics.psnr(clothes.x_test, metrics.median_3x3(noisy))}
    for name in ("denoise_fashion", "denoise_fashion_unet"):
        path = ROOT / "models" / f"{name}.keras"
        assert path.stat().st_size < 2_000_000
        restored = denoise_fashion.predictor(trained_models.load_model(path, {"x": name})[0])(noisy)
        psnr[name] = metrics.psnr(clothes.x_test, restored)
    assert psnr["denoise_fashion"] >= 18.46  # the tutorial recipe's
    assert psnr["denoise_fashion_unet"] >= 28
    assert psnr["denoise_fashion_unet"] >= psnr["median"] + 7


def test_errors_end_in_one_line(error_of):
    main = denoise_fashion.main
    assert "--noise: '1.5' is not a number from 0 to 1" in error_of(main, "--noise", "1.5")
    assert "invalid choice: 'vgg'" in error_of(main, "--architecture", "vgg")
    assert "nowhere: no such folder" in error_of(main, "--data-dir", "nowhere")


def test_figures_close_behind_them():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    lines = {"a": ([1, 2], [1, 2]), "b": ([1, 2], [2, 1])}
    plotting.curves(lines, "c.png", "title", "caption", ("x", "y"), mark=(1, "m"))
    assert plt.get_fignums() == before
