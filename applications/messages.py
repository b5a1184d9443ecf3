"""A message as bits in the cells of an image: what watermark_photo.py embeds and reads back.

The frame, known before anything is read:

    header   48 bits: number of bytes (16 bits) and CRC-32 of that number and the bytes (32 bits)
    text     UTF-8, 8 bits a byte, as many as the header says

The cells, squares of CELL x CELL pixels, are shuffled by the key. The first quarter of them holds
the header, the others the text, its bits in turn over and over, each exclusive-or'ed with a random
bit of the key, so that no text gives a plane of all the same.
"""

import hashlib
import zlib

import keras
import numpy as np

from applications.inputs import output_paths
from common import UserError, files, image_files, metrics

CELL = 8  # pixels, the side of a block of JPEG
LEAST_REPEATS = 16  # cells for a bit
_HEADER_BITS = 48


def _layout(shape, key):
    """Return (header cells, text cells, mask) of a grid of cells: indices, and bits to mix in."""
    digest = hashlib.sha256(key.encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, np.uint32))
    count = shape[0] * shape[1]
    order, mask = rng.permutation(count), rng.integers(0, 2, count)
    return order[: count // 4], order[count // 4 :], mask


def grid(height, width):
    """Return how many whole cells an image has: (down, across)."""
    return height // CELL, width // CELL


def capacity(height, width):
    """Return how many bytes of text an image of this size, in pixels, has room for."""
    down, across = grid(height, width)
    cells = down * across
    if cells // 4 < _HEADER_BITS * LEAST_REPEATS:
        return 0
    return min((cells - cells // 4) // (8 * LEAST_REPEATS), 65_535)


def embed(text, height, width, key=""):
    """Return the bits of a message for each cell of an image.

    Args:
        text: what to hide.
        height, width: of the image, in pixels.
        key: any text; only who knows it reads the message.

    Returns:
        integers 0 and 1, shape (height // CELL, width // CELL).

    Raises:
        UserError: the text is empty or too long for the image.
    """
    content, room = text.encode(), capacity(height, width)
    if not content:
        raise UserError("--message is empty; give it some text")
    if len(content) > room:
        raise UserError(
            f"a message of {len(content)} bytes is too long for an image of {width}x{height} "
            f"pixels: {room} bytes fit"
        )
    length = len(content).to_bytes(2, "big")
    header = length + zlib.crc32(length + content).to_bytes(4, "big")
    shape = grid(height, width)
    header_cells, text_cells, mask = _layout(shape, key)
    plane = np.zeros(shape[0] * shape[1], int)
    for cells, part in ((header_cells, header), (text_cells, content)):
        plane[cells] = np.resize(_bits(part), len(cells))
    return (plane ^ mask).reshape(shape)


def extract(log_odds, key=""):
    """Return the message, or None where none is.

    Args:
        log_odds: of each cell's bit being 1, shape (down, across); those of a bit's cells add up.
        key: what the message was embedded with.
    """
    header_cells, text_cells, mask = _layout(log_odds.shape, key)
    if len(header_cells) < _HEADER_BITS:
        return None
    votes = np.where(mask, -log_odds.ravel(), log_odds.ravel())
    header = _sum_up(votes[header_cells], _HEADER_BITS)
    length = int.from_bytes(header[:2], "big")
    if not 0 < length <= len(text_cells) // 8:
        return None
    content = _sum_up(votes[text_cells], 8 * length)
    if zlib.crc32(header[:2] + content) != int.from_bytes(header[2:], "big"):
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _bits(content):
    return np.unpackbits(np.frombuffer(content, np.uint8)).astype(int)


def _sum_up(votes, count):
    """Return the bytes that the votes for `count` bits, in turn over and over, add up to."""
    sums = np.bincount(np.arange(len(votes)) % count, votes, count)
    return np.packbits(sums > 0).tobytes()


def hide(model, paths, text, key, output_dir):
    """Write a marked copy of each image file, as PNG, and say how good it is.

    Args:
        model: of watermark_photo.py.
        paths: the files.
        text: the message.
        key: any text; only who knows it reads the message.
        output_dir: where the copies go; None: a new folder in runs/.

    Raises:
        UserError: a file can't be read, the message does not fit, or a copy would replace
            something.
    """
    folder = files.output_folder(output_dir, "watermark_photo_marked")
    for path, target in output_paths(paths, folder, ".png"):
        picture = image_files.read_colour(path)
        bits = embed(text, *picture.shape[:2], key)
        marked = mark(model, picture, bits)
        quality = metrics.psnr(luminance(picture)[None], luminance(marked)[None])
        image_files.write_image(target, marked)
        print(f"{quality:.1f} dB", flush=True)


def reveal(model, paths, key):
    """Print the message of each image file; return the exit code, 1 where one has none."""
    missing = 0
    for path in paths:
        text = extract(read(model, luminance(image_files.read_colour(path))), key)
        missing += text is None
        print(f"{path}: {'no message with this key' if text is None else text}", flush=True)
    return 1 if missing else 0


def luminance(picture):
    """Return the luminance of a picture, shape (height, width, 3), as (height, width, 1)."""
    weights = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601, as Pillow's and JPEG's
    return (picture @ weights)[..., np.newaxis]


def mark(model, picture, bits):
    """Return a picture with bits in its cells, as 8-bit levels would hold it.

    Args:
        model: of watermark_photo.py.
        picture: float32 in [0, 1], shape (height, width, 1 or 3); colours all change alike, so
            that luminance alone does.
        bits: from `embed`.
    """
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    grey = luminance(picture) if picture.shape[-1] == 3 else picture
    change = np.zeros_like(grey)
    for rows, around, inner in _bands(len(bits)):
        part = grey[around.start * CELL : around.stop * CELL, : bits.shape[1] * CELL]
        watermark = bits[around][np.newaxis, ..., np.newaxis].astype("float32")
        changed = decoder([encoder(part[np.newaxis]), keras.ops.convert_to_tensor(watermark)])
        changed = keras.ops.convert_to_numpy(changed)[0]
        changed = changed[inner.start * CELL : inner.stop * CELL]
        change[rows.start * CELL : rows.stop * CELL, : bits.shape[1] * CELL] = changed
    return np.round(np.clip(picture + change, 0, 1) * 255) / np.float32(255)


def read(model, grey):
    """Return the log-odds of each cell's bit, shape (height // CELL, width // CELL).

    Args:
        model: of watermark_photo.py.
        grey: float32, shape (height, width, 1).
    """
    extractor, (down, across) = model.get_layer("extractor"), grid(*grey.shape[:2])
    log_odds = np.zeros((down, across))
    for rows, around, inner in _bands(down):
        part = grey[around.start * CELL : around.stop * CELL, : across * CELL]
        p = keras.ops.convert_to_numpy(extractor(part[np.newaxis]))[0, inner, :, 0]
        p = p.astype("float64")
        log_odds[rows] = np.log(np.clip(p, 1e-6, None)) - np.log(np.clip(1 - p, 1e-6, None))
    return log_odds


def _bands(count, size=64):
    """Yield (rows, rows with one more on either side, the former within the latter) of cells.

    An image is worked on in bands, so that the networks' memory does not grow with it.
    """
    for top in range(0, count, size):
        bottom, above = min(top + size, count), max(top - 1, 0)
        around = slice(above, min(bottom + 1, count))
        yield slice(top, bottom), around, slice(top - above, bottom - above)
