"""tools/scans/page.py and ink.py: tiles, color, faint and lost ink."""

import keras
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw

from evaluation.clean_documents import old_test_pages
from tools.scans import ink, page
from tools.scans.document import Options, clean_file
from tools.tiles import pad_to_multiple


def whiten(gray):
    return np.where(gray > 0.55, np.float32(1), gray)


def stamped():
    """Return tan paper with black lines, a red stamp and a yellow marker, uint8 (240, 240, 3)."""
    image = Image.new("RGB", (240, 240), (225, 205, 175))
    pen = ImageDraw.Draw(image)
    for top in range(20, 220, 20):
        pen.line((20, top, 220, top), fill=(40, 38, 35), width=3)
    pen.rectangle((60, 85, 160, 155), outline=(190, 30, 40), width=6)
    pen.rectangle((150, 185, 220, 195), fill=(225, 190, 30))
    return np.asarray(image)


def test_tiles_have_no_visible_seams(monkeypatch):
    """A page of faint and strong ink, cut into tiles that are small beside it."""
    network = keras.saving.load_model(ROOT / "models" / "clean_documents.keras", compile=False)
    dirty = old_test_pages(limit=10)[0].dirty.astype("float32") / 255
    dirty = np.concatenate([dirty, dirty[::-1]])[:899, :470]
    height, width = dirty.shape[:2]
    full = np.asarray(network(pad_to_multiple(dirty, 32)[None]))[0, :height, :width]
    monkeypatch.setattr(page, "MAX_SMALL", 0)  # one pass
    monkeypatch.setattr(page, "keep_faint_ink", lambda dirty, cleaned: None)
    monkeypatch.setattr(page, "TILE", 256)
    tiled = page.cleaner(network)(dirty)
    assert tiled.shape == dirty.shape
    assert np.quantile(np.abs(tiled - full), 0.999) < 1 / 255
    # Without the margin they would be visible.
    monkeypatch.setattr(page, "MARGIN", 0)
    without = page.cleaner(network)(dirty)
    assert np.quantile(np.abs(without - full), 0.999) > 1 / 255


def test_colored_ink_keeps_its_color_and_paper_turns_white():
    cleaned, _ = page.clean_page(whiten, stamped())
    assert cleaned.shape == (240, 240, 3)
    np.testing.assert_array_equal(cleaned[:15], 255)
    red, green, blue = cleaned[120, 62].astype(int)
    assert red > 190
    assert max(green, blue) < 80
    red, green, blue = cleaned[190, 180].astype(int)
    assert min(red, green) > 200
    assert blue < 80
    assert np.ptp(cleaned[40, 100].astype(int)) == 0
    assert cleaned[40, 100].max() < 80


def test_a_strong_color_stays_whatever_the_network_does():
    cleaned, _ = page.clean_page(np.ones_like, stamped())
    assert cleaned[120, 62, 0] > 190 > 80 > cleaned[120, 62, 1]
    np.testing.assert_array_equal(cleaned[40, 25:200], 255)


def test_gray_output_and_gray_input_have_one_channel():
    cleaned, _ = page.clean_page(whiten, stamped(), color=False)
    assert cleaned.shape == (240, 240, 1)
    assert cleaned[120, 62, 0] < 80
    gray = np.full((120, 90, 3), 200, np.uint8)
    gray[10:-10:12, 12:-12] = 40
    assert page.clean_page(whiten, gray)[0].shape == (120, 90, 1)


def test_lost_ink_is_measured():
    rng = np.random.default_rng(0)
    clean = np.ones((400, 400, 1), "float32")
    clean[20:380:20, 20:380] = clean[21:380:20, 20:380] = 0.3
    shade = np.linspace(0.6, 0.9, 400, dtype="float32")[:, None, None]
    dirty = np.clip(clean * shade + rng.normal(0, 0.02, clean.shape), 0, 1).astype("float32")
    assert ink.lost_ink(dirty, clean) == 0
    half = clean.copy()
    half[200:] = 1
    assert 0.4 < ink.lost_ink(dirty, half) < 0.6
    assert ink.lost_ink(dirty, np.ones_like(dirty)) == 1


def test_lost_ink_is_noted(tmp_path):
    pixels = np.full((120, 90), 200, np.uint8)
    pixels[10:-10:12, 12:-12] = 40
    Image.fromarray(pixels).save(tmp_path / "a.png")
    result = clean_file(np.ones_like, tmp_path / "a.png", tmp_path / "b.png", Options())
    assert result["notes"] == ["page 1: 100% of what looks like ink is gone, compare"]


@pytest.mark.parametrize(
    ("dark", "light", "stays"), [(0.05, 0.7, True), (0.05, 0.4, False), (0.6, 0.75, False)]
)
def test_strokes_much_fainter_than_strong_ink_are_not_blackened(dark, light, stays):
    dirty = np.full((600, 500, 1), 0.9, "float32")
    for top in range(20, 280, 20):
        dirty[top : top + 6, 40:460] = dark
        dirty[top + 300 : top + 306, 40:460] = light
    cleaned = np.where(dirty < 0.9, 0, 1).astype("float32")
    before = cleaned.copy()
    ink.keep_faint_ink(dirty, cleaned)
    assert (cleaned[:300] == before[:300]).all()
    if stays:
        faint = dirty[320:326, 50:450]
        np.testing.assert_allclose(cleaned[320:326, 50:450], faint / 0.9, atol=0.01)
    else:
        assert (cleaned == before).all()


def test_strokes_of_a_large_page_are_grouped_as_those_of_a_small_one(monkeypatch):
    rng = np.random.default_rng(0)
    dirty = np.full((900, 700, 1), 0.95, "float32")
    for top in range(20, 860, 30):
        dirty[top : top + 9, 40 : int(rng.integers(200, 660))] = 0.05 if top < 400 else 0.7
    results = []
    for pixels in (10**6, 10**5):
        monkeypatch.setattr(ink, "MAX_LABELED_PIXELS", pixels)
        cleaned = np.where(dirty < 0.9, 0, 1).astype("float32")
        ink.keep_faint_ink(dirty, cleaned)
        results.append(cleaned)
    assert (results[0][420:] > 0.7).all()
    assert np.mean(np.abs(results[0] - results[1]) > 0.02) < 0.002
