"""Synthetic clothes, in place of Fashion-MNIST where there is no data and no network."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

_SCALE = 3  # images are drawn this many times larger and then averaged down
# Each class is a list of polygons: the brightness relative to the cloth (0 cuts a hole), and two
# outlines in percent of a frame from -1 to 1, of which a random mixture is drawn. Symmetrical
# classes list their right half only.
_SYMMETRICAL, _SHAPES = {0, 1, 2, 3, 4, 6, 8}, [
    [  # T-shirt
        (0.92, "46 -88, 60 -76, 80 -45, 58 -36, 44 -45", "48 -90, 66 -78, 97 -16, 70 -8, 52 -40"),
        (1, "0 -88, 22 -94, 54 -78, 44 -40, 42 93, 0 95",
         "0 -86, 26 -94, 66 -78, 56 -40, 60 93, 0 95"),
        (0, "0 -96, 18 -96, 12 -86, 0 -82", "0 -96, 28 -96, 20 -74, 0 -64"),
    ],
    [  # Trouser
        (1, "0 -95, 26 -95, 33 -55, 20 95, 4 95, 0 -50",
         "0 -95, 36 -95, 43 -45, 42 95, 14 95, 0 -40"),
        (0.7, "0 -88, 27 -88, 28 -83, 0 -83", "0 -88, 37 -88, 38 -83, 0 -83"),
    ],
    [  # Pullover
        (0.9, "44 -88, 56 -76, 70 62, 50 68, 44 -40", "48 -90, 68 -78, 92 82, 70 86, 52 -40"),
        (1, "0 -90, 22 -94, 52 -78, 44 -40, 42 92, 0 93",
         "0 -88, 26 -94, 64 -78, 54 -40, 56 92, 0 93"),
        (0, "0 -96, 18 -96, 12 -88, 0 -86", "0 -96, 26 -96, 20 -84, 0 -80"),
        (0.7, "0 82, 42 82, 42 87, 0 87", "0 82, 56 82, 56 87, 0 87"),
        (0.3, "44 -38, 46 -38, 49 60, 47 60", "53 -38, 56 -38, 62 78, 59 78"),
    ],
    [  # Dress
        (0.9, "20 -95, 28 -92, 30 -70, 24 -60, 20 -60", "28 -95, 38 -88, 56 12, 40 12, 30 -50"),
        (1, "0 -93, 20 -95, 24 -55, 18 -30, 30 95, 0 97",
         "0 -93, 28 -95, 34 -55, 28 0, 62 95, 0 97"),
        (0, "0 -98, 16 -98, 10 -84, 0 -80", "0 -98, 22 -98, 18 -60, 0 -52"),
    ],
    [  # Coat
        (0.9, "46 -88, 58 -76, 70 60, 50 66, 46 -40", "50 -90, 70 -78, 92 84, 70 88, 54 -40"),
        (1, "0 -90, 22 -94, 56 -78, 46 -40, 54 93, 0 95",
         "0 -88, 26 -94, 66 -78, 56 -40, 64 93, 0 95"),
        (1.3, "12 -94, 34 -82, 6 -30, 2 -58", "14 -94, 38 -80, 8 -20, 3 -54"),
        (0, "0 -98, 13 -98, 0 -60", "0 -98, 15 -98, 0 -54"),
        (0.2, "0 -58, 3 -58, 3 95, 0 95", "0 -54, 4 -54, 4 95, 0 95"),
        (0.4, "8 -10, 12 -10, 12 -5, 8 -5", "8 5, 13 5, 13 10, 8 10"),
        (0.5, "20 40, 38 36, 38 41, 20 45", "20 44, 40 38, 40 43, 20 49"),
        (0.3, "46 -38, 49 -38, 50 58, 48 58", "55 -38, 58 -38, 62 80, 60 80"),
    ],
    [  # Sandal
        (1, "-95 45, -20 42, 45 30, 93 23, 95 35, 50 44, -20 54, -93 56",
         "-95 45, -20 42, 45 -35, 93 -42, 95 -28, 50 -20, -20 58, -93 60"),
        (1, "93 23, 68 28, 78 57, 93 57", "93 -42, 68 -36, 84 57, 93 57"),
        (0.85, "-80 45, -52 18, -46 18, -20 42, -30 42, -49 26, -72 45",
         "-80 45, -52 4, -46 4, -16 42, -26 42, -49 14, -70 45"),
        (1.1, "-45 42, -12 12, -6 12, 20 36, 10 36, -9 20, -36 42",
         "-45 42, -12 -12, -6 -12, 24 -10, 14 -4, -9 -2, -36 42"),
        (0.8, "30 32, 52 2, 58 2, 92 24, 82 26, 55 12, 40 32",
         "30 -20, 52 -76, 58 -76, 92 -40, 82 -38, 55 -64, 40 -26"),
    ],
    [  # Shirt
        (0.9, "46 -88, 58 -76, 78 -30, 58 -20, 46 -40", "48 -90, 66 -78, 86 80, 66 84, 52 -40"),
        (1, "0 -88, 22 -94, 54 -78, 44 -40, 42 93, 0 95",
         "0 -86, 26 -94, 64 -78, 52 -40, 54 93, 0 95"),
        (1.25, "10 -97, 27 -88, 16 -66, 2 -76", "12 -97, 30 -86, 18 -60, 2 -72"),
        (0, "0 -98, 11 -98, 0 -76", "0 -98, 13 -98, 0 -70"),
        (0.6, "0 -74, 3 -74, 3 93, 0 93", "0 -70, 4 -70, 4 93, 0 93"),
        (0.85, "14 -36, 32 -36, 32 -12, 14 -12", "16 -34, 36 -34, 36 -8, 16 -8"),
    ],
    [  # Sneaker
        (1, "-95 50, -93 20, -60 6, -22 -10, 0 -27, 50 -30, 90 -34, 93 10, 95 50",
         "-95 50, -93 30, -60 16, -8 0, 12 -12, 50 -15, 90 -19, 93 10, 95 50"),
        (1.35, "-97 42, 96 42, 95 62, -95 62", "-97 44, 96 44, 95 58, -95 58"),
        (0.25, "24 -28, 80 -32, 74 -22, 40 -20", "24 -14, 82 -18, 76 -8, 40 -6"),
        (1.45, "-44 -2, -38 -2, -4 8, -10 8", "-34 2, -28 2, 6 14, 0 14"),
        (0.5, "-10 35, 32 0, 40 0, 62 30, 52 30, 36 10, 0 38",
         "-6 38, 34 8, 42 8, 60 34, 50 34, 38 16, 4 40"),
    ],
    [  # Bag
        (0.8, "0 -60, 30 -48, 44 -20, 38 -20, 26 -42, 0 -52",
         "0 -80, 44 -66, 66 0, 58 0, 38 -58, 0 -70"),
        (1, "0 -32, 60 -32, 66 68, 0 68", "0 -8, 84 -8, 93 88, 0 88"),
        (0.8, "0 -32, 60 -32, 57 0, 0 10", "0 -8, 84 -8, 80 34, 0 44"),
        (1.5, "0 -4, 7 4, 0 12", "0 30, 7 38, 0 46"),
    ],
    [  # Ankle boot
        (1, "-95 50, -93 12, -60 -4, -22 -18, -4 -60, 0 -92, 50 -95, 90 -97, 93 10, 95 50",
         "-95 50, -93 24, -60 10, -10 -4, 8 -36, 14 -60, 50 -62, 90 -64, 93 10, 95 50"),
        (0.45, "-97 42, 96 42, 95 62, -95 62", "-97 44, 96 44, 95 58, -95 58"),
        (0.6, "50 50, 95 50, 90 70, 60 70", "50 50, 95 50, 90 96, 62 96"),
        (0.6, "34 -92, 39 -92, 44 30, 39 30", "40 -60, 45 -60, 48 30, 43 30"),
    ],
]  # fmt: skip


def clothes(count, seed=0):
    """Return (images, labels) of clothes that resemble Fashion-MNIST: shaded, light on black.

    Both are uint8, of shapes (count, 28, 28) and (count,). The ten labels are in the order of
    Fashion-MNIST: t-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot.
    Outlines, patterns, folds and gray values vary. `seed` is anything numpy.random.default_rng
    takes; the same seed gives the same clothes.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(_SHAPES), count).astype(np.uint8)
    images = np.empty((count, 28, 28), np.uint8)
    for index, label in enumerate(labels):
        cloth = _outline(rng, int(label))
        shaded = cloth * _shading(rng, cloth > 0, patterned=label not in (5, 7, 9))
        small = shaded.reshape(28, _SCALE, 28, _SCALE).mean((1, 3))
        small += (small > 8) * rng.normal(0, rng.uniform(1, 9), (28, 28))  # the weave
        images[index] = np.clip(small, 0, 255)
    return images, labels


def _outline(rng, label):
    """Return the polygons of a class on black, float32 of shape (84, 84), values to 255."""
    side = 28 * _SCALE
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    gray, mix = np.clip(rng.normal(190, 50), 60, 250), rng.random()
    # The first two polygons are the outline. Others, such as a hem or a pocket, may be left out.
    for number, (shade, *outlines) in enumerate(_SHAPES[label]):
        if shade and number > 1 and rng.random() < 0.25:
            continue
        one, two = (np.array([pair.split() for pair in o.split(",")], float) for o in outlines)
        points = one + np.clip(mix + rng.normal(0, 0.15), 0, 1) * (two - one)
        points += rng.normal(0, 1.5, points.shape) * (points[:, :1] != 0)
        for flip in (1, -1) if label in _SYMMETRICAL else (1,):
            corners = (points * [flip, 1] / 100 * 0.97 + 1) * side / 2
            draw.polygon(list(map(tuple, corners)), fill=int(np.clip(gray * shade, 0, 255)))
    return np.asarray(canvas, "float32")


def _shading(rng, inside, patterned):
    """Return a factor for each pixel, about 1, for light, folds and a pattern."""
    side = len(inside)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    light = 0.68 + 0.35 * ndimage.uniform_filter(inside.astype("float32"), side // 9)
    angle, waves, bend = rng.uniform(0, np.pi), rng.uniform(2, 7), rng.normal(0, 0.08)
    along = x * np.cos(angle) + y * np.sin(angle) + bend * np.sin(rng.uniform(4, 9) * y)
    light *= 1 + rng.uniform(0, 0.13) * np.sin(2 * np.pi * waves * along)
    light *= 1 + rng.normal(0, 0.15) * x + rng.normal(0, 0.1) * y
    if patterned and rng.random() < 0.4:
        waves = rng.uniform(4, 9)
        bars = [np.sin(2 * np.pi * waves * axis) > rng.uniform(-0.3, 0.5) for axis in (x, y)]
        blob = ndimage.gaussian_filter(rng.normal(size=(side, side)), 4) > 0
        print_ = blob & (np.hypot(x / 0.17, (y + 0.1) / 0.17) < 1)
        patterns = [bars[0], bars[1], bars[0] ^ bars[1], print_, y > rng.uniform(-0.2, 0.2)]
        light = light * np.where(patterns[rng.integers(5)], rng.uniform(0.35, 0.75), 1)
    return light
