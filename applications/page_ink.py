"""What is ink on a page, how dark it is beside the paper, and what of it a cleaning has lost."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import rank, threshold_otsu

STRONG = 0.65  # how much darker than its paper a page's ink must be to tell faint ink from it
ENOUGH = 0.05  # of the ink: less may be dots and commas, which are faint for their size
LOOKED_AT = 4_000_000  # pixels, at most, of a page whose strokes are sorted


def bands(height):
    """Return slices of some rows each, so that no float copy of a whole page in colour is made."""
    return [slice(top, min(top + 512, height)) for top in range(0, height, 512)]


def leave_faint(page, cleaned):
    """Leave what is much fainter than a page's ink as faint as it is on the page, in `cleaned`.

    The network makes all ink black, as it must where all of it is faint. But where strokes fall
    into two groups (N. Otsu's method, by depth: how much darker than its paper a stroke gets), one
    of them strong and the other less than half as dark, the faint one may be the other side that
    shows through. It may be pencil, too: so it is neither blackened nor erased.

    Args:
        page, cleaned: float32 in [0, 1], shape (height, width, 1); `cleaned` is changed.
    """
    levels = np.empty(page.shape, np.uint8)
    for rows in bands(len(page)):
        levels[rows] = np.round(page[rows] * 255)
    paper, _ = paper_of(levels, side=800, window=21)
    for rows in bands(len(page)):
        divided = levels[rows] * np.float32(255) / np.maximum(paper(rows), 1)
        levels[rows] = np.round(np.minimum(divided, 255))
    step = math.ceil(math.sqrt(page.size / LOOKED_AT))
    strokes, count = ndimage.label(cleaned[::step, ::step, 0] < 0.5, np.ones((3, 3)))
    lightness = ndimage.uniform_filter(levels[::step, ::step, 0].astype("float32") / 255, 3)
    depth = 1 - ndimage.minimum(lightness, strokes, np.arange(1, count + 1))
    area = np.bincount(strokes.ravel(), minlength=count + 1)[1:]
    faint = _faint(depth, area)
    if not faint.any():
        return
    faint = np.r_[False, faint][strokes]
    rims = ndimage.binary_dilation(faint, iterations=2) & (faint | (strokes == 0))
    across = np.arange(page.shape[1]) // step
    for rows in bands(len(page)):
        here = rims[np.arange(rows.start, rows.stop) // step][:, across, np.newaxis]
        as_it_is = np.maximum(cleaned[rows], levels[rows] / np.float32(255))
        cleaned[rows] = np.where(here, as_it_is, cleaned[rows])


def _faint(depth, area):
    """Say of each stroke, by depth and area, whether it is one of a faint group beside a strong."""
    counts, edges = np.histogram(depth, bins=64, range=(0, 1), weights=area)
    faint = np.zeros(len(depth), bool)
    if np.count_nonzero(counts) > 1:
        faint = depth <= threshold_otsu(hist=(counts, edges[1:]))
    if faint.all() or area[faint].sum() < ENOUGH * area.sum():
        return np.zeros(len(depth), bool)
    weak, strong = (np.average(depth[some], weights=area[some]) for some in (faint, ~faint))
    return faint & (strong > STRONG) & (weak < strong / 2)


def lost_ink(grey, cleaned):
    """Return the share of a page's ink that is gone from the cleaned page, in [0, 1].

    Ink is here what a division by the paper finds: over 3x3 pixels darker than it by an eighth,
    and by six standard deviations of its grain. Gone is where all nine came out lighter than 200
    of 255. Dirt as dark and narrow as a stroke counts as ink: the share says where to look, no
    more. It is 0 where less than 300 pixels in a million are gone.

    Args:
        grey, cleaned: float32 in [0, 1], shape (height, width, 1).
    """
    smooth = np.empty(grey.shape, np.uint8)
    for rows in bands(len(grey)):
        smooth[rows, :, 0] = np.round(ndimage.uniform_filter(grey[rows, :, 0], 3) * 255)
    paper, grain = paper_of(smooth, side=800, window=21)
    threshold = 1 - max(1 / 8, 6 * grain)
    ink = gone = 0
    for rows in bands(len(grey)):
        dark = smooth[rows, :, 0] < threshold * paper(rows)[..., 0]
        light = ndimage.minimum_filter(cleaned[rows, :, 0], 3) > 200 / 255
        ink += dark.sum()
        gone += (dark & light).sum()
    return float(gone / ink) if gone > 300e-6 * grey.size else 0.0


def paper_of(page, side=200, window=41):
    """Return (function that gives the paper's colour in some rows, the paper's grain).

    The colour is float32 (rows, width, channels): the median over a square. That is by default a
    fifth of the page wide, so that a blot or a broad marker is not taken for paper. It is worked
    out on every n-th pixel, `side` of them along the page. The grain is a standard deviation, as
    a share of the paper's colour.
    """
    height, width, channels = page.shape
    step = max(1, max(height, width) // side)
    small = page[::step, ::step].copy()
    square = np.ones((window, window), bool)
    medians = [rank.median(small[..., channel], square) for channel in range(channels)]
    paper = np.stack(medians, -1)
    grain = 1.4826 * float(np.median(np.abs(small / np.maximum(paper, 1.0) - 1)))
    image = Image.fromarray(paper if channels == 3 else paper[..., 0])

    def at(rows):
        top, bottom = (edge / height * image.height for edge in (rows.start, rows.stop))
        size, box = (width, rows.stop - rows.start), (0, top, image.width, bottom)
        part = image.resize(size, Image.Resampling.BILINEAR, box=box)
        return np.atleast_3d(np.asarray(part, "float32"))

    return at, grain
