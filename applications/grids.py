"""Where the grid of cells lies in a photo that was cut, scaled, turned or mirrored since.

The cells of a watermark bear nearly the same pattern, with a sign each, and a quarter of the signs,
the pilots, repeat every 16 cells. So a photo is folded to one such tile of 128x128 pixels and
compared with the known one at all places at once, by FFT: once for each scale and angle, in a
window small enough that the next scale or angle would do almost as well. What agrees best is made
exact in windows that grow: their blocks say how far they are off, and the placement bends to them.
"""

import dataclasses
import itertools

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from applications import message_bits

CELL = 8  # pixels, the side of a block of JPEG
TILE = message_bits.PERIOD * CELL
ANGLES = np.radians(np.arange(-7, 8) * 0.75)
# From the middle outwards, so that what is likely is found soon.
SCALES = sorted(2 ** (np.arange(-50, 51) / 48), key=lambda scale: abs(np.log(scale)))
# The eight ways to turn and mirror a picture.
_TURNS = [
    np.array(rows) * signs
    for rows in ([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    for signs in itertools.product((1, -1), repeat=2)
]
_BLOCK = TILE  # pixels, of what is compared when a placement is made exact
# How far to look, and how many pixels a block may be off: less and less, as wrong places for it
# are the more likely the more of them there are.
_STEPS = [(2 * TILE, 5), (4 * TILE, 4), (8 * TILE, 3), (8 * TILE, 2), (16 * TILE, 2)]
_CHANCE = 4  # standard deviations; a placement below that gets no closer look
_STIFFNESS = 12_500  # pixels squared: how far a block is off, against a change of scale or angle


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a grid lies: a point (x, y) of it is at `matrix @ (x, y) + shift` in the picture.

    In pixels; the centre of the first one is at (0.5, 0.5). `middle` is where on the grid it was
    found, and `score` how many standard deviations above chance the picture agrees with the pilots.
    """

    matrix: np.ndarray
    shift: np.ndarray
    middle: np.ndarray
    score: float = 0.0
    exact: bool = False

    def area(self, picture, reach):
        """Return the lowest and highest (x, y) of the grid within reach, in a Pillow image."""
        corners = np.array(list(itertools.product(*((0, side) for side in picture.size))))
        on_grid = np.linalg.solve(self.matrix, (corners - self.shift).T)
        low, high = on_grid.min(axis=1), on_grid.max(axis=1)
        middle = np.clip(
            self.middle, low + reach / 2, np.maximum(high - reach / 2, low + reach / 2)
        )
        return np.maximum(low, middle - reach / 2), np.minimum(high, middle + reach / 2)

    def pixels(self, picture, corner, size, how=Image.Resampling.BICUBIC):
        """Return a picture as it looks on the grid, float32 of shape (height, width).

        Args:
            picture: Pillow image of mode F.
            corner: (x, y) of the grid where it begins.
            size: width and height.
            how: Pillow's way to interpolate.
        """
        shift = self.matrix @ corner + self.shift
        coefficients = (*self.matrix[0], shift[0], *self.matrix[1], shift[1])
        size = tuple(map(int, size))
        return np.asarray(picture.transform(size, Image.Transform.AFFINE, coefficients, how))


class Pilots:
    """What a tile of pilots looks like, in all eight ways.

    Args:
        pattern: of one cell, shape (CELL, CELL).
    """

    def __init__(self, pattern):
        tile = np.kron(message_bits.pilots(), pattern)
        tile -= ndimage.gaussian_filter(tile, 2, mode="wrap")
        self.tile = (tile / np.linalg.norm(tile)).astype(np.float32)
        centres = np.stack(np.meshgrid(*[np.arange(TILE) + 0.5] * 2))
        places = [np.einsum("ij,jyx->iyx", turn.T, centres) for turn in _TURNS]
        seen = [self.tile[tuple(np.floor(xy[::-1]).astype(int) % TILE)] for xy in places]
        self.spectra = np.conj(fft.rfft2(np.stack(seen)))

    def part(self, corner):
        """Return the block of the endless pattern that begins at (x, y)."""
        columns, rows = ((np.arange(_BLOCK) + start) % TILE for start in corner)
        return self.tile[np.ix_(rows, columns)]


def search(picture, pilots, scales, angles, turns=slice(None), reach=2 * TILE):
    """Yield, for each scale, the placements that agree best with a picture, one for each angle.

    Args:
        picture: Pillow image of mode F.
        pilots: `Pilots`.
        scales: how large the picture is now, as against when it was marked.
        angles: how far it was turned, in radians.
        turns: which of the eight ways to turn and mirror it are tried; the first is neither.
        reach: side of the window that is looked at, in pixels of the grid.
    """
    whole, centre = np.array(picture.size), _busiest(picture, reach)
    for scale in scales:
        window = np.minimum(whole, np.round(reach * scale))
        start = np.clip(centre - window / 2, 0, whole - window)
        size = np.maximum(np.round(window / scale), 1).astype(int)
        box = (*start, *(start + window))
        view = picture.resize(tuple(map(int, size)), Image.Resampling.BICUBIC, box=box)
        view, stretch = Image.fromarray(_fine_detail(np.asarray(view))), np.diag(window / size)
        found = []
        for angle in angles:
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            placed = Placement(turn, size / 2 - turn @ size / 2, size / 2)
            seen = placed.pixels(view, (0, 0), size, Image.Resampling.BILINEAR)
            spectrum = fft.rfft2(message_bits.fold(seen, TILE))
            sums = fft.irfft2(spectrum * pilots.spectra[turns])
            turned, row, column = np.unravel_index(sums.argmax(), sums.shape)
            matrix = stretch @ turn
            shift = matrix @ (column, row) + stretch @ placed.shift + start
            matrix = matrix @ _TURNS[turns][turned]
            middle = np.linalg.solve(matrix, start + window / 2 - shift)
            score = sums.max() / (sums[turned].std() + 1e-9)
            found.append(Placement(matrix, shift, middle, float(score)))
        yield found


def _busiest(picture, reach):
    """Return the middle (x, y) of the window that holds most of what is not smooth."""
    step, pixels = 16, np.asarray(picture)
    if min(pixels.shape) < step:
        return np.array(picture.size) / 2
    rows, columns = (side // step for side in pixels.shape)
    blocks = pixels[: rows * step, : columns * step].reshape(rows, step, columns, step)
    contrast = blocks.std(axis=(1, 3))
    busy = ndimage.uniform_filter(
        (contrast > np.median(contrast)).astype(float), max(reach // step, 1), mode="constant"
    )
    y, x = np.mgrid[:rows, :columns] + 0.5
    busy -= 0.01 * (np.abs(x / columns - 0.5) + np.abs(y / rows - 0.5))  # of equals, the middle one
    row, column = np.unravel_index(busy.argmax(), busy.shape)
    return step * np.array([column + 0.5, row + 0.5])


def made_exact(picture, pilots, placement):
    """Return (picture, placement), off by a fraction of a pixel, from a placement off by a few.

    The picture comes back no larger than its grid.
    """
    scale = np.sqrt(abs(np.linalg.det(placement.matrix)))
    if scale > 1.1:
        size = np.round(np.array(picture.size) / scale).astype(int)
        factors = size / picture.size
        picture = picture.resize(tuple(map(int, size)), Image.Resampling.BICUBIC)
        placement = dataclasses.replace(
            placement,
            matrix=factors[:, np.newaxis] * placement.matrix,
            shift=factors * placement.shift,
        )
    for reach, most in _STEPS:
        placement = _fit(picture, pilots, placement, reach, most)
        if reach > 2 * TILE and placement.score < _CHANCE:
            break
    return picture, placement


def _fit(picture, pilots, placement, reach, most):
    """Return a placement bent to what the blocks within `reach` pixels are off by, `most` each."""
    low, high = placement.area(picture, reach)
    count = np.maximum(np.round((high - low) / _BLOCK), 1).astype(int)
    corner = np.round((low + high - count * _BLOCK) / 2).astype(int)
    detail = _fine_detail(placement.pixels(picture, corner, count * _BLOCK))
    points, moves, weights, total = [], [], [], 0
    for column, row in np.ndindex(*count):
        x, y = _BLOCK * column, _BLOCK * row
        spectrum = fft.rfft2(detail[y : y + _BLOCK, x : x + _BLOCK])
        sums = fft.irfft2(spectrum * np.conj(fft.rfft2(pilots.part(corner + np.array([x, y])))))
        sums /= sums.std() + 1e-9
        near = np.roll(sums, (most, most), (0, 1))[: 2 * most + 1, : 2 * most + 1]
        down, across = np.unravel_index(near.argmax(), near.shape)
        points.append(corner + (x, y) + _BLOCK / 2)
        moves.append((across - most, down - most))
        weights.append(max(near.max() - 3, 0) ** 2)
        total += sums[0, 0]
    points, weights = np.array(points), np.array(weights) + 1e-9
    # Weighted least squares: move = bend @ (point - centre) + middle's own, with a stiff bend.
    centre = weights @ points / weights.sum()
    design = np.column_stack([points - centre, np.ones(len(points))])
    normal = (design.T * weights) @ design + _STIFFNESS * weights.max() * np.diag([1, 1, 0])
    fitted = np.linalg.solve(normal, (design.T * weights) @ np.array(moves))
    bend, move = fitted[:2].T, fitted[2] - fitted[:2].T @ centre
    return Placement(
        placement.matrix @ (np.eye(2) + bend),
        placement.matrix @ move + placement.shift,
        placement.middle,
        float(total / np.sqrt(len(points))),
        True,
    )


def _fine_detail(grey):
    """Return what is finer than a few pixels, as strong everywhere."""
    detail = grey - ndimage.gaussian_filter(grey, 2)
    power = np.maximum(ndimage.uniform_filter(detail**2, 17), 0)
    return np.clip(detail / (np.sqrt(power) + 0.003), -3, 3)
