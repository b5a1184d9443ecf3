"""The error-correcting code of watermark_photo.py: a text as bits in a grid of cells, and back.

The grid repeats one square tile of cells. A tile holds

    pilots   a quarter of the cells: known signs that repeat every 16 cells, so that a reader can
             find the grid
    frame    the other cells: version (8 bits), text (UTF-8, padded with zero bytes to one of
             `SIZES`), checksum (48 bits, keyed), ten zeros. Each of these bits becomes four code
             bits. The key scatters and flips them; they repeat until the tile is full, or as many
             as fit are used.

The code is convolutional, with 1,024 states: it corrects a seventh of the cells. In tiles larger
than the smallest an eighth of the frame's cells hold signs derived from the key, which mark where
such a tile begins; with the smallest tile all four positions are tried.

The version stands for all of it: this layout, the derivation from the key, and the extractor in
models/watermark_photo.keras, whose weights are part of the format. A change to any of them needs a
new version, and a reader that still knows this one.
"""

import dataclasses
import hashlib

import numpy as np

from common.cli import UserError

VERSION = 2
PERIOD = 16  # cells, of the pilots
# {side of the tile, a multiple of PERIOD: bytes that its text may be padded to}
SIZES = {32: (4, 8, 16, 24, 32, 40), 64: (64, 96, 128, 160), 128: (256, 384, 512, 640)}
SMALLEST_TILE = min(SIZES)
MAX_BYTES = max(max(sizes) for sizes in SIZES.values())
CHECKSUM_BYTES = 6
MEMORY = 10  # bits that the encoder remembers
# For a rate of 1/4: J. G. Proakis, Digital Communications, table 8.2-3. Code words differ in at
# least 29 bits; in 13 where only the first two generators are used, in 20 with three.
GENERATORS = (0o2327, 0o3175, 0o2671, 0o2353)


@dataclasses.dataclass(frozen=True)
class Key:
    """What is derived from a key text: bytes for the layout and bytes for the checksum."""

    layout: bytes
    checksum: bytes


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a tile's sync signs and code bits stand; cells are indices of the flattened tile.

    The n-th of `code_cells` holds code bit number `code_bits[n]`, flipped where its sign is -1.
    """

    sync_cells: np.ndarray
    sync_signs: np.ndarray
    code_cells: np.ndarray
    code_signs: np.ndarray
    code_bits: np.ndarray
    steps: int  # bits that enter the convolutional code


def derive_key(text):
    """Return the `Key` of a text by scrypt, which is slow, so that keys are slow to guess."""
    salt = f"watermark_photo {VERSION}".encode()
    secret = hashlib.scrypt(text.encode(), salt=salt, n=2**14, r=8, p=1, dklen=64)
    return Key(secret[:32], secret[32:])


def _permutation(seed, count):
    """Return a permutation of range(count).

    Random numbers come from SHAKE-256, so that no library's generator is part of the format.
    """
    numbers = np.frombuffer(hashlib.shake_256(seed).digest(8 * count), "<u8")
    return np.argsort(numbers, kind="stable")


def random_signs(seed, count):
    """Return `count` random signs, -1 and 1."""
    numbers = np.frombuffer(hashlib.shake_256(seed).digest(count // 8 + 1), np.uint8)
    return 2 * np.unpackbits(numbers)[:count].astype(int) - 1


def pilots():
    """Return the known signs, shape (PERIOD, PERIOD); 0 where the frame is."""
    seed = f"watermark_photo {VERSION} pilots".encode()
    tile = np.zeros(PERIOD * PERIOD, int)
    tile[_permutation(seed, tile.size)[: tile.size // 4]] = random_signs(seed, tile.size // 4)
    return tile.reshape(PERIOD, PERIOD)


def _tile_of_pilots(side):
    return np.tile(pilots(), (side // PERIOD, side // PERIOD)).ravel()


def _layout(key, side, size):
    """Return the `Layout` of a tile for texts that are padded to `size` bytes."""
    free_cells = np.flatnonzero(_tile_of_pilots(side) == 0)
    seed = key.layout + bytes([VERSION, side]) + size.to_bytes(2, "big")
    sync_count = free_cells.size // 8 if side > SMALLEST_TILE else 0
    steps = 8 * (1 + size + CHECKSUM_BYTES) + MEMORY
    # Complete generators first; of the last one that has room, bits far from each other.
    spread = np.argsort(np.arange(steps) * 40_503 % 65_536, kind="stable")
    code_bits = (spread + steps * np.arange(len(GENERATORS))[:, np.newaxis]).ravel()
    cells = free_cells[_permutation(seed + b"order", free_cells.size)]
    signs = random_signs(seed + b"signs", free_cells.size)
    return Layout(
        sync_cells=cells[:sync_count],
        sync_signs=signs[:sync_count],
        code_cells=cells[sync_count:],
        code_signs=signs[sync_count:],
        code_bits=np.resize(code_bits, free_cells.size - sync_count),
        steps=steps,
    )


def _checksum(key, content):
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES, key=key.checksum).digest()


def encode(text, rows, columns, key):
    """Return the bits of a message for a grid of cells: 0 and 1, shape (rows, columns).

    Raises UserError if the text is empty, is too long for any image, or holds a zero byte.
    """
    content = text.encode()
    if not content:
        raise UserError("the message is empty; give it some text")
    if b"\0" in content:
        raise UserError("the message holds a zero byte, which would end it; leave it out")
    if len(content) > MAX_BYTES:
        raise UserError(
            f"the message has {len(content)} bytes; no image holds more than {MAX_BYTES}"
        )
    side, size = next(
        (side, size) for side, sizes in SIZES.items() for size in sizes if len(content) <= size
    )
    frame = bytes([VERSION]) + content.ljust(size, b"\0")
    code_word = _convolve(frame + _checksum(key, frame))
    layout = _layout(key, side, size)
    tile = _tile_of_pilots(side)
    tile[layout.sync_cells] = layout.sync_signs
    tile[layout.code_cells] = layout.code_signs * (2 * code_word[layout.code_bits] - 1)
    repeats = -(-rows // side), -(-columns // side)
    return (np.tile(tile.reshape(side, side), repeats)[:rows, :columns] + 1) // 2


def decode(log_odds, key, origin=(0, 0)):
    """Return the message in a grid of cells, or None if there is none.

    Args:
        log_odds: of each cell's bit being 1, shape (rows, columns); 0 where nothing is known.
        key: the `Key` that the message was encoded with.
        origin: row and column of the first cell, counted from the start of a period of pilots.
    """
    known_cells = np.count_nonzero(log_odds)
    for side, sizes in SIZES.items():
        if side > SMALLEST_TILE and known_cells < side**2 / 3:
            break
        # Pilots repeat every PERIOD cells, a tile does not, so it may begin in several places.
        tile = fold(log_odds, side, origin)
        shifts = [(-a, -b) for a in range(0, side, PERIOD) for b in range(0, side, PERIOD)]
        tiles = np.stack([np.roll(tile, shift, (0, 1)).ravel() for shift in shifts])
        layouts = [_layout(key, side, size) for size in sizes]
        if side > SMALLEST_TILE:  # sync signs tell the size and the place
            scores = np.stack([tiles[:, x.sync_cells] @ x.sync_signs for x in layouts])
            best, place = np.unravel_index(scores.argmax(), scores.shape)
            layouts = [layouts[best]]
            tiles = tiles[[place]]
        for layout in layouts:
            for frame in _viterbi(_votes(tiles, layout)):
                text = _text(frame, key)
                if text is not None:
                    return text
    return None


def fold(values, side, origin=(0, 0)):
    """Return the sums of all values at the same place of a tile, shape (side, side).

    `origin` is the place of the first value, counted from the start of a tile.
    """
    places = zip(origin, values.shape, strict=True)
    padded = np.pad(values, [(start % side, -(start + count) % side) for start, count in places])
    return padded.reshape(-1, side, padded.shape[1] // side, side).sum((0, 2))


def _votes(tiles, layout):
    """Return the log-odds of the code bits in flattened tiles, shape (n, generators, steps)."""
    signed = tiles[:, layout.code_cells] * layout.code_signs
    count = len(GENERATORS) * layout.steps
    sums = np.stack([np.bincount(layout.code_bits, row, count) for row in signed])
    return sums.reshape(len(tiles), len(GENERATORS), layout.steps)


def _text(frame, key):
    """Return the text of a decoded frame, or None if its version or checksum is wrong."""
    frame, checksum = frame[:-CHECKSUM_BYTES], frame[-CHECKSUM_BYTES:]
    if frame[0] != VERSION or _checksum(key, frame) != checksum:
        return None
    return frame[1:].rstrip(b"\0").decode(errors="replace")


def _convolve(content):
    """Return the code bits of some bytes: those of the first generator, then of the next."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8)).astype(int)
    taps = [[int(digit) for digit in format(g, f"0{MEMORY + 1}b")] for g in GENERATORS]
    return np.concatenate([np.convolve(bits, t) % 2 for t in taps])


def _viterbi(votes):
    """Return the most likely bytes for each set of votes: A. J. Viterbi's algorithm, 1967."""
    states, (n, _, steps) = 1 << MEMORY, votes.shape
    # A register holds the newest bit on top of the state; without its oldest it is the next state.
    registers = range(2 * states)
    outputs = [[bin(r & g).count("1") % 2 * 2 - 1 for r in registers] for g in GENERATORS]
    outputs = np.array(outputs, np.float32)
    votes = np.ascontiguousarray(votes.transpose(2, 0, 1), np.float32)
    scores = np.full((n, states), -1e9, np.float32)
    scores[:, 0] = 0
    came_from_odd = np.empty((steps, n, states), bool)  # which of two registers led to a state
    for step in range(steps):
        candidates = votes[step] @ outputs
        candidates[:, :states] += scores
        candidates[:, states:] += scores
        came_from_odd[step] = candidates[:, 1::2] > candidates[:, ::2]
        scores = np.maximum(candidates[:, 1::2], candidates[:, ::2])
    state, row = np.zeros(n, int), np.arange(n)  # the last zeros lead to state 0
    bits = np.empty((n, steps), np.uint8)
    for step in reversed(range(steps)):
        bits[:, step] = state >> (MEMORY - 1)
        state = (2 * state + came_from_odd[step, row, state]) % states
    return [frame.tobytes() for frame in np.packbits(bits[:, : steps - MEMORY], axis=1)]
