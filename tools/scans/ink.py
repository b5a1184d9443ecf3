"""Ink on a page: how dark it is beside its paper, and how much of it a cleaning has lost."""

import math

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from tools.scans.ground import bands, enlarge, estimate_paper, max_stroke, ramp

MIN_PAPER = 0.6  # of the paper around it: what is darker is no paper, but broad ink
NEARLY_WHITE = 0.9, 0.96  # the network makes old paper 0.96; below 0.9 it saw something
# Paper is blank where all of a window is darker than white by less than this part of the ink's
# depth, and by less than MAX_BLANK_DEPTH. BLANK_WINDOW is in pixels.
BLANK_PART, MAX_BLANK_DEPTH, BLANK_WINDOW = 1 / 12, 1 / 24, 5
BLANK_SHARE = 0.3, 0.6  # of 11x11 pixels, from which on the network's gray fades, and is gone
UNSURE = 0.25, 0.35  # gray of the network, from which on it may be no ink, and is none
MAX_BLACK = 64  # of 255 on a page divided by its paper; on even paper, only rims of stains reach it
MIN_BLACK = 5  # pixels: narrower black is not solid
MAX_GRAIN_OF_BLACK = 0.03  # with more, solid black must be broader than two strokes
MIN_STRONG_DEPTH = 0.65  # of a page's strong ink; only beside such ink can other ink be faint
MIN_FAINT_SHARE = 0.05  # of the ink: less may be dots and commas, which are faint for their size
MAX_BLURRED = 0.9  # sharpness of what shows through, as a share of that of the strong ink
MIN_SHARPNESS = 0.9  # of print on a page without grain; a perfect edge has 1
MAX_FAINT_DEPTH = 0.5  # of the ink on a page whose broken strokes are mended
MIN_KEPT_SHARE = 0.25  # of a broken stroke that is mended
MAX_REACH = 3  # pixels from kept ink: nearer, a stroke is as broad as the network made it
SQUARES = 16  # along a page's longer side, in each of which lost ink is counted
MAX_LABELED_PIXELS = 4_000_000  # of a page whose strokes are labeled


def divide_by_paper(page):
    """Return (page divided by its paper, uint8; grain of the paper, as `estimate_paper` gives it).

    Paper is here the median over a square a fortieth of the page wide, so that a stain counts as
    paper, but what is much darker than the paper around it does not.

    Args:
        page: float32 in [0, 1], shape (height, width, 1).
    """
    divided = np.empty(page.shape, np.uint8)
    for rows in bands(len(page)):
        divided[rows] = np.round(page[rows] * 255)
    paper, grain = estimate_paper(divided, side=800, window=21, min_share=0.1)
    wide_paper, _ = estimate_paper(divided)
    for rows in bands(len(page)):
        light, wide = paper(rows), wide_paper(rows)
        beside_ink = wide if grain == 0 else MIN_PAPER * wide  # a clean page stays as it is
        light = np.where(light < MIN_PAPER * wide, beside_ink, light)
        divided[rows] = np.round(np.minimum(page[rows] * 255 * 255 / np.maximum(light, 1), 255))
    return divided, grain


# In what follows, `divided` and `grain` are what `divide_by_paper` returns, and `cleaned` is the
# cleaned page, float32 in [0, 1], shape (height, width, 1).


def correct(divided, grain, cleaned):
    """Restore white paper, clean ink and faint ink in `cleaned` from the page, in place."""
    has_grays = ((divided > 0) & (divided < 255)).any()
    if has_grays:
        keep_white(divided, grain, cleaned)
    else:
        cleaned[divided == 255] = 1
    keep_black(divided, grain, cleaned)
    if grain == 0:
        keep_clean_ink(divided, cleaned)
    if not has_grays:  # no ink is faint; what follows would change nothing
        return
    # What shows through would be taken for missing parts of the ink that it touches.
    if not keep_faint_ink(divided, cleaned) and grain:
        mend_strokes(divided, grain, cleaned)


def keep_white(divided, grain, cleaned):
    """Turn white what differs from white paper by its grain only.

    On a page with grain that is only what the network, too, leaves nearly white, with the pixels
    around it, or what is on blank paper, where the network may see gray that is not there. Paper is
    blank if it is much less dark than the ink of the page.
    """
    darkest = ndimage.minimum_filter(cleaned[..., 0], 3)[..., np.newaxis]
    mean = ndimage.uniform_filter(divided[..., 0], 3)[::2, ::2]
    is_ink = cleaned[::4, ::4] < 0.5
    depth = 1 - np.median(divided[::4, ::4][is_ink]) / 255 if is_ink.any() else 1
    max_depth = min(MAX_BLANK_DEPTH, BLANK_PART * depth)
    is_blank = ndimage.minimum_filter(mean, BLANK_WINDOW // 2 + 1) > 255 * (1 - max_depth)
    blank = ndimage.uniform_filter(is_blank.astype("float32"), 5)  # smooth, or squares would show
    for rows in bands(len(cleaned)):
        page = divided[rows] / np.float32(255)
        share = ramp(enlarge(blank, 2, cleaned.shape, rows), *BLANK_SHARE)
        share *= ramp(darkest[rows], *UNSURE)
        cleaned[rows] += share * (np.maximum(cleaned[rows], page) - cleaned[rows])
        is_white = page >= 1 - 4 * grain
        share = np.maximum(ramp(darkest[rows], *NEARLY_WHITE), share) if grain else 1
        cleaned[rows] += is_white * share * (1 - cleaned[rows])


def keep_black(divided, grain, cleaned):
    """Give solid black, such as the head of a note, back: the network may hollow it.

    What is narrow stays as the network left it: the rim of a stain can be as dark. On a page with
    strong grain, uneven ink and dirt can be, so only what is broader than two strokes comes back.
    """
    side = MIN_BLACK if grain < MAX_GRAIN_OF_BLACK else 2 * max_stroke(divided.shape) + 1
    is_black = ndimage.uniform_filter(divided[..., 0], 3) < MAX_BLACK
    is_black = ndimage.maximum_filter(ndimage.minimum_filter(is_black, side), side)  # an opening
    areas, count = ndimage.label(is_black, np.ones((3, 3)))
    has_ink = np.zeros(count + 1, bool)
    has_ink[areas[is_black & (cleaned[..., 0] < 0.5)]] = True
    for rows in bands(len(cleaned)):
        page = divided[rows] / np.float32(255)
        here = has_ink[areas[rows], np.newaxis]
        cleaned[rows] = np.where(here, np.minimum(cleaned[rows], page), cleaned[rows])


def keep_clean_ink(divided, cleaned):
    """Give ink on a page without grain all of it back, if the network kept more than half of it.

    It also comes back if it is as narrow and as sharp as print.
    """
    is_ink = divided[..., 0] < 240
    if not is_ink.any():
        return
    strokes, count = ndimage.label(is_ink, np.ones((3, 3)))
    index = np.arange(1, count + 1)
    before = 1 - ndimage.mean(divided[is_ink, 0], strokes[is_ink], index) / 255
    after = 1 - ndimage.mean(cleaned[is_ink, 0], strokes[is_ink], index)
    kept = np.r_[False, after > before / 2][strokes]
    is_lost = is_ink & ~kept
    if is_lost.any():
        lost, count = ndimage.label(is_lost, np.ones((3, 3)))
        page = divided[..., 0].astype("float32") / 255
        broad = ndimage.minimum_filter(is_lost, max_stroke(divided.shape) // 2 | 1)
        is_narrow = np.bincount(lost[broad], minlength=count + 1)[1:] == 0
        is_sharp = _sharpness(page, lost, _depths(page, lost, count)) > MIN_SHARPNESS
        kept |= np.r_[False, is_narrow & is_sharp][lost]
    kept = ndimage.binary_dilation(kept, np.ones((3, 3))) & (kept | ~is_ink)
    for rows in bands(len(cleaned)):
        page = divided[rows] / np.float32(255)
        cleaned[rows] = np.where(kept[rows, :, np.newaxis], page, cleaned[rows])


def mend_strokes(divided, grain, cleaned):
    """Complete strokes of which the network kept a good part, on a page whose ink is faint.

    There it breaks hairlines and strokes that fade out. A stroke is here what is darker than the
    paper by a sixteenth and by four standard deviations of its grain. What is missing comes back in
    the gray of the page, made darker by as much as turns nine tenths of the kept ink black. Pieces
    broader than strokes are dirt, and strokes of which little was kept may be lines of blurred
    text. Where ink is strong, most of what hangs on it is dirt, too.
    """
    step = _labeling_step(divided)
    page = divided[::step, ::step, 0] / np.float32(255)
    is_kept = cleaned[::step, ::step, 0] < 0.5
    if not is_kept.any() or 1 - np.median(page[is_kept]) > MAX_FAINT_DEPTH:
        return
    is_ink = ndimage.uniform_filter(page, 3) < 1 - max(1 / 16, 4 * grain)
    strokes, count = ndimage.label(is_kept | is_ink, np.ones((3, 3)))
    kept = np.bincount(strokes[is_kept], minlength=count + 1)
    whole = (kept > MIN_KEPT_SHARE * np.bincount(strokes.ravel()))[strokes]
    near = ndimage.maximum_filter(is_kept, 2 * MAX_REACH + 1)
    missing = ndimage.maximum_filter(whole & ~near, 2 * MAX_REACH + 1) & whole
    pieces, count = ndimage.label(missing, np.ones((3, 3)))
    if count == 0:
        return
    to_edge = ndimage.distance_transform_cdt(missing)
    half_widths = ndimage.maximum(to_edge[missing], pieces[missing], np.arange(1, count + 1))
    max_half_width = 1.5 * np.quantile(ndimage.distance_transform_cdt(is_kept)[is_kept], 0.9)
    missing = np.r_[False, half_widths <= max_half_width][pieces]
    black = np.quantile(page[is_kept], 0.9)  # the gray of the page that becomes black
    black = min(black, 0.98)  # where nearly white paper was taken for ink
    missing = enlarge(missing, step, divided.shape)
    darkened = np.maximum((divided[missing] / np.float32(255) - black) / (1 - black), 0)
    cleaned[missing] = np.minimum(cleaned[missing], darkened)


def keep_faint_ink(divided, cleaned):
    """Restore the gray of what shows through from the other side; return whether any does.

    The network makes all ink black, as it should if all of it is faint. But if strokes fall into
    a strong and a faint group by depth, which is how much darker than its paper a stroke gets, then
    the faint one may be the other side of the sheet. That has passed through paper, so its rims are
    less sharp. Faint strokes as sharp as the strong ones are ink.
    """
    step = _labeling_step(divided)
    strokes, count = ndimage.label(cleaned[::step, ::step, 0] < 0.5, np.ones((3, 3)))
    if count == 0:
        return False
    page = divided[::step, ::step, 0].astype("float32") / 255
    depths = _depths(page, strokes, count)
    areas = np.bincount(strokes.ravel(), minlength=count + 1)[1:]
    is_faint = _is_faint(depths, areas)
    if not is_faint.any():
        return False
    smooth = ndimage.gaussian_filter(page, 0.7)  # or grain would count as sharpness
    sharpness = _sharpness(smooth, strokes, depths)
    weak, strong = (np.average(sharpness[x], weights=areas[x]) for x in (is_faint, ~is_faint))
    if weak > MAX_BLURRED * strong:
        return False
    faint = np.r_[False, is_faint][strokes]
    faint = ndimage.binary_dilation(faint, iterations=2) & (faint | (strokes == 0))
    faint = enlarge(faint, step, divided.shape)
    np.divide(divided, np.float32(255), out=cleaned, where=faint)
    return True


def _labeling_step(divided):
    """Return n, where every n-th row and column of a page is used to label its strokes."""
    return math.ceil(math.sqrt(divided.size / MAX_LABELED_PIXELS))


# In what follows, `page` is divided by its paper, with values in [0, 1]. `strokes` are the numbers
# of its strokes, from 1 to `count`; 0 is paper. Both have shape (height, width).


def _depths(page, strokes, count):
    """Return by how much each stroke's darkest mean of 3x3 pixels is darker than its paper."""
    is_ink = strokes > 0
    mean = ndimage.uniform_filter(page, 3)
    return 1 - ndimage.minimum(mean[is_ink], strokes[is_ink], np.arange(1, count + 1))


def _sharpness(page, strokes, depths):
    """Return how much the rim of each stroke changes within 3x3 pixels, as a share of its depth."""
    change = ndimage.maximum_filter(page, 3) - ndimage.minimum_filter(page, 3)
    is_rim = (strokes > 0) & ~ndimage.binary_erosion(strokes > 0)
    change = ndimage.mean(change[is_rim], strokes[is_rim], np.arange(1, len(depths) + 1))
    return change / np.maximum(depths, 1 / 255)


def _is_faint(depths, areas):
    """Return which strokes are a faint group beside a strong one; Otsu's method separates them."""
    counts, edges = np.histogram(depths, bins=64, range=(0, 1), weights=areas)
    faint = np.zeros(len(depths), bool)
    if np.count_nonzero(counts) > 1:
        faint = depths <= threshold_otsu(hist=(counts, edges[1:]))
    if faint.all() or areas[faint].sum() < MIN_FAINT_SHARE * areas.sum():
        return np.zeros(len(depths), bool)
    weak, strong = (np.average(depths[group], weights=areas[group]) for group in (faint, ~faint))
    return faint & (strong > MIN_STRONG_DEPTH) & (weak < strong / 2)


def lost_ink(divided, grain, cleaned):
    """Return the share of a page's ink that is gone from the cleaned page, in [0, 1].

    Ink is here what a division by the paper finds: in the mean of 3x3 pixels darker than the paper
    by an eighth and by six standard deviations of its grain; or by a tenth and by five in a line of
    nine pixels, as a thin rule is. It is gone where all nine pixels around came out lighter than
    200 of 255, and than halfway from the page to white. If more than half of the ink in one of
    16x16 squares is gone, and it was as sharp as ink, the share is that of this square.

    Dirt as dark and narrow as a stroke counts as ink, so the share only tells which pages to look
    at. Below 300 lost pixels in a million, 40 in a square, it is 0.
    """
    height, width, _ = divided.shape
    side = max(height, width) // SQUARES + 1
    columns = np.arange(width) // side
    ink, gone, sharp = np.zeros((3, SQUARES**2))
    for rows in bands(height):
        page = divided[rows, :, 0] / np.float32(255)
        mean = ndimage.uniform_filter(page, 3)
        down, across = (ndimage.uniform_filter1d(page, 9, axis=axis) for axis in (0, 1))
        line = np.minimum(down, across)
        is_rule = (line < 1 - max(1 / 10, 5 * grain)) & (page < 1 - max(1 / 20, 2.5 * grain))
        is_ink = is_rule | (mean < 1 - max(1 / 8, 6 * grain))
        darkness = 1 - np.minimum(mean, line)
        light = np.maximum(200 / 255, 1 - darkness / 2)
        is_gone = is_ink & (ndimage.minimum_filter(cleaned[rows, :, 0], 3) > light)
        squares = SQUARES * (np.arange(rows.start, rows.stop) // side)[:, np.newaxis] + columns
        ink += np.bincount(squares[is_ink], minlength=SQUARES**2)
        if not is_gone.any():
            continue
        change = ndimage.maximum_filter(page, 3) - ndimage.minimum_filter(page, 3)
        gone += np.bincount(squares[is_gone], minlength=SQUARES**2)
        sharp += np.bincount(squares[is_gone & (change > 0.8 * darkness)], minlength=SQUARES**2)
    share = gone.sum() / ink.sum() if gone.sum() > 300e-6 * cleaned.size else 0
    worst = np.where(sharp > 40e-6 * cleaned.size, sharp / np.maximum(ink, 1), 0).max()
    return float(max(share, worst if worst > 0.5 else 0))
