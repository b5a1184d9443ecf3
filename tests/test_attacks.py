import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import attacks
from benchmarks.attacks import attack, load
from common import metrics
from tools.messages import damage


def test_blur_jpeg_and_noise():
    point = np.zeros((41, 41, 3), "float32")
    point[20, 20] = 1
    blurred = damage.blur(point, 1.5)[..., 0]
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    distance = np.arange(41) - 20
    assert np.sqrt((blurred.sum(0) * distance**2).sum()) == pytest.approx(1.5, rel=0.02)
    photo = load("portrait")
    fine, coarse = (
        metrics.psnr(photo[None], attack(photo, "JPEG, quality", quality, 0)[None])
        for quality in (95, 20)
    )
    assert fine > 38 > coarse > 25
    gray = np.full((100, 100, 3), 0.5, "float32")
    assert attack(gray, "noise, σ", 0.1, 0).std() == pytest.approx(0.1, rel=0.02)
    changed = attack(photo, "salt and pepper", 0.05, 0) != photo
    assert changed.any(axis=-1).mean() == pytest.approx(0.05, abs=0.01)


def test_sizes_and_levels():
    photo = load("portrait")
    assert photo.shape == (600, 512, 3)
    assert attack(photo, "crop to", 0.5, 0).size == pytest.approx(photo.size / 2, rel=0.01)
    assert attack(photo, "resize to", 0.5, 0).shape == (300, 256, 3)
    assert attack(photo, "mirror", 0, 0)[:, ::-1].tolist() == photo.tolist()
    assert attack(photo, "quarter turn", 0, 0).shape == (512, 600, 3)
    assert attack(photo, "turn, degrees", 3, 0).shape > photo.shape
    assert attack(photo, "screenshot at", 1.1, 0).shape > (660, 563, 3)
    darker = attack(photo, "brightness", 0.8, 0)
    assert darker.mean() == pytest.approx(0.8 * photo.mean(), rel=0.01)
    flatter = attack(photo, "contrast", 0.8, 0)
    assert flatter.std() == pytest.approx(0.8 * photo.std(), rel=0.01)


def test_damage_applies_its_parts_in_turn():
    photo = load("portrait")
    np.testing.assert_array_equal(damage.damage(photo, 0), photo)
    smaller = damage.damage(photo, 0, scale=0.5, crop_share=0.25)
    assert smaller.shape == (150, 128, 3)
    worse = damage.damage(photo, 0, blur_sigma=1, noise_sigma=0.05, quality=50)
    assert 20 < metrics.psnr(photo[None], worse[None]) < 28
    np.testing.assert_array_equal(
        worse, damage.damage(photo, 0, blur_sigma=1, noise_sigma=0.05, quality=50)
    )


def test_twenty_pictures_are_large_enough():
    sizes = [load(name).shape for name in attacks.PICTURES]
    assert len(sizes) == 20
    assert all(min(h, w) >= 400 and max(h, w) >= 512 for h, w, _ in sizes)


def test_counts_are_stored_and_not_measured_again(monkeypatch, tmp_path):
    embedded = []

    def method(watermark):
        def embed(picture, number):
            embedded.append(number)
            return picture, lambda seen: seen.shape == picture.shape

        return embed

    def missing(name):
        raise ImportError("no imwatermark")

    pictures = dict(list(attacks.PICTURES.items())[:2])
    stored = {"capacity": {}, "methods": {"dwtDct": {"qualities": dict.fromkeys(pictures, 40.0)}}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"trainings": {}, "attacks": stored}))
    replaced = {"PICTURES": pictures, "our_method": method, "invisible_watermark": missing}
    replaced |= {"RESULTS": path, "IMAGES": tmp_path}
    for name in ("plot_example", "plot_shares"):
        replaced[name] = lambda content, path: path.touch()
    for name, value in replaced.items():
        monkeypatch.setattr(attacks, name, value)
    (tmp_path / "watermark_photo.jpg").write_text("an earlier figure")
    for _ in range(2):
        attacks.main()
    methods = json.loads(path.read_text())["attacks"]["methods"]
    assert methods.keys() == {"dwtDct", "watermark_photo"}
    counts = methods["watermark_photo"]
    assert (counts["psnr"], counts["psnr_min"]) == (100, 100)
    assert counts["read"]["mirror"] == {"0": 2}  # of two pictures
    assert counts["read"]["crop to"] == dict.fromkeys(["0.75", "0.5", "0.33", "0.25", "0.15"], 0)
    assert embedded == [0, 1]
    assert (tmp_path / "watermark_photo.jpg").read_bytes() == b""


def test_figures_show_messages_and_shares(tmp_path):
    class Watermark:
        def mark(self, picture, bits, uniform):
            return np.clip(picture + 0.01, 0, 1)

        def extract(self, gray, key):
            return "a message"

    attacks.plot_example(Watermark(), tmp_path / "example.jpg")
    read = {
        name: {f"{strength:g}": 1 for strength in strengths}
        for name, (_, strengths, _) in attacks.ATTACKS.items()
    }
    counts = {"psnr": 40.0, "read": read}
    attacks.plot_shares({attacks.OURS: counts, "dwtDct": counts}, tmp_path / "shares.png")
    for name in ("example.jpg", "shares.png"):
        with Image.open(tmp_path / name) as figure:
            assert min(figure.size) > 400
            assert np.asarray(figure.convert("L")).std() > 5
