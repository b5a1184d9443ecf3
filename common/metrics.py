"""How near images are to clean ones. All are float32 in [0, 1], shape (n, height, width, 1)."""

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity


def mse(clean, images):
    """Return the mean squared error over all pixels."""
    return float(np.mean(np.square(clean - images), dtype="float64"))


def psnr(clean, images):
    """Return the peak signal-to-noise ratio in dB, 10·log10(1 / MSE), averaged over the images.

    It is infinite as soon as one image is exact.
    """
    errors = np.mean(np.square(clean - images), axis=(1, 2, 3), dtype="float64")
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(errors)))


def ssim(clean, images):
    """Return the structural similarity (1 is identical), averaged over the images.

    Windows of 7x7, Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861
    """
    pairs = zip(clean[..., 0], images[..., 0], strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=1.0) for a, b in pairs]))


def binary_crossentropy(clean, images):
    """Return the mean over pixels of -x·log(y) - (1 - x)·log(1 - y), in nats.

    The images y are clipped to [1e-7, 1 - 1e-7] as Keras does.
    """
    y = np.clip(images, 1e-7, 1 - 1e-7)
    return float(-np.mean(clean * np.log(y) + (1 - clean) * np.log1p(-y), dtype="float64"))


def median_3x3(images):
    """Return the images after a median filter of 3x3 pixels, the classical answer to noise."""
    return ndimage.median_filter(images, size=(1, 3, 3, 1), mode="nearest")


def switching_median(images):
    """Return the images with only their pure black and white pixels replaced by the 3x3 median.

    It suits noise that is nothing but black and white: Sun and Neuvo 1994,
    https://doi.org/10.1016/0167-8655(94)90082-5
    """
    return np.where((images == 0) | (images == 1), median_3x3(images), images)


def compare(clean, candidates, functions):
    """Return {candidate: {metric: value}} for images that stand for the same clean ones.

    Args:
        clean: the true images.
        candidates: {name: images}.
        functions: the metrics, each called with (clean, images); a metric is named as its function.
    """
    return {
        name: {function.__name__: function(clean, images) for function in functions}
        for name, images in candidates.items()
    }
