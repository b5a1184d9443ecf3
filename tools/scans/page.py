"""A page of any size, gray or in color, through the network that cleans documents."""

import numpy as np
import tensorflow

from tools import tiles
from tools.scans.ink import bands, estimate_paper, keep_faint_ink, lost_ink

# Pixels. What is farther away than the margin changes a cleaned page by less than 1/255.
TILE, MARGIN = 928, 224
MULTIPLE = 32  # the U-Net takes sides that are multiples of it
MAX_SMALL = 1_000_000  # pixels of a small page, whose letters are few pixels tall
GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601


def cleaner(network):
    """Return a function that cleans a page of any size, tile by tile, without visible seams.

    It takes and returns float32 in [0, 1], shape (height, width, 1). A small page is cleaned twice,
    the second time upside down, and averaged: nearly all of the error is at the edges of letters,
    and there the two differ. Ink that is much fainter than the rest stays faint.
    """
    # With an open shape it is traced only once, which makes it half again as fast as the network.
    any_size = tensorflow.TensorSpec((1, None, None, 1), "float32")

    @tensorflow.function(input_signature=[any_size], autograph=False)
    def run(tile):
        return network(tile, training=False)

    def clean_tile(tile):
        padded = tiles.pad_to_multiple(tile, MULTIPLE)[np.newaxis]
        return np.asarray(run(padded))[0, : tile.shape[0], : tile.shape[1]]

    def clean_once(page):
        return tiles.in_tiles(clean_tile, np.asarray(page, "float32"), TILE, MARGIN)

    def clean(page):
        cleaned = clean_once(page)
        if page.size <= MAX_SMALL:
            cleaned = (cleaned + clean_once(page[::-1, ::-1])[::-1, ::-1]) / 2
        keep_faint_ink(page, cleaned)
        return cleaned

    return clean


def clean_page(clean, pixels, color=True):
    """Return (cleaned pixels, share of the ink that was lost).

    The network sees colored ink as dark as it is in its darkest channel: in gray, a red stamp is
    only half as dark. The ink that the network keeps then gets its color back. Where a color is
    stronger than that of any stain, the ink stays whatever the network does.

    Args:
        clean: function that `cleaner` returns.
        pixels: uint8, shape (height, width, 1 or 3).
        color: whether colored ink stays colored.

    Returns:
        cleaned pixels: uint8, shape (height, width, 3), or with 1 channel if all of it is gray.
        share: in [0, 1].
    """
    height, width, channels = pixels.shape
    color = color and channels == 3
    paper, _ = estimate_paper(pixels)
    gray = np.empty((height, width, 1), "float32")
    for rows in bands(height):
        gray[rows] = _darken_colors(pixels[rows], paper(rows))
    cleaned = clean(gray)
    if channels == 3:
        for rows in bands(height):
            cleaned[rows] = _keep_strong_colors(cleaned[rows], pixels[rows], paper(rows))
    lost = lost_ink(gray, cleaned)
    del gray
    result = np.empty((height, width, 3 if color else 1), np.uint8)
    for rows in bands(height):
        tint = _tint(pixels[rows], paper(rows)) if color else 0
        result[rows] = np.round((cleaned[rows] + (1 - cleaned[rows]) * tint) * 255)
    if all((result[rows] == result[rows, :, :1]).all() for rows in bands(height)):
        result = result[..., :1]
    return result, lost


# In what follows, `pixels` and `paper` are rows of a page and of its paper, values up to 255.


def _chroma(pixels, paper):
    """Return (pixels divided by their paper, darkest channel, lightest less darkest channel)."""
    divided = np.minimum(pixels / np.maximum(paper, 1), 1)
    darkest = divided.min(-1, keepdims=True)
    return divided, darkest, divided.max(-1, keepdims=True) - darkest


def _ramp(values, low, high):
    """Return 0 up to `low`, 1 from `high` on, and a straight line in between."""
    return np.clip((values - low) / (high - low), 0, 1)


def _darken_colors(pixels, paper):
    """Return rows in gray, float32 in [0, 1], with colored ink as dark as its darkest channel."""
    if pixels.shape[2] == 1:
        return pixels.astype("float32") / 255
    _, darkest, chroma = _chroma(pixels, paper)
    gray = (pixels @ GRAY_WEIGHTS)[..., np.newaxis]
    darker = np.minimum(darkest * (paper @ GRAY_WEIGHTS)[..., np.newaxis], gray)
    return (gray + _ramp(chroma, 0.1, 0.25) * (darker - gray)) / 255


def _keep_strong_colors(cleaned, pixels, paper):
    """Return cleaned rows in gray, with the ink whose color is too strong for a stain."""
    _, darkest, chroma = _chroma(pixels, paper)
    return cleaned + _ramp(chroma, 0.3, 0.45) * (np.minimum(cleaned, darkest) - cleaned)


def _tint(pixels, paper):
    """Return by how much each channel of ink is lighter than the darkest, in [0, 1]; 0 is gray."""
    divided, darkest, chroma = _chroma(pixels, paper)
    return _ramp(chroma, 0.1, 0.25) * (divided - darkest) / np.maximum(1 - darkest, 1e-3)
