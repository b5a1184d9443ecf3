"""Run a convolutional denoiser on pictures of any size, tile by tile."""

import contextvars

import numpy as np

from common import images
from tools import small_images

TILE, MARGIN = 512, 48  # pixels; no denoiser here sees farther than the margin
# Called after each tile with the share of the image that is done; its exceptions stop the work.
on_tile = contextvars.ContextVar("on_tile", default=lambda share: None)


def denoise_files(network, outputs, multiple, plus=0, invert=False, color=False):
    """Write a denoised copy of each image file at its own size; see `denoise`.

    `outputs` is [(input, path to write)], as `images.output_paths` returns. With `invert`, pictures
    with a light background are inverted, and inverted back afterwards. Without `color` they become
    gray.
    """
    for path, target in outputs:
        picture, inverted = images.read_visible(path, color), False
        if invert:
            picture, inverted = small_images.light_on_dark(picture)
        denoised = denoise(network, picture, multiple, plus)
        images.write_image(target, 1 - denoised if inverted else denoised)


def denoise(network, image, multiple, plus=0):
    """Return a picture denoised by a convolutional network, in tiles without visible seams.

    The network's memory therefore does not grow with the picture: about 300 MB for those here.
    Each color is denoised by itself.

    Args:
        network: function of (1, height, width, 1) to the same shape.
        image: float32 in [0, 1], shape (height, width, channels).
        multiple, plus: the network needs sides that are `plus` more than a multiple of `multiple`.
    """

    def apply(piece):
        channels = np.split(piece[np.newaxis], piece.shape[-1], axis=-1)
        denoised = [network(channel) for channel in channels]
        return np.concatenate(denoised, axis=-1)[0]

    # The image is mirrored on all sides. At the edge of its input a network expects the edge of a
    # training image, and would draw a frame there.
    framed = np.pad(image, [(MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)], mode="symmetric")
    padded = pad_to_multiple(framed, multiple, plus)
    denoised = in_tiles(apply, padded, TILE, MARGIN, plus)
    return denoised[MARGIN:, MARGIN:][: image.shape[0], : image.shape[1]]


def pad_to_multiple(image, multiple, plus=0):
    """Return an image whose last rows and columns are mirrored until both sides fit.

    Its shape is (height, width, channels); a side fits if it is `plus` more than a multiple.
    """
    height, width = ((plus - side) % multiple for side in image.shape[:2])
    # "symmetric" works for any size; "reflect" would need more pixels than it adds.
    return np.pad(image, [(0, height), (0, width), (0, 0)], mode="symmetric")


def in_tiles(function, image, tile, margin, plus=0):
    """Return function(image), computed tile by tile.

    Args:
        function: from (height, width, channels) to the same shape. Each output pixel depends on
            input pixels at most `margin` away.
        image: shape (height, width, channels).
        tile: side of the tiles in pixels.
        margin: width of the surroundings that are passed with each tile, in pixels.
        plus: the sides of the function's input are this many pixels more than a multiple of some
            number, of which `tile` and `margin` are multiples.
    """
    result, done = np.empty_like(image), 0
    for top in range(0, image.shape[0], tile):
        for left in range(0, image.shape[1], tile):
            above, before = max(top - margin, 0), max(left - margin, 0)
            below, after = top + tile + margin + plus, left + tile + margin + plus
            piece = function(image[above:below, before:after])
            piece = piece[top - above :, left - before :][:tile, :tile]
            result[top : top + tile, left : left + tile] = piece
            done += piece.size
            on_tile.get()(done / image.size)
    return result
