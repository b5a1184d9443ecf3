"""What happens to a photo on its way through the world: resized, cropped, blurred, noisy, JPEG."""

import numpy as np
from PIL import Image
from scipy import ndimage

from applications.messages import decode, encode
from common import noise


def damage(picture, seed, scale=1.0, kept=1.0, blur=0.0, sigma=0.0, quality=None):
    """Return a picture after a resize, a crop, a blur, noise and JPEG, in this order.

    Args:
        picture: float32 in [0, 1], shape (height, width, 3).
        seed: of the crop's place and of the noise.
        scale: factor of the sides.
        kept: share of the area that the crop keeps.
        blur: standard deviation of a Gaussian, in pixels.
        sigma: standard deviation of Gaussian noise.
        quality: Pillow's quality of JPEG, from 1; None: no JPEG.

    Returns:
        float32 in [0, 1], shape (height, width, 3), of 8-bit levels.
    """
    rng = np.random.default_rng(seed)
    height, width = picture.shape[:2]
    if scale != 1:
        size = [max(1, round(side * scale)) for side in (width, height)]
        levels = Image.fromarray(np.round(picture * 255).astype(np.uint8))
        picture = np.asarray(levels.resize(size, Image.Resampling.BICUBIC), "float32") / 255
    if kept < 1:
        sides = [max(1, round(side * kept**0.5)) for side in picture.shape[:2]]
        spare = np.subtract(picture.shape[:2], sides) + 1
        top, left = rng.integers(0, spare)
        picture = picture[top : top + sides[0], left : left + sides[1]]
    if blur:
        picture = ndimage.gaussian_filter(picture, (blur, blur, 0))
    if sigma:
        picture = noise.gaussian(picture, sigma, rng)
    picture = np.round(picture * 255) / 255
    return decode(encode(picture, "jpeg", quality), "jpeg") if quality else picture
