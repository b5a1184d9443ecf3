"""Drawn stand-ins for a machine with no data and no network (NumPy, SciPy, Pillow; no imgaug)."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator

_DIGIT_FONTS = [
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralItalic",
    "cmss10",
    "cmr10",
    "cmtt10",
]


def font(name, size):
    """Return a font that matplotlib ships, `size` in pixels."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"{name}.ttf", size)


@functools.cache
def _pen_distance(font_name, digit):
    """Return how far each point of a (96, 96) field is from a glyph's centre line.

    The glyph is 60 pixels tall, and so is the unit of the distances' 1/60. Drawing all points
    nearer than half a pen's width gives the glyph in an even stroke, whatever the font's weight.
    """
    canvas = Image.new("L", (192, 192))
    face = font(font_name, 120)
    _, top, _, bottom = face.getbbox(digit)
    face = font(font_name, round(120 * 120 / (bottom - top)))
    ImageDraw.Draw(canvas).text((96, 96), digit, fill=255, font=face, anchor="mm")
    inside = np.asarray(canvas) > 127
    depth = ndimage.distance_transform_edt(inside)
    # The medial axis: where the distance to the edge stops growing. Only its deep part is kept,
    # because corners and serifs send out spurs of their own.
    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(depth, 0.7)))
    line = inside & (slope < 0.75) & (depth > 0.22 * np.percentile(depth[inside], 97))
    distance = ndimage.distance_transform_edt(~line)
    rows, columns = np.nonzero(line)
    middle = [(rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2]
    distance = ndimage.shift(distance, np.subtract(95.5, middle), order=1, mode="nearest")
    return ndimage.gaussian_filter(distance, 1.0)[::2, ::2] / 2


def digits(count, seed=0):
    """Draw digits in the manner of MNIST: white pen strokes on black, centred by mass.

    Fonts give the shapes; pen width, slant, size, rotation and an elastic bend vary.

    Args:
        count: how many.
        seed: anything numpy.random.default_rng takes; the same seed draws the same digits.

    Returns:
        (images, labels): uint8 of shapes (count, 28, 28) and (count,).
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = np.empty((count, 28, 28), np.uint8)
    grid = (np.mgrid[0:40, 0:40] - 19.5).reshape(2, -1)
    # Interpolates a 5x5 field of random offsets to all 40x40 pixels: a smooth bend.
    bend = ndimage.zoom(np.eye(5), (8, 1), order=3, grid_mode=True, mode="nearest")
    for index, label in enumerate(labels):
        distance = _pen_distance(_DIGIT_FONTS[rng.integers(len(_DIGIT_FONTS))], str(label))
        height = rng.normal(18.0, 0.9)  # in pixels of the result; MNIST fits digits into 20x20
        aspect = rng.normal(1.06, 0.12)
        angle = rng.normal(0, 0.1)
        slant = rng.normal(0.1, 0.18)
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, 0], [slant, aspect]])
        offsets = rng.normal(0, 0.9, (2, 5, 5))
        warped = grid + np.stack([bend @ field @ bend.T for field in offsets]).reshape(2, -1)
        pen = np.clip(rng.normal(1.13, 0.28), 0.75, 2.2)  # half the stroke's width
        softness = rng.uniform(0.7, 1.1)
        source = matrix @ warped * (60 / height) + 47.5
        nearness = ndimage.map_coordinates(distance, source, order=1, mode="nearest") * height / 60
        image = np.clip((pen - nearness) / softness + 0.5, 0, 1).reshape(40, 40)
        top, left = np.round(np.subtract(ndimage.center_of_mass(image), 13.5)).astype(int)
        images[index] = image[top : top + 28, left : left + 28] * 255
    return images, labels


_SCALE = 3  # garments are drawn this much larger and then averaged down


def garments(count, seed=0):
    """Draw garments in the manner of Fashion-MNIST: ten classes, shaded, light on black.

    Proportions, necklines, sleeves, patterns, folds and grey levels vary.

    Args:
        count: how many.
        seed: anything numpy.random.default_rng takes; the same seed draws the same garments.

    Returns:
        (images, labels): uint8 of shapes (count, 28, 28) and (count,), labels in the order of
        Fashion-MNIST: t-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = np.empty((count, 28, 28), np.uint8)
    for index, label in enumerate(labels):
        side = 28 * _SCALE
        pen = _Pen(rng, side)
        [_tshirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _boot][
            label
        ](pen, rng)
        cloth = np.asarray(pen.canvas, "float32")
        if label in (5, 7, 9) and rng.random() < 0.02:
            cloth = cloth[:, ::-1]
        shaded = cloth * _shading(rng, cloth > 0, patterned=label not in (5, 7, 9))
        small = shaded.reshape(28, _SCALE, 28, _SCALE).mean((1, 3))
        small += (small > 8) * rng.normal(0, rng.uniform(1, 9), (28, 28))  # the weave
        images[index] = np.clip(small, 0, 255)
    return images, labels


def _shading(rng, inside, patterned):
    """Return what light, folds and a pattern do to each pixel: factors about 1."""
    side = len(inside)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    round_edges = ndimage.uniform_filter(inside.astype("float32"), side // 9)
    light = 0.68 + 0.35 * round_edges
    angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 7)
    bend = rng.normal(0, 0.4) * np.sin(rng.uniform(4, 9) * y + rng.uniform(0, 6))
    folds = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle) + bend * 0.2))
    light *= 1 + rng.uniform(0, 0.13) * folds + rng.normal(0, 0.15) * x + rng.normal(0, 0.1) * y
    kind = rng.choice(
        ["plain", "stripes", "check", "print", "blocks"], p=[0.6, 0.14, 0.06, 0.1, 0.1]
    )
    if patterned and kind != "plain":
        dark = rng.uniform(0.35, 0.75)
        waves = rng.uniform(4, 9)
        bars = [np.sin(2 * np.pi * waves * axis) > rng.uniform(-0.3, 0.5) for axis in (x, y)]
        if kind == "stripes":
            pattern = bars[rng.integers(2)]
        elif kind == "check":
            pattern = bars[0] ^ bars[1]
        elif kind == "print":
            blob = ndimage.gaussian_filter(rng.normal(size=(side // 3, side // 3)), 1.5)
            blob = np.kron(blob, np.ones((3, 3)))[:side, :side]
            pattern = (blob > 0) & (np.hypot(x / 0.17, (y + 0.1) / 0.17) < 1)
        else:
            pattern = y > rng.uniform(-0.2, 0.2)
        light = light * np.where(pattern, dark, 1)
    return light


class _Pen:
    """Draws in a frame from (-1, -1) to (1, 1), mirrored left to right where wanted."""

    def __init__(self, rng, side):
        self.canvas = Image.new("L", (side, side))
        self.draw = ImageDraw.Draw(self.canvas)
        self.side = side
        self.grey = int(np.clip(rng.normal(190, 50), 60, 250))

    def points(self, points, flip=1):
        half = self.side / 2
        return [(half + flip * x * half * 0.97, half + y * half * 0.97) for x, y in points]

    def area(self, points, shade=1.0):
        self.draw.polygon(self.points(points), fill=self._level(shade))

    def both(self, points, shade=1.0):
        """Draw an area and its mirror image."""
        for flip in (1, -1):
            self.draw.polygon(self.points(points, flip), fill=self._level(shade))

    def line(self, points, shade, width=0.05):
        pixels = max(1, round(width * self.side / 2))
        self.draw.line(self.points(points), fill=self._level(shade), width=pixels, joint="curve")

    def oval(self, centre, radii, shade=1.0):
        (x, y), (a, b) = centre, radii
        box = self.points([(x - a, y - b), (x + a, y + b)])
        self.draw.ellipse(box, fill=self._level(shade))

    def _level(self, shade):
        return int(np.clip(self.grey * shade, 0, 255))


def _torso(pen, rng, sleeve, hem, shoulder, waist):
    """Draw a garment for the upper body; `sleeve` is how far down its sleeves reach."""
    top = -0.93
    cuff = 0.12 + 0.06 * rng.random()
    out = min(shoulder + 0.13 + 0.06 * max(sleeve + 0.6, 0), 0.97)
    pit = top + 0.52
    seam = rng.uniform(0.86, 0.97)
    pen.both(
        [(shoulder - 0.1, top + 0.08), (shoulder, top + 0.2), (out, sleeve),
         (out - cuff * 1.6, sleeve + 0.05), (waist - 0.02, pit)],
        seam,
    )  # fmt: skip
    pen.both(
        [(0, top + 0.06), (0.22, top), (shoulder, top + 0.14), (waist, pit), (waist, 0.3),
         (hem, 0.93), (0, 0.95)]
    )  # fmt: skip
    if sleeve > 0:  # the gap between sleeve and body
        pen.line([(waist + 0.01, pit + 0.1), (waist + 0.02, sleeve)], 0.35, 0.035)
        pen.line([(-waist - 0.01, pit + 0.1), (-waist - 0.02, sleeve)], 0.35, 0.035)
    return top


def _neck(pen, rng, top, depth=0.2):
    width = rng.uniform(0.17, 0.3)
    if rng.random() < 0.3:
        pen.area([(-width, top - 0.1), (width, top - 0.1), (0, top + depth * 1.6)], 0)
    else:
        pen.oval((0, top), (width, depth), 0)


def _tshirt(pen, rng):
    waist = rng.uniform(0.42, 0.56)
    sleeve = rng.uniform(-0.45, -0.15)
    top = _torso(pen, rng, sleeve, waist + rng.normal(0, 0.03), waist + 0.14, waist)
    _neck(pen, rng, top, rng.uniform(0.1, 0.3))


def _pullover(pen, rng):
    waist = rng.uniform(0.42, 0.55)
    top = _torso(pen, rng, rng.uniform(0.6, 0.85), waist, waist + 0.1, waist)
    _neck(pen, rng, top, rng.uniform(0.08, 0.16))
    if rng.random() < 0.6:  # the ribbed hem
        pen.line([(-waist, 0.84), (waist, 0.84)], 0.7, 0.05)


def _coat(pen, rng):
    waist = rng.uniform(0.46, 0.56)
    pen.grey = int(pen.grey * 0.85)
    top = _torso(pen, rng, rng.uniform(0.6, 0.85), waist + 0.08, waist + 0.1, waist)
    pen.area([(-0.14, top - 0.1), (0.14, top - 0.1), (0, top + 0.35)], 0)
    pen.both([(0.14, top - 0.02), (0.36, top + 0.12), (0.06, top + 0.62)], 1.3)  # lapels
    pen.line([(0, top + 0.35), (0, 0.95)], 0.2, 0.07)
    for y in np.linspace(-0.1, 0.7, rng.integers(3, 5)):
        pen.oval((0.1, y), (0.035, 0.035), 0.3)
    pen.line([(0.2, 0.4), (0.38, 0.36)], 0.5)
    pen.line([(-0.2, 0.4), (-0.38, 0.36)], 0.5)


def _shirt(pen, rng):
    waist = rng.uniform(0.42, 0.52)
    long = rng.random() < 0.75
    sleeve = rng.uniform(0.55, 0.8) if long else rng.uniform(-0.3, 0)
    top = _torso(pen, rng, sleeve, waist, waist + 0.12, waist)
    pen.area([(-0.12, top - 0.1), (0.12, top - 0.1), (0, top + 0.2)], 0)
    pen.both([(0.1, top - 0.05), (0.28, top + 0.05), (0.16, top + 0.26), (0.02, top + 0.16)], 1.25)
    pen.line([(0, top + 0.2), (0, 0.93)], 0.65, 0.04)
    for y in np.arange(-0.6, 0.9, 0.25):
        pen.oval((0.0, y), (0.03, 0.03), 0.25)
    if rng.random() < 0.5:
        pen.area([(0.14, -0.35), (0.34, -0.35), (0.34, -0.1), (0.14, -0.1)], 0.85)


def _trouser(pen, rng):
    waist, hem = rng.uniform(0.26, 0.36), rng.uniform(0.14, 0.24)
    spread = rng.uniform(0.04, 0.14)
    crotch = rng.uniform(-0.55, -0.4)
    foot = spread + hem
    pen.both(
        [
            (0, -0.95),
            (waist, -0.95),
            (waist + 0.07, crotch),
            (foot + 0.05, 0.95),
            (spread, 0.95),
            (0, crotch),
        ]
    )
    pen.line([(-waist, -0.86), (waist, -0.86)], 0.7, 0.04)
    pen.line([(0, -0.85), (0, crotch)], 0.7, 0.03)


def _dress(pen, rng):
    bust, waist, hem = rng.uniform(0.24, 0.34), rng.uniform(0.18, 0.28), rng.uniform(0.3, 0.62)
    middle = rng.uniform(-0.3, 0.0)
    if rng.random() < 0.5:  # sleeves, else straps
        end = rng.choice([-0.6, 0.1])
        pen.both(
            [
                (bust - 0.05, -0.93),
                (bust + 0.1, -0.85),
                (bust + 0.25, end),
                (bust + 0.1, end),
                (bust, -0.5),
            ],
            0.9,
        )
    pen.both(
        [(0, -0.93), (bust * 0.8, -0.95), (bust, -0.55), (waist, middle), (hem, 0.95), (0, 0.97)]
    )
    _neck(pen, rng, -0.95, rng.uniform(0.15, 0.4))
    if rng.random() < 0.5:
        pen.line([(-waist, middle), (waist, middle)], 0.55, 0.06)


def _sandal(pen, rng):
    heel = rng.choice([0.1, 0.3, 0.75])
    sole = [(-0.95, 0.45), (-0.2, 0.42), (0.45, 0.4 - heel), (0.93, 0.33 - heel)]
    thick = rng.uniform(0.08, 0.16)
    pen.area(
        [
            *sole,
            (0.95, 0.33 - heel + thick),
            (0.5, 0.4 - heel + thick),
            (-0.2, 0.42 + thick),
            (-0.93, 0.45 + thick),
        ]
    )
    pen.area([(0.93, 0.33 - heel), (0.68, 0.38 - heel), (0.8 - heel * 0.1, 0.57), (0.93, 0.57)])
    strap = rng.uniform(0.06, 0.12)
    top = 0.05 - heel
    pen.line([(-0.8, 0.45), (-0.5, 0.12), (-0.2, 0.42)], 0.85, strap)
    pen.line([(-0.45, 0.42), (-0.1, 0.1 - heel * 0.4), (0.2, 0.4 - heel * 0.5)], 1.1, strap)
    pen.line([(0.3, 0.35 - heel * 0.8), (0.55, top - 0.1), (0.9, 0.3 - heel)], 0.8, strap)
    if rng.random() < 0.6:
        pen.line([(0.45, top - 0.25), (0.95, top - 0.2)], 1, strap)
        pen.line([(0.93, top - 0.2), (0.93, 0.3 - heel)], 1, strap)


def _shoe_body(pen, rng, top, toe):
    """Draw a shoe from the side, toe at the left, its opening at height `top`."""
    front = rng.uniform(-0.05, 0.15)
    pen.area([(-0.95, 0.5), (-0.93, toe), (-0.6, toe - 0.14), (front - 0.2, toe - 0.3),
              (front, top + 0.03), (0.5, top), (0.9, top - 0.04), (0.93, 0.1),
              (0.95, 0.5)])  # fmt: skip
    sole = [(-0.97, 0.42), (0.96, 0.42), (0.95, 0.62), (-0.95, 0.62)]
    pen.area(sole, rng.choice([0.45, 1.35]))
    return front


def _sneaker(pen, rng):
    toe, top = rng.uniform(0.2, 0.3), rng.uniform(-0.3, -0.15)
    front = _shoe_body(pen, rng, top, toe)
    pen.oval((0.52, top - 0.02), (0.32, 0.1), 0.25)  # the opening
    for step in range(3):  # laces
        x, y = front - 0.42 + 0.16 * step, toe - 0.2 - 0.09 * step
        pen.line([(x, y), (x + 0.14, y + 0.16)], 1.45, 0.05)
    if rng.random() < 0.6:
        pen.line([(-0.1, 0.35), (0.35, 0.0), (0.6, 0.3)], rng.choice([0.5, 1.5]), 0.08)


def _boot(pen, rng):
    top = rng.uniform(-0.95, -0.6)
    front = _shoe_body(pen, rng, top, rng.uniform(0.1, 0.25))
    heel = rng.uniform(0.05, 0.35)
    pen.area([(0.5, 0.5), (0.95, 0.5), (0.9, 0.62 + heel), (0.6, 0.62 + heel)], 0.6)
    if rng.random() < 0.5:
        pen.line([(front + 0.35, top), (front + 0.4, 0.3)], 0.6, 0.04)
    else:
        pen.line([(front - 0.05, -0.25), (0.92, -0.25)], 0.6, 0.06)


def _bag(pen, rng):
    width, top, bottom = rng.uniform(0.65, 0.93), rng.uniform(-0.4, -0.05), rng.uniform(0.65, 0.9)
    narrow = width * rng.uniform(0.8, 1.0)
    grip, height = width * rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.6)
    arch = [(grip * np.cos(a), top - height * np.sin(a)) for a in np.linspace(0, np.pi, 15)]
    pen.line(arch, 0.8, rng.uniform(0.05, 0.12))
    pen.area([(-narrow, top), (narrow, top), (width, bottom), (-width, bottom)])
    if rng.random() < 0.6:  # the flap
        flap = top + rng.uniform(0.2, 0.5)
        pen.area(
            [(-narrow, top), (narrow, top), (narrow * 0.95, flap), (-narrow * 0.95, flap)], 0.8
        )
        pen.oval((0, flap), (0.08, 0.08), 1.5)
    else:
        pen.line([(-narrow, top + 0.12), (narrow, top + 0.12)], 0.5, 0.04)


# ---------------------------------------------------------------- pages

KINDS = ("coffee", "folds", "footprints", "wrinkles")
_FACES = [
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif"),
    *("DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol"),
    *("STIXGeneralItalic", "STIXGeneralBolIta", "cmr10", "cmb10", "cmss10", "cmtt10", "cmti10"),
]
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
""".split()  # noqa: SIM905


def pages(count, seed=0, height=420, width=540, scale=None):
    """Draw pages of text in the manner of NoisyOffice, each with a dirty and a clean version.

    Args:
        count: how many.
        seed: anything numpy.random.default_rng takes; the same seed draws the same pages.
        height, width: of each page, in pixels.
        scale: size of letters and dirt; 1 is NoisyOffice's, 3 that of a scan at 300 dpi. None:
            mostly 1, up to 3.

    Returns:
        A list of (dirty, clean, kind, text): two uint8 arrays of shape (height, width, 1), the
        main kind of dirt, one of KINDS, and the lines of text.
    """
    drawn = []
    for generator in np.random.default_rng(seed).spawn(count):
        size = scale or (1.0 if generator.random() < 0.6 else generator.uniform(0.7, 3))
        clean, ink, text = _text_page(generator, height, width, size)
        kind = str(generator.choice(KINDS))
        drawn.append((_soil(ink, generator, kind, size), clean, kind, text))
    return drawn


def soil(clean, seed=0, kind=None, scale=1.0):
    """Return a clean page made dirty.

    Args:
        clean: uint8, shape (height, width, 1), black text on white.
        seed: anything numpy.random.default_rng takes.
        kind: the main kind of dirt, one of KINDS; None: any.
        scale: as for `pages`.

    Returns:
        uint8 array of that shape.
    """
    rng = np.random.default_rng(seed)
    ink = clean[..., 0].astype("float32") / 255
    return _soil(ink, rng, kind or str(rng.choice(KINDS)), scale)


def _sentence(rng):
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
    """Return (clean, ink, lines): the page, what its print looks like on paper, and its text.

    Both are the same letters, drawn three times as large and made smaller in two ways: a clean
    page is a sharp picture, a scan is not. `ink` is float32, shape (height, width), 1 is no ink.
    """
    fine = 3
    face, size = str(rng.choice(_FACES)), rng.uniform(15, 25) * scale
    text_font, pitch = font(face, round(size * fine)), size * rng.uniform(1.1, 1.6)
    heading = font(str(rng.choice(_FACES)), round(size * rng.uniform(1.2, 1.8) * fine))
    canvas = Image.new("L", (width * fine, height * fine), 255)
    draw = ImageDraw.Draw(canvas)
    left, y = rng.uniform(0.01, 0.08) * width, rng.uniform(0.2, 1.5) * size
    colour, lines, words = int(rng.integers(0, 30)), [], []
    is_heading = rng.random() < 0.3
    while y + 1.4 * size < height:
        face_now = heading if is_heading else text_font
        line, indent = "", 0 if lines or is_heading else 2 * size
        while True:
            if not words:
                words = _sentence(rng).split(" ")
            longer = f"{line} {words[0]}".strip()
            if line and draw.textlength(longer, face_now) > (width - left * 2 - indent) * fine:
                break
            line, _ = longer, words.pop(0)
            if is_heading and (len(line) > 20 or not words):
                break
        draw.text(((left + indent) * fine, y * fine), line, colour, face_now)
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
    way = rng.choice([Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
    ink = np.asarray(canvas.resize((width, height), way), "float32") / 255
    return np.asarray(clean)[..., np.newaxis], ink, lines


def _soil(ink, rng, kind, scale):
    """Return paper with print and dirt on it, uint8, shape (height, width, 1)."""
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
        light = np.clip(0.85 + slope + rng.uniform(0, 0.1) * _clouds(rng, shape, 200), 0.25, 1)
    paper = np.clip(paper, 0, 1)
    strength = rng.uniform(0.85, 1) + 0.03 * _clouds(rng, shape, 15 * scale)
    # Where paper was bent its print is worn: as much lighter as the crease is darker. NoisyOffice
    # is made that way, too: ink·paper + (1 - ink)·(1 - paper).
    worn = rng.choice([0, 1, rng.random()]) if kind in ("folds", "wrinkles") else 0
    print_light = (1 - np.clip(strength, 0, 1)) * paper + worn * (1 - paper).clip(0, 0.3)
    page = light * (ink * paper + (1 - ink) * print_light)
    if rng.random() < 0.4:
        page = ndimage.gaussian_filter(page, rng.uniform(0.2, 0.8) * max(scale, 1))
    page += rng.uniform(0, 0.02) * rng.standard_normal(shape, dtype="float32")
    return np.round(np.clip(page, 0, 1) * 255).astype(np.uint8)[..., np.newaxis]


def _clouds(rng, shape, size):
    """Return smooth noise of mean 0 and standard deviation about 1, with spots of `size` pixels.

    `size` may be a pair, for spots longer than wide.
    """
    across = np.broadcast_to(size, 2)
    grid = [int(np.ceil(side / spot)) + 3 for side, spot in zip(shape, across, strict=True)]
    picture = Image.fromarray(rng.standard_normal(grid, dtype="float32"))
    box = [1, 1, 1 + shape[1] / across[1], 1 + shape[0] / across[0]]
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC, box=box)) * 1.4


def _paper(rng, shape, scale):
    grain = rng.uniform(0.002, 0.02) * rng.standard_normal(shape, dtype="float32")
    fibres = rng.uniform(0.002, 0.015) * _clouds(rng, shape, 2.5 * scale)
    shade = rng.uniform(0, 0.03) * _clouds(rng, shape, 120 * scale)
    return rng.uniform(0.72, 1.0) + grain + fibres + shade


def _coffee(rng, shape, scale):
    """Return rings of a cup's foot, dark at their rims, some broken off, and drops."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    light = np.ones(shape, "float32")
    for _ in range(rng.integers(2, 6)):
        radius = rng.uniform(40, 170) * scale if rng.random() < 0.7 else rng.uniform(4, 40) * scale
        dx, dy = x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])
        distance, angle = np.hypot(dx, dy * rng.uniform(0.8, 1.2)), np.arctan2(dy, dx)
        wobble = sum(
            rng.normal(0, 0.02) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 7)
        )
        distance += radius * wobble + scale * _clouds(rng, shape, 14 * scale)
        width = rng.uniform(4, 26) * scale * (1 + 0.5 * np.cos(angle + rng.uniform(0, 6)))
        inside = rng.uniform(0, 0.25) if radius > 40 * scale else 1.0
        edge = 1.2 * scale
        band = _step(radius - distance, edge) - (1 - inside) * _step(
            radius - width - distance, edge
        )
        rim = np.exp(-np.square((radius - distance - edge) / (1.6 * scale)))
        rim += 0.7 * np.exp(-np.square((radius - width - distance) / (2.5 * scale)))
        there = np.clip(0.7 + rng.uniform(0, 1.5) * np.cos(angle - rng.uniform(0, 6)), 0, 1)
        dark = rng.uniform(0.05, 0.5) * band + rng.uniform(0, 0.25) * rim * band.clip(0.3)
        dark *= there * (1 + 0.25 * _clouds(rng, shape, 30 * scale))
        light *= 1 - np.clip(dark, 0, 0.85)
    return light


def _step(distance, width):
    """Return 0 far below 0, 1 far above, and a ramp of `width` pixels between."""
    return np.clip(distance / width + 0.5, 0, 1)


def _folds(rng, shape, scale):
    """Return creases across the page: a bright or dark line, and shade that fades beside it."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    light = np.ones(shape, "float32")
    for _ in range(rng.integers(1, 6)):
        angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]) + rng.normal(0, 0.1)
        dx, dy = x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])
        across = dx * np.cos(angle) + dy * np.sin(angle)
        along = dy * np.cos(angle) - dx * np.sin(angle)
        across += scale * 1.5 * _clouds(rng, shape, 30 * scale)
        reach = np.exp(-np.abs(across) / (rng.uniform(5, 80) * scale))
        light += rng.normal(0, 0.06) * np.where(across > 0, 1, -rng.uniform(0, 1)) * reach
        worn = np.clip(0.6 + 0.6 * _clouds(rng, shape, 25 * scale), 0, 1)
        if rng.random() < 0.4:  # ends within the page
            worn *= _step(rng.uniform(30, 250) * scale - np.abs(along), 30 * scale)
        line = np.exp(-np.square(across / (rng.uniform(0.6, 1.6) * scale)))
        shadow = np.exp(-np.square((across - 2 * scale) / (1.5 * scale)))
        light += worn * (rng.uniform(-0.1, 0.2) * line - rng.uniform(0, 0.12) * shadow)
    return light


def _footprints(rng, shape, scale):
    """Return prints of soles and fingers: a pattern of grey that took here and not there."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    streaks = (_clouds(rng, shape, (90 * scale, 3 * scale)) * rng.uniform(0, 0.03)).clip(None, 0.0)
    light = 1 + streaks
    for _ in range(rng.integers(1, 5)):
        angle = rng.uniform(0, np.pi)
        dx, dy = x - rng.uniform(0, shape[1]), y - rng.uniform(0, shape[0])
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        if rng.random() < 0.7:
            length, width, period = (
                scale * rng.uniform(*r) for r in ((90, 260), (40, 110), (9, 40))
            )
            pattern = [
                np.sin(2 * np.pi * (u + np.abs(v) * rng.uniform(0, 1)) / period),
                np.sin(2 * np.pi * u / period) * np.sin(2 * np.pi * v / period),
                np.maximum(np.abs(u / period % 2 - 1), np.abs(v / period % 2 - 1)) - 0.5,
            ][rng.integers(3)]
        else:
            ranges = (18, 40), (12, 25), (3, 5)
            length, width, period = (scale * rng.uniform(*bounds) for bounds in ranges)
            bend = np.hypot(u * 0.8, v) + scale * _clouds(rng, shape, 12 * scale)
            pattern = np.sin(2 * np.pi * bend / period)
        outline = _step(1 - np.hypot(u / length, v / width), 0.15)
        outline *= 1 - rng.uniform(0, 0.6) * _step(-np.abs(u + 0.2 * length) + 0.1 * length, 4)
        took = np.clip(0.6 + 0.5 * _clouds(rng, shape, 25 * scale), 0, 1)
        took *= np.clip(0.8 + 0.4 * _clouds(rng, shape, 2 * scale), 0, 1.3)
        tread = rng.uniform(0.2, 0.6) + 0.5 * np.clip(pattern * 3, -1, 1)
        light *= 1 - rng.uniform(0.08, 0.4) * np.clip(outline * took * tread, 0, 1)
    return light


def _wrinkles(rng, shape, scale):
    """Return the light on crumpled paper: flat pieces, each at a slope of its own."""
    coarse = max(1.0, 1.5 * scale)
    small = [int(np.ceil(side / coarse)) + 1 for side in shape]
    slope = np.zeros(small, "float32")
    grid = np.mgrid[: small[0], : small[1]].reshape(2, -1).T
    for spacing, share in ((60, 1.0), (25, 0.6)):
        spacing *= scale / coarse
        count = int(np.prod([side / spacing + 2 for side in small]))
        spots = rng.uniform(-spacing, np.add(small, spacing), (count, 2))
        corners = np.array([[-9, -9], [-9, 1], [1, -9], [1, 1]]) * spacing + (
            np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * small
        )
        spots = np.concatenate([spots, corners])
        heights = rng.normal(0, spacing, len(spots))
        surface = LinearNDInterpolator(spots, heights, fill_value=0)(grid).reshape(small)
        down, right = np.gradient(surface.astype("float32"))
        angle = rng.uniform(0, 2 * np.pi)
        slope += share * np.clip(down * np.cos(angle) + right * np.sin(angle), -2, 2)
        # Ridges are worn bright, valleys keep the dark.
        slope -= rng.uniform(0, 1.5) * np.clip(ndimage.laplace(surface), -1.5, 1.5)
    slope = ndimage.gaussian_filter(slope, rng.uniform(0.4, 1.5))
    picture = Image.fromarray(slope * rng.uniform(0.03, 0.13))
    light = 1 + np.asarray(picture.resize(shape[::-1], Image.Resampling.BICUBIC))
    return light + rng.uniform(0, 0.04) * _clouds(rng, shape, 50 * scale)


_DIRT = {"coffee": _coffee, "folds": _folds, "footprints": _footprints, "wrinkles": _wrinkles}


def textures(count, side=64, seed=0):
    """Draw textures: clouds of one or more sizes, slopes, stripes, edges and grain.

    Returns:
        uint8 array of shape (count, side, side).
    """
    drawn = np.empty((count, side, side), np.uint8)
    y, x = np.mgrid[-0.5 : 0.5 : side * 1j, -0.5 : 0.5 : side * 1j]
    for index, rng in enumerate(np.random.default_rng(seed).spawn(count)):
        angle = rng.uniform(0, 2 * np.pi)
        across = x * np.cos(angle) + y * np.sin(angle)
        picture = rng.uniform(0.05, 0.95) + rng.uniform(0, 0.6) * across
        for size in rng.choice([2, 4, 8, 16, 32, 64], rng.integers(0, 4), replace=False):
            picture += rng.uniform(0, 0.15) * _clouds(rng, (side, side), size)
        if rng.random() < 0.3:
            picture += rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(2, 20) * across)
        if rng.random() < 0.3:  # an edge
            picture += rng.uniform(-0.5, 0.5) * _step(across - rng.uniform(-0.4, 0.4), 0.03)
        picture += rng.uniform(0, 0.02) * rng.standard_normal((side, side))
        drawn[index] = np.round(np.clip(picture, 0, 1) * 255)
    return drawn
