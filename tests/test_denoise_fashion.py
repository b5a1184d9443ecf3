import inspect
import json
import math

import numpy as np
import pytest
from conftest import ROOT, predict_elsewhere, python, small_mnist, stop_after_one_epoch, write_idx
from PIL import Image

import denoise_fashion
from common import UserError, data, images, metrics, noise, plotting, training

SCRIPT = ROOT / "denoise_fashion.py"
QUICK = ["--synthetic", "--limit", "60", "--epochs", "2"]
BOTH = pytest.mark.parametrize("architecture", ["tutorial", "unet"])


@BOTH
def test_parameters_and_shapes(architecture):
    model = denoise_fashion.BUILDERS[architecture]()
    assert model.count_params() == {"tutorial": 49_761, "unet": 90_817}[architecture]
    assert model.input_shape == model.output_shape == (None, 28, 28, 1)
    assert model.get_layer("latent").output.shape == (None, 4, 4, 16)


@BOTH
def test_builders_work_pasted_alone_into_an_empty_file(architecture, tmp_path):
    builder = denoise_fashion.BUILDERS[architecture]
    lines = ["import keras", "from keras import layers", inspect.getsource(builder)]
    lines.append(f"print({builder.__name__}().count_params())")
    (tmp_path / "pasted.py").write_text("\n".join(lines))
    done = python(tmp_path / "pasted.py", cwd=tmp_path)
    assert int(done.stdout) == builder().count_params(), done.stderr


@pytest.mark.parametrize("side", [4, 28, 29, 36, 44, 50])
def test_output_side_is_what_the_padding_counts_on(side):
    model = denoise_fashion.build_tutorial(None, None)
    out = model.predict(np.zeros((1, side, 28, 1), "float32"), verbose=0)
    assert out.shape[1] == 8 * math.ceil(side / 8) - 4


def test_the_unet_starts_from_its_input_and_stays_in_range():
    model = denoise_fashion.build_unet()
    change = model.get_layer("change")
    change.set_weights([0 * weight for weight in change.get_weights()])
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
        "denoise_fashion.training.start(denoise_fashion.main, ['--synthetic', '--limit', '20'])"
    )
    done = python("-c", code)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "libGL.so.1" in done.stderr
    assert "apt install libgl1 libglib2.0-0" in done.stderr


def test_switching_median_touches_only_black_and_white():
    image = np.full((1, 7, 7, 1), 0.4, "float32")
    image[0, 1, 1], image[0, 3, 3], image[0, 5, 5] = 0, 1, 0.9
    restored = metrics.switching_median(image)
    assert restored[0, 1, 1] == restored[0, 3, 3] == np.float32(0.4)
    assert restored[0, 5, 5] == np.float32(0.9)
    assert metrics.median_3x3(image)[0, 5, 5] == np.float32(0.4)


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("place", [".", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_each_layout(tmp_path, place):
    arrays = small_mnist(seed=4)
    write_idx(tmp_path / place, arrays)
    garments = data.load_fashion_mnist(tmp_path)
    np.testing.assert_array_equal(garments.y_test, arrays["y_test"])
    np.testing.assert_array_equal(garments.x_test[..., 0], arrays["x_test"] / np.float32(255))
    assert garments.class_names[9] == "Ankle boot"
    assert (garments.name, garments.source) == ("Fashion-MNIST", "local")


def test_digits_in_the_folder_are_not_taken_for_garments(tmp_path):
    write_idx(tmp_path / "MNIST/raw", small_mnist())
    with pytest.raises(UserError, match="no Fashion-MNIST in"):
        data.load_fashion_mnist(tmp_path)


def test_download_of_four_files(server, tmp_path, monkeypatch):
    arrays = small_mnist(seed=4)
    write_idx(tmp_path / "served", arrays)
    monkeypatch.setattr(data, "KERAS_URL", server.url + "files/")
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    assert data.load_fashion_mnist().source == "download"
    cached = tmp_path / "keras_home/datasets/fashion-mnist"
    assert sorted(path.name for path in cached.iterdir()) == sorted(server.files)
    server.files = {}
    again = data.load_fashion_mnist()
    assert again.source == "cache"
    np.testing.assert_array_equal(again.y_test, arrays["y_test"])


def test_a_half_finished_download_draws_instead(server, tmp_path, monkeypatch, capsys):
    write_idx(tmp_path / "served", small_mnist())
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    del server.files["t10k-labels-idx1-ubyte.gz"]
    monkeypatch.setattr(data, "KERAS_URL", server.url + "files/")
    garments = data.load_fashion_mnist(limit=20)
    assert (garments.name, garments.source) == ("synthetic garments", "synthetic")
    assert "Training on drawn garments instead" in capsys.readouterr().out


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which both architectures were trained shortly, and what the second printed."""
    folder = tmp_path_factory.mktemp("finished")
    for architecture in ("tutorial", "unet"):
        done = python(SCRIPT, *QUICK, "--architecture", architecture, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    return folder, done.stdout


def test_run_folders_and_the_common_table(finished):
    folder, printed = finished
    for name in ("denoise_fashion", "denoise_fashion_unet"):
        names = {path.name for path in (folder / "runs" / name).iterdir()}
        figures = {"garments.png", "noise.png", "loss.png"}
        assert names == {"model.keras", "history.csv", "metrics.json", "checkpoint"} | figures
    rows = [line.split()[0] for line in printed.splitlines()[-6:-1]]
    assert rows == ["noisy_input", "median_3x3", "switching_median", "tutorial", "unet"]


@BOTH
def test_metrics_json(finished, architecture):
    name = {"tutorial": "denoise_fashion", "unet": "denoise_fashion_unet"}[architecture]
    report = json.loads((finished[0] / "runs" / name / "metrics.json").read_text())
    assert report["architecture"] == architecture
    assert report["script"] == "denoise_fashion"
    assert report["dataset"]["name"] == "synthetic garments"
    assert list(report["test"]) == ["mse", "psnr", "ssim"]
    assert list(report["baselines"]) == ["noisy_input", "median_3x3", "switching_median"]


@BOTH
def test_saved_model_gives_the_reported_number_in_a_fresh_process(finished, architecture, tmp_path):
    name = {"tutorial": "denoise_fashion", "unet": "denoise_fashion_unet"}[architecture]
    folder = finished[0] / "runs" / name
    garments = data.load_fashion_mnist(synthetic=True, limit=60)
    noisy = noise.salt_and_pepper(garments.x_test, 0.1, seed=2)
    restored = predict_elsewhere(folder / "model.keras", noisy, tmp_path)
    reported = json.loads((folder / "metrics.json").read_text())["test"]["mse"]
    assert metrics.mse(garments.x_test, restored) == pytest.approx(reported, rel=1e-4)


def test_a_model_given_by_name_brings_its_architecture(finished, tmp_path):
    path = finished[0] / "runs/denoise_fashion_unet/model.keras"
    denoise_fashion.main(["--model", str(path), "--synthetic", "--limit", "20"])
    written = tmp_path / "runs/denoise_fashion_unet/evaluation"
    assert json.loads((written / "metrics.json").read_text())["architecture"] == "unet"


def test_a_run_on_other_noise_is_not_put_beside(tmp_path, capsys):
    denoise_fashion.main([*QUICK, "--noise", "0.3"])
    denoise_fashion.main([*QUICK, "--architecture", "unet"])
    assert "tutorial " not in capsys.readouterr().out.split("Evaluating")[-1]


def test_resume_and_seed_repeat_a_run(tmp_path):
    """Stopped after each epoch, a run ends as one that went through."""
    words = [*QUICK, "--architecture", "unet"]
    denoise_fashion.main([*words, "--output-dir", "whole"])
    stop_after_one_epoch(denoise_fashion.main, [*words, "--output-dir", "parts"])
    denoise_fashion.main([*words, "--output-dir", "parts", "--resume"])
    reports = [json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("whole", "parts")]
    assert reports[0]["test"] == reports[1]["test"]


def test_the_unet_learns_to_beat_its_input(tmp_path):
    words = "--synthetic --limit 1000 --epochs 8 --architecture unet"
    denoise_fashion.main(words.split())
    report = json.loads((tmp_path / "runs/denoise_fashion_unet/metrics.json").read_text())
    assert report["test"]["psnr"] > report["baselines"]["noisy_input"]["psnr"] + 4


def test_early_stopping_belongs_to_the_tutorial_recipe(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        training, "Run", lambda args, images: seen.update(p=getattr(args, "patience", None))
    )
    for recipe in ("tutorial", "fast"):
        with pytest.raises(AttributeError):  # what comes after needs the run
            denoise_fashion.main([*QUICK, "--recipe", recipe])
        assert seen["p"] == {"tutorial": 10, "fast": None}[recipe]


# ---------------------------------------------------------------- the reader's own images


@BOTH
@pytest.mark.parametrize(("height", "width"), [(28, 28), (61, 45), (1, 3)])
def test_input_of_any_size_keeps_its_size(architecture, height, width):
    garment = data.load_fashion_mnist(synthetic=True, limit=10).x_test[0]
    sheet = np.tile(garment, (3, 3, 1))[:height, :width]
    colour = np.repeat(np.round(sheet * 255).astype(np.uint8), 3, axis=-1)
    Image.fromarray(colour).save("photo.jpg")
    denoise_fashion.main(["--input", "photo.jpg", "--architecture", architecture])
    name = {"tutorial": "denoise_fashion", "unet": "denoise_fashion_unet"}[architecture]
    result = images.read_grey(f"runs/{name}/denoised/photo_denoised.png")
    assert result.shape == (height, width, 1)


def test_input_takes_the_unet_where_nothing_was_trained(capsys):
    clean = data.load_fashion_mnist(synthetic=True, limit=10).x_test[3]
    noisy = noise.salt_and_pepper(clean[None], 0.1, seed=0)[0]
    images.write_image("noisy.png", noisy)
    denoise_fashion.main(["--input", "noisy.png", "--output-dir", "out"])
    assert "models/denoise_fashion_unet.keras" in capsys.readouterr().out
    restored = images.read_grey("out/noisy_denoised.png")
    gain = metrics.psnr(clean[None], restored[None]) - metrics.psnr(clean[None], noisy[None])
    assert gain > 5


def test_shipped_models_are_small_and_as_good_as_the_readme_says(real_data):
    garments = data.load_fashion_mnist(real_data)
    noisy = noise.salt_and_pepper(garments.x_test, 0.1, seed=2)
    psnr = {"median": metrics.psnr(garments.x_test, metrics.median_3x3(noisy))}
    for name in ("denoise_fashion", "denoise_fashion_unet"):
        path = ROOT / "models" / f"{name}.keras"
        assert path.stat().st_size < 2_000_000
        restored = denoise_fashion.predictor(training.load_model(path, [name]))(noisy)
        psnr[name] = metrics.psnr(garments.x_test, restored)
    assert psnr["denoise_fashion"] >= 18.46  # the tutorial recipe's
    assert psnr["denoise_fashion_unet"] >= 28
    assert psnr["denoise_fashion_unet"] >= psnr["median"] + 7


def test_errors_end_in_one_line(error_of, tmp_path):
    main = denoise_fashion.main
    assert "--noise: '1.5' is not a number from 0 up, at most 1" in error_of(main, "--noise", "1.5")
    assert "invalid choice: 'vgg'" in error_of(main, "--architecture", "vgg")
    assert "nowhere: no such folder" in error_of(main, "--data-dir", "nowhere")
    unet = ROOT / "models/denoise_fashion_unet.keras"
    line = error_of(main, *QUICK, "--model", unet, "--architecture", "tutorial")
    assert "named 'denoise_fashion_unet', denoise_fashion.py needs 'denoise_fashion'" in line
    digits = ROOT / "models/denoise_mnist.keras"
    assert "holds a model named 'denoise_mnist'" in error_of(main, *QUICK, "--model", digits)


def test_figures_close_behind_them():
    import matplotlib.pyplot as plt

    plotting.curves(
        [1, 2], {"a": [1, 2], "b": [2, 1]}, "c.png", "title", "caption", "x", "y", mark=(1, "m")
    )
    assert plt.get_fignums() == []
