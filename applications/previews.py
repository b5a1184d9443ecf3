"""Pictures as a screen can show them: neither tiny nor many megapixels."""

import numpy as np
from PIL import Image

LEAST, MOST = 280, 1_200  # pixels, of the longer side


def preview(image):
    """Return a Pillow image of a picture: small ones in larger pixels, large ones scaled down.

    `image` is uint8, or float in [0, 1], of shape (height, width) or (height, width, 1 or 3).
    """
    if image.dtype != np.uint8:
        image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    shown = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    longer = max(shown.size)
    if longer > MOST:
        size = [max(1, round(side * MOST / longer)) for side in shown.size]
        return shown.resize(size, Image.Resampling.LANCZOS, reducing_gap=2)
    factor = -(-LEAST // longer)
    return shown.resize([side * factor for side in shown.size], Image.Resampling.NEAREST)


def middle(image, side):
    """Return the middle of an image, at most `side` pixels high and wide."""
    top, left = (max(0, (whole - side) // 2) for whole in image.shape[:2])
    return image[top : top + side, left : left + side]
