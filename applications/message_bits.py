"""A text as bits in a plane of cells, and back: the code behind watermark_photo.py.

A plane repeats one square tile of cells. In each tile

    pilots     a quarter of the cells: signs that everyone knows and that repeat every 16 cells;
               they tell a reader where the cells are
    frame      the others: version (8 bits), text (UTF-8, filled up with zero bytes to one of
               `SIZES`), check (48 bits, keyed), ten zeros; four code bits for each, scattered and
               flipped by the key, over and over until the tile is full, or as many as it holds

The code is convolutional, with 1,024 states: a wrong cell is outvoted by what its neighbours in
time say, so that a seventh of the cells may lie. In tiles larger than the smallest an eighth of the
frame's cells has signs known from the key, which say where such a tile begins; with the smallest
all four places are tried.

The version names all of it: this layout, the way from the key to the bits, and the extractor in
models/watermark_photo.keras, whose weights are part of the format. None of these may change; a
better one is another version, and files with marks of this one are still to be read.
"""

import dataclasses
import hashlib

import numpy as np

from common import UserError

VERSION = 2  # the first version had a checksum without a key, and no tiles
PERIOD = 16  # cells, of the pilots
# {side of the tile, a multiple of PERIOD: bytes that a text in it may be filled up to}
SIZES = {32: (4, 8, 16, 24, 32, 40), 64: (64, 96, 128, 160), 128: (256, 384, 512, 640)}
LONGEST = max(max(sizes) for sizes in SIZES.values())
_CHECK = 6  # bytes
_MEMORY = 10  # bits that the encoder remembers
# For a rate of 1/4: J. G. Proakis, Digital Communications, table 8.2-3. Code words differ in at
# least 29 bits; of the first two alone, at rate 1/2, in 13; of three in 20.
_GENERATORS = (0o2327, 0o3175, 0o2671, 0o2353)


@dataclasses.dataclass(frozen=True)
class Key:
    """What is derived from a key text, once: bytes for the layout, and for the check."""

    layout: bytes
    check: bytes


def derive_key(text):
    """Return the `Key` of any text, by scrypt: slow, so that guessing keys is, too."""
    salt = f"watermark_photo {VERSION}".encode()
    secret = hashlib.scrypt(text.encode(), salt=salt, n=2**14, r=8, p=1, dklen=64)
    return Key(secret[:32], secret[32:])


def _order(seed, count):
    """Return a permutation of range(count): the places of sorted random numbers of 64 bits.

    Random numbers come from SHAKE-256, so that no library's generator is part of the format.
    """
    numbers = np.frombuffer(hashlib.shake_256(seed).digest(8 * count), "<u8")
    return np.argsort(numbers, kind="stable")


def signs(seed, count):
    """Return `count` random signs, -1 and 1."""
    drawn = np.frombuffer(hashlib.shake_256(seed).digest(count // 8 + 1), np.uint8)
    return 2 * np.unpackbits(drawn)[:count].astype(int) - 1


def pilots():
    """Return the known signs of a tile of PERIOD x PERIOD cells; 0 where the frame is."""
    name = f"watermark_photo {VERSION} pilots".encode()
    tile = np.zeros(PERIOD * PERIOD, int)
    tile[_order(name, tile.size)[: tile.size // 4]] = signs(name, tile.size // 4)
    return tile.reshape(PERIOD, PERIOD)


def _layout(key, side, size):
    """Return (marks, cells, signs, code bits) of a tile for texts filled up to `size` bytes.

    The first `marks` of the cells, indices in the flattened tile, have a sign each. The n-th after
    these holds the n-th of `code bits`, flipped where its sign is -1.
    """
    free = np.flatnonzero(np.tile(pilots(), (side // PERIOD, side // PERIOD)) == 0)
    seed = key.layout + bytes([VERSION, side]) + size.to_bytes(2, "big")
    marks = free.size // 8 if side > min(SIZES) else 0
    steps = _steps(size)
    # Whole generators first, and of the last one that finds room, bits far from each other.
    spread = np.argsort(np.arange(steps) * 40_503 % 65_536, kind="stable")
    code = (spread + steps * np.arange(len(_GENERATORS))[:, None]).ravel()
    cells = free[_order(seed + b"order", free.size)]
    return marks, cells, signs(seed + b"signs", free.size), np.resize(code, free.size - marks)


def _steps(size):
    return 8 * (1 + size + _CHECK) + _MEMORY


def _check(key, content):
    return hashlib.blake2b(content, digest_size=_CHECK, key=key.check).digest()


def embed(text, down, across, key):
    """Return the bits of a message for each cell of an image.

    Args:
        text: what to hide.
        down, across: the cells of the image.
        key: from `derive_key`; only who knows its text reads the message.

    Returns:
        integers 0 and 1, shape (down, across).

    Raises:
        UserError: the text is empty, too long for any image, or holds a zero byte.
    """
    content = text.encode()
    if not content:
        raise UserError("--message is empty; give it some text")
    if b"\0" in content:
        raise UserError("--message holds a zero byte, which ends a message; leave it out")
    fitting = [(size, side) for side, sizes in SIZES.items() for size in sizes]
    fitting = [pair for pair in fitting if len(content) <= pair[0]]
    if not fitting:
        raise UserError(
            f"--message has {len(content)} bytes, too long for any image: {LONGEST} bytes fit"
        )
    size, side = fitting[0]
    frame = bytes([VERSION]) + content.ljust(size, b"\0")
    marks, cells, flips, code = _layout(key, side, size)
    flips[marks:] *= 2 * _encode(frame + _check(key, frame))[code] - 1
    tile = np.tile(pilots(), (side // PERIOD, side // PERIOD)).ravel()
    tile[cells] = flips
    repeats = -(-down // side), -(-across // side)
    return (np.tile(tile.reshape(side, side), repeats)[:down, :across] + 1) // 2


def extract(log_odds, key, origin=(0, 0)):
    """Return the message, or None where none is.

    Args:
        log_odds: of each cell's bit being 1, 0 where nothing is known, shape (down, across).
            Those of a bit's cells add up.
        key: from `derive_key`, of what the message was embedded with.
        origin: the row and column of the first cell, counted from where the pilots begin.
    """
    seen = np.count_nonzero(log_odds)
    for side, sizes in SIZES.items():
        if side > min(SIZES) and seen < side**2 / 3:
            break
        tile = fold(log_odds, side, origin)
        starts = range(0, side, PERIOD)  # pilots repeat every PERIOD cells, a tile does not
        tiles = np.stack([np.roll(tile, (-a, -b), (0, 1)).ravel() for a in starts for b in starts])
        found = []
        for size in sizes:
            marks, cells, flips, code = _layout(key, side, size)
            if marks:
                scores = tiles[:, cells[:marks]] @ flips[:marks]
                chosen = tiles[[scores.argmax()]]
            else:
                scores, chosen = np.zeros(1), tiles
            votes = chosen[:, cells[marks:]] * flips[marks:]
            sums = [np.bincount(code, row, len(_GENERATORS) * _steps(size)) for row in votes]
            found.append((scores.max(), np.reshape(sums, (len(sums), len(_GENERATORS), -1))))
        if marks:
            found = [max(found, key=lambda pair: pair[0])]
        for _, votes in found:
            for frame in _decode(votes):
                text = _text(frame, key)
                if text is not None:
                    return text
    return None


def fold(values, side, origin=(0, 0)):
    """Return the sums of values that stand at the same place of a tile, shape (side, side).

    `origin` is the place of the first value, counted from where a tile begins.
    """
    shifts = [start % side for start in origin]
    padding = [
        (shift, -(shift + count) % side) for shift, count in zip(shifts, values.shape, strict=True)
    ]
    padded = np.pad(values, padding)
    shape = padded.shape[0] // side, side, padded.shape[1] // side, side
    return padded.reshape(shape).sum((0, 2))


def _text(frame, key):
    """Return the text of a decoded frame, or None if its check is wrong."""
    frame, check = frame[:-_CHECK], frame[-_CHECK:]
    if frame[0] != VERSION or _check(key, frame) != check:
        return None
    return frame[1:].rstrip(b"\0").decode(errors="replace")


def _encode(content):
    """Return the code bits of some bytes: those of the first generator, then the next's, …"""
    bits = np.unpackbits(np.frombuffer(content, np.uint8)).astype(int)
    taps = [[int(digit) for digit in format(g, f"0{_MEMORY + 1}b")] for g in _GENERATORS]
    return np.concatenate([np.convolve(bits, t) % 2 for t in taps])


def _decode(votes):
    """Return the most likely bytes for each set of votes: A. J. Viterbi's algorithm, 1967.

    Args:
        votes: log-odds of the code bits, shape (n, generators, steps).
    """
    states, (n, _, steps) = 1 << _MEMORY, votes.shape
    # A register holds the newest bit on top of the state; without its oldest it is the next state.
    registers = range(2 * states)
    sent = [[bin(r & g).count("1") % 2 * 2 - 1 for r in registers] for g in _GENERATORS]
    sent = np.array(sent, np.float32)
    votes = np.ascontiguousarray(votes.transpose(2, 0, 1), np.float32)
    scores = np.full((n, states), -1e9, np.float32)
    scores[:, 0] = 0
    older = np.empty((steps, n, states), bool)  # which of the two registers came before a state
    for step in range(steps):
        ways = votes[step] @ sent
        ways[:, :states] += scores
        ways[:, states:] += scores
        older[step] = ways[:, 1::2] > ways[:, ::2]
        scores = np.maximum(ways[:, 1::2], ways[:, ::2])
    state, row = np.zeros(n, int), np.arange(n)  # where the last zeros have led
    bits = np.empty((n, steps), np.uint8)
    for step in reversed(range(steps)):
        bits[:, step] = state >> (_MEMORY - 1)
        state = (2 * state + older[step, row, state]) % states
    return [frame.tobytes() for frame in np.packbits(bits[:, : steps - _MEMORY], axis=1)]
