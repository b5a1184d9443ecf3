"""Any picture, of any size, through a denoiser, in tiles."""

import numpy as np

from applications import small_images
from applications.inputs import output_paths
from common import image_files, own_pictures
from common.trained_models import predict

TILE, MARGIN = 512, 48  # pixels; no network here looks further than the margin


def denoise(network, image, multiple, plus=0):
    """Return a picture denoised by a convolutional network, in tiles without a seam.

    So the network's memory does not grow with the picture: some 300 MB for those here.

    Args:
        network: (1, height, width, 1) to the same shape.
        multiple, plus: its height and width are `plus` more than a multiple of `multiple`.
        image: float32 in [0, 1], shape (height, width, 1).
    """

    def run(piece):
        return np.asarray(network(piece[np.newaxis], training=False))[0]

    # Mirrored all around: what lies next to the edge of its input a network takes for the edge of
    # a training image, and makes a frame of it.
    framed = np.pad(image, [(MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)], mode="symmetric")
    padded = pad_to_multiple(framed, multiple, plus)
    denoised = in_tiles(run, padded, TILE, MARGIN, plus)
    return denoised[MARGIN:, MARGIN:][: image.shape[0], : image.shape[1]]


def denoise_files(network, paths, output_dir, multiple, plus=0, known=None, invert=True):
    """Write a denoised copy of each image file under its own name, in shades of grey.

    Args:
        network, multiple, plus: as for `denoise`.
        paths: the files.
        output_dir: where the copies go; None: a new folder in runs/.
        known: of `inputs.known_of`: then a picture on another ground than the training images' is
            inverted, and one unlike them gets a warning. None: any picture will do.
        invert: whether a picture is inverted, and its result inverted back.

    Raises:
        UserError: a file can't be read, or a copy would replace something.
    """
    for path, target in output_paths(paths, output_dir, f"{network.name}_denoised"):
        image, inverted = own_pictures.read_on_any_ground(path), False
        if known:
            image, inverted = small_images.turned(image, path, known, invert)
        denoised = denoise(network, image, multiple, plus)
        if known:
            small_images.warn_if_unlike(path, image, [denoised], [known])
        image_files.write_image(target, 1 - denoised if inverted else denoised)


def denoise_small(model, paths, output_dir, known, invert=True):
    """Write a denoised copy in 28x28 pixels of each image file under its own name.

    The arguments are those of `denoise_files`, but for the model: (n, 28, 28, 1) to the same.
    """
    for path, target in output_paths(paths, output_dir, f"{model.name}_denoised"):
        image, inverted = small_images.read_small(path, known, invert)
        denoised = predict(model, image[np.newaxis])[0]
        small_images.warn_if_unlike(path, image, [denoised], [known])
        image_files.write_image(target, 1 - denoised if inverted else denoised)


def pad_to_multiple(image, multiple, plus=0):
    """Return an image with its last rows and columns mirrored until both sides fit.

    Its shape is (height, width, channels); a side fits that is `plus` more than a multiple.
    """
    height, width = ((plus - side) % multiple for side in image.shape[:2])
    # "symmetric" works for any size, "reflect" would need more pixels than it adds.
    return np.pad(image, [(0, height), (0, width), (0, 0)], mode="symmetric")


def in_tiles(function, image, tile, margin, plus=0):
    """Return function(image), worked out on one piece of the image after the other.

    Args:
        function: from (height, width, channels) to the same shape; what it makes of a pixel
            depends on nothing further away than `margin`.
        image: shape (height, width, channels).
        tile: side of the pieces in pixels.
        margin: width of what is shown around each piece, in pixels.
        plus: the sides of the function's input are this many pixels more than a multiple of some
            number; `tile` and `margin` are multiples of it.
    """
    result = np.empty_like(image)
    for top in range(0, image.shape[0], tile):
        for left in range(0, image.shape[1], tile):
            above, before = max(top - margin, 0), max(left - margin, 0)
            below, behind = top + tile + margin + plus, left + tile + margin + plus
            piece = function(image[above:below, before:behind])
            piece = piece[top - above :, left - before :][:tile, :tile]
            result[top : top + tile, left : left + tile] = piece
    return result
