"""watermark_photo.py: the networks, the message, and what becomes of files."""

import math
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
import watermark_attacks
from conftest import ROOT, python
from PIL import Image

import watermark_photo as script
from applications import messages
from common import UserError, image_files, metrics, noise

SHIPPED = ROOT / "models" / "watermark_photo.keras"
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def shipped():
    return keras.saving.load_model(SHIPPED, compile=False)


def test_residual_changes_no_pixel_by_more_than_its_strength():
    model = script.build_photo_watermark(strength=0.03)
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(2, 40, 64, 1)).astype("float32")
    bits = rng.integers(0, 2, (2, 5, 8, 1)).astype("float32")
    outputs = model({"image": image, "watermark": bits}, training=False)
    assert np.abs(outputs["marked"] - image).max() <= 0.03 + 1e-6
    assert outputs["recovered"].shape == outputs["recovered_blurred"].shape == (2, 5, 8, 1)
    assert metrics.psnr(image, np.asarray(outputs["marked"])) >= -20 * math.log10(0.03)


def test_attacks_do_what_they_say():
    point = np.zeros((1, 41, 41, 1), "float32")
    point[0, 20, 20] = 1
    spread = watermark_attacks.blur(point, 1.5)[0, :, :, 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    distance = np.arange(41) - 20
    assert np.sqrt((spread.sum(0) * distance**2).sum()) == pytest.approx(1.5, rel=0.02)
    photo = image_files.read_grey(PHOTO)[None]
    fine, coarse = (
        metrics.psnr(photo, watermark_attacks.jpeg(photo, quality)) for quality in (95, 20)
    )
    assert fine > 40 > coarse > 25
    # A flat picture passes JPEG as it is.
    flat = np.full((2, 24, 17, 1), 100 / 255, "float32")
    np.testing.assert_allclose(watermark_attacks.jpeg(flat, 75), flat, atol=1e-6)


def test_pictures_for_training_and_test_are_not_the_same():
    """Pieces of a picture are found in it again, and in no other."""
    from synthetic import textures

    pieces = script.load_pictures(limit=60)
    assert pieces.x_train.shape == pieces.x_test.shape == (60, 64, 64, 1)
    found = textures.pictures(script.PICTURES)
    names = list(found)
    assert len(names) > 8

    def sources(images):
        """Return the names of the pictures that these pieces were cut from."""
        said = set()
        for piece in np.round(images[..., 0] * 255).astype(np.uint8):
            for name in names:
                said.update([name] if piece[31].tobytes() in found[name].tobytes() else [])
        return said

    parts = [sources(x) for x in (pieces.x_train, pieces.x_validation, pieces.x_test)]
    assert parts[0] <= set(script.PICTURES[:-3])
    assert parts[1] <= {script.PICTURES[-3]}
    assert parts[2] <= set(script.PICTURES[-2:])
    assert all(parts)
    flat = [x.reshape(len(x), -1) for x in (pieces.x_train, pieces.x_validation, pieces.x_test)]
    together = np.concatenate(flat)
    assert len(np.unique(together, axis=0)) == len(together)  # textures differ, too
    assert script.load_pictures(synthetic=True, limit=10).summary()["source"] == "synthetic"


# ---------------------------------------------------------------- the message


@pytest.mark.parametrize("text", ["x", "© 2026 me", "日本語 and English, 32 bytes"])
def test_message_comes_back_from_its_bits(text):
    bits = messages.embed(text, 528, 648, key="k")
    assert bits.shape == (66, 81)
    assert 0.4 < bits.mean() < 0.6
    log_odds = 2.0 * bits - 1
    assert messages.extract(log_odds, "k") == text
    assert messages.extract(log_odds, "other") is None
    # A tenth of the cells lie.
    lies = np.random.default_rng(0).random(bits.shape) < 0.1
    assert messages.extract(np.where(lies, -log_odds, log_odds), "k") == text


def test_message_that_does_not_fit_is_refused_with_what_fits():
    room = messages.capacity(400, 600)
    assert messages.extract(2.0 * messages.embed("a" * room, 400, 600) - 1) == "a" * room
    with pytest.raises(UserError, match=f"{room} bytes fit"):
        messages.embed("a" * (room + 1), 400, 600)
    with pytest.raises(UserError, match="0 bytes fit"):
        messages.embed("a", 64, 64)
    with pytest.raises(UserError, match="empty"):
        messages.embed("", 400, 600)


def test_no_message_in_chance_or_in_all_the_same():
    rng = np.random.default_rng(0)
    planes = [rng.standard_normal((40, 50)) for _ in range(300)]
    planes += [np.full((40, 50), value) for value in (-1.0, 0.0, 1.0)]
    assert [messages.extract(plane, str(n)) for n, plane in enumerate(planes)] == [None] * 303
    assert messages.extract(np.zeros((3, 3))) is None


# ---------------------------------------------------------------- the shipped model


def test_sixteen_bytes_in_a_photo_survive(shipped):
    photo = image_files.read_grey(PHOTO)
    bits = messages.embed("sixteen bytes ok", *photo.shape[:2], key="test")
    marked = messages.mark(shipped, photo, bits)
    assert metrics.psnr(photo[None], marked[None]) >= 35
    assert messages.extract(messages.read(shipped, photo), "test") is None
    ways = {
        "none": lambda x: x,
        "noise": lambda x: noise.gaussian(x, 0.1, seed=1),
        "JPEG": lambda x: watermark_attacks.jpeg(x, 75),
        "salt and pepper": lambda x: noise.salt_and_pepper(x, 0.05, seed=1),
        "blur": lambda x: watermark_attacks.blur(x, 0.7),
    }
    for name, attack in ways.items():
        seen = attack(marked[None])[0]
        assert messages.extract(messages.read(shipped, seen), "test") == "sixteen bytes ok", name


def test_bands_leave_no_seam(shipped, monkeypatch):
    photo = image_files.read_grey(PHOTO)[:200, :120]
    bits = messages.embed("x", 480, 480)[: 200 // 8, : 120 // 8]
    whole = messages.mark(shipped, photo, bits), messages.read(shipped, photo)
    real = messages._bands
    monkeypatch.setattr(messages, "_bands", lambda count: real(count, size=3))
    np.testing.assert_array_equal(whole[0], messages.mark(shipped, photo, bits))
    np.testing.assert_allclose(whole[1], messages.read(shipped, photo), atol=1e-3)


def test_embed_and_extract_from_the_command_line(tmp_path):
    Image.open(PHOTO).crop((0, 0, 501, 403)).save(tmp_path / "photo.png")
    words = "--input", "photo.png", "--message", "© 2026 me", "--key", "secret"
    done = python(ROOT / "watermark_photo.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    marked = Path("runs/watermark_photo_marked/photo.png")
    assert f"Wrote {marked}" in done.stdout
    before, after = (np.asarray(Image.open(p), int) for p in (tmp_path / "photo.png", marked))
    assert before.shape == after.shape == (403, 501, 3)
    assert 0 < np.abs(before - after).max() <= 5
    done = python(
        ROOT / "watermark_photo.py", "--input", marked, "--extract", "--key", "secret", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{marked}: © 2026 me" in done.stdout
    done = python(
        ROOT / "watermark_photo.py", "--input", marked, "photo.png", "--extract", cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stdout.count("no message with this key") == 2


def test_contradicting_flags_are_named(error_of, tmp_path):
    assert "--message has no effect here; it is for --input" in error_of(
        script.main, "--message", "x"
    )
    Image.open(PHOTO).save("a.png")
    assert "wants either" in error_of(script.main, "--input", "a.png")
    both = "--input", "a.png", "--extract", "--message", "x"
    assert "wants either" in error_of(script.main, *both)
    assert "--strength has no effect here; it is for training" in error_of(
        script.main, "--input", "a.png", "--message", "x", "--strength", "0.1"
    )
    long = "x" * 5_000
    assert "bytes fit" in error_of(script.main, "--input", "a.png", "--message", long)
    assert not list((tmp_path / "runs").rglob("*.png"))
    (tmp_path / "t.png").write_text("text")
    assert "t.png: not an image" in error_of(script.main, "--input", "t.png", "--extract")
