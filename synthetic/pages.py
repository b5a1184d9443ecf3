"""Synthetic pages of text with stains, folds, footprints and wrinkles, dirty and clean."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator

from synthetic.digits import font
from synthetic.textures import clouds, step

KINDS = ("coffee", "folds", "footprints", "wrinkles")
FACES = """
    DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSansMono DejaVuSerif DejaVuSerif-Bold
    DejaVuSerif-Italic STIXGeneral STIXGeneralBol STIXGeneralItalic STIXGeneralBolIta
    cmr10 cmb10 cmss10 cmtt10 cmti10
""".split()
_WORDS = """
    a about above after again air all also always an and animal another answer any are around as
    ask at away back be because been before began below between book both but by call came can
    change city close come could country cut day did different do does door down draw each early
    earth eat end enough even every example eye face family far father feet few find first
    follow food for form found four from garden give go good great green group grow had hand
    hard has have he head hear help her here high him his home house how idea if important in
    into is it just keep kind know land large last later learn leave left letter life light like
    line list little live long look made make many may mean men might mile money month more
    morning most mother mountain move much must name near need never new next night no not now
    number of off often old on once one only open or other our out over own page paper part
    people picture place plan plant play point quick quite read really right river road room run
    said same saw say school second see seem sentence set she should show side small so some
    something song soon sound spell stand start state still stop story street study such take
    talk tell than that the their them then there these they thing think this those thought
    three through time to together too took town tree try turn two under until up us use very
    walk want was watch water way we well went were what when where which while white who why
    will with word work world would write year yes you young your zero
""".split()


def make_pages(count, seed=0, height=420, width=540, scale=None):
    """Return a list of `count` pages of text that resemble NoisyOffice's.

    Each is (dirty, clean, kind, text): two uint8 arrays of shape (height, width, 1), the main kind
    of dirt, one of KINDS, and the lines of text. `seed` is anything that numpy.random.default_rng
    takes; the same seed gives the same pages. `scale` is the size of letters and dirt: 1 is
    NoisyOffice's, 3 that of a scan at 300 dpi; None: mostly 1, up to 3.
    """
    made = []
    for rng in np.random.default_rng(seed).spawn(count):
        size = scale or (1.0 if rng.random() < 0.6 else rng.uniform(0.7, 3))
        clean, ink, text = _text_page(rng, height, width, size)
        kind = str(rng.choice(KINDS))
        made.append((_stain(ink, rng, kind, size), clean, kind, text))
    return made


def add_stains(clean, seed=0, kind=None):
    """Return a clean page, black text on white, with paper and dirt: uint8, (height, width, 1).

    `kind` is the main kind of dirt, one of KINDS; None: any. `seed` is as for `make_pages`.
    """
    rng = np.random.default_rng(seed)
    ink = clean[..., 0].astype("float32") / 255
    return _stain(ink, rng, kind or str(rng.choice(KINDS)), scale=1.0)


def sentence(rng):
    """Return a sentence of common words, with punctuation and numbers."""
    words = list(rng.choice(_WORDS, rng.integers(4, 15)))
    for index in range(1, len(words) - 1):
        chance = rng.random()
        if chance < 0.06:
            words[index] += ","
        elif chance < 0.1:
            words[index] = str(rng.integers(2, 2_100))
        elif chance < 0.12:
            words[index] = f"({words[index]})"
        elif chance < 0.15:
            words[index] = words[index].capitalize()
    words[0] = words[0].capitalize()
    return " ".join(words) + str(rng.choice([".", ".", ".", ".", "?", "!", ":", ";"]))


def _text_page(rng, height, width, scale):
    """Return (clean, ink, lines): the page, its print as a scanner sees it, and its text.

    Both show the same letters, drawn three times as large and scaled down in two ways: the clean
    page is sharp, a scan is not. `ink` is float32, shape (height, width); 1 is no ink.
    """
    fine = 3
    face, size = str(rng.choice(FACES)), rng.uniform(15, 25) * scale
    text_font, pitch = font(face, round(size * fine)), size * rng.uniform(1.1, 1.6)
    heading = font(str(rng.choice(FACES)), round(size * rng.uniform(1.2, 1.8) * fine))
    canvas = Image.new("L", (width * fine, height * fine), 255)
    draw = ImageDraw.Draw(canvas)
    left, y = rng.uniform(0.01, 0.08) * width, rng.uniform(0.2, 1.5) * size
    color, lines, words = int(rng.integers(0, 30)), [], []
    is_heading = rng.random() < 0.3
    while y + 1.4 * size < height:
        face_now = heading if is_heading else text_font
        line, indent = "", 0 if lines or is_heading else 2 * size
        while True:
            if not words:
                words = sentence(rng).split(" ")
            longer = f"{line} {words[0]}".strip()
            if line and draw.textlength(longer, face_now) > (width - left * 2 - indent) * fine:
                break
            line, _ = longer, words.pop(0)
            if is_heading and (len(line) > 20 or not words):
                break
        draw.text(((left + indent) * fine, y * fine), line, color, face_now)
        lines.append(line)
        y += pitch * (1.7 if is_heading else 1)
        if is_heading:
            words = []
        is_heading = False
        if rng.random() < 0.12:  # a new paragraph
            y += pitch * rng.uniform(0.3, 1)
            words = []
            is_heading = rng.random() < 0.2
    clean = canvas.resize((width, height), Image.Resampling.LANCZOS)
    method = rng.choice([Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
    ink = np.asarray(canvas.resize((width, height), method), "float32") / 255
    return np.asarray(clean)[..., np.newaxis], ink, lines


def stains(rng, shape, scale):
    """Return dirt of one of KINDS: the share of the light that it reflects, float32."""
    return _DIRT[str(rng.choice(KINDS))](rng, shape, scale).astype("float32")


def _stain(ink, rng, kind, scale):
    """Return paper with print and dirt, uint8, shape (height, width, 1)."""
    shape = ink.shape
    paper = _paper(rng, shape, scale)
    for other in KINDS:
        if other == kind or rng.random() < 0.12:
            paper *= _DIRT[other](rng, shape, scale)
    light = 1.0
    if rng.random() < 0.3:  # from one side
        y, x = np.mgrid[-0.5 : 0.5 : shape[0] * 1j, -0.5 : 0.5 : shape[1] * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        slope = rng.uniform(0, 0.6) * (x * np.cos(angle) + y * np.sin(angle))
        light = np.clip(0.85 + slope + rng.uniform(0, 0.1) * clouds(rng, shape, 200), 0.25, 1)
    paper = np.clip(paper, 0, 1)
    strength = rng.uniform(0.85, 1) + 0.03 * clouds(rng, shape, 15 * scale)
    # Where paper was bent its print is worn: as much lighter as the crease is darker. NoisyOffice
    # was made in that way, too: ink·paper + (1 - ink)·(1 - paper).
    worn = rng.choice([0, 1, rng.random()]) if kind in ("folds", "wrinkles") else 0
    print_light = (1 - np.clip(strength, 0, 1)) * paper + worn * (1 - paper).clip(0, 0.3)
    page = light * (ink * paper + (1 - ink) * print_light)
    if rng.random() < 0.4:
        page = ndimage.gaussian_filter(page, rng.uniform(0.2, 0.8) * max(scale, 1))
    page += rng.uniform(0, 0.02) * rng.standard_normal(shape, dtype="float32")
    return np.round(np.clip(page, 0, 1) * 255).astype(np.uint8)[..., np.newaxis]


def _paper(rng, shape, scale):
    grain = rng.uniform(0.002, 0.02) * rng.standard_normal(shape, dtype="float32")
    fibers = rng.uniform(0.002, 0.015) * clouds(rng, shape, 2.5 * scale)
    shade = rng.uniform(0, 0.03) * clouds(rng, shape, 120 * scale)
    return rng.uniform(0.72, 1.0) + grain + fibers + shade


def _coffee(rng, shape, scale):
    """Return coffee rings, dark at their rims, some of them interrupted, and drops."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    light = np.ones(shape, "float32")
    for _ in range(rng.integers(2, 6)):
        radius = rng.uniform(40, 170) * scale if rng.random() < 0.7 else rng.uniform(4, 40) * scale
        dx, dy = x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])
        distance, angle = np.hypot(dx, dy * rng.uniform(0.8, 1.2)), np.arctan2(dy, dx)
        wobble = sum(
            rng.normal(0, 0.02) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 7)
        )
        distance += radius * wobble + scale * clouds(rng, shape, 14 * scale)
        width = rng.uniform(4, 26) * scale * (1 + 0.5 * np.cos(angle + rng.uniform(0, 6)))
        inside = rng.uniform(0, 0.25) if radius > 40 * scale else 1.0
        edge = 1.2 * scale
        band = step(radius - distance, edge) - (1 - inside) * step(radius - width - distance, edge)
        rim = np.exp(-np.square((radius - distance - edge) / (1.6 * scale)))
        rim += 0.7 * np.exp(-np.square((radius - width - distance) / (2.5 * scale)))
        visible = np.clip(0.7 + rng.uniform(0, 1.5) * np.cos(angle - rng.uniform(0, 6)), 0, 1)
        dark = rng.uniform(0.05, 0.5) * band + rng.uniform(0, 0.25) * rim * band.clip(0.3)
        dark *= visible * (1 + 0.25 * clouds(rng, shape, 30 * scale))
        light *= 1 - np.clip(dark, 0, 0.85)
    return light


def _folds(rng, shape, scale):
    """Return creases across the page: a bright or dark line with fading shade beside it."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    light = np.ones(shape, "float32")
    for _ in range(rng.integers(1, 6)):
        angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]) + rng.normal(0, 0.1)
        dx, dy = x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])
        across = dx * np.cos(angle) + dy * np.sin(angle)
        along = dy * np.cos(angle) - dx * np.sin(angle)
        across += scale * 1.5 * clouds(rng, shape, 30 * scale)
        reach = np.exp(-np.abs(across) / (rng.uniform(5, 80) * scale))
        light += rng.normal(0, 0.06) * np.where(across > 0, 1, -rng.uniform(0, 1)) * reach
        worn = np.clip(0.6 + 0.6 * clouds(rng, shape, 25 * scale), 0, 1)
        if rng.random() < 0.4:  # ends within the page
            worn *= step(rng.uniform(30, 250) * scale - np.abs(along), 30 * scale)
        line = np.exp(-np.square(across / (rng.uniform(0.6, 1.6) * scale)))
        shadow = np.exp(-np.square((across - 2 * scale) / (1.5 * scale)))
        light += worn * (rng.uniform(-0.1, 0.2) * line - rng.uniform(0, 0.12) * shadow)
    return light


def _footprints(rng, shape, scale):
    """Return prints of soles and fingers: a gray pattern that is uneven in strength."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    streaks = (clouds(rng, shape, (90 * scale, 3 * scale)) * rng.uniform(0, 0.03)).clip(None, 0.0)
    light = 1 + streaks
    for _ in range(rng.integers(1, 5)):
        angle = rng.uniform(0, np.pi)
        dx, dy = x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        is_sole = rng.random() < 0.7
        ranges = ((90, 260), (40, 110), (9, 40)) if is_sole else ((18, 40), (12, 25), (3, 5))
        length, width, period = (scale * rng.uniform(*bounds) for bounds in ranges)
        if is_sole:
            pattern = [
                np.sin(2 * np.pi * (u + np.abs(v) * rng.uniform(0, 1)) / period),
                np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period),
                np.maximum(np.abs(u / period % 2 - 1), np.abs(v / period % 2 - 1)) - 0.5,
            ][rng.integers(3)]
        else:
            bend = np.hypot(u * 0.8, v) + scale * clouds(rng, shape, 12 * scale)
            pattern = np.sin(2 * np.pi * bend / period)
        outline = step(1 - np.hypot(u / length, v / width), 0.15)
        outline *= 1 - rng.uniform(0, 0.6) * step(-np.abs(u + 0.2 * length) + 0.1 * length, 4)
        strength = np.clip(0.6 + 0.5 * clouds(rng, shape, 25 * scale), 0, 1)
        strength *= np.clip(0.8 + 0.4 * clouds(rng, shape, 2 * scale), 0, 1.3)
        tread = rng.uniform(0.2, 0.6) + 0.5 * np.clip(pattern * 3, -1, 1)
        light *= 1 - rng.uniform(0.08, 0.4) * np.clip(outline * strength * tread, 0, 1)
    return light


def _wrinkles(rng, shape, scale):
    """Return the light on crumpled paper: flat pieces, each with a slope of its own."""
    coarse = max(1.0, 1.5 * scale)
    small = [int(np.ceil(side / coarse)) + 1 for side in shape]
    slope = np.zeros(small, "float32")
    grid = np.mgrid[: small[0], : small[1]].reshape(2, -1).T
    for spacing, share in ((60, 1.0), (25, 0.6)):
        spacing *= scale / coarse
        count = int(np.prod([side / spacing + 2 for side in small]))
        end = np.add(small, spacing)
        spots = rng.uniform(-spacing, end, (count, 2))
        corners = [(y, x) for y in (-9 * spacing, end[0]) for x in (-9 * spacing, end[1])]
        spots = np.concatenate([spots, corners])
        heights = rng.normal(0, spacing, len(spots))
        surface = LinearNDInterpolator(spots, heights, fill_value=0)(grid).reshape(small)
        down, right = np.gradient(surface.astype("float32"))
        angle = rng.uniform(0, 2 * np.pi)
        slope += share * np.clip(down * np.cos(angle) + right * np.sin(angle), -2, 2)
        # Ridges are worn and bright, valleys stay dark.
        slope -= rng.uniform(0, 1.5) * np.clip(ndimage.laplace(surface), -1.5, 1.5)
    slope = ndimage.gaussian_filter(slope, rng.uniform(0.4, 1.5))
    image = Image.fromarray(slope * rng.uniform(0.03, 0.13))
    light = 1 + np.asarray(image.resize(shape[::-1], Image.Resampling.BICUBIC))
    return light + rng.uniform(0, 0.04) * clouds(rng, shape, 50 * scale)


_DIRT = {"coffee": _coffee, "folds": _folds, "footprints": _footprints, "wrinkles": _wrinkles}
