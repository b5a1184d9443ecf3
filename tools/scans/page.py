"""A page of any size, gray or in color, through the network that cleans documents."""

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tools import tiles
from tools.scans.ground import (
    bands,
    darkest,
    divide,
    estimate_paper,
    find_color_areas,
    find_dark_ground,
    lightest,
    ramp,
    to_gray,
    without_color_areas,
)
from tools.scans.ink import correct, divide_by_paper, lost_ink

# Pixels. What is farther away than the margin changes a cleaned page by less than 1/255. An A4
# page at 300 dpi takes four tiles.
TILE, MARGIN = 1760, 224
MULTIPLE = 32  # the U-Net takes sides that are multiples of it
MAX_SMALL = 1_000_000  # pixels of a small page, whose letters are few pixels tall
# Of a page from a computer: share of the pixels that are like their left neighbor; number of flat
# colors; number of all colors; side in pixels of a square that is broader than an antialiased edge.
MIN_FLAT_SHARE, FLAT_COLORS, MIN_COLORS, BROAD = 0.8, 8, 40, 5
MAX_BROAD_SHARE = 1e-5  # of the pixels: those in broad areas that have no flat color
MAX_NEGATIVE = 0.45 * 255  # gray that half of a negative is darker than
# Light in one channel of colored paper, as a share of its lightest: a channel with less says little
# about the ink.
REFLECTED = 0.4, 0.6


def cleaner(network):
    """Return a function that cleans a page of any size, tile by tile, without visible seams.

    It takes a page, float32 in [0, 1], shape (height, width, 1), and optionally what
    `divide_by_paper` returns for it, and returns the cleaned page. A small page is cleaned twice,
    the second time upside down, and averaged: nearly all of the error is at the edges of letters,
    and there the two differ. White paper and clean ink stay as they are, and ink that is much
    fainter than the rest stays faint.
    """
    # With height and width None it is traced only once: half again as fast as calling the network.
    any_size = tf.TensorSpec((1, None, None, 1), "float32")

    @tf.function(input_signature=[any_size], autograph=False)
    def run(tile):
        return network(tile, training=False)

    def clean_tile(tile):
        padded = tiles.pad_to_multiple(tile, MULTIPLE)[np.newaxis]
        return np.asarray(run(padded))[0, : tile.shape[0], : tile.shape[1]]

    def clean_once(page):
        return tiles.in_tiles(clean_tile, np.asarray(page, "float32"), TILE, MARGIN)

    def clean(page, by_paper=None):
        cleaned = clean_once(page)
        if page.size <= MAX_SMALL:
            cleaned = (cleaned + clean_once(page[::-1, ::-1])[::-1, ::-1]) / 2
        divided, grain = by_paper or divide_by_paper(page)
        correct(divided, grain, cleaned)
        return cleaned

    return clean


def clean_page(clean, pixels, color=True):
    """Return (cleaned pixels, share of the ink that was lost).

    The network sees colored ink as dark as it is in its darkest channel: in gray, a red stamp is
    only half as dark. The ink that the network keeps then gets its color back. Where a color is
    none that stains have, the ink stays whatever the network does. Areas of color, such as marker,
    are removed before and restored afterwards. Light text on a dark ground stays as it is; of a
    page that is dark as a whole, the negative is cleaned. With `color`, a page from a computer is
    returned as it is.

    Args:
        clean: function that `cleaner` returns.
        pixels: uint8, shape (height, width, 1 or 3); cleaned ones have 1 channel if all is gray.
        color: whether colored ink stays colored.
    """
    if color and _is_born_digital(pixels):
        return _without_equal_channels(pixels), 0.0
    negative = _is_negative(pixels)
    if negative:
        pixels = 255 - pixels
    height, width, channels = pixels.shape
    color = color and channels == 3
    paper, _ = estimate_paper(pixels)
    dark = find_dark_ground(pixels, paper, with_text=not negative)
    areas = find_color_areas(pixels, paper, dark) if channels == 3 else None
    gray = np.empty((height, width, 1), "float32")
    page = gray if dark is None else np.empty_like(gray)
    if areas is not None:
        pixels = pixels.copy()
    for rows in bands(height):
        if areas is not None:
            pixels[rows] = without_color_areas(pixels[rows], areas[rows], paper(rows))
        gray[rows] = _darken_colors(pixels[rows], paper(rows))
        if dark is not None:  # the network sees paper in its place
            page[rows] = np.where(dark[rows], to_gray(paper(rows)) / 255, gray[rows])
    divided, grain = divide_by_paper(page)
    if dark is not None and grain:  # beside flat paper, the network would take grain for ink
        darker = divided[~dark & (divided < 255)]
        # The standard deviation beside the dark ground; `grain` counts the flat paper, too.
        deviation = 1.4826 * np.median(255 - darker) / 255 if darker.size else grain
        noise = np.random.default_rng(0).normal(1, deviation, dark.sum())
        page[dark] = np.minimum(page[dark] * noise, 1)
    cleaned = clean(page, (divided, grain))
    for rows in bands(height):
        if channels == 3:
            cleaned[rows] = _keep_strong_colors(cleaned[rows], pixels[rows], paper(rows))
        if dark is not None:
            as_it_is = divide(gray[rows] * 255, to_gray(paper(rows)))
            cleaned[rows] = np.where(dark[rows], as_it_is, cleaned[rows])
    lost = lost_ink(divided, grain, cleaned)
    result = np.empty((height, width, 3 if color else 1), np.uint8)
    for rows in bands(height):
        light = cleaned[rows]
        if color:
            light = light + (1 - light) * _tint(pixels[rows], paper(rows))
        if areas is not None:
            light *= _strong_areas(areas[rows]) if color else to_gray(_strong_areas(areas[rows]))
        if color and dark is not None:
            in_color = divide(pixels[rows], paper(rows))
            light = np.where(dark[rows], in_color, light)
        if negative:
            light = 1 - light * (paper(rows) if color else to_gray(paper(rows))) / 255
        result[rows] = np.round(light * 255)
    return _without_equal_channels(result), lost


def _without_equal_channels(pixels):
    """Return a page with one channel if all of it is gray."""
    is_gray = all((pixels[rows] == pixels[rows, :, :1]).all() for rows in bands(len(pixels)))
    return pixels[..., :1] if is_gray else pixels


def _is_born_digital(pixels):
    """Return whether a page was never on paper, so that it has no dirt.

    It is dark, or white without the brown of a stain, and a few exact colors cover all but its
    antialiased edges. On a scan, grain gives nearly every pixel a color of its own. A page of few
    colors in all may be a scan in 1 to 5 bits.
    """
    step = max(1, max(pixels.shape) // 200)
    sample = _packed(pixels[::step])
    if (sample[:, 1:] == sample[:, :-1]).sum() < MIN_FLAT_SHARE * sample.size:
        return False
    colors, counts = np.unique(sample, return_counts=True)
    flat = colors[np.argsort(-counts)[:FLAT_COLORS]]
    red, green, blue = flat >> 16, flat >> 8 & 255, flat & 255
    is_brown = (red > 100) & (red >= green) & (green >= blue)
    is_brown &= (red - blue > 12) & (red - blue < 115)
    is_white = min(red[0], green[0], blue[0]) >= 250
    is_dark = green[0] <= MAX_NEGATIVE
    if len(colors) < MIN_COLORS or not (is_white or is_dark) or (is_white and is_brown.any()):
        return False
    for rows in bands(len(pixels)):
        is_other = ~np.isin(_packed(pixels[rows]), flat)
        broad = ndimage.binary_erosion(is_other, np.ones((BROAD, BROAD)))
        if broad.sum() > MAX_BROAD_SHARE * broad.size:
            return False
    return True


def _packed(pixels):
    """Return each pixel's color as one number, 0xRRGGBB."""
    weights = [0x10101] if pixels.shape[2] == 1 else [0x10000, 0x100, 1]
    return pixels @ np.array(weights, np.int32)


def _is_negative(pixels):
    """Return whether a page is dark, and what is on it is light."""
    gray = to_gray(pixels[::4, ::4])
    low, median, high = np.quantile(gray, [0.005, 0.5, 0.995])
    return median < MAX_NEGATIVE and high - median > median - low


# In what follows, `pixels` and `paper` are rows of a page and of its paper, values up to 255.


def _chroma(pixels, paper):
    """Return (pixels divided by their paper, darkest channel, lightest less darkest channel)."""
    absorbed = None
    sample = paper[::8, ::8]  # enough to see whether it is colored
    if (sample < REFLECTED[1] * lightest(sample)).any():
        absorbed = 1 - ramp(paper / np.maximum(lightest(paper), 1), *REFLECTED)
    divided = divide(pixels, paper, absorbed)
    dark = darkest(divided)
    return divided, dark, lightest(divided) - dark


def _strong_areas(areas):
    """Return how light areas of color are in [0, 1], and 1 where they may be a stain."""
    areas = areas / np.float32(255)
    return 1 - _no_stain(areas) * (1 - areas)


def _no_stain(divided):
    """Return how surely colors are not those of a stain, in [0, 1], shape (height, width, 1).

    Stains are brown: weak in color, with red as the lightest channel.
    """
    light = lightest(divided)
    chroma = light - darkest(divided)
    not_brown = ramp(light - divided[..., :1], 0.03, 0.08)
    return np.maximum(ramp(chroma, 0.3, 0.45), not_brown * ramp(chroma, 0.15, 0.25))


def _darken_colors(pixels, paper):
    """Return rows in gray, float32 in [0, 1], with colored ink as dark as its darkest channel."""
    if pixels.shape[2] == 1:
        return pixels.astype("float32") / 255
    _, dark, chroma = _chroma(pixels, paper)
    gray = to_gray(pixels)
    darker = np.minimum(dark * to_gray(paper), gray)
    return (gray + ramp(chroma, 0.1, 0.25) * (darker - gray)) / 255


def _keep_strong_colors(cleaned, pixels, paper):
    """Return cleaned rows in gray, with the ink whose color is too strong for a stain."""
    divided, dark, _ = _chroma(pixels, paper)
    return cleaned + _no_stain(divided) * (np.minimum(cleaned, dark) - cleaned)


def _tint(pixels, paper):
    """Return by how much each channel of ink is lighter than the darkest, in [0, 1]; 0 is gray."""
    divided, dark, chroma = _chroma(pixels, paper)
    return ramp(chroma, 0.1, 0.25) * (divided - dark) / np.maximum(1 - dark, 1e-3)
