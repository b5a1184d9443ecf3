"""A page of any size, or many image files, through the network that cleans documents."""

import sys

import keras
import numpy as np

from applications.denoising import in_tiles, pad_to_multiple
from applications.inputs import output_paths
from common import UserError, files, image_files

# Pixels. Nothing that is further away than the margin changes what the U-Net makes of a pixel.
TILE, MARGIN = 512, 64


def cleaner(network):
    """Return a function that cleans a page of any size with a network, tile by tile.

    So the network's memory does not grow with the page, and no seam shows: each tile is looked at
    with all around it that matters. Each is cleaned twice, as it is and upside down, and the mean
    taken: on validation pages that lowers the RMSE by a twentieth. The function takes and returns
    float32 in [0, 1], shape (height, width, 1).
    """

    def run(tile):
        upright = np.asarray(network(tile[np.newaxis], training=False))[0]
        turned = np.asarray(network(tile[np.newaxis, ::-1, ::-1], training=False))[0]
        return (upright + turned[::-1, ::-1]) / 2

    def clean(page):
        padded = pad_to_multiple(page, 8)
        return in_tiles(run, padded, TILE, MARGIN)[: page.shape[0], : page.shape[1]]

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
