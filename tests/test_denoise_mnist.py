import csv
import inspect
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, predict_elsewhere, python, small_mnist, wait_for, write_idx
from PIL import Image

import denoise_mnist
from common import data, images, metrics, noise, training

SCRIPT = ROOT / "denoise_mnist.py"
QUICK = ["--synthetic", "--limit", "60", "--epochs", "2"]


def test_parameters_and_shapes_are_the_tutorials():
    model = denoise_mnist.build_denoiser()
    assert model.count_params() == 28_353
    assert model.input_shape == model.output_shape == (None, 28, 28, 1)
    assert model.get_layer("latent").output.shape == (None, 7, 7, 32)
    assert [layer.count_params() for layer in model.layers if layer.count_params()] == [
        320,
        9_248,
        9_248,
        9_248,
        289,
    ]


def test_builder_works_pasted_alone_into_an_empty_file(tmp_path):
    source = inspect.getsource(denoise_mnist.build_denoiser)
    last_line = "print(build_denoiser().count_params())"
    (tmp_path / "pasted.py").write_text(
        f"import keras\nfrom keras import layers\n\n{source}\n{last_line}"
    )
    done = python(tmp_path / "pasted.py", cwd=tmp_path)
    assert done.stdout.strip() == "28353", done.stderr


def test_the_network_sees_a_window_of_some_24_pixels():
    """By the gradient of single output pixels with respect to the input."""
    model = denoise_mnist.build_denoiser(64, 64)
    model.set_weights([abs(weight) for weight in model.get_weights()])  # so that no relu is silent
    logits = keras.Model(model.input, model.layers[-2].output)
    sides = []
    for pixel in range(32, 36):  # the pooling grid repeats every four pixels
        reached = np.zeros(64, bool)
        for seed in range(20):  # max pooling passes on the gradient of one pixel in four
            image = tf.random.stateless_uniform((1, 64, 64, 1), [seed, 0])
            with tf.GradientTape() as tape:
                tape.watch(image)
                value = tf.reduce_sum(logits(image)[0, pixel - 1 : pixel + 2, 31:34])
            reached |= np.any(tape.gradient(value, image)[0, ..., 0] != 0, axis=1)
        sides.append(np.ptp(np.flatnonzero(reached)) + 1)
    assert min(sides) >= 22
    assert max(sides) <= 26


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short finished run in a process of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    done = python(SCRIPT, *QUICK, "--output-dir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def test_run_folder_holds_what_it_should(finished):
    folder, done = finished
    names = {path.name for path in folder.iterdir()}
    figures = {"digits.png", "loss.png", "latent.png"}
    assert names == {"model.keras", "history.csv", "metrics.json", "checkpoint"} | figures
    for name in figures:
        with Image.open(folder / name) as figure:
            assert min(figure.size) > 300
            assert np.asarray(figure.convert("L")).std() > 10
    assert done.stderr == ""
    last = [line.split()[0] for line in done.stdout.splitlines()[-5:-1]]
    assert last == ["binary_crossentropy", "noisy_input", "median_3x3", "model"]
    assert "synthetic digits (synthetic)" in done.stdout


def test_metrics_json_has_the_schema(finished):
    report = json.loads((finished[0] / "metrics.json").read_text())
    assert list(report) == [
        "script",
        "dataset",
        "recipe",
        "architecture",
        "parameters",
        "epochs",
        "batch_size",
        "learning_rate",
        "seed",
        "seconds_training",
        "seconds_total",
        "peak_memory_mb",
        "versions",
        "test",
        "baselines",
    ]
    assert report["script"] == "denoise_mnist"
    assert report["dataset"] == {
        "name": "synthetic digits",
        "source": "synthetic",
        "train": 54,
        "validation": 6,
        "test": 60,
    }
    assert (report["parameters"], report["epochs"], report["recipe"]) == (28_353, 2, "fast")
    names = ["binary_crossentropy", "mse", "psnr", "ssim"]
    assert list(report["test"]) == names
    assert {name: list(row) for name, row in report["baselines"].items()} == {
        "noisy_input": names,
        "median_3x3": names,
    }
    assert list(report["versions"]) == ["python", "keras", "tensorflow", "numpy"]


def test_saved_model_gives_the_reported_numbers_in_a_fresh_process(finished, tmp_path):
    """With keras alone: no import of this project."""
    folder, _ = finished
    digits = data.load_mnist(synthetic=True, limit=60)
    noisy = noise.gaussian(digits.x_test, 0.5, seed=2)
    denoised = predict_elsewhere(folder / "model.keras", noisy, tmp_path)
    reported = json.loads((folder / "metrics.json").read_text())["test"]["mse"]
    assert metrics.mse(digits.x_test, denoised) == pytest.approx(reported, rel=1e-5)


def history_of(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [(row["epoch"], row["loss"], row["val_loss"]) for row in csv.DictReader(file)]


def test_a_seed_repeats_a_run(finished, tmp_path):
    folder, _ = finished
    denoise_mnist.main([*QUICK, "--output-dir", str(tmp_path / "same")])
    assert history_of(tmp_path / "same") == history_of(folder)
    denoise_mnist.main([*QUICK, "--output-dir", str(tmp_path / "other"), "--seed", "1"])
    assert history_of(tmp_path / "other") != history_of(folder)


def test_training_learns(tmp_path):
    """Two hundred steps bring the loss far below that of the median filter."""
    denoise_mnist.main(["--synthetic", "--limit", "1000", "--epochs", "8", "--output-dir", "run"])
    report = json.loads((tmp_path / "run/metrics.json").read_text())
    median = report["baselines"]["median_3x3"]
    assert report["test"]["binary_crossentropy"] < 0.8 * median["binary_crossentropy"]
    assert report["test"]["psnr"] > median["psnr"] + 1


def test_the_tutorial_recipe_trains(tmp_path):
    denoise_mnist.main([*QUICK, "--recipe", "tutorial"])
    report = json.loads((tmp_path / "runs/denoise_mnist/metrics.json").read_text())
    settings = [report[key] for key in ("recipe", "batch_size", "learning_rate", "epochs")]
    assert settings == ["tutorial", 128, 0.001, 2]


def test_a_given_model_is_evaluated_without_training(finished, tmp_path):
    folder, _ = finished
    model = folder / "model.keras"
    denoise_mnist.main(["--model", str(model), "--synthetic", "--limit", "60"])
    written = tmp_path / "runs/denoise_mnist/evaluation"
    assert {path.name for path in written.iterdir()} == {"metrics.json", "digits.png", "latent.png"}
    report = json.loads((written / "metrics.json").read_text())
    assert report["test"] == json.loads((folder / "metrics.json").read_text())["test"]
    assert report["seconds_training"] is None


SLOW = [
    "--synthetic",
    "--limit",
    "1500",
    "--batch-size",
    "8",
    "--recipe",
    "tutorial",
    "--epochs",
    "4",
]


def test_a_killed_training_resumes_as_if_nothing_had_happened(tmp_path):
    denoise_mnist.main([*SLOW, "--output-dir", "whole"])
    words = [sys.executable, str(SCRIPT), *SLOW, "--output-dir", "killed"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    history = tmp_path / "killed/history.csv"
    wait_for(lambda: history.exists() and len(history.read_text().splitlines()) == 3, process)
    process.kill()
    process.communicate()
    denoise_mnist.main([*SLOW, "--output-dir", "killed", "--resume"])
    assert history_of(tmp_path / "killed") == history_of(tmp_path / "whole")
    assert [row[0] for row in history_of(tmp_path / "killed")] == ["1", "2", "3", "4"]
    reports = [
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("killed", "whole")
    ]
    assert reports[0]["test"] == reports[1]["test"]


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_keeps_the_best_model_and_says_how_to_go_on(tmp_path):
    words = [sys.executable, str(SCRIPT), *SLOW]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    folder = tmp_path / "runs/denoise_mnist"
    wait_for(lambda: (folder / "checkpoint/config.json").exists(), process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "The best model so far is runs/denoise_mnist/model.keras" in error
    assert f"python {SCRIPT} {' '.join(SLOW)} --resume" in error
    assert keras.saving.load_model(folder / "model.keras").count_params() == 28_353
    assert not list(folder.glob(".*"))


def test_help_ends_with_examples_and_nothing_of_tensorflows():
    done = python(SCRIPT, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("usage: denoise_mnist.py")
    examples = done.stdout.split("examples:")[1]
    assert "python denoise_mnist.py --input photo.png" in examples
    assert "a photo comes out wrong" in examples
    for flag in [
        "recipe",
        "epochs",
        "data-dir",
        "synthetic",
        "limit",
        "resume",
        "seed",
        "model",
        "input",
        "noise",
    ]:
        assert f"--{flag}" in done.stdout


def shipped():
    return training.load_model(ROOT / "models/denoise_mnist.keras", ["denoise_mnist"])


@pytest.mark.parametrize(("height", "width"), [(28, 28), (61, 45), (1, 3)])
def test_input_of_any_size_keeps_its_size(tmp_path, height, width):
    digits = data.load_mnist(synthetic=True, limit=10).x_test
    sheet = np.tile(digits[0], (3, 3, 1))[:height, :width]
    colour = np.repeat(np.round(sheet * 255).astype(np.uint8), 3, axis=-1)
    Image.fromarray(colour).save(tmp_path / "photo.png")
    denoise_mnist.main(["--input", "photo.png"])
    result = images.read_grey(tmp_path / "runs/denoise_mnist/denoised/photo_denoised.png")
    assert result.shape == (height, width, 1)


def test_input_gives_what_the_model_gives(tmp_path):
    noisy = noise.gaussian(data.load_mnist(synthetic=True, limit=10).x_test[:1], 0.5, seed=0)
    images.write_image(tmp_path / "digit.png", noisy[0])
    denoise_mnist.main(["--input", "digit.png", "--output-dir", "out"])
    stored = images.read_grey(tmp_path / "digit.png")
    expected = shipped().predict(stored[None], verbose=0)[0]
    result = images.read_grey(tmp_path / "out/digit_denoised.png")
    np.testing.assert_allclose(result, expected, atol=0.51 / 255)


def test_shipped_model_denoises_and_is_small():
    assert (ROOT / "models/denoise_mnist.keras").stat().st_size < 200_000
    digits = data.load_mnist(synthetic=True, limit=200).x_test
    noisy = noise.gaussian(digits, 0.5, seed=0)
    denoised = shipped().predict(noisy, verbose=0)
    assert metrics.psnr(digits, denoised) > metrics.psnr(digits, metrics.median_3x3(noisy)) + 3


def test_shipped_model_is_as_good_as_the_readme_says(real_data):
    digits = data.load_mnist(real_data)
    noisy = noise.gaussian(digits.x_test, 0.5, seed=2)
    denoised = shipped().predict(noisy, batch_size=500, verbose=0)
    assert metrics.binary_crossentropy(digits.x_test, denoised) <= 0.0971
    assert metrics.psnr(digits.x_test, denoised) >= 19.8


def test_bad_words_end_in_one_line(error_of):
    main = denoise_mnist.main
    assert "--epochs: '0' is not a whole number" in error_of(main, "--epochs", "0")
    assert "--noise: '-1' is not a number from 0 up" in error_of(main, "--noise=-1")
    assert "--limit: '3' is not a whole number from 10 up" in error_of(main, "--limit", "3")
    assert "unrecognized arguments: --nosie" in error_of(main, "--nosie", "1")
    line = error_of(main, "--synthetic", "--data-dir", ".")
    assert line.startswith("denoise_mnist.py: error: --synthetic and --data-dir contradict")


def test_bad_files_end_in_one_line(error_of, tmp_path):
    main = denoise_mnist.main
    assert "nowhere: no such folder" in error_of(main, "--data-dir", "nowhere")
    (tmp_path / "text.png").write_text("not an image")
    assert "text.png: not an image" in error_of(main, "--input", "text.png")
    assert "none.png: no such file" in error_of(main, "--input", "none.png")
    assert "none.keras: no such file" in error_of(main, "--model", "none.keras")
    (tmp_path / "file").write_text("")
    line = error_of(main, *QUICK, "--output-dir", tmp_path / "file/run")
    assert "choose another --output-dir" in line
    assert "no interrupted training there" in error_of(main, *QUICK, "--resume")
    write_idx(tmp_path / "mnist", {**small_mnist(), "y_test": np.zeros(3, np.uint8)})
    assert "30 images but 3 labels" in error_of(main, "--data-dir", tmp_path)


def test_resume_refuses_another_noise(error_of, tmp_path):
    denoise_mnist.main(QUICK)
    line = error_of(denoise_mnist.main, *QUICK, "--noise", "0.3", "--resume")
    assert "holds a training with noise 0.5, this one has 0.3" in line


def test_a_model_of_another_script_ends_in_one_line(error_of, tmp_path):
    inputs = keras.Input((28, 28, 1))
    other = keras.Model(inputs, keras.layers.Conv2D(1, 3)(inputs), name="watermark_ae")
    training.save_model(other, tmp_path / "other.keras")
    line = error_of(denoise_mnist.main, "--synthetic", "--model", "other.keras")
    assert "holds a model named 'watermark_ae', denoise_mnist.py needs 'denoise_mnist'" in line


def test_imgaug_stays_out():
    code = "import sys, denoise_mnist; print({'imgaug'} & set(sys.modules))"
    assert python("-c", code, cwd=ROOT).stdout.strip() == "set()"
