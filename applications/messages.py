"""A text message in photos: hiding it, reading it back, and how long it may be.

How often a message is found where none is: at most 227 placements (one unscaled, one for each of
101 scales, mirrored or not, and 24 more) are read at most twice each, in 26 ways (six sizes in four
places, and one for each larger tile). That is less than 12,000 tries, each of which passes the
check of 48 bits by chance once in 2.8e14: fewer than one picture in 10^10.
"""

import bisect
import concurrent.futures
import contextlib
import functools
import io
import sys

import keras
import numpy as np
import tensorflow
from PIL import Image
from scipy import ndimage

from applications import grids, message_bits
from applications.grids import CELL
from applications.inputs import output_paths
from common import UserError, files, image_files, metrics
from common.files import printable

PSNR = 36.2  # dB, of a marked picture
FORMATS = {"png": ".png", "jpeg": ".jpg"}
_PIECE = 4_000  # cells; networks see a picture in bands of so many, to bound their memory
_MIDDLE = 1024  # pixels that are read first
_TRIES = 24  # placements that are looked at closely
_DOUBT = 0.01  # a network is never as sure as it says, once a picture was changed
_SURE, _CLEAR, _WEAK = 6.5, 12, 4  # standard deviations above chance


def luminance(picture):
    """Return the luminance of a picture, shape (height, width, 3), as (height, width)."""
    weights = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601, as Pillow's and JPEG's
    return picture @ weights


def strength(grey):
    """Return how much each pixel may change: little where all is smooth; mean square 1.

    Local contrast decides, by its rank within the picture: the smoothest third changes by a fifth
    of what the roughest third does.

    Args:
        grey: shape (height, width).
    """
    height, width = grey.shape
    # Windows of 12 pixels, every 4: means of three by three blocks, which is quicker than a filter.
    mean, square = (
        ndimage.uniform_filter(np.asarray(Image.fromarray(values).reduce(CELL // 2)), 3)
        for values in (grey, grey**2)
    )
    contrast = np.log(np.maximum(square - mean**2, 1e-7))
    lower, upper = np.quantile(contrast, [0.35, 0.7])
    gains = np.interp(contrast, [lower, upper + 1e-6], [0.2, 1]).astype("float32")
    gains = Image.fromarray(gains).resize((width, height), Image.Resampling.BILINEAR)
    gains = np.asarray(gains)
    return gains / np.sqrt(np.mean(gains**2))


def mark(model, picture, bits, even=False):
    """Return a picture with bits in its cells, as 8-bit levels would hold it.

    Args:
        model: of watermark_photo.py.
        picture: float32 in [0, 1], shape (height, width, 3); all channels change by the
            same amount, so only luminance changes.
        bits: from `message_bits.embed`.
        even: whether to change smooth places as much as others.
    """
    grey = luminance(picture)
    change = np.zeros_like(grey)
    networks = _as_graph(model)
    for rows, around, inner in _bands(*bits.shape):
        part = grey[around.start * CELL : around.stop * CELL, : bits.shape[1] * CELL]
        changed = _change(networks, part, bits[around])[inner.start * CELL : inner.stop * CELL]
        change[rows.start * CELL : rows.stop * CELL, : bits.shape[1] * CELL] = changed
    change *= 1 if even else strength(grey)
    change *= 10 ** (-PSNR / 20) / np.sqrt(np.mean(change**2))
    # Rounding makes many small changes larger or smaller at once, so factors are tried out.
    step = 3 if grey.size > 1e6 else 1
    some, its_change = picture[::step, ::step].copy(), change[::step, ::step].copy()

    def good(factor):
        return metrics.mse(some, _as_levels(some, factor * its_change)) <= 10 ** (-PSNR / 10)

    factors = np.linspace(1.1, 0.9, 21, dtype="float32")
    largest = bisect.bisect_left(factors[:-1], True, key=good)
    return _as_levels(picture, factors[largest] * change)


def _as_levels(picture, change):
    marked = picture + change[..., np.newaxis]
    np.clip(marked, 0, 1, out=marked)
    marked *= 255
    np.round(marked, out=marked)
    marked /= 255
    return marked


@functools.lru_cache(1)
def _as_graph(model):
    """Return the encoder and decoder as one function, traced once, since graphs are quicker."""
    encoder, decoder = (model.get_layer(name) for name in ("encoder", "decoder"))
    return tensorflow.function(
        lambda grey, bits: decoder([encoder(grey), bits]), autograph=False, reduce_retracing=True
    )


def _change(networks, grey, bits):
    """Return what the networks add to a picture, as large as it."""
    grey, bits = (
        keras.ops.convert_to_tensor(values[np.newaxis, ..., np.newaxis], "float32")
        for values in (grey, bits)
    )
    return keras.ops.convert_to_numpy(networks(grey, bits))[0, ..., 0]


def known_pilots(model):
    """Return the `grids.Pilots` of a model: what its decoder makes of a bit, on even grey."""
    side = grids.TILE // CELL
    signs = message_bits.signs(b"any", side**2).reshape(side, side)
    change = _change(_as_graph(model), np.full((grids.TILE, grids.TILE), 0.5, "float32"), signs > 0)
    cells = change.reshape(side, CELL, side, CELL)
    return grids.Pilots(np.einsum("ripj,rp->ij", cells, signs) / signs.size)


def read(model, pilots, grey, key, anywhere=True, progress=lambda share: None):
    """Return the message in a picture, or None where none is found.

    Args:
        model: of watermark_photo.py.
        pilots: its `known_pilots`.
        grey: float32, shape (height, width).
        key: from `message_bits.derive_key`.
        anywhere: whether to look for a picture that was scaled or turned by a few degrees.
        progress: called with the share of that search that is done.
    """
    for log_odds, origin in readings(model, pilots, grey, anywhere, progress):
        text = message_bits.extract(log_odds, key, origin)
        if text is not None:
            return text
    return None


def readings(model, pilots, grey, anywhere=True, progress=lambda share: None):
    """Yield (log-odds of cells, origin) wherever there seem to be pilots; see `read`."""
    picture = Image.fromarray(np.ascontiguousarray(grey))
    for seen, placement in _placements(picture, pilots, anywhere, progress):
        low, high = placement.area(seen, 4 * max(seen.size))
        for reach in [_MIDDLE, 4 * max(seen.size)][: 1 + (max(high - low) > _MIDDLE)]:
            log_odds, origin = log_odds_of_cells(model, seen, placement, reach)
            agreement = _agreement(log_odds, origin)
            if agreement < _WEAK:
                break
            yield log_odds, origin
        if agreement > _CLEAR and placement.exact:
            break  # there it is, and it is another key's or past reading


def _placements(picture, pilots, anywhere, progress):
    """Yield (picture, placement) to look at: unscaled first, then what a search finds."""
    ((unscaled,),) = grids.search(picture, pilots, [1], [0], reach=_MIDDLE)
    yield picture, unscaled
    found, done = [unscaled], 0
    # Few pictures were mirrored as well, and those take seven times as long.
    for turns, weight in ((slice(1), 1), (slice(1, None), 5)) if anywhere else ():
        for placements in grids.search(picture, pilots, grids.SCALES, grids.ANGLES, turns):
            done += weight / 6 / len(grids.SCALES)
            progress(done)
            found += placements
            best = max(placements, key=lambda placement: placement.score)
            if best.score > _SURE:
                yield grids.made_exact(picture, pilots, best)
    for placement in sorted(found, key=lambda placement: -placement.score)[:_TRIES]:
        seen, placement = grids.made_exact(picture, pilots, placement)
        if placement.score > _WEAK:
            yield seen, placement


def log_odds_of_cells(model, picture, placement, reach):
    """Return (log-odds of each cell's bit, row and column of the first cell in the grid).

    Of cells that are not wholly in the picture they are 0.

    Args:
        model: of watermark_photo.py.
        picture: Pillow image of mode F.
        placement: of the grid.
        reach: side of the square that is read, in pixels.
    """
    extractor = model.get_layer("extractor")
    low, high = placement.area(picture, reach)
    first = np.floor(low / CELL + 0.01).astype(int)
    across, down = np.ceil(high / CELL - 0.01).astype(int) - first
    corners = np.mgrid[: across + 1, : down + 1].T + first  # (x, y) of each cell's, in cells
    corners = CELL * corners @ placement.matrix.T + placement.shift
    inside = ((corners > -0.5) & (corners < np.array(picture.size) + 0.5)).all(axis=-1)
    log_odds = np.zeros((down, across))
    for rows, around, inner in _bands(down, across):
        start = CELL * (first + np.array([0, around.start]))
        size = CELL * np.array([across, around.stop - around.start])
        part = placement.pixels(picture, start, size)
        # Sharper, because marks on smooth ground are weaker than those the extractor learned.
        part = 2 * part - ndimage.gaussian_filter(part, 1.5)
        p = extractor(part[np.newaxis, ..., np.newaxis])
        p = keras.ops.convert_to_numpy(p)[0, inner, :, 0].astype("float64")
        p = np.clip(p, _DOUBT, 1 - _DOUBT)
        log_odds[rows] = np.log(p) - np.log(1 - p)
    whole = inside[1:, 1:] & inside[1:, :-1] & inside[:-1, 1:] & inside[:-1, :-1]
    return log_odds * whole, tuple(first[::-1])


def _agreement(log_odds, origin):
    """Return how many standard deviations above chance log-odds agree with the pilots."""
    known = message_bits.pilots()
    sums = message_bits.fold(log_odds, message_bits.PERIOD, origin)
    squares = message_bits.fold(log_odds**2, message_bits.PERIOD, origin)
    return (known * sums).sum() / np.sqrt(squares[known != 0].sum() + 1e-9)


def _bands(down, across, most=_PIECE):
    """Yield (rows, rows with one more on either side, the former within the latter) of cells."""
    size = max(most // max(across, 1), 1)
    for top in range(0, down, size):
        bottom, above = min(top + size, down), max(top - 1, 0)
        around = slice(above, min(bottom + 1, down))
        yield slice(top, bottom), around, slice(top - above, bottom - above)


def marked_file(model, pilots, picture, text, key, form="png", profile=None):
    """Return the bytes of a marked picture's file and its PSNR; None if it can't be read back.

    It is read as the file holds it, and once more after JPEG 75.

    Args:
        model: of watermark_photo.py.
        pilots: its `known_pilots`.
        picture: float32 in [0, 1], shape (height, width, 3).
        text: the message.
        key: from `message_bits.derive_key`.
        form: one of `FORMATS`.
        profile: the ICC profile to keep, in bytes.

    Raises:
        UserError: as `message_bits.embed` does.
    """
    bits = message_bits.embed(text, *(side // CELL for side in picture.shape[:2]), key)
    if not bits.size:
        return None
    seen = mark(model, picture, bits)
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        # It takes as long as both readings.
        content = beside.submit(encode, seen, form, profile=profile)
        if form != "png":
            seen = decode(content.result(), form)
        psnr = metrics.psnr(picture[np.newaxis], seen[np.newaxis])
        del picture  # memory counts: 12 megapixels are many
        if read(model, pilots, luminance(seen), key, anywhere=False) != text:
            return None
        once_more = encode(seen, "jpeg", 75)
        del seen
        grey = luminance(decode(once_more, "jpeg"))
        found = read(model, pilots, grey, key, anywhere=False)
        return (content.result(), psnr) if found == text else None


def encode(picture, form, quality=95, profile=None):
    """Return the bytes of a file of a picture, float32 in [0, 1], shape (height, width, 3)."""
    levels = picture * 255
    levels = np.round(levels, out=levels).astype(np.uint8)
    if (levels == levels[..., :1]).all():
        levels = levels[..., 0]
    options = {"quality": quality} if form == "jpeg" else {"compress_level": 3}
    if levels.ndim == 3:  # a profile of colours does not fit greys
        options["icc_profile"] = profile
    file = io.BytesIO()
    Image.fromarray(levels).save(file, form, **options)
    return file.getvalue()


def decode(content, form):
    """Return the picture that the bytes of a file hold, as `encode` takes it."""
    with Image.open(io.BytesIO(content), formats=[form]) as image:
        picture = np.array(image.convert("RGB"), "float32")
    picture /= 255
    return picture


def capacity(model, pilots, picture, key):
    """Return how many bytes of a message can be read from a picture after JPEG 75."""
    sizes = [size for sizes in message_bits.SIZES.values() for size in sizes]
    held = bisect.bisect_left(
        sizes, True, key=lambda size: marked_file(model, pilots, picture, "x" * size, key) is None
    )
    return ([0, *sizes])[held]


def see_that_files(paths):
    """Raise UserError unless all paths are files; a single one must be an image, too."""
    for path in paths:
        files.see_that_file(path)
    if len(paths) == 1:
        with image_files.open_image(paths[0]):
            pass


def _one_by_one(paths, work):
    """Call work(path) for each file; return the exit code, 1 where some of several failed.

    Failures are printed on standard error; that of an only file is raised, as a UserError.
    """
    failed = 0
    for path in paths:
        try:
            work(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            failed += 1
            print(printable(str(error)), file=sys.stderr, flush=True)
    return 1 if failed else 0


def print_capacity(model, paths):
    """Print how many bytes of a message each image file can hold; return the exit code."""
    key, pilots = message_bits.derive_key(""), known_pilots(model)

    def say(path):
        room = capacity(model, pilots, image_files.read_colour(path), key)
        print(f"{printable(path)}: {room} bytes", flush=True)

    return _one_by_one(paths, say)


def hide(model, paths, text, key, output_dir, form="png"):
    """Write a marked copy of each image file, say how good it is, and return the exit code.

    Args:
        model: of watermark_photo.py.
        paths: the files.
        text: the message.
        key: any text; only who knows it reads the message.
        output_dir: where the copies go; None: a new folder in runs/.
        form: one of `FORMATS`.

    Raises:
        UserError: a file can't be read, a copy would replace something, or the message can't be
            read back from the only picture.
    """
    key, pilots = message_bits.derive_key(key), known_pilots(model)
    message_bits.embed(text, 0, 0, key)  # refused before anything is made
    name = "watermark_photo_marked"
    targets = dict(output_paths(paths, output_dir, name, [FORMATS[form]]))

    def write(path):
        psnr = hide_in_file(model, pilots, path, text, key, targets[path], form)
        target = printable(targets[path])
        print(f"Wrote {target}: {psnr:.1f} dB, read back, after JPEG 75 too", flush=True)

    return _one_by_one(list(targets), write)


def hide_in_file(model, pilots, path, text, key, target, form="png"):
    """Write a marked copy of an image file to `target`, and return its PSNR.

    The arguments are those of `marked_file`. Raises UserError as `hide` does.
    """
    with image_files.open_image(path) as image:
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            way_out = "lay it on a ground first"
            raise UserError(f"{path}: has transparent parts, which a copy would lose; {way_out}")
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
    made = marked_file(model, pilots, image_files.read_colour(path), text, key, form, profile)
    if made is None:
        room = capacity(model, pilots, image_files.read_colour(path), key)
        raise UserError(
            f"{path}: not written, because {len(text.encode())} bytes could not be read back "
            f"after JPEG 75; it is too small or too flat, and holds {room} bytes"
        )
    with files.write_whole(target) as temporary:
        temporary.write_bytes(made[0])
    return made[1]


def reveal(model, paths, key):
    """Print the message of each image file; return the exit code, 1 where one has none."""
    key, pilots = message_bits.derive_key(key), known_pilots(model)
    missing = []

    def say(path):
        grey = luminance(image_files.read_colour(path))
        with _progress_bar(printable(path)) as progress:
            text = read(model, pilots, grey, key, progress=progress)
        if text is None:
            missing.append(path)
            why = "no message with this key (those of the first version are not read any more)"
            print(f"{printable(path)}: {why}", file=sys.stderr, flush=True)
        else:
            print(f"{printable(path)}: {printable(text)}", flush=True)

    return _one_by_one(paths, say) or (1 if missing else 0)


@contextlib.contextmanager
def _progress_bar(path):
    """Give a function that shows a share of work done, where a person may be looking."""
    seen = sys.stderr.isatty()

    def show(share):
        bar = "#" * round(30 * share)
        if seen:
            print(f"\r{path}: searching [{bar:30}]", end="", file=sys.stderr, flush=True)

    yield show
    if seen:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
