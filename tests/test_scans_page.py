"""tools/scans/page.py and ink.py: tiles, color, faint and lost ink."""

import warnings

import keras
import numpy as np
import pytest
from conftest import ROOT, whiten
from PIL import Image, ImageDraw
from scipy import ndimage

from evaluation.clean_documents import old_test_pages
from synthetic.digits import font
from tools.scans import ink, page
from tools.scans.document import Options, clean_file
from tools.scans.ground import estimate_paper, find_dark_ground, is_torn
from tools.tiles import pad_to_multiple

RED = (190, 30, 40)


def test_tiles_have_no_visible_seams(monkeypatch):
    """A page of faint and strong ink, cut into tiles that are small beside it."""
    network = keras.saving.load_model(ROOT / "models" / "clean_documents.keras", compile=False)
    dirty = old_test_pages(limit=10)[0].dirty.astype("float32") / 255
    dirty = np.concatenate([dirty, dirty[::-1]])[:899, :470]
    height, width = dirty.shape[:2]
    full = np.asarray(network(pad_to_multiple(dirty, 32)[None]))[0, :height, :width]
    monkeypatch.setattr(page, "MAX_SMALL", 0)  # one pass
    monkeypatch.setattr(page, "correct", lambda divided, grain, cleaned: None)
    monkeypatch.setattr(page, "TILE", 256)
    tiled = page.cleaner(network)(dirty)
    assert tiled.shape == dirty.shape
    assert np.quantile(np.abs(tiled - full), 0.999) < 1 / 255
    # Without the margin they would be visible.
    monkeypatch.setattr(page, "MARGIN", 0)
    without = page.cleaner(network)(dirty)
    assert np.quantile(np.abs(without - full), 0.999) > 1 / 255


# ---------------------------------------------------------------- stand-ins for the network


def erase(gray, by_paper):
    return np.ones_like(gray)


def darken_paper(gray, by_paper):
    """Clean a page badly: white becomes 245, and the middle of broad ink light."""
    broad = ndimage.binary_erosion(gray[..., 0] < 0.5, np.ones((7, 7)))[..., np.newaxis]
    return np.where(broad, np.float32(0.8), np.minimum(gray, np.float32(245 / 255)))


def blacken_color(gray, by_paper):
    """Clean a page as the network does: it takes what is broad and dark for a stain."""
    background = ndimage.grey_closing(gray[..., 0], (15, 15))[..., np.newaxis]
    return np.where(gray < 0.55 * background, gray, np.float32(1))


def corrected(network):
    """Return what `cleaner` makes of a stand-in for the network."""

    def clean(gray, by_paper):
        cleaned = network(gray, by_paper).astype("float32")
        ink.correct(*by_paper, cleaned)
        return cleaned

    return clean


# ---------------------------------------------------------------- pages


def letters(height=400, width=400, scale=1):
    """Return strokes in lines as letters have them, bool (height, width)."""
    strokes = np.zeros((height, width), bool)
    for top in range(20 * scale, height - 30 * scale, 30 * scale):
        for left in range(20 * scale, width - 20 * scale, 9 * scale):
            strokes[top : top + 12 * scale, left : left + 2 * scale] = True
            strokes[top : top + 2 * scale, left : left + 6 * scale] = True
    return strokes


LETTERS = letters()


def stamped():
    """Return tan paper with black lines, a red stamp and a yellow marker, uint8 (240, 240, 3)."""
    image = Image.new("RGB", (240, 240), (225, 205, 175))
    pen = ImageDraw.Draw(image)
    for top in range(20, 220, 20):
        pen.line((20, top, 220, top), fill=(40, 38, 35), width=3)
    pen.rectangle((60, 85, 160, 155), outline=RED, width=6)
    pen.rectangle((150, 185, 220, 195), fill=(225, 190, 30))
    return np.asarray(image)


def text_on(paper, ink, marker=255):
    """Return text, its second half under bands of marker: uint8 (400, 400, 1 or 3)."""
    pixels = np.full((400, 400, np.size(paper)), paper, np.uint8)
    for top in range(20, 370, 60):
        pixels[top - 6 : top + 20, 200:390] = np.multiply(paper, marker) // 255
    pixels[LETTERS] = ink
    return pixels


def on_bands(color):
    """Return black text on white, and white text on two bands of a color: uint8 (400, 400, 3)."""
    pixels = text_on((250, 250, 250), 20)
    for rows in (slice(70, 100), slice(190, 220)):
        pixels[rows, 10:390] = color
        pixels[rows][LETTERS[rows]] = 250
    return pixels


# ---------------------------------------------------------------- color


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
    gray, _ = page.clean_page(whiten, stamped(), color=False)
    assert gray.shape == (240, 240, 1)
    assert gray[120, 62, 0] < 80
    # A strong color stays whatever the network does.
    cleaned, _ = page.clean_page(erase, stamped())
    assert cleaned[120, 62, 0] > 190 > 80 > cleaned[120, 62, 1]
    np.testing.assert_array_equal(cleaned[40, 25:200], 255)


@pytest.mark.parametrize("color", [(95, 150, 105), (95, 105, 150), (120, 95, 150)])
def test_weakly_colored_ink_stays_but_brown_stains_do_not(color):
    def cleaned(ink):
        return page.clean_page(erase, text_on((250, 250, 250), ink))[0]

    assert cleaned(color)[LETTERS].min(axis=-1).max() < 180
    assert cleaned((150, 115, 95)).min() == 255


MARKERS = [(255, 240, 70), (255, 130, 190), (120, 235, 120), (190, 255, 60), (110, 190, 255)]


@pytest.mark.parametrize("paper", [(245, 244, 240), (250, 225, 140)])
@pytest.mark.parametrize("marker", MARKERS)
def test_text_under_marker_stays_black_and_marker_stays(marker, paper):
    pixels = text_on(paper, (25, 25, 28), marker)
    under = ~LETTERS & (pixels != np.array(paper)).any(-1)
    cleaned, lost = page.clean_page(blacken_color, pixels)
    assert lost < 0.01
    assert cleaned[LETTERS].max() < 60
    assert np.ptp(cleaned[LETTERS].astype(int), axis=-1).max() < 40
    assert (cleaned[~LETTERS & ~under] == 255).all()
    difference = np.abs(cleaned[under].astype(int) - marker).max(-1)
    assert np.quantile(difference, 0.95) < 12
    gray, _ = page.clean_page(blacken_color, pixels, color=False)
    assert gray[LETTERS].max() < 60
    assert gray[under].min() > 127


@pytest.mark.parametrize("blue", [40, 90, 110, 140])
def test_black_text_on_strongly_colored_paper_stays_black(blue):
    cleaned, _ = page.clean_page(whiten, text_on((250, 215, blue), 30))
    assert cleaned[LETTERS].max() < 60
    assert (cleaned[~LETTERS] == 255).all()


@pytest.mark.parametrize(
    ("network", "paper", "marker"),
    [(blacken_color, (245, 244, 240), MARKERS[0]), (whiten, (250, 215, 140), 255)],
)
def test_red_ink_over_marker_or_on_strongly_colored_paper_stays_red(network, paper, marker):
    cleaned, _ = page.clean_page(network, text_on(paper, RED, marker))
    red, green, blue = np.median(cleaned[LETTERS], axis=0)
    assert red > 150
    assert max(green, blue) < 90


# ---------------------------------------------------------------- dark grounds and negatives


@pytest.mark.parametrize("color", [(20, 20, 20), (20, 40, 110), RED, (225, 110, 20)])
def test_light_text_on_a_dark_band_stays_but_a_blot_does_not(color):
    """The stand-in for the network erases what is broad, and the text on it."""
    pixels = on_bands(color)
    cleaned, _ = page.clean_page(erase, pixels)
    for rows in (slice(70, 100), slice(190, 220)):
        difference = np.abs(cleaned[rows, 10:390].astype(int) - pixels[rows, 10:390])
        assert difference.max() <= 6
    assert (cleaned[20:32] == 255).all()
    gray, _ = page.clean_page(erase, pixels, color=False)
    on_band = np.zeros((400, 400), bool)
    on_band[70:100, 10:390] = True
    assert gray[on_band & ~LETTERS].max() < 127 < gray[on_band & LETTERS].min()
    pixels[70:100, 10:390] = 20
    assert (page.clean_page(erase, pixels)[0][70:100] == 255).all()


def with_grain(pixels):
    noise = np.random.default_rng(0).normal(1, 0.03, (*pixels.shape[:2], 1))
    return np.clip(np.round(pixels * noise), 0, 255).astype(np.uint8)


def test_light_text_on_a_medium_ground_with_grain_stays():
    pixels = on_bands((90, 180, 90))
    pixels[70:100, 60:390] = 90, 180, 90  # little text is left
    pixels = with_grain(pixels)
    cleaned, _ = page.clean_page(erase, pixels)
    assert np.abs(cleaned[72:98, 12:388].astype(int) - pixels[72:98, 12:388]).max() < 30


def test_the_network_sees_paper_with_grain_in_place_of_a_dark_ground():
    seen = []

    def clean(gray, by_paper):
        seen.append(gray.copy())
        return gray

    page.clean_page(clean, with_grain(on_bands((20, 20, 20))))
    band = seen[0][72:98, 12:388]
    assert band.mean() == pytest.approx(250 / 255, abs=0.02)
    assert 0.01 < band.std() < 0.04


@pytest.mark.parametrize(
    ("color", "has_text"), [((50, 50, 50), True), ((30, 30, 46), True), ((0, 95, 50), False)]
)
def test_a_box_broader_than_the_square_that_paper_is_sought_in_stays(color, has_text):
    pixels = np.full((800, 800, 3), 250, np.uint8)
    text = letters(800, 800)
    pixels[text] = 20
    box = slice(300, 700), slice(200, 760)
    pixels[box] = color
    if has_text:
        pixels[320:420, 240:720][text[320:420, 240:720]] = 250
        radius = np.hypot(np.arange(800)[:, None] - 560, np.arange(800) - 480)
        pixels[(radius > 16) & (radius < 30)] = 250  # a large letter o
    cleaned, _ = page.clean_page(erase, pixels)
    assert np.abs(cleaned[box].astype(int) - pixels[box]).max() <= 6
    assert (cleaned[:280] == 255).all()


@pytest.mark.parametrize("bottom", [960, 1300])  # of the second page, the negative is cleaned
def test_dense_light_text_on_a_ground_as_wide_as_the_page_stays(bottom):
    image = Image.new("L", (1240, 1754), 240)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 180, 1240, bottom), 25)
    for top in range(40, 1700, 38):
        inside = 180 < top < bottom - 30
        if inside or top < 150 or top > bottom:
            light = 255 if inside else 20
            draw.text((120, top), "the parish office " * 5, light, font("DejaVuSerif", 22))
    pixels = np.asarray(image)[..., np.newaxis]
    cleaned, _ = page.clean_page(whiten, pixels)
    change = np.abs(cleaned.astype(int) - pixels)
    assert change[(pixels < 30) | (pixels > 240)].max() < 20


def test_paper_in_a_deep_shadow_is_paper():
    shade = np.interp(np.arange(800), [0, 420, 520, 800], [1, 1, 0.35, 0.35])
    paper = np.tile(np.round(240 * shade), (800, 1))[..., np.newaxis]
    pixels = paper.astype(np.uint8)
    pixels[letters(800, 800)] //= 5
    estimated = estimate_paper(pixels)[0](slice(0, 800))
    assert np.abs(estimated / paper - 1)[:, 600:].max() < 0.05


def test_thick_black_letters_are_no_dark_ground():
    image = Image.new("L", (400, 400), 235)
    draw = ImageDraw.Draw(image)
    for top in range(20, 340, 60):
        draw.text((20, top), "Moneybags", 20, font("DejaVuSerif-Bold", 60))
    pixels = np.asarray(image)[..., np.newaxis]
    assert find_dark_ground(pixels, estimate_paper(pixels)[0]) is None


@pytest.mark.parametrize("ground", [(45, 45, 45), (30, 60, 140)])
def test_of_a_dark_page_the_negative_is_cleaned(ground):
    pixels = text_on(ground, 210)
    pixels[215:218, 50:350] = np.add(ground, 40)  # a scratch
    cleaned, _ = page.clean_page(blacken_color, pixels)
    expected = np.array(ground) if np.ptp(ground) else np.array(ground[:1])
    assert np.abs(cleaned[~LETTERS].astype(int) - expected).max() <= 3
    assert cleaned[LETTERS].min() > 210
    # A dark photo of dark text is no negative.
    cleaned, _ = page.clean_page(blacken_color, text_on((100,), 20))
    assert (cleaned[~LETTERS] == 255).all()
    assert cleaned[LETTERS].max() < 100


# ---------------------------------------------------------------- clean and faint ink


@pytest.mark.parametrize("channels", [1, 3])
def test_a_clean_page_stays_as_it_is_and_dirt_on_it_is_removed(channels):
    pixels = np.full((400, 400, channels), 255, np.uint8)
    with warnings.catch_warnings(action="error"):
        cleaned, _ = page.clean_page(corrected(darken_paper), pixels)
        black = np.zeros_like(pixels)
        cleaned_black, _ = page.clean_page(corrected(darken_paper), black)
        assert not is_torn(black, cleaned_black)
        page.clean_page(corrected(darken_paper), pixels[:, :1])
    np.testing.assert_array_equal(cleaned, np.full((400, 400, 1), 255))
    pixels[LETTERS] = 0
    gray = pixels[..., :1]
    dirty = pixels.copy()
    dirty[335:346, 50:300] = 150
    cleaned, _ = page.clean_page(corrected(whiten), dirty)
    np.testing.assert_array_equal(cleaned[333:349], 255)
    assert (cleaned[350:362] == gray[350:362]).all()
    pixels[300:340, 100:160] = 10  # as solid as a note's head
    pixels[1:][pixels[:-1] == 0] = 90  # a rim
    cleaned, lost = page.clean_page(corrected(darken_paper), pixels)
    np.testing.assert_array_equal(cleaned, gray)
    assert lost < 0.01


def drawn_page(paper=255, ink=20):
    """Return text over gray stripes with antialiased edges: uint8 (400, 400, 3)."""
    image = Image.new("RGB", (400, 400), (paper,) * 3)
    pen = ImageDraw.Draw(image)
    for top in range(20, 380, 40):
        pen.rectangle((20, top, 380, top + 19), fill=(abs(paper - 30),) * 3)
        pen.text((24, top), "total 1,024 of 2,048", (ink,) * 3, font("DejaVuSans", 16))
    return np.asarray(image)


@pytest.mark.parametrize(("paper", "ink"), [(255, 20), (20, 250)])
def test_a_page_from_a_computer_stays_as_it_is(paper, ink):
    pixels = drawn_page(paper, ink)
    cleaned, lost = page.clean_page(erase, pixels)
    np.testing.assert_array_equal(cleaned, pixels[..., :1])
    assert lost == 0
    pixels = pixels.copy()
    pixels[100:110] = 0, 90, 200
    np.testing.assert_array_equal(page.clean_page(erase, pixels)[0], pixels)
    for channels in (1, 3):  # turned gray or to 1 bit, faint ink must first be darkened
        cleaned, _ = page.clean_page(erase, drawn_page()[..., :channels], color=False)
        assert (cleaned == 255).all()


def brown_stain(pixels):
    pixels[300:340, 100:300] = 205, 180, 150


def shadow(pixels):
    pixels[:, 300:] = np.maximum(pixels[:, 300:], 90)
    pixels[:, 300:] -= np.linspace(0, 90, 100).astype(np.uint8)[:, np.newaxis]


def grain(pixels):
    pixels -= np.random.default_rng(0).integers(0, 6, pixels.shape, np.uint8)


def gray_paper(pixels):
    np.minimum(pixels, 230, out=pixels)


def blue_paper(pixels):
    pixels[..., 0] = np.minimum(pixels[..., 0], 215)


def few_levels(pixels):
    pixels[300:340, 100:300] = 200
    pixels //= 17
    pixels *= 17


def one_bit(pixels):
    pixels[:] = np.where(pixels < 128, 0, 255)


@pytest.mark.parametrize(
    "make_scan", [brown_stain, shadow, grain, gray_paper, blue_paper, few_levels, one_bit]
)
def test_a_scan_is_cleaned(make_scan):
    pixels = drawn_page().copy()
    pixels[pixels < 20] = 20  # room for the grain
    make_scan(pixels)
    cleaned, _ = page.clean_page(erase, pixels)
    assert (cleaned == 255).all()


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_sharp_rules_on_a_page_without_grain_stay(width):
    pixels = np.full((2400, 400, 1), 255, np.uint8)
    pixels[100 : 100 + width, 50:350] = 120
    cleaned, _ = page.clean_page(corrected(erase), pixels)
    np.testing.assert_array_equal(cleaned, pixels)


def test_dense_hatching_on_a_page_without_grain_stays():
    pixels = np.full((400, 400, 1), 255, np.uint8)
    rows, columns = np.mgrid[:300, :300]
    pixels[50:350, 50:350][(rows + columns) % 3 == 0] = 0
    cleaned, _ = page.clean_page(corrected(erase), pixels)
    np.testing.assert_array_equal(cleaned, pixels)


def test_grain_turns_white_but_not_beside_ink():
    dirty = two_inks(0.1, 0.1, 0)[:100]
    dirty += np.random.default_rng(0).normal(0, 0.01, dirty.shape).astype("float32")
    faint = slice(48, 52), slice(240, 260)
    dirty[faint] -= 0.06
    divided, grain = ink.divide_by_paper(dirty)
    cleaned = np.where(dirty < 0.5, 0, 245 / 255).astype("float32")
    cleaned[faint] = 0.8
    cleaned[40:60, 300:320] = 0.6  # where there is nothing on the page
    ink.keep_white(divided, grain, cleaned)
    assert (cleaned[:19] > 254 / 255).mean() > 0.99
    np.testing.assert_allclose(cleaned[[19, 26], 250], 245 / 255)
    beside_faint = cleaned[[47, 52], 250]
    assert beside_faint.min() >= np.float32(245 / 255)
    assert beside_faint.max() < 0.99  # not white
    assert (cleaned[faint][:, 4:-4] == np.float32(0.8)).all()
    assert cleaned[faint].max() < 0.87  # darker than on the page
    assert (cleaned[40:60, 300:320] > 254 / 255).mean() > 0.99


@pytest.mark.parametrize(("ink_depth", "is_blank"), [(0.8, True), (0.1, False)])
def test_what_is_much_fainter_than_the_ink_is_blank(ink_depth, is_blank):
    dirty = np.where(LETTERS, 1 - ink_depth, 1)[..., np.newaxis].astype("float32")
    dirty[370:380, 50:300] = 0.97
    dirty += np.random.default_rng(0).normal(0, 0.005, dirty.shape).astype("float32")
    divided, grain = ink.divide_by_paper(np.clip(dirty * 0.9, 0, 1))
    cleaned = np.where(LETTERS, 0, 1)[..., np.newaxis].astype("float32")
    cleaned[370:380, 50:300] = 0.4  # where the network is not sure
    ink.keep_white(divided, grain, cleaned)
    assert (cleaned[372:378, 60:290].mean() > 0.95) == is_blank
    assert cleaned[LETTERS].max() == 0


def test_gray_of_the_network_fades_towards_blank_paper_without_an_edge():
    page_of_grain = np.full((200, 200, 1), 0.9, "float32")
    page_of_grain += np.random.default_rng(0).normal(0, 0.02, (200, 200, 1)).astype("float32")
    page_of_grain[97:103, 97:103] = 0.6
    divided, grain = ink.divide_by_paper(page_of_grain)
    cleaned = np.full((200, 200, 1), 0.8, "float32")
    ink.keep_white(divided, grain, cleaned)
    assert (cleaned[:80] > 254 / 255).mean() > 0.99
    np.testing.assert_allclose(cleaned[97:103, 97:103], 0.8)
    assert np.abs(np.diff(cleaned[90:110], axis=1)).max() < 0.15


def test_white_of_a_photographed_page_gets_no_darker():
    """JPEG leaves a little noise, but less than half of the pixels differ from the paper."""
    noise = np.random.default_rng(0).choice([-1, 0, 0, 0, 1], (400, 400, 1))
    pixels = (252 + noise).astype(np.uint8)
    cleaned, _ = page.clean_page(corrected(darken_paper), pixels)
    assert cleaned.min() >= 253


def test_small_gray_print_on_a_page_without_grain_stays_but_a_fold_does_not():
    pixels = np.full((2400, 400, 1), 255, np.uint8)  # strokes may be broader on a larger page
    pixels[:400][LETTERS] = 0
    pixels[400:800][LETTERS] = 190
    fold = np.full((30, 400), 255.0)
    fold[15, 50:350] = 60
    pixels[900:930] = ndimage.gaussian_filter(fold, 1.5)[..., np.newaxis]
    cleaned, _ = page.clean_page(corrected(whiten), pixels)
    assert (cleaned[:850] == pixels[:850]).all()
    assert (cleaned[902:928] == 255).all()


def test_solid_black_that_the_network_hollowed_comes_back():
    dirty = np.full((300, 300, 1), 0.95, "float32")
    dirty[100:200, 100:200] = 0.1
    dirty[230:260, 100:200] = 0.4  # a stain
    dirty[270:274, 100:200] = 0.15  # the rim of another
    dirty += np.random.default_rng(0).normal(0, 0.01, dirty.shape).astype("float32")
    cleaned = np.ones_like(dirty)
    cleaned[100:200, 100:200] = 0
    cleaned[110:190, 110:190] = 1
    cleaned[230:232, 100:200] = 0
    cleaned[270:274, 100:110] = 0
    ink.correct(*ink.divide_by_paper(dirty), cleaned)
    assert cleaned[100:200, 100:200].max() < 0.2
    assert (cleaned[235:255, 100:200] == 1).all()
    assert (cleaned[270:274, 120:200] == 1).all()


def test_on_strong_grain_only_broad_solid_black_comes_back():
    dirty = np.full((300, 300, 1), 0.9, "float32")
    dirty[20:120, 20:120] = 0.1
    dirty[200:220, 20:280] = 0.1  # narrower than two broad strokes
    dirty += np.random.default_rng(0).uniform(-0.07, 0.07, dirty.shape).astype("float32")
    cleaned = np.ones_like(dirty)
    cleaned[20:30, 20:120] = 0
    cleaned[200:220, 20:40] = 0
    ink.correct(*ink.divide_by_paper(dirty), cleaned)
    assert cleaned[25:115, 25:115].max() < 0.3
    assert (cleaned[200:220, 60:280] == 1).all()


@pytest.mark.parametrize(("light", "is_mended"), [(0.6, True), (0.35, False)])
def test_broken_strokes_of_faint_ink_are_mended(light, is_mended):
    """The network broke a stroke, removed a blot from the next, and erased the last."""
    dirty = two_inks(light, light, 0)[:160]
    stroke, broken, erased = slice(20, 26), slice(200, 300), slice(120, 126)
    blot = slice(67, 79), slice(200, 212)
    dirty[blot] = light
    dirty += np.random.default_rng(0).normal(0, 0.01, dirty.shape).astype("float32")
    cleaned = np.where(dirty < 0.8, 0, 1).astype("float32")
    cleaned[stroke, broken] = cleaned[blot] = cleaned[erased] = 1
    before = cleaned.copy()
    divided, grain = ink.divide_by_paper(dirty)
    ink.correct(divided, grain, cleaned)
    if is_mended:
        assert cleaned[stroke, broken].mean() < 0.1
        cleaned[19:27, broken] = 1  # the stroke with its rims
    assert (cleaned == before).all()


def two_inks(dark, light, blur, scale=1):
    """Return strong strokes above faint ones on paper, float32 (600 * scale, 500 * scale, 1)."""
    page = np.full((600 * scale, 500 * scale), 0.9, "float32")
    half = len(page) // 2
    for top in range(20 * scale, half - 20 * scale, 50 * scale):
        page[top : top + 6 * scale, 40 * scale : 460 * scale] = dark
        page[top + half : top + half + 6 * scale, 40 * scale : 460 * scale] = light
    page[half:] = ndimage.gaussian_filter(page[half:], blur)
    return page[..., np.newaxis]


@pytest.mark.parametrize(
    ("dark", "light", "blur", "scale", "stays"),
    [
        (0.05, 0.6, 2.5, 1, True),  # the other side of the sheet
        (0.05, 0.6, 5, 2, True),  # a large page
        (0.05, 0.7, 0, 1, False),  # pencil
        (0.05, 0.2, 2.5, 1, False),
        (0.6, 0.75, 2.5, 1, False),
    ],
)
def test_what_shows_through_stays_but_faint_ink_may_turn_black(
    dark, light, blur, scale, stays, monkeypatch
):
    monkeypatch.setattr(ink, "MAX_LABELED_PIXELS", 600 * 500)
    dirty = two_inks(dark, light, blur, scale)
    cleaned = np.where(dirty < 0.88, 0, 1).astype("float32")
    before = cleaned.copy()
    divided, _ = ink.divide_by_paper(dirty)
    ink.keep_faint_ink(divided, cleaned)
    assert (cleaned[: 280 * scale] == before[: 280 * scale]).all()
    if stays:
        stroke = slice(320 * scale, 326 * scale), slice(50 * scale, 450 * scale)
        assert cleaned[stroke].min() > 0.6
        np.testing.assert_allclose(cleaned[stroke], divided[stroke] / 255)
    else:
        assert (cleaned == before).all()


# ---------------------------------------------------------------- lost ink


def lost(dirty, cleaned):
    return ink.lost_ink(*ink.divide_by_paper(dirty), cleaned)


def test_lost_ink_is_measured():
    rng = np.random.default_rng(0)
    clean = np.ones((400, 400, 1), "float32")
    clean[20:380:20, 20:380] = clean[21:380:20, 20:380] = 0.3
    shade = np.linspace(0.6, 0.9, 400, dtype="float32")[:, None, None]
    dirty = np.clip(clean * shade + rng.normal(0, 0.02, clean.shape), 0, 1).astype("float32")
    assert lost(dirty, clean) < 0.01
    half = clean.copy()
    half[200:] = 1
    assert lost(dirty, half) == 1  # in the lower half
    faded = np.where(np.arange(400)[:, None] % 40 < 14, 1, clean)
    assert 0.2 < lost(dirty, faded) < 0.7
    assert lost(dirty, np.ones_like(dirty)) == 1


def assert_counts_as_lost(page, cleaned):
    """Check a scan of a page, with a little grain, from which a piece of its ink was removed."""
    grain = np.random.default_rng(0).normal(0, 0.008, page.shape)
    dirty = np.clip(0.89 * page + grain, 0, 1).astype("float32")
    assert lost(dirty, page) < 0.01
    assert lost(dirty, cleaned) > 0.5


def test_a_thin_rule_and_a_small_region_count_as_lost():
    clean = np.ones((900, 700, 1), "float32")
    clean[:400][letters(400, 700)] = 0.1
    rule, small = clean.copy(), clean.copy()
    rule[750, 40:660] = 0.75
    small[800:840, 500:600][letters(100, 200)[20:60, :100]] = 0.5
    assert_counts_as_lost(rule, clean)
    assert_counts_as_lost(small, clean)
    blurred = ndimage.gaussian_filter(np.where(small < clean, small, 1), (4, 4, 0))  # a stain
    assert lost(np.minimum(clean, 2 * blurred - 1) * np.float32(0.89), clean) < 0.01


def test_a_line_of_small_print_below_strong_print_counts_as_lost():
    clean = np.ones((900, 700, 1), "float32")
    clean[letters(900, 700)] = 0.1
    clean[850:] = 1
    clean[822:845, 280:460] = 0.1  # nearer than a tenth of the page
    before = clean.copy()
    before[862:874, 300:400][letters(100, 200)[20:32, :100]] = 0.7
    assert_counts_as_lost(before, clean)


def test_lost_ink_is_noted(tmp_path):
    pixels = np.full((120, 90), 200, np.uint8)
    pixels[10:-10:12, 12:-12] = 40
    Image.fromarray(pixels).save(tmp_path / "a.png")
    result = clean_file(erase, tmp_path / "a.png", tmp_path / "b.png", Options())
    assert result["notes"] == ["page 1: in places 100% of what looks like ink was removed; compare"]


# ---------------------------------------------------------------- torn pictures


def test_a_picture_of_which_a_part_turned_white_is_torn(tmp_path):
    noise = np.random.default_rng(0).uniform(0, 1, (600, 600))
    smooth = ndimage.gaussian_filter(noise, 8)
    pixels = np.full((600, 600, 1), 250, np.uint8)
    pixels[letters(600, 600)] = 20
    picture = slice(200, 400), slice(150, 450)
    pixels[picture] = (60 + 90 * (smooth > 0.5))[picture][..., np.newaxis]
    assert not is_torn(pixels, pixels)
    cleaned = pixels.copy()
    cleaned[picture] = 255
    assert not is_torn(pixels, cleaned)  # as a whole
    cleaned[picture] = np.where(pixels[picture] > 100, 255, pixels[picture])
    assert is_torn(pixels, cleaned)
    # A picture in one color that covers most of the page
    covered = np.full((600, 600, 1), 250, np.uint8)
    covered[100:] = 120
    covered[300:400, 200:400] = 60
    cleaned = covered.copy()
    cleaned[100:300] = 255
    assert is_torn(covered, cleaned)
    # A deep shadow beside the scanner's black border
    shaded = np.full((600, 600, 1), 10, np.uint8)
    shaded[:, 40:] = np.linspace(110, 250, 560).astype(np.uint8)[:, np.newaxis]
    shaded[letters(600, 600)] = 10
    assert not is_torn(shaded, np.where(shaded > 50, 255, shaded).astype(np.uint8))
    # A stain under text
    stained = np.full((600, 600, 1), 250, np.uint8)
    stained[picture] = 150
    stained[letters(600, 600)] = 20
    assert not is_torn(stained, np.where(stained > 100, 255, stained).astype(np.uint8))

    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    result = clean_file(whiten, tmp_path / "a.png", tmp_path / "b.png", Options())
    assert "page 1: a picture is partly removed; compare" in result["notes"]
