"""watermark_ae.py: the networks, the loss, the message, and the script as a whole."""

import inspect
import json
import math
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from conftest import ROOT, predict_elsewhere, python, stop_after_one_epoch
from PIL import Image
from scipy.stats import norm

import watermark_ae as script
from common import UserError, data, images, message, metrics, noise, synthetic, watermarks

SCRIPT = ROOT / "watermark_ae.py"
SHIPPED = ROOT / "models" / "watermark_ae_residual.keras"
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
SMALL = ["--limit", "60", "--epochs", "2"]


@pytest.fixture(scope="module")
def shipped():
    return keras.saving.load_model(SHIPPED, compile=False)


# ---------------------------------------------------------------- networks


def test_parameters_and_shapes_are_the_tutorials():
    parts = script.build_encoder(), script.build_decoder(), script.build_extractor()
    assert [part.count_params() for part in parts] == [593, 547, 537]
    assert [part.output_shape for part in parts] == [(None, 28, 28, 1)] * 3
    whole = script.build_tutorial()
    assert whole.count_params() == 1_677
    assert set(whole.output) == {"marked", "recovered"}


def test_builders_work_pasted_alone_into_an_empty_file(tmp_path):
    parts = script.build_encoder, script.build_decoder, script.build_extractor
    builders = [*parts, script.build_tutorial, script.build_residual]
    lines = ["import keras", "from keras import layers, ops", *map(inspect.getsource, builders)]
    lines.append("print(build_tutorial().count_params(), build_residual().name)")
    (tmp_path / "pasted.py").write_text("\n".join(lines))
    done = python(tmp_path / "pasted.py", cwd=tmp_path)
    assert done.stdout.strip() == "1677 watermark_ae_residual", done.stderr


def test_slope_0_is_relu():
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype("float32")
    encoder = script.build_encoder(slope=0.0)
    assert np.asarray(encoder(x)).min() == 0
    leaky = script.build_encoder(slope=0.2)
    leaky.set_weights(encoder.get_weights())
    assert np.asarray(leaky(x)).min() < 0


def test_noise_is_there_in_training_only():
    model = script.build_tutorial(noise=0.5)
    x = {"image": np.zeros((1, 28, 28, 1)), "watermark": np.ones((1, 28, 28, 1))}
    calm = [np.asarray(model(x, training=False)["recovered"]) for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    assert not np.array_equal(calm[0], model(x, training=True)["recovered"])


def test_residual_changes_no_pixel_by_more_than_its_strength():
    model = script.build_residual(strength=0.03)
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(2, 40, 64, 1)).astype("float32")
    bits = rng.integers(0, 2, (2, 5, 8, 1)).astype("float32")
    outputs = model({"image": image, "watermark": bits}, training=False)
    assert np.abs(outputs["marked"] - image).max() <= 0.03 + 1e-6
    assert outputs["recovered"].shape == outputs["recovered_blurred"].shape == (2, 5, 8, 1)
    assert metrics.psnr(image, np.asarray(outputs["marked"])) >= -20 * math.log10(0.03)


# ---------------------------------------------------------------- what is computed


def test_wanted_psnr_rises_and_validation_is_by_the_last():
    wanted = keras.Variable(1.0, trainable=False)
    callback = script.RaisePsnr(wanted, psnr=20, epochs=10, steps_per_epoch=10)

    def psnr(epoch, batch):
        callback.on_epoch_begin(epoch)
        callback.on_train_batch_begin(batch)
        return -10 * math.log10(float(wanted.numpy()))

    assert psnr(0, 0) == pytest.approx(6)
    assert psnr(1, 0) == pytest.approx(6)
    assert psnr(4, 0) == pytest.approx(13)
    assert psnr(7, 0) == pytest.approx(20, rel=1e-5)
    assert psnr(9, 9) == pytest.approx(20, rel=1e-5)
    psnr(0, 0)
    callback.on_test_begin()
    assert -10 * math.log10(float(wanted.numpy())) == pytest.approx(20, rel=1e-5)


def test_limit_of_one_pixel_against_drawn_noise():
    assert watermarks.one_pixel_limit(0.1, 0.1) == pytest.approx(0.7602, abs=1e-4)
    assert watermarks.one_pixel_limit(0.1, 0.5) == pytest.approx(0.5562, abs=1e-4)
    rng, r, sigma = np.random.default_rng(0), 0.08, 0.1
    bits = rng.integers(0, 2, 200_000)
    seen = bits * r * math.sqrt(2) + sigma * rng.standard_normal(200_000)
    right = np.mean((seen > r / math.sqrt(2)) == bits)
    assert right == pytest.approx(watermarks.one_pixel_limit(r, sigma), abs=5e-3)


def test_last_bit_is_perfect_without_noise_and_chance_with_any():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(20, 24, 24, 1)).astype("float32")
    for cell in (1, 8):
        bits = rng.integers(0, 2, (20, 24 // cell, 24 // cell, 1)).astype("float32")
        marked = metrics.hide_in_last_bit(x, bits)
        assert np.abs(marked - x).max() <= 1.51 / 255
        assert metrics.bit_accuracy(bits, metrics.read_last_bit(marked, cell)) == 1
    middle = 0.4 + 0.2 * x  # nothing is clipped
    noisy = watermarks.noisy(metrics.hide_in_last_bit(middle, np.round(x)), 0.1)
    accuracy = metrics.bit_accuracy(np.round(x), metrics.read_last_bit(noisy))
    assert accuracy == pytest.approx(0.5, abs=0.03)


def test_attacks_do_what_they_say():
    point = np.zeros((1, 41, 41, 1), "float32")
    point[0, 20, 20] = 1
    spread = noise.blur(point, 1.5)[0, :, :, 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    distance = np.arange(41) - 20
    assert np.sqrt((spread.sum(0) * distance**2).sum()) == pytest.approx(1.5, rel=0.02)
    photo = images.read_grey(PHOTO)[None]
    fine, coarse = (metrics.psnr(photo, noise.jpeg(photo, quality)) for quality in (95, 20))
    assert fine > 40 > coarse > 25
    # A flat picture passes JPEG as it is.
    flat = np.full((2, 24, 17, 1), 100 / 255, "float32")
    np.testing.assert_allclose(noise.jpeg(flat, 75), flat, atol=1e-6)


def test_bit_accuracy_by_hand():
    bits, p = np.array([0, 1, 1, 0.0]), np.array([0.2, 0.9, 0.4, 0.6])
    assert metrics.bit_accuracy(bits, p) == 0.5


def test_pictures_for_training_and_test_are_not_the_same(tmp_path):
    pieces = data.load_pictures(limit=40)
    assert pieces.x_train.shape == (40, 64, 64, 1)
    assert pieces.x_test.shape == (40, 64, 64, 1)
    assert pieces.summary()["name"] == "pictures and textures"
    one, two = data.load_pictures(limit=10), data.load_pictures(limit=10)
    np.testing.assert_array_equal(one.x_train, two.x_train)
    drawn = data.load_pictures(synthetic=True, limit=10)
    assert drawn.summary()["source"] == "synthetic"
    with pytest.raises(UserError, match="leave --data-dir out"):
        data.load_pictures(tmp_path)
    textures = synthetic.textures(30, seed=1)
    assert len(np.unique(textures, axis=0)) == 30
    np.testing.assert_array_equal(textures[:3], synthetic.textures(3, seed=1))


# ---------------------------------------------------------------- the message


@pytest.mark.parametrize("text", ["x", "© 2026 me", "日本語 and English, 32 bytes"])
def test_message_comes_back_from_its_bits(text):
    bits = message.embed(text, 528, 648, key="k")
    assert bits.shape == (66, 81)
    assert 0.4 < bits.mean() < 0.6
    log_odds = 2.0 * bits - 1
    assert message.extract(log_odds, "k") == text
    assert message.extract(log_odds, "other") is None
    # A tenth of the cells lie.
    lies = np.random.default_rng(0).random(bits.shape) < 0.1
    assert message.extract(np.where(lies, -log_odds, log_odds), "k") == text


def test_message_that_does_not_fit_is_refused_with_what_fits():
    room = message.capacity(400, 600)
    assert message.extract(2.0 * message.embed("a" * room, 400, 600) - 1) == "a" * room
    with pytest.raises(UserError, match=f"{room} bytes fit"):
        message.embed("a" * (room + 1), 400, 600)
    with pytest.raises(UserError, match="0 bytes fit"):
        message.embed("a", 64, 64)
    with pytest.raises(UserError, match="empty"):
        message.embed("", 400, 600)


def test_no_message_in_chance_or_in_all_the_same():
    rng = np.random.default_rng(0)
    planes = [rng.standard_normal((40, 50)) for _ in range(300)]
    planes += [np.full((40, 50), value) for value in (-1.0, 0.0, 1.0)]
    assert [message.extract(plane, str(n)) for n, plane in enumerate(planes)] == [None] * 303
    assert message.extract(np.zeros((3, 3))) is None


# ---------------------------------------------------------------- the shipped model


def test_sixteen_bytes_in_a_photo_survive(shipped):
    photo = images.read_grey(PHOTO)
    bits = message.embed("sixteen bytes ok", *photo.shape[:2], key="test")
    marked = message.mark(shipped, photo, bits)
    assert metrics.psnr(photo[None], marked[None]) >= 35
    assert message.extract(message.read(shipped, photo), "test") is None
    ways = {
        "none": lambda x: x,
        "noise": lambda x: noise.gaussian(x, 0.1, seed=1),
        "JPEG": lambda x: noise.jpeg(x, 75),
        "salt and pepper": lambda x: noise.salt_and_pepper(x, 0.05, seed=1),
        "blur": lambda x: noise.blur(x, 0.7),
    }
    for name, attack in ways.items():
        seen = attack(marked[None])[0]
        assert message.extract(message.read(shipped, seen), "test") == "sixteen bytes ok", name


def test_bands_leave_no_seam(shipped, monkeypatch):
    photo = images.read_grey(PHOTO)[:200, :120]
    bits = message.embed("x", 480, 480)[: 200 // 8, : 120 // 8]
    whole = message.mark(shipped, photo, bits), message.read(shipped, photo)
    real = message._bands
    monkeypatch.setattr(message, "_bands", lambda count: real(count, size=3))
    np.testing.assert_array_equal(whole[0], message.mark(shipped, photo, bits))
    np.testing.assert_allclose(whole[1], message.read(shipped, photo), atol=1e-3)


def test_embed_and_extract_from_the_command_line(tmp_path):
    Image.open(PHOTO).crop((0, 0, 501, 403)).save(tmp_path / "photo.png")
    words = "--input", "photo.png", "--message", "© 2026 me", "--key", "secret"
    done = python(SCRIPT, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    marked = Path("runs/watermark_ae_residual/marked/photo.png")
    assert f"Wrote {marked}" in done.stdout
    before, after = (np.asarray(Image.open(p), int) for p in (tmp_path / "photo.png", marked))
    assert before.shape == after.shape == (403, 501, 3)
    assert 0 < np.abs(before - after).max() <= 5
    done = python(SCRIPT, "--input", marked, "--extract", "--key", "secret", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{marked}: © 2026 me" in done.stdout
    done = python(SCRIPT, "--input", marked, "photo.png", "--extract", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("no message with this key") == 2


def test_contradicting_flags_are_named(error_of, tmp_path):
    assert "give it with --input" in error_of(script.main, "--message", "x")
    Image.open(PHOTO).save("a.png")
    assert "wants either" in error_of(script.main, "--input", "a.png")
    assert "wants either" in error_of(
        script.main, "--input", "a.png", "--extract", "--message", "x"
    )
    long = "x" * 5_000
    assert "bytes fit" in error_of(script.main, "--input", "a.png", "--message", long)
    assert not list((tmp_path / "runs").rglob("*.png"))
    (tmp_path / "t.png").write_text("text")
    assert "t.png: not an image" in error_of(script.main, "--input", "t.png", "--extract")
    wrong = ROOT / "models" / "denoise_mnist.keras"
    words = "--input", "a.png", "--extract", "--model", wrong
    assert "holds a model named 'denoise_mnist'" in error_of(script.main, *words)


# ---------------------------------------------------------------- the script as a whole


def test_smoke_run_writes_all_it_says(capsys):
    script.main(["--synthetic", *SMALL])
    folder = Path("runs/watermark_ae")
    report = json.loads((folder / "metrics.json").read_text())
    assert report["parameters"] == 1_677
    assert set(report["baselines"]) == {"least_significant_bit"}
    assert report["test"].keys() == report["baselines"]["least_significant_bit"].keys()
    assert report["baselines"]["least_significant_bit"]["bit_accuracy"] == 1
    wanted = ("watermarks.png", "noise.png", "trade.png", "loss.png", "model.keras")
    for name in (*wanted, "encoder.keras", "decoder.keras", "extractor.keras"):
        assert (folder / name).stat().st_size > 1_000
    x = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype("float32")
    here = keras.saving.load_model(folder / "extractor.keras").predict(x, verbose=0)
    there = predict_elsewhere((folder / "extractor.keras").resolve(), x, folder.resolve())
    np.testing.assert_allclose(here, there, atol=1e-6)
    script.main(["--synthetic", *SMALL, "--model", str(folder / "model.keras")])
    again = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert again["test"] == pytest.approx(report["test"], rel=1e-5)


@pytest.mark.parametrize(
    "words", [["--recipe", "tutorial"], ["--architecture", "residual", "--batch-size", "8"]]
)
def test_the_other_recipe_and_architecture_run(words):
    script.main(["--synthetic", "--limit", "20", "--epochs", "1", "--output-dir", "x", *words])
    report = json.loads(Path("x/metrics.json").read_text())
    assert report["parameters"] == (1_677 if "tutorial" in words else 116_954)


def test_resume_goes_on_where_it_stopped():
    words = ["--synthetic", *SMALL, "--noise", "0.1"]
    script.main([*words, "--output-dir", "one"])
    stop_after_one_epoch(script.main, [*words, "--output-dir", "two"])
    script.main([*words, "--output-dir", "two", "--resume"])
    one, two = (json.loads(Path(f, "metrics.json").read_text())["test"] for f in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-3)


def test_real_digits_carry_bits(real_data):
    """The limit's formula, and what README says, on the model of that run."""
    digits = data.load_mnist(real_data)
    assert 0.75 < np.mean(digits.x_test == 0) < 0.85
    assert norm.cdf(1 / math.sqrt(2)) == pytest.approx(0.76, abs=1e-3)
