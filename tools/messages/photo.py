"""Embedding a text in a photo with a model of watermark_photo.py, and extracting it.

False positives: at most 631 placements (one unscaled, one for each of 101 scales, six times:
mirrored or not, and stretched in four ways; and 24 more) are read at most twice each, in 26 ways
(six sizes at four positions, and one for each larger tile). Each of these fewer than 33,000
attempts passes the checksum of 48 bits by chance once in 2.8e14, so that fewer than one picture in
8e9 seems to hold a message where there is none.
"""

import bisect
import concurrent.futures
import io

import numpy as np
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from common import metrics
from common.images import luminance
from tools.messages import code, grid
from tools.messages.grid import CELL

PSNR = 36.2  # dB, of a marked picture that is not dark
RMS = 10 ** (-PSNR / 20)  # of its change
# By how much smooth and rough places may change at most, as a share of their brightness.
SMOOTH_SHARE, ROUGH_SHARE = 0.04, 0.1
FLAT = 3 / 255  # standard deviation of gray levels below which ground is flat
MAX_GAIN = 1.6  # above what photos have; beside the edges of a logo a stronger change is seen
CELLS_PER_BAND = 4_000  # networks see a picture in bands of this size, to bound their memory
# A network is never as certain as it claims once a picture was changed.
MIN_PROBABILITY = 0.01
# Standard deviations by which cells agree with the pilots above chance:
MIN_AGREEMENT = 4  # below this no message is looked for
CLEAR_AGREEMENT = 12  # above this no other placement is looked for


def texture_gain(gray):
    """Return (gain, limit): how much places may change, one place for each 4x4 pixels.

    The eye sees a change on smooth ground first. So the local contrast decides, by its rank in the
    picture: the smoothest third changes by a fifth of what the roughest third does. The limit is a
    share of the local brightness (Weber's law), where 1 stands for a change of `PSNR`. The mean
    square of the gain is 1. `gray` is in [0, 1], shape (height, width).
    """
    # Windows of 12 pixels, every 4: means of 3x3 blocks, which is faster than a filter.
    mean, square = (
        ndimage.uniform_filter(np.asarray(Image.fromarray(values).reduce(CELL // 2)), 3)
        for values in (gray, gray**2)
    )
    contrast = np.log(np.maximum(square - mean**2, 1e-7))
    # An opening removes edges, which are 3 or 4 places wide. Where it leaves flat ground they count
    # as flat, too: what stands on such ground beside them is seen.
    without_edges = ndimage.grey_opening(contrast, (5, 5))
    contrast = np.where(without_edges < np.log(FLAT**2), without_edges, contrast)
    lower, upper = np.quantile(contrast, [0.35, 0.7])
    roughness = np.interp(contrast, [lower, upper + 1e-6], [0, 1]).astype("float32")
    gain = 0.2 + 0.8 * roughness
    gain /= np.sqrt(np.mean(gain**2))
    share = SMOOTH_SHARE + (ROUGH_SHARE - SMOOTH_SHARE) * roughness
    return gain, np.minimum(share * mean / RMS, MAX_GAIN)


class Watermark:
    """A trained model of watermark_photo.py at work on photos.

    Pictures are float32 in [0, 1], shape (height, width, 3), keys come from `code.derive_key`.
    """

    def __init__(self, model):
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        # A graph that is traced once is faster than calling the layers.
        self._graph = tf.function(
            lambda gray, bits: decoder([encoder(gray), bits]),
            autograph=False,
            reduce_retracing=True,
        )
        self.extractor = model.get_layer("extractor")
        # What the decoder makes of a bit, on uniform gray.
        side = grid.TILE // CELL
        signs = code.random_signs(b"any", side**2).reshape(side, side)
        change = self._change(np.full((grid.TILE, grid.TILE), 0.5, "float32"), signs > 0)
        cells = change.reshape(side, CELL, side, CELL)
        self.pilots = grid.Pilots(np.einsum("ripj,rp->ij", cells, signs) / signs.size)

    def _change(self, gray, bits):
        """Return what the networks add to a gray picture, in the same shape."""
        bits = bits.astype("float32")[np.newaxis, ..., np.newaxis]
        return np.asarray(self._graph(gray[np.newaxis, ..., np.newaxis], bits))[0, ..., 0]

    def mark(self, picture, bits, uniform=False):
        """Return a picture with bits of `code.encode` in its cells, rounded to 8-bit levels.

        All three channels change by the same amount, so only luminance changes; if `uniform`, it
        does alike in all places.
        """
        gray = luminance(picture)
        change = np.zeros_like(gray)
        right = bits.shape[1] * CELL
        for rows, padded, inner in _bands(*bits.shape):
            band = self._change(gray[_in_pixels(padded), :right], bits[padded])
            change[_in_pixels(rows), :right] = band[_in_pixels(inner)]
        change *= RMS / np.sqrt(np.mean(change**2))
        gain, limit = texture_gain(gray)
        if uniform:
            gain, limit = np.ones_like(gain), np.full_like(gain, np.inf)

        def strength(factor):
            places = Image.fromarray(np.minimum(factor * gain, limit))
            return np.asarray(places.resize(gray.shape[::-1], Image.Resampling.BILINEAR))

        # Limits and rounding make the change smaller, or larger at once, so factors are tried out.
        step = 3 if gray.size > 1e6 else 1
        sample, its_change = picture[::step, ::step].copy(), change[::step, ::step].copy()

        def is_good(factor):
            marked = _add_and_round(sample, strength(factor)[::step, ::step] * its_change)
            return metrics.mse(sample, marked) <= RMS**2

        factors = np.linspace(1.5, 0.9, 31, dtype="float32")
        largest = bisect.bisect_left(factors[:-1], True, key=is_good)
        return _add_and_round(picture, strength(factors[largest]) * change)

    def embed(self, picture, text, key, file_format="png", **save_options):
        """Return the bytes of a marked picture's file and its PSNR; None if it cannot be read back.

        It is read back from those bytes, and once more after JPEG 75. Format and options are those
        of `to_file`. Raises UserError as `code.encode` does.
        """
        bits = code.encode(text, picture.shape[0] // CELL, picture.shape[1] // CELL, key)
        if not bits.size:
            return None
        marked = self.mark(picture, bits)
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            # Compression takes as long as both extractions.
            content = thread.submit(to_file, marked, file_format, **save_options)
            if file_format != "png":
                marked = from_file(content.result(), file_format)
            psnr = metrics.psnr(picture[np.newaxis], marked[np.newaxis])
            del picture  # 12 megapixels take a lot of memory
            if self.extract(luminance(marked), key, search=False) != text:
                return None
            compressed = to_file(marked, "jpeg", quality=75)
            del marked
            gray = luminance(from_file(compressed, "jpeg"))
            if self.extract(gray, key, search=False) != text:
                return None
            return content.result(), psnr

    def capacity(self, picture):
        """Return how many bytes of a message can be read from a picture after JPEG 75."""
        key = code.derive_key("")
        sizes = [size for sizes in code.SIZES.values() for size in sizes]
        count = bisect.bisect_left(
            sizes, True, key=lambda size: self.embed(picture, "x" * size, key) is None
        )
        return [0, *sizes][count]

    def extract(self, gray, key, search=True, progress=lambda share: None):
        """Return the message in a picture, given as its `luminance`, or None if there is none.

        Args:
            search: whether the picture may have been scaled, stretched, rotated or mirrored.
            progress: called with the share of that search that is done.
        """
        for log_odds, origin in self.readings(gray, search, progress):
            text = code.decode(log_odds, key, origin)
            if text is not None:
                return text
        return None

    def readings(self, gray, search=True, progress=lambda share: None):
        """Yield (log-odds of cells, origin) wherever there seem to be pilots; see `extract`."""
        picture = Image.fromarray(np.ascontiguousarray(gray))
        for scaled, placement in grid.candidates(picture, self.pilots, search, progress):
            everything = 4 * max(scaled.size)
            low, high = placement.area(scaled, everything)
            sides = [grid.WINDOW, everything] if max(high - low) > grid.WINDOW else [grid.WINDOW]
            for side in sides:
                log_odds, origin = self.read_cells(scaled, placement, side)
                agreement = _agreement(log_odds, origin)
                if agreement < MIN_AGREEMENT:
                    break
                yield log_odds, origin
            if agreement > CLEAR_AGREEMENT and placement.refined:
                break  # the grid is here: the key is another one, or too little is left

    def read_cells(self, picture, placement, side):
        """Return (log-odds of each cell's bit, row and column of the first cell in the grid).

        Cells that reach beyond the picture, a Pillow image of mode F, have 0. The window that is
        read has this side, in pixels.
        """
        low, high = placement.area(picture, side)
        first = np.floor(low / CELL + 0.01).astype(int)
        columns, rows = np.ceil(high / CELL - 0.01).astype(int) - first
        corners = np.mgrid[: columns + 1, : rows + 1].T + first  # (x, y) of each cell's, in cells
        corners = CELL * corners @ placement.matrix.T + placement.shift
        inside = ((corners > -0.5) & (corners < np.array(picture.size) + 0.5)).all(axis=-1)
        inside = inside[1:, 1:] & inside[1:, :-1] & inside[:-1, 1:] & inside[:-1, :-1]
        log_odds = np.zeros((rows, columns))
        for band, padded, inner in _bands(rows, columns):
            corner = CELL * (first + np.array([0, padded.start]))
            size = CELL * np.array([columns, padded.stop - padded.start])
            pixels = placement.pixels(picture, corner, size)
            # Sharpened: the change of smooth places is weaker than what the extractor learned.
            pixels = 2 * pixels - ndimage.gaussian_filter(pixels, 1.5)
            p = np.asarray(self.extractor(pixels[np.newaxis, ..., np.newaxis]), "float64")
            p = np.clip(p[0, inner, :, 0], MIN_PROBABILITY, 1 - MIN_PROBABILITY)
            log_odds[band] = np.log(p) - np.log(1 - p)
        return log_odds * inside, tuple(first[::-1])


def _add_and_round(picture, change):
    marked = picture + change[..., np.newaxis]
    np.clip(marked, 0, 1, out=marked)
    marked *= 255
    np.round(marked, out=marked)
    marked /= 255
    return marked


def _agreement(log_odds, origin):
    """Return how many standard deviations above chance log-odds agree with the pilots."""
    pilots = code.pilots()
    sums = code.fold(log_odds, code.PERIOD, origin)
    squares = code.fold(log_odds**2, code.PERIOD, origin)
    return (pilots * sums).sum() / np.sqrt(squares[pilots != 0].sum() + 1e-9)


def _bands(rows, columns):
    """Yield slices of rows of cells: a band, padded by a row on either side, the band in that."""
    size = max(CELLS_PER_BAND // max(columns, 1), 1)
    for top in range(0, rows, size):
        bottom, above = min(top + size, rows), max(top - 1, 0)
        padded = slice(above, min(bottom + 1, rows))
        yield slice(top, bottom), padded, slice(top - above, bottom - above)


def _in_pixels(cells):
    """Return the slice of pixels that a slice of cells covers."""
    return slice(cells.start * CELL, cells.stop * CELL)


def to_file(picture, file_format, quality=95, icc_profile=b"", **save_options):
    """Return the bytes of an image file of a picture, "png" or "jpeg".

    Options are those of Pillow's `Image.save`. A profile for gray is left out if the picture is in
    color, and the reverse.
    """
    levels = picture * 255
    levels = np.round(levels, out=levels).astype(np.uint8)  # in place, which saves memory
    color_space = icc_profile[16:20]  # as the header of an ICC profile names it
    if color_space != b"RGB " and (levels == levels[..., :1]).all():
        levels = levels[..., 0]
    image, file = Image.fromarray(levels), io.BytesIO()
    if color_space == {"RGB": b"RGB ", "L": b"GRAY"}[image.mode]:
        save_options["icc_profile"] = icc_profile
    image.save(file, file_format, quality=quality, compress_level=3, **save_options)
    return file.getvalue()


def from_file(content, file_format):
    """Return the picture in the bytes of an image file."""
    with Image.open(io.BytesIO(content), formats=[file_format]) as image:
        picture = np.array(image.convert("RGB"), "float32")
    picture /= 255
    return picture
