"""Sample pictures to try models on: from synthetic/, and those that scikit-image ships."""

import shutil
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from synthetic import clothes, digits, pages

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")
GREY = ("camera.png", "coins.png", "moon.png")


def write_samples(folder):
    """Write sample pictures into a folder.

    Returns:
        {kind: list of paths}: `pages`, dirty ones, the first an A6 at 300 dpi; `photos` in colour;
        `grey` pictures; `clothes` and `digits` of 28x28 pixels, light on black.
    """
    large = pages.pages(1, seed=1, height=1748, width=1240, scale=3)
    small = pages.pages(3, seed=1, scale=1)
    found = {"pages": [], "clothes": [], "digits": []}
    for number, (dirty, *_) in enumerate([*large, *small]):
        path = folder / f"page_{number + 1}.png"
        Image.fromarray(dirty[..., 0]).save(path, dpi=(300, 300) if number == 0 else (100, 100))
        found["pages"].append(path)
    for kind, make in (("clothes", clothes.clothes), ("digits", digits.digits)):
        images, labels = make(60, seed=1)
        for label in np.unique(labels):
            path = folder / f"{kind}_{label}.png"
            Image.fromarray(images[labels == label][0]).save(path)
            found[kind].append(path)
    shipped = Path(skimage.__file__).parent / "data"
    for kind, names in (("photos", PHOTOS), ("grey", GREY)):
        there = [shipped / name for name in names if (shipped / name).is_file()]
        found[kind] = [Path(shutil.copy(path, folder)) for path in there]
    return found
