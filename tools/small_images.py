"""User pictures, prepared like the images of 28x28 pixels that a model was trained on."""

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.morphology import skeletonize

from common import data, images, plotting
from common.data import SIDE

DIGIT_SIDE = 20  # MNIST's digits fit into 20x20 pixels
STROKE = 2.2  # pixels, of MNIST's pen; strokes thinner than MIN_STROKE are redrawn
MIN_STROKE = 1.3
# Strokes are narrower than WINDOW pixels where the longer side of a picture has BACKGROUND_SIDE. A
# background is even if it varies along the border by less than UNEVEN of the strokes' contrast.
BACKGROUND_SIDE, WINDOW, UNEVEN = 192, 49, 0.08
MAX_SHOWN = 400  # pixels of a picture's longer side on a sheet
DIGITS = ("MNIST", "synthetic digits")
CLOTHES = ("Fashion-MNIST", "synthetic clothes")


def prepare(picture, dataset_name, invert=True):
    """Return (image, inverted): a picture as a model expects it, and whether it was inverted.

    MNIST and Fashion-MNIST are light on dark, so dark on light is inverted. For a model that was
    trained on the user's own pictures the whole picture is fitted into the square, as they were.

    Args:
        picture: float32 in [0, 1], shape (height, width, 1); it becomes (28, 28, 1).
        dataset_name: what the model was trained on, see `training.trained_on`.
        invert: whether a picture may be inverted.
    """
    inverted = False
    if dataset_name in DIGITS and picture.shape[:2] != (SIDE, SIDE):
        picture = remove_shadow(picture)
    if invert and not dataset_name.startswith(data.OWN_PREFIX):
        picture, inverted = light_on_dark(picture)
    if picture.shape[:2] == (SIDE, SIDE):
        return picture, inverted
    if dataset_name in DIGITS:
        return center_strokes(picture), inverted
    if dataset_name in CLOTHES:  # Xiao et al. 2017, https://arxiv.org/abs/1708.07747, section 2
        piece, black, _, _ = _crop(picture)
        return images.fit_square(piece, SIDE, black), inverted
    return images.fit_square(picture, SIDE), inverted


def remove_shadow(image):
    """Return a picture of strokes, shape (height, width, 1), whose background has one gray level.

    The background is what a closing leaves of dark ink, or an opening of light strokes: it removes
    what is narrower than its window, and keeps gradients and the straight edges of shadows. Where
    it is even already the picture comes back unchanged.
    """
    small = images.resize_to(image, BACKGROUND_SIDE)[..., 0]
    few = np.log(small[::3, ::3] + 0.05)  # enough to tell whether the ink is dark
    is_dark_ink = ((few - ndimage.median_filter(few, WINDOW // 2, mode="nearest")) ** 3).sum() < 0
    fill = ndimage.grey_closing if is_dark_ink else ndimage.grey_opening
    # A frame that shadows may continue into, whatever their angle.
    framed = np.pad(small, WINDOW, constant_values=0 if is_dark_ink else 1)
    background = fill(framed, (WINDOW, WINDOW))[WINDOW:-WINDOW, WINDOW:-WINDOW]
    contrast = np.abs(small - background).max()
    if np.ptp(images.border_of(background)) < UNEVEN * contrast:
        return image
    background = images.resize(
        background[..., np.newaxis], *image.shape[:2], Image.Resampling.BILINEAR
    )
    # Light falls on ink and paper alike: their quotient does not depend on it.
    evened = image / np.maximum(background, 1 / 255) if is_dark_ink else image - background
    return np.clip(evened, 0, 1)


def light_on_dark(image):
    """Return (image, inverted): inverted if what stands out from its border is darker."""
    difference = ndimage.gaussian_filter(image, max(image.shape) / 200)
    difference = difference - np.median(images.border_of(image))
    contrast = np.abs(difference).max()
    salient = np.abs(difference) > contrast / 2
    inverted = bool(contrast >= 0.1 and (difference[salient] < 0).mean() > 0.8)
    return (1 - image if inverted else image), inverted


def center_strokes(image):
    """Return light strokes on dark as MNIST has them, (28, 28, 1), from a picture of any size.

    It is cropped to what stands out from its border, scaled until the longer side has 20 pixels,
    and moved until the center of mass is in the middle: LeCun et al. 1998,
    http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf. Gray values are stretched so that the border
    becomes black and the strokes white. Thin strokes become as thick as MNIST's, or the scaling
    would average them away.
    """
    piece, black, white, strokes = _crop(image)
    if white == black:
        return images.fit_square(image, SIDE)
    piece = np.clip((piece - black) / (white - black), 0, 1).astype("float32")
    piece = thicken(piece, strokes)
    small = images.resize_to(piece, DIGIT_SIDE, Image.Resampling.BILINEAR)
    height, width = small.shape[:2]
    row, column = ndimage.center_of_mass(small[..., 0])
    top = int(np.clip(round((SIDE - 1) / 2 - row), 0, SIDE - height))
    left = int(np.clip(round((SIDE - 1) / 2 - column), 0, SIDE - width))
    digit = np.zeros((SIDE, SIDE, 1), "float32")
    digit[top : top + height, left : left + width] = small
    return digit


def thicken(image, strokes):
    """Return an image cropped to its strokes, which are redrawn if too thin for DIGIT_SIDE.

    The image has light strokes on black, float32 in [0, 1], shape (height, width, 1); `strokes` is
    a mask that covers them, bool of shape (height, width).
    """
    skeleton = skeletonize(strokes)
    width = image[strokes].sum() / skeleton.sum()  # area by length
    if width * DIGIT_SIDE / max(image.shape[:2]) >= MIN_STROKE:
        return image
    [box] = ndimage.find_objects(skeleton.astype(np.uint8))
    skeleton = skeleton[box]
    radius = STROKE / 2 * max(skeleton.shape) / (DIGIT_SIDE - STROKE)
    skeleton = np.pad(skeleton, round(radius))
    distance = ndimage.distance_transform_edt(~skeleton)
    return np.clip(radius + 0.5 - distance, 0, 1).astype("float32")[..., np.newaxis]


def _crop(image):
    """Return (piece, black, white, salient): an image cropped to what is lighter than its border.

    `black` is the gray value of the border, `white` that of most of what stands out. If nothing
    does, they are equal and the piece is the full image. Specks are ignored. `salient` is where
    something stands out in the piece, bool of shape (height, width).
    """
    smooth = ndimage.gaussian_filter(image[..., 0], max(image.shape) / 100)
    black = np.median(images.border_of(image))
    brightest = smooth.max()  # below the border's median where nothing is lighter
    white = np.median(smooth[smooth >= min((black + brightest) / 2, brightest)])
    if white - black < 0.05:
        return image, black, black, np.zeros(smooth.shape, bool)
    blobs, count = ndimage.label(smooth > (black + white) / 2)
    areas = ndimage.sum_labels(np.ones_like(smooth), blobs, np.arange(1, count + 1))
    min_area = min(0.03 * areas.sum(), areas.max() / 2)  # of many similar ones, none is a speck
    salient = np.isin(blobs, 1 + np.flatnonzero(areas >= min_area))
    [box] = ndimage.find_objects(salient.astype(np.uint8))
    return image[box], black, white, salient[box]


def write_sheet(path, picture, prepared, results):
    """Write a figure that shows whether a result can be trusted.

    The user's picture may have any size; what the network was given, and the results, {label: what
    it made of it}, have shape (28, 28, 1).
    """
    if max(picture.shape) > MAX_SHOWN:
        picture = images.resize_to(picture, MAX_SHOWN)
    plotting.image_grid(
        {"": [picture, prepared, *results.values()]},
        path,
        title="What the network was given and what it made of it",
        caption="A network knows only images like those it was trained on. If the second one does"
        " not look like them, the result means little.",
        column_titles=["your picture", "as the network sees it", *results],
        cell=1.8,
    )
