"""A page of any size, or many image files, through the network that cleans documents."""

import sys

import keras
import numpy as np
import tensorflow

from applications.denoising import in_tiles, pad_to_multiple
from applications.inputs import output_paths
from common import UserError, files, image_files

# Pixels. What is further away than the margin changes a cleaned page by less than a level of 255.
TILE, MARGIN = 1536, 128
MULTIPLE = 32  # of the sides of what the U-Net takes


def cleaner(network):
    """Return a function that cleans a page of any size with a network, tile by tile.

    So the network's memory does not grow with the page, and no seam shows: each tile is looked at
    with all around it that matters. The function takes and returns float32 in [0, 1], shape
    (height, width, 1).
    """
    # With an open shape, so that it is traced once: half again as fast as calling the network.
    any_size = tensorflow.TensorSpec((1, None, None, 1), "float32")

    @tensorflow.function(input_signature=[any_size])
    def run(tile):
        return network(tile, training=False)

    def clean(page):
        padded = pad_to_multiple(page.astype("float32"), MULTIPLE)
        cleaned = in_tiles(lambda tile: run(tile[np.newaxis])[0], padded, TILE, MARGIN)
        return cleaned[: page.shape[0], : page.shape[1]]

    return clean


def clean_files(network, paths, output_dir):
    """Write a clean copy of each image file under its own name.

    Args:
        network: of clean_documents.py.
        paths: the files.
        output_dir: where the copies go; None: a new folder in runs/.

    Returns:
        The exit code: 1 if some of several files could not be cleaned.

    Raises:
        UserError: the only file could not be read, or a copy would replace something.
    """
    clean = cleaner(network)
    folder = files.output_folder(output_dir, f"{network.name}_cleaned")
    pairs = output_paths(paths, folder)
    bar, failed, written = keras.utils.Progbar(len(pairs), unit_name="page"), 0, 0
    try:
        for path, target in pairs:
            try:
                page = image_files.read_grey(path, ground="white")
                image_files.write_image(target, clean(page))
                written += 1
            except UserError as error:
                if len(pairs) == 1:
                    raise
                print(f"\n{error}", file=sys.stderr, flush=True)
                failed += 1
            bar.add(1)
    except KeyboardInterrupt as error:
        error.add_note(f"{written} of {len(pairs)} pages are in {folder}.")
        raise
    print(f"{written} of {len(pairs)} pages are in {folder}", flush=True)
    return 1 if failed else 0
