"""What clean_documents.py does with whole pages: cut them up, clean them in tiles, measure."""

import os
import sys

import keras
import numpy as np

from common import UserError, data, images, synthetic, training

# Pixels. Nothing that is further away than the margin changes what the U-Net makes of a pixel.
TILE, MARGIN = 512, 64


def windows(pages, height, width):
    """Return pieces of one size of pages of mixed sizes, side by side.

    Args:
        pages: a list of `data.Page`.
        height, width: of a piece, in pixels; what does not fill one is left out.

    Returns:
        (dirty, clean): float32 arrays of shape (n, height, width, 1), values in [0, 1].
    """
    pairs = [
        [picture[top : top + height, left : left + width] for picture in (page.dirty, page.clean)]
        for page in pages
        for top in range(0, page.dirty.shape[0] - height + 1, height)
        for left in range(0, page.dirty.shape[1] - width + 1, width)
    ]
    if not pairs:
        raise UserError(f"all of the pages are smaller than {width}x{height} pixels")
    return tuple(np.stack(part).astype("float32") / 255 for part in zip(*pairs, strict=True))


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
        padded = images.pad_to_multiple(page, 8)
        return images.in_tiles(run, padded, TILE, MARGIN)[: page.shape[0], : page.shape[1]]

    return clean


def clean_files(args, shipped):
    """Write a clean copy of each --input file under its own name.

    Args:
        args: from `training.parse`.
        shipped: as for `training.find_model`.

    Returns:
        The exit code: 1 if some of several files could not be cleaned.

    Raises:
        UserError: the only file could not be read, or a copy would overwrite something.
    """
    clean = cleaner(training.find_model(args, shipped))
    pairs = images.targets(args.input, training.output_folder(args, "cleaned"))
    bar, failed = keras.utils.Progbar(len(pairs), unit_name="page"), 0
    for path, target in pairs:
        try:
            images.write_image(target, clean(images.read_grey(path, ground="white")))
        except UserError as error:
            if len(pairs) == 1:
                raise
            print(f"\n{training.SCRIPT}.py: error: {error}", file=sys.stderr, flush=True)
            failed += 1
        bar.add(1)
    print(f"Wrote {len(pairs) - failed} to {pairs[0][1].parent}{os.sep}", flush=True)
    return 1 if failed else 0


def evaluate(clean, pages):
    """Return how well a function cleans pages.

    Args:
        clean: from a dirty page to a clean one, as `cleaner` returns it.
        pages: a list of `data.Page`.

    Returns:
        {metric: value}: `rmse`, pooled over all pixels, `psnr`, the mean over pages in dB, and
        `rmse_` with the name of each kind of dirt.
    """
    errors = {}
    for page in pages:
        cleaned = clean(page.dirty.astype("float32") / 255)
        error = np.square(cleaned - page.clean.astype("float32") / 255)
        errors.setdefault(page.kind, []).append(error.ravel())
    every = [error for kind in errors.values() for error in kind]
    with np.errstate(divide="ignore"):
        psnr = float(np.mean([-10 * np.log10(error.mean(dtype="float64")) for error in every]))
    kinds = {f"rmse_{kind}": _root_mean(errors[kind]) for kind in sorted(errors)}
    return {"rmse": _root_mean(every), "psnr": psnr, **kinds}


def _root_mean(errors):
    return float(np.sqrt(np.concatenate(errors).mean(dtype="float64")))


def page_at_300_dpi(limit=None):
    """Return a drawn `data.Page` of A6 (1748x1240 pixels) at 300 dpi, smaller under a limit."""
    height, width = (600, 420) if limit else (1748, 1240)
    [(dirty, clean, kind, _)] = synthetic.pages(1, seed=300, height=height, width=width, scale=3)
    return data.Page("300 dpi", kind, dirty, clean)
