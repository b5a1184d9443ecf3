"""Noise to train against. The one place that imports imgaug."""

import numpy as np


def gaussian(images, sigma, seed):
    """Add white Gaussian noise and clip to [0, 1].

    Args:
        images: float32 in [0, 1], any shape.
        sigma: standard deviation of the noise before clipping.
        seed: anything numpy.random.default_rng takes; the same seed adds the same noise.

    Returns:
        float32 array of the images' shape. The input is left as it was.
    """
    noisy = np.random.default_rng(seed).standard_normal(images.shape, dtype="float32")
    noisy *= sigma
    noisy += images
    return np.clip(noisy, 0, 1, out=noisy)
