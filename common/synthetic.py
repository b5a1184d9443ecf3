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
