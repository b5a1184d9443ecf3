"""Synthetic textures, and the smooth noise that they and synthetic pages are made of."""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image


def clouds(rng, shape, size):
    """Return smooth noise of mean 0 and standard deviation about 1, with spots of `size` pixels.

    `size` may be a pair, for spots that are longer than wide.
    """
    size = np.broadcast_to(size, 2)
    grid = [int(np.ceil(side / spot)) + 3 for side, spot in zip(shape, size, strict=True)]
    noise = Image.fromarray(rng.standard_normal(grid, dtype="float32"))
    box = [1, 1, 1 + shape[1] / size[1], 1 + shape[0] / size[0]]
    return np.asarray(noise.resize(shape[::-1], Image.Resampling.BICUBIC, box=box)) * 1.4


def step(distance, width):
    """Return 0 far below 0, 1 far above, and a ramp of `width` pixels between."""
    return np.clip(distance / width + 0.5, 0, 1)


def make_textures(count, side=64, seed=0):
    """Return textures: clouds of several sizes, slopes, stripes, edges and grain.

    The result is uint8, shape (count, side, side).
    """
    images = np.empty((count, side, side), np.uint8)
    y, x = np.mgrid[-0.5 : 0.5 : side * 1j, -0.5 : 0.5 : side * 1j]
    for index, rng in enumerate(np.random.default_rng(seed).spawn(count)):
        angle = rng.uniform(0, 2 * np.pi)
        across = x * np.cos(angle) + y * np.sin(angle)
        image = rng.uniform(0.05, 0.95) + rng.uniform(0, 0.6) * across
        for size in rng.choice([2, 4, 8, 16, 32, 64], rng.integers(0, 4), replace=False):
            image += rng.uniform(0, 0.15) * clouds(rng, (side, side), size)
        if rng.random() < 0.3:  # stripes
            image += rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(2, 20) * across)
        if rng.random() < 0.3:  # an edge
            image += rng.uniform(-0.5, 0.5) * step(across - rng.uniform(-0.4, 0.4), 0.03)
        image += rng.uniform(0, 0.02) * rng.standard_normal((side, side))
        images[index] = np.round(np.clip(image, 0, 1) * 255)
    return images


def pictures(names):
    """Return {name: gray uint8 picture} of those that scikit-image ships; others are left out."""
    folder = Path(skimage.__file__).parent / "data"
    return {
        name: np.asarray(Image.open(folder / name, formats=["PNG", "JPEG"]).convert("L"))
        for name in names
        if (folder / name).is_file()
    }
