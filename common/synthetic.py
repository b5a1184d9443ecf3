"""Drawn stand-ins for a machine with no data and no network (NumPy, SciPy, Pillow; no imgaug)."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

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
