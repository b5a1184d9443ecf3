"""Ink on a page: how dark it is beside its paper, and how much of it a cleaning has lost."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import rank, threshold_otsu

MIN_STRONG_DEPTH = 0.65  # of a page's strong ink; only beside such ink can other ink be faint
MIN_FAINT_SHARE = 0.05  # of the ink: less may be dots and commas, which are faint for their size
MAX_LABELED_PIXELS = 4_000_000  # of a page whose strokes are labeled


def bands(height):
    """Return slices of 512 rows each, so that no full page in color is copied as floats."""
    return [slice(top, min(top + 512, height)) for top in range(0, height, 512)]


def keep_faint_ink(page, cleaned):
    """Give ink in `cleaned` that is much fainter than a page's other ink its gray on the page.

    The network makes all ink black, as it should if all of it is faint. But if strokes fall into
    two groups by depth, which is how much darker than its paper a stroke gets, and one of them is
    strong and the other less than half as deep, then the faint one may be the other side of the
    sheet that shows through. It may also be pencil, so it is neither blackened nor erased.

    Args:
        page, cleaned: float32 in [0, 1], shape (height, width, 1); `cleaned` is changed.
    """
    levels = np.empty(page.shape, np.uint8)
    for rows in bands(len(page)):
        levels[rows] = np.round(page[rows] * 255)
    paper, _ = estimate_paper(levels, side=800, window=21)
    for rows in bands(len(page)):
        divided = levels[rows] * np.float32(255) / np.maximum(paper(rows), 1)
        levels[rows] = np.round(np.minimum(divided, 255))
    step = math.ceil(math.sqrt(page.size / MAX_LABELED_PIXELS))
    strokes, count = ndimage.label(cleaned[::step, ::step, 0] < 0.5, np.ones((3, 3)))
    lightness = ndimage.uniform_filter(levels[::step, ::step, 0].astype("float32") / 255, 3)
    depths = 1 - ndimage.minimum(lightness, strokes, np.arange(1, count + 1))
    areas = np.bincount(strokes.ravel(), minlength=count + 1)[1:]
    is_faint = _is_faint(depths, areas)
    if not is_faint.any():
        return
    faint = np.r_[False, is_faint][strokes]
    faint = ndimage.binary_dilation(faint, iterations=2) & (faint | (strokes == 0))
    columns = np.arange(page.shape[1]) // step
    for rows in bands(len(page)):
        here = faint[np.arange(rows.start, rows.stop) // step][:, columns, np.newaxis]
        lightened = np.maximum(cleaned[rows], levels[rows] / np.float32(255))
        cleaned[rows] = np.where(here, lightened, cleaned[rows])


def _is_faint(depths, areas):
    """Return for each stroke whether it belongs to a faint group beside a strong one.

    The groups are separated by Otsu's threshold.
    """
    counts, edges = np.histogram(depths, bins=64, range=(0, 1), weights=areas)
    faint = np.zeros(len(depths), bool)
    if np.count_nonzero(counts) > 1:
        faint = depths <= threshold_otsu(hist=(counts, edges[1:]))
    if faint.all() or areas[faint].sum() < MIN_FAINT_SHARE * areas.sum():
        return np.zeros(len(depths), bool)
    weak, strong = (np.average(depths[group], weights=areas[group]) for group in (faint, ~faint))
    return faint & (strong > MIN_STRONG_DEPTH) & (weak < strong / 2)


def lost_ink(gray, cleaned):
    """Return the share of a page's ink that is gone from the cleaned page, in [0, 1].

    Ink is here what a division by the paper finds: in the mean of 3x3 pixels darker than the paper
    by an eighth and by six standard deviations of its grain. It is gone where all nine pixels came
    out lighter than 200 of 255. Dirt as dark and narrow as a stroke counts as ink, so the share
    only tells which pages to look at. Below 300 lost pixels in a million it is 0.

    Args:
        gray, cleaned: float32 in [0, 1], shape (height, width, 1).
    """
    smooth = np.empty(gray.shape, np.uint8)
    for rows in bands(len(gray)):
        smooth[rows, :, 0] = np.round(ndimage.uniform_filter(gray[rows, :, 0], 3) * 255)
    paper, grain = estimate_paper(smooth, side=800, window=21)
    threshold = 1 - max(1 / 8, 6 * grain)
    ink = gone = 0
    for rows in bands(len(gray)):
        dark = smooth[rows, :, 0] < threshold * paper(rows)[..., 0]
        light = ndimage.minimum_filter(cleaned[rows, :, 0], 3) > 200 / 255
        ink += dark.sum()
        gone += (dark & light).sum()
    return float(gone / ink) if gone > 300e-6 * gray.size else 0.0


def estimate_paper(pixels, side=200, window=41):
    """Return (function that gives the paper's color in some rows, grain of the paper).

    The color is the median over a square, float32 of shape (rows, width, channels). By default the
    square is a fifth of the page wide, so that neither a blot nor a broad marker counts as paper.

    Args:
        pixels: uint8, shape (height, width, channels).
        side: every n-th pixel is used, so that at most about twice as many are along a side.
        window: side of the square, in used pixels.

    The grain is a standard deviation, as a share of the paper's color.
    """
    height, width, channels = pixels.shape
    step = max(1, max(height, width) // side)
    small = pixels[::step, ::step].copy()
    square = np.ones((window, window), bool)
    medians = [rank.median(small[..., channel], square) for channel in range(channels)]
    paper = np.stack(medians, -1)
    grain = 1.4826 * float(np.median(np.abs(small / np.maximum(paper, 1.0) - 1)))
    image = Image.fromarray(paper if channels == 3 else paper[..., 0])

    def color_in(rows):
        top, bottom = (edge / height * image.height for edge in (rows.start, rows.stop))
        size, box = (width, rows.stop - rows.start), (0, top, image.width, bottom)
        band = image.resize(size, Image.Resampling.BILINEAR, box=box)
        return np.atleast_3d(np.asarray(band, "float32"))

    return color_in, grain
