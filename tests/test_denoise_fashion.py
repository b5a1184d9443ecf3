import math

import numpy as np
import pytest
from conftest import ROOT, metrics_of
from PIL import Image

import denoise_fashion
import evaluation.denoise_fashion as judged
from common import data, images, metrics, noise, training

BUILDERS = {
    "autoencoder": denoise_fashion.build_autoencoder,
    "unet": denoise_fashion.build_unet,
}
both = pytest.mark.parametrize("architecture", BUILDERS)


def stand_ins(limit=10):
    return data.load_fashion_mnist(denoise_fashion.Train(synthetic=True, limit=limit))


# ---------------------------------------------------------------- networks


@both
def test_parameters_and_shapes(architecture):
    model = BUILDERS[architecture]()
    assert model.name == denoise_fashion.NAMES[architecture]
    assert model.count_params() == {"autoencoder": 49_761, "unet": 90_817}[architecture]
    assert model.input_shape == model.output_shape == (None, 28, 28, 1)
    assert model.get_layer("latent").output.shape == (None, 4, 4, 16)


@pytest.mark.parametrize(
    ("architecture", "height", "width"),
    [("autoencoder", 36, 44), ("unet", 32, 64), ("unet", 29, 51), ("unet", 1, 3)],
)
def test_other_sizes_and_channels(architecture, height, width):
    model = BUILDERS[architecture](height, width, channels=3)
    assert model.input_shape == model.output_shape == (None, height, width, 3)


def test_sizes_that_the_autoencoder_cannot_return_are_refused():
    for height, width in ((32, 28), (28, 30), (28, 0)):
        with pytest.raises(ValueError, match="height and width must be 8k"):
            denoise_fashion.build_autoencoder(height, width)


def test_an_open_unet_takes_multiples_of_8():
    model = denoise_fashion.build_unet(None, None)
    assert model.predict(np.zeros((1, 40, 24, 1), "float32"), verbose=0).shape == (1, 40, 24, 1)


@pytest.mark.parametrize("side", [4, 28, 29, 36, 44, 50])
def test_sides_that_are_left_open_become_4_more_than_a_multiple_of_8(side):
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


# ---------------------------------------------------------------- the median for outliers


def test_the_outlier_median_replaces_outliers_only():
    """The threshold is fitted on a slope, which a plain median filter would leave alone, too."""
    clean = np.broadcast_to(np.linspace(0, 1, 20, dtype="float32")[:, None, None], (4, 20, 20, 1))
    noisy = noise.salt_and_pepper(clean, 0.1, seed=0)
    restore = judged.fit_outlier_median(noisy, clean)
    assert metrics.psnr(clean, restore(noisy)) > metrics.psnr(clean, noisy) + 8
    image = np.full((1, 9, 9, 1), 0.4, "float32")
    image[0, 2, 2] = 1
    image[0, 6, 5:7] = 0.45
    restored = restore(image)
    assert restored[0, 2, 2] == np.float32(0.4)
    assert (restored != image).sum() == 1


def test_the_threshold_of_the_outlier_median_is_chosen_on_the_images_given():
    rough = np.random.default_rng(0).random((5, 28, 28, 1), dtype="float32")  # no outliers
    restored = judged.fit_outlier_median(rough, rough)(rough)
    assert (restored == rough).mean() > 0.95


# ---------------------------------------------------------------- trainings


def test_the_unet_learns_to_beat_its_input(monkeypatch):
    monkeypatch.setattr(judged, "SHARES", [0.1])
    arguments = "--synthetic --limit 200 --epochs 1 --steps-per-epoch 80 --architecture unet"
    denoise_fashion.main(arguments.split())
    report = metrics_of("runs/denoise_fashion_unet")
    assert report["test"]["psnr"] > report["baselines"]["noisy"]["psnr"] + 4


def test_the_other_networks_are_in_the_table_only_if_they_know_the_same_data(real_data, capsys):
    arguments = ["--limit", "40", "--model", str(ROOT / "models/denoise_fashion.keras")]
    for more, shown in (
        (["--data-dir", str(real_data)], True),
        (["--data-dir", str(real_data), "--noise", "0.3"], False),
        (["--synthetic"], False),
    ):
        denoise_fashion.main([*arguments, *more])
        output = capsys.readouterr().out
        assert ("\nU-Net " in output) == ("\nas published " in output) == shown
    baselines = metrics_of("runs/denoise_fashion")["baselines"]
    assert not {"U-Net", "as published"} & set(baselines)


def test_patches_need_the_unet_and_a_folder(error_of, tmp_path):
    autoencoder = ["--model", ROOT / "models" / "denoise_fashion.keras"]
    for arguments in (
        ["--data-dir", tmp_path],
        ["--architecture", "unet"],
        ["--architecture", "unet", "--data-dir", tmp_path, *autoencoder],
    ):
        error = error_of(denoise_fashion.main, "--patches", *arguments)
        assert "--patches needs --architecture unet and a --data-dir of pictures" in error


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--noise 1.5", "--noise must be between 0 and 1"),
        ("--architecture vgg", "vgg"),
        ("--input a.png --noise 0.1", "--noise"),
    ],
)
def test_bad_values_are_refused(flags, text, usage_error):
    assert text in usage_error(denoise_fashion.main, *flags.split())


def test_training_on_patches_of_photos(tmp_path, monkeypatch, error_of):
    arguments = ["--architecture", "unet", "--patches", "--data-dir", tmp_path]
    assert "0 different pictures can be read" in error_of(denoise_fashion.main, *arguments)
    monkeypatch.setattr(data, "MAX_PATCHES", 400)
    rng = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(rng.integers(0, 256, (40, 60), np.uint8)).save(tmp_path / f"{number}.png")
    more = "--limit 60 --epochs 1 --steps-per-epoch 3 --output-dir run"
    denoise_fashion.main([*map(str, arguments), *more.split()])
    assert metrics_of("run")["dataset"]["name"].startswith("own pictures: patches of ")
    Image.new("L", (90, 61), 120).save("photo.png")
    denoise_fashion.main("--input photo.png --model run/model.keras --output-dir out".split())
    assert images.read_gray("out/photo.png").shape == (61, 90, 1)


# ---------------------------------------------------------------- the user's own pictures


@pytest.mark.parametrize("name", denoise_fashion.NAMES.values())
@pytest.mark.parametrize(("height", "width"), [(28, 28), (61, 45), (1, 3)])
def test_input_of_any_size_keeps_its_size(name, height, width):
    piece = stand_ins().x_test[0]
    sheet = np.tile(piece, (3, 3, 1))[:height, :width]
    color = np.repeat(np.round(sheet * 255).astype(np.uint8), 3, axis=-1)
    Image.fromarray(color).save("photo.jpg")
    model = ROOT / "models" / f"{name}.keras"
    denoise_fashion.main(["--input", "photo.jpg", "--model", str(model)])
    assert images.read_gray(f"runs/{name}_denoised/photo.jpg").shape == (height, width, 1)


def test_input_takes_the_unet_by_default():
    clean = stand_ins().x_test[3]
    noisy = noise.salt_and_pepper(clean[np.newaxis], 0.1, seed=0)[0]
    images.write_image("noisy.png", noisy)
    denoise_fashion.main(["--input", "noisy.png", "--output-dir", "out"])
    restored = images.read_gray("out/noisy.png")
    gain = metrics.psnr(clean[None], restored[None]) - metrics.psnr(clean[None], noisy[None])
    assert gain > 5


def test_each_color_is_denoised_by_itself_and_gray_stays_gray():
    clean = np.moveaxis(stand_ins().x_test[:3, ..., 0], 0, -1)
    noisy = noise.salt_and_pepper(np.moveaxis(clean, -1, 0)[..., np.newaxis], 0.1, seed=0)
    images.write_image("color.png", np.moveaxis(noisy[..., 0], 0, -1))
    inputs = ["color.png"]
    for channel, image in enumerate(noisy):
        Image.fromarray(np.round(image * 255).astype(np.uint8).repeat(3, -1)).save(f"{channel}.png")
        inputs.append(f"{channel}.png")
    denoise_fashion.main(["--input", *inputs, "--output-dir", "out"])
    restored = images.read_color("out/color.png")
    for channel in range(3):
        with Image.open(f"out/{channel}.png") as gray:
            assert gray.mode == "L"
            np.testing.assert_allclose(restored[..., channel], np.asarray(gray) / 255, atol=0.005)
    before, after = (
        metrics.psnr(clean[None], x[None]) for x in (images.read_color("color.png"), restored)
    )
    assert after > before + 5


def test_models_are_small_and_as_good_as_the_readme_says(real_data):
    clothes = data.load_fashion_mnist(denoise_fashion.Train(data_dir=real_data))
    noisy = noise.salt_and_pepper(clothes.x_test, 0.1, training.seed_for("test"))
    psnr = {}
    for name in denoise_fashion.NAMES.values():
        assert (training.MODELS / f"{name}.keras").stat().st_size < 2_000_000
        restored = training.load_model(None, name).predict(noisy, batch_size=500, verbose=0)
        psnr[name] = metrics.psnr(clothes.x_test, restored)
    assert psnr["denoise_fashion"] >= 18.46  # of the recipe `published`
    assert psnr["denoise_fashion_unet"] >= 28
    median = metrics.psnr(clothes.x_test, metrics.median_3x3(noisy))
    assert psnr["denoise_fashion_unet"] >= median + 7
