"""denoise_mnist.py: the network, what it learns, and pictures of any size."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, report_of
from PIL import Image

import denoise_mnist
from common import batches, data, image_files, metrics, noise, trained_models


def test_parameters_and_shapes_are_the_articles():
    model = denoise_mnist.build_denoiser()
    assert model.count_params() == 28_353
    assert model.input_shape == model.output_shape == (None, 28, 28, 1)
    assert model.get_layer("latent").output.shape == (None, 7, 7, 32)
    counts = [layer.count_params() for layer in model.layers if layer.count_params()]
    assert counts == [320, 9_248, 9_248, 9_248, 289]


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


def test_a_run_is_repeated_by_its_seed_and_by_no_other(figures_left_out):
    words = ["--synthetic", "--limit", "60", "--epochs", "1", "--output-dir"]
    denoise_mnist.main([*words, "one"])
    denoise_mnist.main([*words, "same"])
    denoise_mnist.main([*words, "other", "--seed", "1"])
    one, same, other = (report_of(folder)["test"] for folder in ("one", "same", "other"))
    assert one == same != other


def test_training_learns(figures_left_out):
    """Some hundreds of steps bring the loss far below that of the median filter."""
    denoise_mnist.main(["--synthetic", "--limit", "1000", "--epochs", "2", "--output-dir", "run"])
    report = report_of("run")
    median = report["baselines"]["median_3x3"]
    assert report["test"]["binary_crossentropy"] < 0.8 * median["binary_crossentropy"]
    assert report["test"]["psnr"] > median["psnr"] + 1


def test_a_quick_try_ends_better_than_the_median(figures_left_out):
    """A hundred images are three batches, after which an output would be one grey."""
    denoise_mnist.main("--synthetic --limit 100 --epochs 2 --output-dir run".split())
    report = report_of("run")
    assert report["test"]["psnr"] > report["baselines"]["median_3x3"]["psnr"]


def test_the_published_recipe_is_the_articles(figures_left_out):
    words = "--synthetic --limit 60 --epochs 2 --recipe published --output-dir run"
    denoise_mnist.main(words.split())
    report = report_of("run")
    settings = [report[key] for key in ("recipe", "batch_size", "learning_rate", "epochs")]
    assert settings == ["published", 128, 0.001, 2]


def shipped():
    path = trained_models.SHIPPED / "denoise_mnist.keras"
    return trained_models.load_model(path, denoise_mnist.Settings.names)[0]


@pytest.mark.parametrize(("height", "width"), [(28, 28), (61, 45), (1, 3)])
def test_with_tile_input_of_any_size_keeps_its_size_and_name(height, width):
    digits = data.load_mnist(synthetic=True, limit=10).x_test
    sheet = np.tile(digits[0], (3, 3, 1))[:height, :width]
    colour = np.repeat(np.round(sheet * 255).astype(np.uint8), 3, axis=-1)
    Image.fromarray(colour).save("photo.png")
    denoise_mnist.main(["--input", "photo.png", "--tile"])
    result = image_files.read_grey("runs/denoise_mnist_denoised/photo.png")
    assert result.shape == (height, width, 1)


def test_input_gives_what_the_model_gives():
    noisy = noise.gaussian(data.load_mnist(synthetic=True, limit=10).x_test[:1], 0.5, seed=0)
    image_files.write_image("digit.png", noisy[0])
    denoise_mnist.main(["--input", "digit.png", "--output-dir", "out"])
    stored = image_files.read_grey("digit.png")
    expected = shipped().predict(stored[None], verbose=0)[0]
    np.testing.assert_allclose(image_files.read_grey("out/digit.png"), expected, atol=0.51 / 255)


def test_outputs_never_replace_inputs(error_of):
    for name in ("a.png", "a_denoised.png"):
        Image.new("L", (28, 28)).save(name)
    before = {name: Path(name).read_bytes() for name in ("a.png", "a_denoised.png")}
    words = "--input", "a.png", "a_denoised.png", "--output-dir", "."
    assert "a.png: exists already" in error_of(denoise_mnist.main, *words)
    assert {name: Path(name).read_bytes() for name in before} == before


def test_shipped_model_denoises_and_is_small():
    assert (ROOT / "models/denoise_mnist.keras").stat().st_size < 200_000
    digits = data.load_mnist(synthetic=True, limit=200).x_test
    noisy = noise.gaussian(digits, 0.5, seed=0)
    denoised = shipped().predict(noisy, verbose=0)
    assert metrics.psnr(digits, denoised) > metrics.psnr(digits, metrics.median_3x3(noisy)) + 3


def test_shipped_model_is_as_good_as_the_readme_says(real_data):
    digits = data.load_mnist(real_data)
    noisy = noise.gaussian(digits.x_test, 0.5, batches.seed_for("test"))
    denoised = shipped().predict(noisy, batch_size=500, verbose=0)
    assert metrics.binary_crossentropy(digits.x_test, denoised) <= 0.0971
    assert metrics.psnr(digits.x_test, denoised) >= 19.8


def test_resume_refuses_another_noise(error_of):
    from conftest import stop_after_one_epoch

    words = "--synthetic --limit 60 --epochs 2".split()
    stop_after_one_epoch(denoise_mnist.main, words)
    line = error_of(denoise_mnist.main, *words, "--noise", "0.3", "--resume")
    assert "holds a training with noise 0.5, this one has 0.3" in line


def test_the_linear_filter_is_the_best_linear_map():
    """On images that are a linear mixture of a few patterns, far above any local filter."""
    digits = data.load_mnist(synthetic=True, limit=900)

    def add_noise(clean, seed):
        return noise.gaussian(clean, 0.5, seed)

    noisy = add_noise(digits.x_validation, 1)
    restore = denoise_mnist.fit_linear_filter(digits, noisy, add_noise)
    test = add_noise(digits.x_test, 2)
    assert metrics.psnr(digits.x_test, restore(test)) > 1 + metrics.psnr(
        digits.x_test, metrics.median_3x3(test)
    )
    # Linear where nothing is clipped: between two images lies what is between their results.
    one, two = digits.x_test[:1], digits.x_test[1:2]
    both = np.concatenate([restore(one), restore(two), restore((one + two) / 2)])
    inside = ((both > 0) & (both < 1)).all(axis=0)
    np.testing.assert_allclose(both[2][inside], both[:2].mean(0)[inside], atol=1e-4)
