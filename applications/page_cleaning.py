"""A page of any size, or many image files, through the network that cleans documents."""

import sys

import keras
import numpy as np

from applications.denoising import in_tiles, pad_to_multiple
from applications.inputs import output_paths
from common import UserError, files, image_files

# Pixels. Nothing that is further away than the margin changes what the U-Net makes of a pixel.
TILE, MARGIN = 512, 64


def cleaner(network):
    """Return a function that cleans a page of any size with a network, tile by tile.

    So the network's memory does not grow with the page, and no seam shows: each tile is looked at
    with all around it that matters. Each is cleaned twice, as it is and upside down, and the mean
    taken: on validation pages that lowers the RMSE by a twentieth. The function takes and returns
    float32 in [0, 1], shape (height, width, 1).
    """

    def run(tile):
        upright = np.asarray(network(tile[np.newaxis], training=False))[0]
        turned = np.asarray(network(tile[np.newaxis, ::-1, ::-1], training=False))[0]
        return (upright + turned[::-1, ::-1]) / 2

    def clean(page):
        padded = pad_to_multiple(page, 8)
        return in_tiles(run, padded, TILE, MARGIN)[: page.shape[0], : page.shape[1]]

    return clean


def clean_page(clean, page, colour=True):
    """Return a page cleaned, and the share of its ink that was lost.

    Coloured ink is shown to the network as dark as in the channel where it is darkest: a red stamp
    is but half as dark in grey. What the network leaves of it then gets its colour back.

    Args:
        clean: as `cleaner` returns it.
        page: uint8, shape (height, width, 1 or 3).
        colour: whether ink may be coloured; else it comes out grey.

    Returns:
        (uint8 of shape (height, width, 3), or 1 channel where there is no colour, share in [0, 1])
    """
    height, width, channels = page.shape
    paper = _paper(page)
    grey = np.empty((height, width, 1), "float32")
    for rows in _bands(height):
        grey[rows] = _grey(page[rows], paper(rows))
    cleaned = clean(grey)
    lost = lost_ink(grey, cleaned)
    del grey
    if channels == 1 or not colour:
        return np.round(cleaned * 255).astype(np.uint8), lost
    result = np.empty(page.shape, np.uint8)
    for rows in _bands(height):
        hue = _hue(page[rows], paper(rows))
        result[rows] = np.round((cleaned[rows] + (1 - cleaned[rows]) * hue) * 255)
    coloured = any((result[rows] != result[rows, :, :1]).any() for rows in _bands(height))
    return (result if coloured else result[..., :1]), lost


def _bands(height):
    """Return slices of some rows each, so that no float copy of a whole page in colour is made."""
    return [slice(top, min(top + 512, height)) for top in range(0, height, 512)]


def _paper(page):
    """Return a function that gives the paper's colour in some rows, float32 (rows, width, 3).

    It is the median over a wide square, a fifth of a page, so that a blot or a broad marker is not
    taken for paper; on every n-th pixel, since paper changes slowly.
    """
    height, width, channels = page.shape
    step = max(1, max(height, width) // 200)
    small = np.ascontiguousarray(page[::step, ::step])
    square = np.ones((41, 41), bool)
    medians = [rank.median(small[..., channel], square) for channel in range(channels)]
    small = Image.fromarray(np.stack(medians, -1).squeeze(-1) if channels == 1 else np.stack(medians, -1))

    def at(rows):
        box = (0, rows.start / height * small.height, small.width, rows.stop / height * small.height)
        size = width, rows.stop - rows.start
        part = small.resize(size, Image.Resampling.BILINEAR, box=box)
        return np.atleast_3d(np.asarray(part, "float32"))

    return at


def _coloured(page, paper):
    """Return (page divided by its paper, its least channel, how coloured it is from 0 to 1)."""
    divided = np.minimum(page / np.maximum(paper, 1), 1)
    least = divided.min(-1, keepdims=True)
    return divided, least, np.clip((divided.max(-1, keepdims=True) - least - 0.1) / 0.15, 0, 1)


def _grey(page, paper):
    """Return rows of a page in grey, float32 in [0, 1], coloured ink as dark as it is."""
    if page.shape[2] == 1:
        return page.astype("float32") / 255
    weights = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601
    _, least, coloured = _coloured(page, paper)
    grey, ground = (page @ weights)[..., np.newaxis], (paper @ weights)[..., np.newaxis]
    return (grey + coloured * (np.minimum(least * ground, grey) - grey)) / 255


def _hue(page, paper):
    """Return how much lighter than its darkest channel ink is in each, in [0, 1]; 0 is grey."""
    divided, least, coloured = _coloured(page, paper)
    return coloured * (divided - least) / np.maximum(1 - least, 1e-3)
