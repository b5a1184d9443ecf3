"""What happens to a photo on its way: it is resized, cropped, blurred, compressed, gets noisy.

Pictures are float32 in [0, 1], shape (height, width, 3).
"""

import numpy as np
from PIL import Image
from scipy import ndimage

from common import noise
from tools.messages import photo


def to_image(picture):
    """Return a picture as a Pillow image."""
    return Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))


def from_image(image):
    """Return a Pillow image as a picture."""
    return np.asarray(image.convert("RGB"), "float32") / 255


def resize(picture, factor):
    """Return a picture whose sides are larger or smaller by a factor."""
    height, width = picture.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return from_image(to_image(picture).resize(size, Image.Resampling.BICUBIC))


def crop(picture, share, rng):
    """Return a random part with this share of the area and the same proportions."""
    height, width = (max(1, round(side * share**0.5)) for side in picture.shape[:2])
    left = rng.integers(picture.shape[1] - width + 1)
    top = rng.integers(picture.shape[0] - height + 1)
    return picture[top : top + height, left : left + width]


def blur(picture, sigma):
    """Return a picture after a Gaussian blur, `sigma` in pixels."""
    return ndimage.gaussian_filter(picture, (sigma, sigma, 0))


def jpeg(picture, quality):
    """Return a picture as it comes out of a JPEG file of Pillow's quality, 1 to 95."""
    return photo.from_file(photo.to_file(picture, "jpeg", quality), "jpeg")


def damage(picture, seed, *, scale=1.0, crop_share=1.0, blur_sigma=0.0, noise_sigma=0.0, quality=0):
    """Return a picture after a resize, a crop, a blur, noise and JPEG, in this order.

    `quality` 0 leaves JPEG out. The result has 8-bit levels.
    """
    rng = np.random.default_rng(seed)
    if scale != 1:
        picture = resize(picture, scale)
    if crop_share < 1:
        picture = crop(picture, crop_share, rng)
    if blur_sigma:
        picture = blur(picture, blur_sigma)
    if noise_sigma:
        picture = noise.gaussian(picture, noise_sigma, rng)
    return jpeg(picture, quality) if quality else from_image(to_image(picture))
