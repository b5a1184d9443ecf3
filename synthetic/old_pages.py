"""Synthetic old pages as in archives, dirty and clean.

Print and handwriting of any size, in ink from strong to faint, on grainy, stained or dark paper,
with the other side of the sheet showing through.
"""

import functools
import io
import string

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.interpolate import CubicSpline

from synthetic.digits import font
from synthetic.pages import FACES, sentence, stains
from synthetic.textures import clouds, pictures, step

PICTURES = ["astronaut.png", "camera.png", "coins.png", "moon.png", "chelsea.png", "coffee.png"]
EDGE = 0.33  # amount of ink at the edge of a stroke in a clean page
_FIRST_LETTERS = {"latin": ord("a"), "greek": 0x3B1, "cyrillic": 0x430, "fraktur": 0x1D51E}


def ink(rng, side):
    """Return the ink that is written or printed on a sheet: 1 is ink, 0 is none.

    It is float32, shape (side, side), with antialiased edges. `rng` is a numpy.random.Generator.
    """
    kind = rng.choice(["print", "handwriting", "forms"], p=[0.45, 0.45, 0.1])
    canvas = Image.new("L", (2 * side, 2 * side))
    draw = ImageDraw.Draw(canvas)
    if kind == "handwriting":
        _write(rng, draw, 2 * side)
    else:
        _print(rng, draw, 2 * side)
    if kind == "forms" or rng.random() < 0.1:
        _rule(rng, draw, 2 * side)
    if rng.random() < 0.5:
        angle = rng.normal(0, 3) if rng.random() < 0.85 else rng.uniform(-90, 90)
        canvas = canvas.rotate(angle, Image.Resampling.BILINEAR)
    drawn = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), "float32") / 255
    if rng.random() < 0.4:  # the rough edges of old presses and rough paper
        rough = ndimage.gaussian_filter(drawn, rng.uniform(0.7, 1.3))
        strength = rng.uniform(0.05, 0.2)
        rough += strength * clouds(rng, drawn.shape, rng.uniform(1.5, 4)) * (rough > 0.02)
        drawn = step(rough - rng.uniform(0.35, 0.55), 0.5).astype("float32")
    return drawn


def _print(rng, draw, side):
    """Draw lines of print in mixed faces and sizes."""
    y = rng.uniform(-0.02, 0.1) * side
    size = 2 * np.exp(rng.uniform(np.log(11), np.log(60)))
    left = rng.uniform(-0.1, 0.2) * side
    face, pitch = str(rng.choice(FACES)), rng.uniform(1.05, 1.8)
    alphabet = rng.choice(["latin", "fraktur", "greek", "cyrillic"], p=[0.7, 0.15, 0.05, 0.1])
    upper = rng.random() < 0.12
    while y < side:
        line_size, line_face = size, face
        if rng.random() < 0.08:  # a heading
            line_size, line_face = size * rng.uniform(1.3, 4), str(rng.choice(FACES))
        text = " ".join(sentence(rng) for _ in range(3))
        text = text.upper() if upper else _in_alphabet(text, alphabet)
        if alphabet in ("greek", "cyrillic"):
            line_face = "DejaVuSerif" if "Serif" in face else "DejaVuSans"
        elif alphabet == "fraktur":
            line_face = "STIXGeneralBol" if rng.random() < 0.3 else "STIXGeneral"
        if rng.random() < 0.04:
            text = "".join(rng.choice(list("0123456789_.,-=()/|%'\"#"), 60))
        here = font(line_face, max(int(min(line_size, 400)), 8))
        x = left if rng.random() < 0.85 else rng.uniform(-0.3, 0.5) * side
        tone = int(rng.integers(190, 256)) if rng.random() < 0.2 else 255
        if rng.random() < 0.04:  # white on black
            draw.rectangle([x, y, x + rng.uniform(0.3, 1) * side, y + 1.3 * line_size], fill=255)
            draw.text((x + 0.3 * line_size, y), text, 0, here)
        else:
            draw.text((x, y), text, tone, here)
        y += line_size * pitch * (1 if rng.random() < 0.9 else rng.uniform(1, 3))


def _in_alphabet(text, name):
    """Return a text with its lower-case letters in another alphabet."""
    letters = [chr(_FIRST_LETTERS[name] + index) for index in range(26)]
    if name == "greek":  # it has 25, with the other form of sigma
        letters[25] = letters[24]
    return text.translate(str.maketrans(string.ascii_lowercase, "".join(letters)))


def _write(rng, draw, side):
    """Draw lines of strokes that resemble handwriting, with a pen of varying width."""
    height = 2 * np.exp(rng.uniform(np.log(7), np.log(45)))  # of a lower-case letter
    pen = max(height * rng.uniform(0.07, 0.24), 2.2)
    slant, nib = rng.uniform(-0.2, 0.9), rng.uniform(0, np.pi)
    flat, wide = rng.uniform(0, 0.75), rng.uniform(0.7, 1.6)
    y = rng.uniform(0.5, 2) * height
    pitch = rng.uniform(2.6, 6) * height
    while y < side + height:
        x = rng.uniform(-0.1, 0.3) * side
        drift = rng.normal(0, 0.02)
        while x < side:
            x, path = _word(rng, x, height, wide)
            path[:, 1] = y - path[:, 1] + drift * path[:, 0]
            path[:, 0] += slant * (y - path[:, 1])
            _stroke(rng, draw, path, pen, nib, flat)
            x += rng.uniform(0.5, 1.6) * height
            if rng.random() < 0.08:
                x += rng.uniform(0, 0.5) * side
        y += pitch * rng.uniform(0.9, 1.1)


def _word(rng, x, height, wide):
    """Return the x at which a word ends, and the points of its line, y upwards."""
    points = [(x, 0.3 * height)]
    for _ in range(rng.integers(1, 9)):
        advance = height * wide * rng.uniform(0.3, 0.8)
        top = height * rng.normal(1, 0.12)
        shape = rng.choice(
            ["hump", "ascender", "descender", "loop", "flat"], p=[0.5, 0.18, 0.12, 0.15, 0.05]
        )
        if shape == "ascender":
            top = height * rng.uniform(1.7, 2.6)
        depth = rng.uniform(0.8, 1.5) if shape == "descender" else -rng.normal(0, 0.07)
        bottom = -height * depth
        lean = rng.normal(0, 0.1) * height
        if shape == "flat":
            points += [(x + advance, height * rng.uniform(0.2, 0.7))]
        elif shape == "loop":
            points += [
                (x + advance, top * 0.9), (x + 0.4 * advance, top), (x, 0.4 * top),
                (x + 0.5 * advance, bottom), (x + advance, 0.3 * height),
            ]  # fmt: skip
        else:
            back = advance * rng.uniform(0.2, 0.7)
            points += [
                (x + 0.7 * advance + lean, 0.9 * top), (x + 0.55 * advance, top),
                (x + back, 0.5 * top), (x + back, bottom + 0.1 * height),
                (x + 0.6 * advance, bottom), (x + advance, 0.25 * height),
            ]  # fmt: skip
        x += advance
    return x, np.array(points) + rng.normal(0, 0.04 * height, (len(points), 2))


def _stroke(rng, draw, points, pen, nib, flat):
    """Draw a smooth line through points with a pen whose width depends on the direction."""
    lengths = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T) + 1e-3)]
    curve = CubicSpline(lengths, points)
    along = np.arange(0, lengths[-1], max(pen / 4, 1))
    spots, tangent = curve(along), curve(along, 1)
    direction = np.arctan2(tangent[:, 1], tangent[:, 0])
    width = pen * (1 - flat * np.abs(np.cos(direction - nib)))
    width = np.maximum(width * (1 + 0.15 * np.sin(along / (6 * pen) + rng.uniform(0, 6))), 1.4) / 2
    for (x, y), half in zip(spots, width, strict=True):
        draw.ellipse([x - half, y - half, x + half, y + half], fill=255)


def _rule(rng, draw, side):
    """Draw ruling lines, boxes, blocks and curves."""
    width = int(rng.integers(2, 9))
    for _ in range(rng.integers(1, 6)):
        x, y = rng.uniform(0, side, 2)
        u, v = rng.uniform(0.05, 0.7, 2) * side
        kind = rng.integers(6)
        if kind == 0:
            for step_y in np.arange(y, side, rng.uniform(40, 160)):
                draw.line([0, step_y, side, step_y], 255, width)
        elif kind == 1:
            draw.line([x, y, x + u, y], 255, width)
        elif kind == 2:
            draw.line([x, y, x, y + v], 255, width)
        elif kind == 3:
            draw.rectangle([x, y, x + u, y + v], outline=255, width=width)
        elif kind == 4:
            draw.rectangle([x, y, x + u / 3, y + v / 4], fill=255)
        else:
            draw.ellipse([x, y, x + u / 2, y + v / 2], outline=255, width=width)


def paper(rng, side):
    """Return a sheet without ink: the share of the light it reflects, float32 (side, side)."""
    shape = (side, side)
    sheet = np.ones(shape, "float32")
    for size in (2, 4, 8, 20, 60, 150):
        if rng.random() < 0.4:
            spots = size * rng.uniform(0.7, 1.4)
            spots = (spots, spots * rng.uniform(1, 8)) if rng.random() < 0.3 else spots
            spots = spots[::-1] if isinstance(spots, tuple) and rng.random() < 0.5 else spots
            sheet += abs(rng.normal(0, 0.03)) * clouds(rng, shape, spots)
    if rng.random() < 0.15:  # the ribs of laid paper, of cloth, or of a worn scanner
        y, x = np.mgrid[:side, :side].astype("float32")
        wave = y + rng.normal(0, 0.05) * x + rng.uniform(0, 4) * clouds(rng, shape, (20, 80))
        wave = np.sin(2 * np.pi * wave / rng.uniform(3, 40))
        wave += rng.uniform(0, 1) * clouds(rng, shape, (3, 40))
        wave *= np.clip(0.6 + 0.5 * clouds(rng, shape, 40), 0, 1.5)
        sheet += rng.uniform(0.01, 0.2) * np.rot90(wave, rng.integers(2))
    if rng.random() < 0.2:  # creases and cracks
        ridge = np.abs(clouds(rng, shape, rng.uniform(8, 50)))
        sheet -= rng.uniform(0.03, 0.2) * np.exp(-ridge / rng.uniform(0.05, 0.2))
    if rng.random() < 0.3:  # light from one side, or the shadow towards the spine of a book
        y, x = np.mgrid[-0.5 : 0.5 : side * 1j, -0.5 : 0.5 : side * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        across = x * np.cos(angle) + y * np.sin(angle)
        shade = rng.uniform(0, 0.6)
        sheet *= 1 - shade * step(across - rng.uniform(-0.4, 0.6), rng.uniform(0.1, 1))
    if rng.random() < 0.35:  # stains with soft or hard outlines
        for _ in range(rng.integers(1, 4)):
            blot = clouds(rng, shape, rng.uniform(20, 150)) - rng.uniform(0.3, 1.5)
            blot = step(blot + 0.1 * clouds(rng, shape, 10), rng.uniform(0.05, 1))
            sheet *= 1 - rng.uniform(0.05, 0.5) * blot
    if rng.random() < 0.3:
        sheet *= stains(rng, shape, rng.uniform(1, 3))
    if rng.random() < 0.1:  # specks
        specks = clouds(rng, shape, rng.uniform(1.5, 6)) > rng.uniform(2.5, 3.5)
        sheet *= 1 - rng.uniform(0.1, 0.7) * ndimage.gaussian_filter(specks.astype("float32"), 0.7)
    return np.clip(sheet, 0.05, 1.3)


def scan(rng, front, back, sheet):
    """Return (dirty, clean): a scan of a sheet with ink on its front and on its back.

    Both are float32 of the sheet's shape, in [0, 1]. `front` and `back` are from `ink` (None:
    nothing is written on that side), `sheet` is from `paper`.
    """
    shape = sheet.shape
    contrast = rng.uniform(0.1, 0.95) if rng.random() < 0.6 else rng.uniform(0.45, 0.95)
    # Ink fainter than the paper's own grain can neither be read nor learned.
    grain = float((sheet - ndimage.gaussian_filter(sheet, 6)).std())
    contrast = max(contrast, min(2 * grain, 0.95))
    uneven = rng.uniform(0, 0.45) if rng.random() < 0.6 else 0
    page, clean = sheet * rng.uniform(0.5, 1.0), np.ones(shape, "float32")
    if rng.random() < 0.2:
        page = page * rng.uniform(0.25, 0.8)
    blur = rng.uniform(0.4, 1.6)
    if back is not None:
        strength = contrast * rng.uniform(0.05, 0.6)
        through = ndimage.gaussian_filter(back[:, ::-1], blur + 0.2 + 2.5 * rng.random() ** 1.5)
        uneven_paper = rng.uniform(0, 0.5) * clouds(rng, shape, rng.uniform(15, 120))
        through *= np.clip(0.8 + uneven_paper, 0, 1)
        page = page * (1 - strength * through)
    if front is not None:
        clean = 1 - step(ndimage.gaussian_filter(front, 0.6) - EDGE, 0.7)
        seen = ndimage.gaussian_filter(front, blur)
        amount = contrast * seen
        if uneven:
            size = np.exp(rng.uniform(np.log(4), np.log(80)))
            worn = 0.5 + 0.6 * clouds(rng, shape, size)
            amount = amount * np.clip(1 - uneven * worn, 0.45, 1.1)
        page = page * (1 - np.minimum(amount, 0.97))
    if rng.random() < 0.07:  # the scanner's bed, or another page's edge
        page, clean = _add_border(rng, page, clean)
    return np.clip(_digitize(rng, page, contrast), 0, 1), clean.astype("float32")


def _add_border(rng, page, clean):
    shape = page.shape
    turns = rng.integers(4)
    rows = np.arange(shape[0])[:, np.newaxis] * np.ones(shape, "float32")
    depth = rows - rng.uniform(0.05, 0.4) * shape[0] + rng.uniform(0, 6) * clouds(rng, shape, 60)
    depth += rng.normal(0, 0.05) * np.arange(shape[1])
    outside = np.rot90(step(-depth, rng.uniform(1, 25)), turns)
    level = rng.uniform(0.02, 0.3) + rng.uniform(0, 0.05) * clouds(rng, shape, rng.uniform(1, 60))
    return page * (1 - outside) + level * outside, np.maximum(clean, step(outside - 0.3, 0.2))


def _digitize(rng, page, contrast):
    """Return a page with the artifacts of cameras, scanners, copiers and JPEG."""
    shape = page.shape
    if rng.random() < 0.5:
        size, coarse = rng.uniform(1, 2.5), rng.random() < 0.4
        grain = clouds(rng, shape, size) if coarse else rng.standard_normal(shape, "float32")
        page = page + (abs(rng.normal(0, 0.06)) * contrast * (0.4 + 0.6 * page)) * grain
    if rng.random() < 0.15:  # the steep contrast of a copier or a microfilm reader
        if rng.random() < 0.5:
            spots = clouds(rng, shape, rng.uniform(1, 2.5))
            page = page + rng.uniform(0.02, 0.2) * contrast * spots
        low, high = rng.uniform(0.0, 0.3), rng.uniform(0.6, 1.0)
        page = (page - low * page.max()) / ((high - low) * page.max())
    if rng.random() < 0.15:  # sharpened
        strength = rng.uniform(0.3, 1.5)
        page = page + strength * (page - ndimage.gaussian_filter(page, rng.uniform(0.8, 2)))
    if rng.random() < 0.3:
        page = np.clip(page, 0, 1) ** rng.uniform(0.7, 1.5)
    levels = np.round(np.clip(page, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.35:
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "jpeg", quality=int(rng.integers(15, 95)))
        levels = np.asarray(Image.open(file, formats=["JPEG"]))
    return levels.astype("float32") / 255


class Sheets:
    """Papers and writings, combined anew for every training patch."""

    def __init__(self, count, seed, side=512):
        """Make `count` writings and as many papers, with sides of `side` pixels.

        `seed` is anything that numpy.random.default_rng takes.
        """
        self.inks, self.papers = [], []
        for rng in np.random.default_rng(seed).spawn(count):
            self.inks.append(ink(rng, side).astype("float16"))
            self.papers.append(paper(rng, side).astype("float16"))

    def patch(self, rng, side):
        """Return (dirty, clean), each float32 of shape (side, side) in [0, 1], as `scan` does.

        Text is mostly upright and never mirrored, which is what distinguishes it from the back of
        the sheet that shows through. Paper may have any orientation.
        """

        def cut(sheets):
            sheet = sheets[rng.integers(len(sheets))]
            top, left = rng.integers(sheet.shape[0] - side + 1, size=2)
            return sheet[top : top + side, left : left + side].astype("float32")

        front = cut(self.inks) if rng.random() < 0.85 else None
        back = cut(self.inks) if rng.random() < 0.6 else None
        if front is not None and rng.random() < 0.15:
            front = np.rot90(front, rng.integers(1, 4))
        if front is not None and rng.random() < 0.35:  # a page that ends, or a margin
            blank = step(np.arange(side) - rng.uniform(0.2, 0.8) * side, 1).astype("float32")
            front = front * np.rot90(np.broadcast_to(blank, (side, side)), rng.integers(4))
        sheet = np.rot90(cut(self.papers), rng.integers(4))[:, :: rng.choice([-1, 1])]
        dirty, clean = scan(rng, front, back, sheet)
        if rng.random() < 0.05:
            height, width = rng.integers(side // 4, side + 1, 2)
            top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
            place = slice(top, top + height), slice(left, left + width)
            dirty[place] = clean[place] = picture(rng, side)[:height, :width]
        return dirty, clean


@functools.cache
def _pictures():
    return list(pictures(PICTURES).values())


def picture(rng, side):
    """Return a piece of a photo, float32 (side, side). A network should leave photos unchanged."""
    photos = _pictures()
    chosen = Image.fromarray(photos[rng.integers(len(photos))])
    part = int(rng.uniform(0.3, 1) * min(chosen.size))
    left, top = (rng.integers(size - part + 1) for size in chosen.size)
    piece = chosen.crop((left, top, left + part, top + part))
    piece = piece.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(piece, "float32") / 255
