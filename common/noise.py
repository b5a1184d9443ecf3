"""Noise for training and testing. The only module that imports imgaug."""

import functools

import numpy as np

from common.cli import UserError


def gaussian(images, sigma, seed):
    """Return a copy of images with Gaussian noise added; values in [0, 1], any shape.

    `sigma` is the standard deviation before clipping, `seed` whatever numpy.random.default_rng
    accepts.
    """
    noisy = np.random.default_rng(seed).standard_normal(images.shape, dtype="float32")
    noisy *= sigma
    noisy += images
    return np.clip(noisy, 0, 1, out=noisy)


def salt_and_pepper(images, amount, seed):
    """Return images with a share of pixels replaced by draws from Beta(0.5, 0.5).

    This is imgaug's SaltAndPepper. The distribution is U-shaped, but only 5.6% of its values round
    to pure black or white: (4/π)·asin(√(0.5/255)).

    Images are float32 in [0, 1], shape (n, height, width, 1); all other pixels stay exactly as they
    are. `amount` is the probability that a pixel is replaced, `seed` as in `gaussian`. Raises
    UserError if OpenCV, which imgaug needs, lacks system libraries.
    """
    augmenters = _import_imgaug().augmenters
    imgaug_seed = int(np.random.default_rng(seed).integers(2**31))
    augmenter = augmenters.SaltAndPepper(amount, seed=imgaug_seed)
    # Pixels are replaced independently, so all images can be passed as one tall image. imgaug's
    # overhead per image would slow training down.
    tall = np.round(images * 255).astype(np.uint8).reshape(1, -1, *images.shape[2:])
    noisy = augmenter(images=tall)
    noisy = np.where(noisy != tall, noisy / np.float32(255), images.reshape(tall.shape))
    return noisy.reshape(images.shape)


@functools.cache
def _import_imgaug():
    """Return imgaug. Its last release needs `np.sctypes`, which NumPy 2 removed."""
    missing = not hasattr(np, "sctypes")
    if missing:
        sizes = {"float": (16, 32, 64), "int": (8, 16, 32, 64), "uint": (8, 16, 32, 64)}
        types = {kind: [np.dtype(f"{kind}{size}").type for size in sizes[kind]] for kind in sizes}
        setattr(np, "sctypes", types)  # noqa: B010
    try:
        import imgaug
    except ImportError as error:
        if "cannot open shared object file" not in str(error):
            raise
        raise UserError(
            f"OpenCV, which imgaug needs, cannot be loaded ({error}); "
            "on Debian and Ubuntu: apt install libgl1 libglib2.0-0"
        ) from None
    finally:
        if missing:
            delattr(np, "sctypes")
    return imgaug
