"""Pictures of the reader's for a model of 28x28 pixels: made like its training images.

A picture that stays unlike them gets a warning. What they are like stands in metrics.json, under
`typical`.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

from common import data
from common.files import printable
from common.own_pictures import border_of, fit_square, read_on_any_ground, scaled

SIDE, TALL = 28, 20  # pixels; MNIST's digits fit into 20x20 of them
_WAYS = {"dark": "light on dark", "light": "dark on light"}


def ground(image):
    """Return the ground of an image, shape (height, width, 1): "dark" or "light".

    None: what stands out from its border is partly darker, partly lighter, or nothing does.
    """
    border = np.median(border_of(image))
    smooth = ndimage.gaussian_filter(image, max(image.shape) / 200)
    off = smooth - border
    strong = np.abs(off) > np.abs(off).max() / 2
    if np.abs(off).max() < 0.1:
        return None
    lighter = (off[strong] > 0).mean()
    return "dark" if lighter > 0.8 else "light" if lighter < 0.2 else None


def missed(images, rebuilt):
    """Return the squared error of each image as a share of its variance, shape (n,).

    A smooth photo has a small error under any model, but a small variance, too: the ratio tells.
    """
    errors = np.square(rebuilt - images).mean((1, 2, 3))
    return errors / np.maximum(images.var((1, 2, 3)), 1e-3)


def thickness(images):
    """Return how thick the bright parts of each image are, shape (n,), in pixels.

    A photo that is cropped like a digit often comes out as one thick stroke, which any denoiser
    returns without much error.
    """
    bright = np.pad(images[..., 0] > 0.5, [(0, 0), (1, 1), (1, 1)])
    return 2 * np.array([ndimage.distance_transform_edt(each).max() for each in bright])


def typical(images, rebuilt, noisy=None, denoised=None):
    """Return what is kept of a model's test images, to compare a reader's pictures with.

    Args:
        images: test images, shape (n, 28, 28, 1).
        rebuilt: what the model made of them.
        noisy, denoised: the same of those images under noise, where it is a denoiser.

    Returns:
        A dict: `ground`, "dark", "light" or None, that of four in five of the images; `missed_995`,
        what 99.5% of them stay below in `missed`; `missed_995_noisy`; `thickest`, the greatest
        `thickness`.
    """
    grounds = [ground(image) for image in images[:500]]
    most = max(set(grounds), key=grounds.count)
    kept = {"ground": most if grounds.count(most) >= 0.8 * len(grounds) else None}
    kept["missed_995"] = float(np.quantile(missed(images, rebuilt), 0.995))
    kept["thickest"] = float(thickness(images).max())
    if noisy is not None:
        kept["missed_995_noisy"] = float(np.quantile(missed(noisy, denoised), 0.995))
    return kept


def turned(image, path, known, invert=True):
    """Return (image, whether it was inverted): with the ground that the training images have.

    It prints what was found. `known` is of `inputs.known_of`.
    """
    found, wanted = ground(image), known["ground"]
    if {found, wanted} != {"dark", "light"}:
        return image, False
    said = f"{path}: {_WAYS[found]}, where the model's training images are {_WAYS[wanted]}"
    way = "inverted; --no-invert keeps it" if invert else "kept, the result may mean little"
    print(f"{said}: {way}.", flush=True)
    return (1 - image if invert else image), invert


def read_small(path, known, invert=True):
    """Return (image of 28x28 pixels, whether it was inverted) of a file, as a model knows them.

    Digits become as MNIST has them, see `centre_strokes`, clothes as Fashion-MNIST has them, see
    `fill_square`; for any other model the whole picture is fitted into the square. `known` is of
    `inputs.known_of`.
    """
    image, inverted = turned(read_on_any_ground(path), path, known, invert)
    if image.shape[:2] != (SIDE, SIDE):
        if known["dataset"] in data.DIGITS:
            return centre_strokes(image), inverted
        if known["dataset"] in data.CLOTHES:
            return fill_square(image), inverted
    return fit_square(image, SIDE), inverted


def _cropped(image):
    """Return (piece, black, white): what stands out from an image's border, but for specks.

    `black` is the border's grey level, `white` that of most of what stands out. Nothing does if
    they are the same; then the piece is the whole image.
    """
    smooth = ndimage.gaussian_filter(image[..., 0], max(image.shape) / 100)
    black = np.median(border_of(image))
    most = smooth.max()  # below the border's where nothing is lighter
    white = np.median(smooth[smooth >= min((black + most) / 2, most)])
    if white - black < 0.05:
        return image, black, black
    pieces, count = ndimage.label(smooth > (black + white) / 2)
    areas = ndimage.sum_labels(np.ones_like(smooth), pieces, np.arange(1, count + 1))
    strokes = np.isin(pieces, 1 + np.flatnonzero(areas > 0.03 * areas.sum()))
    rows, columns = (np.flatnonzero(strokes.any(axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], black, white


def fill_square(image):
    """Return clothes on black as Fashion-MNIST has them, (28, 28, 1), from a picture of any size.

    The picture is cropped to what stands out from its border, then fitted into the square: Xiao et
    al. 2017, https://arxiv.org/abs/1708.07747, 2.
    """
    piece, black, _ = _cropped(image)
    return fit_square(piece, SIDE, black)


def centre_strokes(image):
    """Return white strokes on black as MNIST has them, (28, 28, 1), from a picture of any size.

    It is cropped to what stands out from its border, scaled until the longer side has 20 pixels,
    and moved until the centre of mass is in the middle: LeCun et al. 1998,
    http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf. Grey levels are stretched from the border's
    to the strokes'.
    """
    piece, black, white = _cropped(image)
    if white == black:
        return fit_square(image, SIDE)
    piece = np.clip((piece - black) / (white - black), 0, 1).astype("float32")
    height, width = (max(1, round(n * TALL / max(piece.shape[:2]))) for n in piece.shape[:2])
    small = scaled(piece, height, width, Image.Resampling.BILINEAR)
    centre = ndimage.center_of_mass(small[..., 0])
    top, left = (
        int(np.clip(round((SIDE - 1) / 2 - middle), 0, SIDE - side))
        for middle, side in zip(centre, (height, width), strict=True)
    )
    digit = np.zeros((SIDE, SIDE, 1), "float32")
    digit[top : top + height, left : left + width] = small
    return digit


def unlike(image, rebuilt, known):
    """Return a sentence where a picture is unlike what models were trained on, or "".

    Its thickness decides, or the error of most of the models, or that none makes anything of it.

    Args:
        image: what each model was given, shape (height, width, 1).
        rebuilt: [what each made of it], in the image's shape.
        known: [`inputs.known_of` of each].
    """
    said = "unlike the images that the model was trained on. {} The result means little.".format
    thick, thickest = thickness(image[None])[0], max(each["thickest"] for each in known)
    if thick > 1.1 * thickest:  # only a few thousand images were measured
        return said(
            f"Parts of it are {thick:.0f} pixels thick, in the test images {thickest:.0f} at most."
        )
    errors = missed(image[None], np.stack(rebuilt))
    noisy = np.subtract(*np.quantile(border_of(image), [0.75, 0.25])) > 0.05
    if not noisy and min(errors) >= 1:  # as of an even grey, or more
        return said("What comes out is no nearer to it than an even grey would be.")
    limits = [(noisy and each["missed_995_noisy"]) or each["missed_995"] for each in known]
    above = [pair for pair in zip(errors, limits, strict=True) if pair[0] > pair[1]]
    if 2 * len(above) <= len(limits):
        return ""
    error, limit = above[0]
    return said(
        f"The model misses {error:.2f} of its variance; for 99.5% of the test images that is "
        f"below {limit:.2f}."
    )


def warn_if_unlike(path, image, rebuilt, known):
    """Print what `unlike` says of a picture, if anything."""
    text = unlike(image, rebuilt, known)
    if text:
        print(f"*** {printable(path)}: {text} ***", flush=True)
