"""What lies under the ink of a page: its paper, colored areas such as marker, and dark areas."""

import functools
import math

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import rank

from common import images

MAX_STROKE_SHARE = 1 / 160  # of a page's longer side: broader color is no stroke, but an area
MIN_STROKE = 11  # pixels; the same on a small page
MAX_BOX_SHARE = 0.2  # of a shadow that is in dark boxes; low, because dense text hides their edges
# A ground can carry light text if its darkest channel, as a share of the paper's, and its gray are
# below these.
DARK, MAX_LIGHTNESS = 0.5, 0.6
MIN_TEXT_CONTRAST = 0.3  # of light text to a dark ground, as a share of the paper's lightness
# Of a dark ground in color: its lightest channel less its darkest, as a share of the paper's
# lightness and of the lightest; no stain is as colored.
MIN_CHROMA, MIN_SATURATION = 0.15, 0.65
MIN_DARK_STROKES = 30  # squares as wide as a broad stroke that a dark ground must cover
MIN_EDGE = 0.3  # of a dark box: how much lighter the paper is beside it, as a share of it
MAX_LETTER = 4  # times the window: larger letters on a dark ground are no part of it
MIN_LIGHT_SHARE, MAX_LIGHT_SHARE = 0.003, 0.6  # of a dark ground that its light text covers
# Lightness of a picture, as a share of the paper's, and of what stays dark of it when it is torn;
# and by how much the rest gets lighter.
MAX_PICTURE, MAX_STAYS_DARK, MIN_LIGHTENED = 0.8, 0.65, 0.25


def bands(height):
    """Return slices of 512 rows each, so that no full page in color is copied as floats."""
    return [slice(top, min(top + 512, height)) for top in range(0, height, 512)]


def enlarge(values, step, shape, rows=slice(None)):
    """Return values at every `step`-th pixel at full size, (height, width, 1), or some rows."""
    rows, columns = np.arange(shape[0])[rows] // step, np.arange(shape[1]) // step
    return values[rows][:, columns, np.newaxis]


def to_gray(pixels):
    """Return the gray of pixels, float32 of shape (height, width, 1)."""
    if pixels.shape[2] == 1:
        return pixels.astype("float32")
    return images.luminance(pixels)[..., np.newaxis]


def darkest(pixels):
    """Return each pixel's darkest channel, shape (height, width, 1).

    NumPy's minimum along an axis is slow where the axis is this short.
    """
    return functools.reduce(np.minimum, np.moveaxis(pixels, -1, 0))[..., np.newaxis]


def lightest(pixels):
    """Return each pixel's lightest channel, shape (height, width, 1)."""
    return functools.reduce(np.maximum, np.moveaxis(pixels, -1, 0))[..., np.newaxis]


def ramp(values, low, high):
    """Return 0 up to `low`, 1 from `high` on, and a straight line in between."""
    return np.clip((values - low) / (high - low), 0, 1)


def estimate_paper(pixels, side=200, window=41, min_share=0.35):
    """Return (function that gives the paper's color in some rows, grain of the paper).

    The color is the median over a square, float32 of shape (rows, width, channels), or of every
    n-th row and column if n is its second argument. By default the square is a fifth of the page
    wide, so that neither a blot nor a broad marker counts as paper. Pixels of another color than
    most of the page do not count, nor do much darker ones if there are others. The grain is a
    standard deviation, as a share of the paper's color.

    `pixels` are uint8, shape (height, width, channels). Every n-th is used, so that at most about
    twice `side` are along a side; `window` is the side of the square, in used pixels, of which at
    least `min_share` must be paper; less may be light text on a dark ground.
    """
    height, width, channels = pixels.shape
    step = max(1, max(height, width) // side)
    small = pixels[::step, ::step].copy()
    square = np.ones((window, window), bool)
    typical = np.median(small, axis=(0, 1))
    divided = divide(small, typical)
    same_color = np.ptp(divided, axis=-1) < 0.25
    is_paper = same_color & (divided.min(-1) > DARK)

    def median(mask=None):
        return np.stack(
            [rank.median(small[..., channel], square, mask=mask) for channel in range(channels)], -1
        )

    paper = median(is_paper.astype(np.uint8))
    alone = ndimage.uniform_filter(is_paper.astype("float32"), window) < min_share
    if alone.all():
        paper = median()
    elif alone.any():
        boxes = _in_boxes(divided.min(-1))
        areas, count = ndimage.label(alone)
        box_share = ndimage.mean(boxes, areas, np.arange(count + 1))
        shaded = alone & same_color & ~boxes & (box_share < MAX_BOX_SHARE)[areas]
        rows, columns = ndimage.distance_transform_edt(
            alone, return_distances=False, return_indices=True
        )
        paper = paper[rows, columns]
        if shaded.any():
            paper = np.where(shaded[..., None], median(), paper)
    grain = 1.4826 * float(np.median(np.abs(small / np.maximum(paper, 1.0) - 1)))
    image = Image.fromarray(paper if channels == 3 else paper[..., 0])

    def color_in(rows, step=1):
        top, bottom = (edge / height * image.height for edge in (rows.start, rows.stop))
        size = math.ceil(width / step), math.ceil((rows.stop - rows.start) / step)
        box = (0, top, image.width, bottom)
        band = image.resize(size, Image.Resampling.BILINEAR, box=box)
        return np.atleast_3d(np.asarray(band, "float32"))

    return color_in, grain


def _in_boxes(lightness):
    """Return where dark areas have a sharp edge, as no shadow has, bool (height, width)."""
    lightness = ndimage.grey_closing(lightness, (5, 5))  # without ink
    areas, count = ndimage.label(lightness <= DARK)
    rim = (areas > 0) & ndimage.binary_dilation(areas == 0)
    change = ndimage.maximum_filter(lightness, 3) - ndimage.minimum_filter(lightness, 3)
    sharpness = ndimage.median(change, np.where(rim, areas, 0), np.arange(count + 1))
    return ndimage.binary_fill_holes((sharpness > MIN_EDGE)[areas] & (areas > 0))


def _divided(pixels, paper, rows, step=1):
    """Return every `step`-th pixel of some rows divided by its paper, uint8."""
    result = pixels[rows][::step, ::step].copy()
    for band in bands(len(result)):
        place = slice(rows.start + band.start * step, min(rows.start + band.stop * step, rows.stop))
        divided = result[band] * np.float32(255) / np.maximum(paper(place, step), 1)
        result[band] = np.round(np.minimum(divided, 255))
    return result


def max_stroke(shape):
    """Return how many pixels the broadest stroke on a page of a shape is wide, an odd number."""
    return max(MIN_STROKE, round(max(shape[:2]) * MAX_STROKE_SHARE)) | 1


def find_dark_ground(pixels, paper, with_text=True):
    """Return where a page's ground is dark, bool (height, width, 1), or None if it is nowhere.

    Ground is what covers most of a square that is somewhat broader than a stroke. It is dark if it
    and one of its channels are about half as light as the paper; no marker is. `with_text` demands
    that it carries light text, or has a color that no stain has; blots and the scanner's black
    borders do not.

    `pixels` are uint8, shape (height, width, channels), `paper` is `estimate_paper`'s function.
    """
    stroke = max_stroke(pixels.shape)
    step = max(1, stroke // 5)
    divided = _divided(pixels, paper, slice(0, len(pixels)), step)
    lightness = to_gray(divided)[..., 0] / 255
    dark = (lightness < MAX_LIGHTNESS) & (darkest(divided)[..., 0] < DARK * 255)
    window = round(1.6 * stroke / step)
    ground = ndimage.uniform_filter(dark.astype("float32"), window) > 0.5
    if with_text:
        areas, count = ndimage.label(ground)
        index = np.arange(count + 1)
        # Dark ground encloses its light text; the light between thick black letters is paper.
        with np.errstate(invalid="ignore"):  # an area without light text, or without anything dark
            # The rest gets a number that is not in index; a negative one would be slow.
            of_dark = np.where(dark, areas, count + 1)
            dark_lightness = ndimage.mean(lightness, of_dark, index)
            # What is hardly lighter than the dark is its grain.
            is_text = ~dark & (lightness - dark_lightness[areas] > MIN_TEXT_CONTRAST / 2)
            enclosed = ndimage.binary_fill_holes(dark) & is_text
            share = ndimage.mean(enclosed, areas, index)
            light_share = ndimage.mean(is_text, areas, index)
            text = ndimage.mean(lightness, np.where(enclosed, areas, count + 1), index)
            contrast = text - dark_lightness
            low = ndimage.mean(darkest(divided)[..., 0], of_dark, index) / 255
            high = ndimage.mean(lightest(divided)[..., 0], of_dark, index) / 255
        carries_text = (share > MIN_LIGHT_SHARE) & (share < MAX_LIGHT_SHARE)
        carries_text &= share > light_share / 2
        carries_text &= contrast > MIN_TEXT_CONTRAST
        is_colored = high - low > np.maximum(MIN_CHROMA, MIN_SATURATION * high)
        is_large = np.bincount(areas.ravel()) * step**2 > MIN_DARK_STROKES * stroke**2
        ground &= ((carries_text | is_colored) & is_large)[areas]
    if not ground.any():
        return None
    rest, _ = ndimage.label(~ground)
    is_letter = np.bincount(rest.ravel()) < (MAX_LETTER * window) ** 2
    ground |= is_letter[rest]
    ground = ndimage.binary_dilation(ground, np.ones((3, 3)), iterations=2)
    return enlarge(ground, step, pixels.shape)


def is_torn(pixels, cleaned):
    """Return whether a cleaned page has a torn picture: a part of it turned white, and a part not.

    A picture is here a dark area that is broader than a stroke. A stain turns white as a whole.

    `pixels` and `cleaned` are the page before and after, uint8, shape (height, width, 1 or 3).
    """
    stroke = max_stroke(pixels.shape)
    step = max(1, stroke // 5)
    window = round(1.6 * stroke / step)
    paper, _ = estimate_paper(pixels)
    paper = to_gray(paper(slice(0, len(pixels)), step))[..., 0]
    before = _reduced_gray(pixels, step)
    light = max(np.quantile(before, 0.9), 1)
    # A picture that covers most of the page was taken for paper.
    paper = np.where(_in_boxes(before / light), light, paper)
    before = divide(before, paper)
    after = _reduced_gray(cleaned, step) / 255
    # Without what is as narrow as a stroke.
    before, after = (ndimage.grey_closing(page, (window, window)) for page in (before, after))
    pictures, count = ndimage.label(before < MAX_PICTURE)
    # A rim that became sharper is no part of a picture.
    lightened = ndimage.binary_opening(after - before > MIN_LIGHTENED, np.ones((3, 3)))
    lightened = np.bincount(pictures[lightened], minlength=count + 1)
    dark = np.bincount(pictures[after < MAX_STAYS_DARK], minlength=count + 1)
    return bool((np.minimum(lightened, dark)[1:] > window**2 / 2).any())


def _reduced_gray(pixels, step):
    """Return the gray of a page, uint8, as means over squares of `step` pixels."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    return np.asarray(image.convert("L").reduce(step))


def find_color_areas(pixels, paper, besides=None):
    """Return by how much areas of color darken a page's paper, or None if there are none.

    They are what remains when everything as narrow as a stroke is filled in: a maximum over each
    neighborhood, then a minimum. The result is uint8, shape (height, width, 3); 255 is paper.

    `pixels` are uint8, shape (height, width, 3), `paper` is `estimate_paper`'s function, `besides`
    where no color counts, bool (height, width, 1), or None.
    """
    height = len(pixels)
    stroke = max_stroke(pixels.shape)
    step = max(1, stroke // 5)
    colored = np.ptp(_divided(pixels, paper, slice(0, height), step), axis=-1) > 0.1 * 255
    broad = ndimage.binary_opening(colored, np.ones((4, 4)))
    if not broad.any():
        return None
    areas = np.full(pixels.shape, 255, np.uint8)
    # Closed only where there is color, with room for both filters.
    rows, columns = (
        slice(max(0, (part.start - 1) * step - 2 * stroke), part.stop * step + 2 * stroke)
        for part in ndimage.find_objects(broad.astype(np.uint8))[0]
    )
    rows = slice(rows.start, min(rows.stop, height))
    divided = _divided(pixels, paper, rows)
    for channel in range(3):
        areas[rows, columns, channel] = ndimage.grey_closing(
            divided[:, columns, channel], (stroke, stroke)
        )
    for band in bands(height):
        strength = ramp((lightest(areas[band]) - darkest(areas[band])) / np.float32(255), 0.1, 0.25)
        if besides is not None:
            strength[besides[band]] = 0
        areas[band] = np.round(255 - strength * (255 - areas[band]))
    return areas


def divide(pixels, ground, absorbed=None):
    """Return pixels divided by their ground, in [0, 1].

    A channel that the ground absorbs says little about the ink on it: it becomes as dark as the
    darkest of the others. `absorbed` is how much of each pixel's channels is, from 0 to 1.
    """
    divided = np.minimum(pixels / np.maximum(ground, 1), 1)
    if absorbed is not None:
        divided += absorbed * (darkest(np.where(absorbed > 0, 1, divided)) - divided)
    return divided


def without_color_areas(pixels, areas, paper):
    """Return rows of a page, uint8, as they are without areas of color: paper and ink."""
    ground = paper * areas / np.float32(255)
    replacement = divide(pixels, ground, absorbed=areas < 0.6 * lightest(areas)) * paper
    result = np.where(darkest(areas) == 255, pixels, replacement)
    return np.round(result).astype(np.uint8)
