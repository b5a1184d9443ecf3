from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import metrics_of
from PIL import Image

import denoise_mnist
import evaluation.denoise_mnist
from common import data, images, metrics, noise, training


def stand_ins(limit):
    return data.load_mnist(denoise_mnist.Train(synthetic=True, limit=limit))


# ---------------------------------------------------------------- the network


def test_parameters_and_shapes_are_the_articles():
    model = denoise_mnist.build_denoiser()
    assert model.name == denoise_mnist.NAME
    assert model.count_params() == 28_353
    assert model.input_shape == model.output_shape == (None, 28, 28, 1)
    assert model.get_layer("latent").output.shape == (None, 7, 7, 32)
    counts = [layer.count_params() for layer in model.layers if layer.count_params()]
    assert counts == [320, 9_248, 9_248, 9_248, 289]


def test_other_sizes_and_channels():
    assert denoise_mnist.build_denoiser(32, 64, 3).output_shape == (None, 32, 64, 3)
    for height, width in ((30, 28), (28, 29)):
        with pytest.raises(ValueError, match="must be multiples of 4, not"):
            denoise_mnist.build_denoiser(height, width)


def test_the_receptive_field_is_about_24_pixels_wide():
    """By the gradient of single output pixels with respect to the input."""
    model = denoise_mnist.build_denoiser(64, 64)
    model.set_weights([abs(weight) for weight in model.get_weights()])  # so that no ReLU is dead
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


# ---------------------------------------------------------------- trainings


def test_a_training_repeats_by_its_seed_and_by_no_other():
    arguments = ["--synthetic", "--limit", "60", "--epochs", "1", "--steps-per-epoch", "4"]
    denoise_mnist.main([*arguments, "--output-dir", "one"])
    denoise_mnist.main([*arguments, "--output-dir", "same"])
    denoise_mnist.main([*arguments, "--output-dir", "other", "--seed", "1"])
    one, same, other = (metrics_of(folder)["test"] for folder in ("one", "same", "other"))
    assert one == same != other


def test_training_beats_the_median_filter():
    denoise_mnist.main(["--synthetic", "--limit", "1000", "--epochs", "2", "--output-dir", "run"])
    report = metrics_of("run")
    median = report["baselines"]["median 3x3"]
    assert report["test"]["binary_crossentropy"] < 0.8 * median["binary_crossentropy"]
    assert report["test"]["psnr"] > median["psnr"] + 1


def test_the_published_recipe_is_the_articles():
    arguments = "--synthetic --limit 60 --epochs 2 --recipe published --output-dir run"
    denoise_mnist.main(arguments.split())
    settings = metrics_of("run")["settings"]
    expected = {"recipe": "published", "batch_size": 128, "learning_rate": 0.001, "epochs": 2}
    assert {name: settings[name] for name in expected} == expected
    assert denoise_mnist.RECIPES["published"]["epochs"] == 100


@pytest.mark.parametrize("value", ["-0.1", "11", "nan", "much"])
def test_noise_that_is_refused(value, usage_error):
    assert "--noise" in usage_error(denoise_mnist.main, "--noise", value)


def test_the_wiener_filter_is_linear_and_beats_the_median():
    digits = stand_ins(900)
    noisy_val = noise.gaussian(digits.x_val, 0.5, 1)
    settings = denoise_mnist.Train()
    restore = evaluation.denoise_mnist.fit_wiener_filter(settings, digits, noisy_val)
    noisy = noise.gaussian(digits.x_test, 0.5, 2)
    median = metrics.psnr(digits.x_test, metrics.median_3x3(noisy))
    assert metrics.psnr(digits.x_test, restore(noisy)) > median + 1
    # Where nothing is clipped, the result of a mean is the mean of the results.
    one, two = digits.x_test[:1], digits.x_test[1:2]
    results = np.concatenate([restore(one), restore(two), restore((one + two) / 2)])
    inside = ((results > 0) & (results < 1)).all(axis=0)
    assert inside.any()
    np.testing.assert_allclose(results[2][inside], results[:2].mean(0)[inside], atol=1e-4)


# ---------------------------------------------------------------- the model in models/


def test_the_model_is_small_and_denoises():
    assert (training.MODELS / "denoise_mnist.keras").stat().st_size < 200_000
    digits = stand_ins(200).x_test
    noisy = noise.gaussian(digits, 0.5, seed=0)
    denoised = training.load_model(None, denoise_mnist.NAME).predict(noisy, verbose=0)
    assert metrics.psnr(digits, denoised) > metrics.psnr(digits, metrics.median_3x3(noisy)) + 3


def test_the_model_is_as_good_as_the_readme_says(real_data):
    digits = data.load_mnist(denoise_mnist.Train(data_dir=real_data))
    noisy = noise.gaussian(digits.x_test, 0.5, training.seed_for("test"))
    model = training.load_model(None, denoise_mnist.NAME)
    denoised = model.predict(noisy, batch_size=500, verbose=0)
    assert metrics.binary_crossentropy(digits.x_test, denoised) <= 0.0971
    assert metrics.psnr(digits.x_test, denoised) >= 19.8


def test_input_gives_what_the_model_gives():
    noisy = noise.gaussian(stand_ins(10).x_test[:1], 0.5, seed=0)
    images.write_image(Path("digit.png"), noisy[0])
    denoise_mnist.main(["--input", "digit.png", "--output-dir", "out"])
    stored = images.read_gray("digit.png")
    model = training.load_model(None, denoise_mnist.NAME)
    expected = model.predict(stored[np.newaxis], verbose=0)[0]
    np.testing.assert_allclose(images.read_gray("out/digit.png"), expected, atol=0.51 / 255)
    assert Path("out/digit_sheet.png").stat().st_size > 5_000


@pytest.mark.parametrize(("height", "width"), [(28, 28), (61, 45), (1, 3)])
def test_with_tile_a_picture_keeps_its_size_and_name(height, width):
    sheet = np.tile(stand_ins(10).x_test[0], (3, 3, 1))[:height, :width]
    color = np.repeat(np.round(sheet * 255).astype(np.uint8), 3, axis=-1)
    Image.fromarray(color).save("photo.png")
    denoise_mnist.main(["--input", "photo.png", "--tile"])
    result = images.read_gray("runs/denoise_mnist_denoised/photo.png")
    assert result.shape == (height, width, 1)
