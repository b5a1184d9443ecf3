"""Finding the grid of cells in a photo that was cropped, scaled, stretched, rotated or mirrored.

All cells show nearly the same pattern, each with a sign, and a quarter of the signs, the pilots,
repeat every 16 cells. So a photo is folded to one tile of 128x128 pixels and correlated with the
known tile at all offsets at once, by FFT: once for each scale and angle, in a window small enough
that a slightly wrong scale or angle still correlates. The best placement is then refined in growing
windows: each block of a window says by how far it is off, and the placement is bent to fit.
"""

import dataclasses
import itertools

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from tools.messages import code

CELL = 8  # pixels, the side of a block of JPEG
TILE = code.PERIOD * CELL
WINDOW = 1024  # pixels, of the first look at a photo
ANGLES = np.radians(np.arange(-7, 8) * 0.75)
# The likely ones first.
SCALES = sorted(2 ** (np.arange(-50, 51) / 48), key=lambda scale: abs(np.log(scale)))
# Width and height relative to their mean: one side 0.9 to 1.1 of what it was, in four steps.
STRETCHES = [(0.972, 1.029), (1.029, 0.972), (0.949, 1.054), (1.054, 0.949)]
STRETCHED = [scale * np.array(stretch) for scale in SCALES for stretch in STRETCHES]
# The eight ways to rotate and mirror a picture by quarter turns.
ORIENTATIONS = [
    np.array(rows) * signs
    for rows in ([[1, 0], [0, 1]], [[0, 1], [1, 0]])
    for signs in itertools.product((1, -1), repeat=2)
]
# Sides of the windows of a refinement, and how many pixels a block may be off in each: fewer and
# fewer, because more possible offsets mean more wrong ones.
REFINEMENTS = [(2 * TILE, 5), (4 * TILE, 4), (8 * TILE, 3), (8 * TILE, 2), (16 * TILE, 2)]
STIFFNESS = 12_500  # pixels squared: weighs a change of scale or angle against offsets of blocks
# Standard deviations above chance of a placement:
CERTAIN = 6.5  # it is refined at once
MIN_REFINED = 4  # below this a refinement ends, and a refined placement is dropped
MAX_CANDIDATES = 24


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a grid lies: its point (x, y) is at `matrix @ (x, y) + shift` in the picture.

    In pixels; the center of the first pixel is (0.5, 0.5). `center` is the point of the grid around
    which it was found, `score` how many standard deviations above chance the pilots correlate.
    """

    matrix: np.ndarray
    shift: np.ndarray
    center: np.ndarray
    score: float = 0.0
    refined: bool = False

    def area(self, picture, side):
        """Return the lowest and highest (x, y) of the grid in a window of a Pillow image."""
        width, height = picture.size
        corners = np.array(list(itertools.product((0, width), (0, height))))
        on_grid = np.linalg.solve(self.matrix, (corners - self.shift).T)
        low, high = on_grid.min(axis=1), on_grid.max(axis=1)
        center = np.clip(self.center, low + side / 2, np.maximum(high - side / 2, low + side / 2))
        return np.maximum(low, center - side / 2), np.minimum(high, center + side / 2)

    def pixels(self, picture, corner, size, resample=Image.Resampling.BICUBIC):
        """Return a Pillow image as seen on the grid from a corner (x, y) on, float32.

        `size` is (width, height), the result has shape (height, width).
        """
        shift = self.matrix @ corner + self.shift
        coefficients = (*self.matrix[0], shift[0], *self.matrix[1], shift[1])
        size = tuple(map(int, size))
        return np.asarray(picture.transform(size, Image.Transform.AFFINE, coefficients, resample))


class Pilots:
    """What a tile of pilots looks like in a photo, and its spectra in all eight orientations.

    `pattern` is that of one cell, shape (CELL, CELL).
    """

    def __init__(self, pattern):
        tile = np.kron(code.pilots(), pattern)
        tile -= ndimage.gaussian_filter(tile, 2, mode="wrap")
        self.tile = (tile / np.linalg.norm(tile)).astype(np.float32)
        centers = np.mgrid[:TILE, :TILE][::-1] + 0.5  # (x, y) of each pixel
        places = [np.einsum("ij,jyx->iyx", turn.T, centers) for turn in ORIENTATIONS]
        turned = [self.tile[tuple(np.floor(xy[::-1]).astype(int) % TILE)] for xy in places]
        self.spectra = np.conj(fft.rfft2(np.stack(turned)))


def candidates(picture, pilots, search, progress):
    """Yield (picture, placement) where the grid may be: unscaled first, then what a search finds.

    The picture, a Pillow image of mode F, may come back scaled down. `search` and `progress` are
    those of `photo.Watermark.extract`.
    """
    ((unscaled,),) = correlate(picture, pilots, [1], [0], side=WINDOW)
    yield picture, unscaled
    placements = [unscaled]
    done = 0
    # Few pictures are mirrored or turned by 90 degrees, and to try that takes five times as long.
    passes = [
        (SCALES, ANGLES, slice(1), 1 / 6),
        (STRETCHED, [0], slice(1), 1 / 6),
        (SCALES, ANGLES, slice(1, None), 2 / 3),
    ]
    for scales, angles, orientations, weight in passes if search else []:
        for by_angle in correlate(picture, pilots, scales, angles, orientations):
            done += weight / len(scales)
            progress(done)
            placements += by_angle
            best = max(by_angle, key=lambda placement: placement.score)
            if best.score > CERTAIN:
                yield refine(picture, pilots, best)
    for placement in sorted(placements, key=lambda each: -each.score)[:MAX_CANDIDATES]:
        scaled, refined = refine(picture, pilots, placement)
        if refined.score > MIN_REFINED:
            yield scaled, refined


def correlate(picture, pilots, scales, angles, orientations=slice(None), side=2 * TILE):
    """Yield, for each scale, a list with the best placement for each angle.

    Args:
        picture, pilots: as for `candidates`.
        scales: size of the picture relative to that when it was marked; also (width, height) of it.
        angles: by which it was rotated, in radians.
        orientations: slice of ORIENTATIONS to try.
        side: of the window that is looked at, in pixels of the grid.
    """
    full_size, center = np.array(picture.size), _busiest_point(picture, side)
    for scale in scales:
        window = np.minimum(full_size, np.round(side * scale))
        start = np.clip(center - window / 2, 0, full_size - window)
        size = np.maximum(np.round(window / scale), 1).astype(int)
        box = (*start, *(start + window))
        view = picture.resize(tuple(map(int, size)), Image.Resampling.BICUBIC, box=box)
        view, stretch = Image.fromarray(_fine_detail(np.asarray(view))), np.diag(window / size)
        placements = []
        for angle in angles:
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            rotated = Placement(turn, size / 2 - turn @ size / 2, size / 2)
            pixels = rotated.pixels(view, (0, 0), size, Image.Resampling.BILINEAR)
            spectrum = fft.rfft2(code.fold(pixels, TILE))
            sums = fft.irfft2(spectrum * pilots.spectra[orientations])
            orientation, row, column = np.unravel_index(sums.argmax(), sums.shape)
            matrix = stretch @ turn
            shift = matrix @ (column, row) + stretch @ rotated.shift + start
            matrix = matrix @ ORIENTATIONS[orientations][orientation]
            middle = np.linalg.solve(matrix, start + window / 2 - shift)
            score = sums.max() / (sums[orientation].std() + 1e-9)
            placements.append(Placement(matrix, shift, middle, float(score)))
        yield placements


def _busiest_point(picture, side):
    """Return the center (x, y) of the window that holds the largest textured area."""
    step = 16
    pixels = np.asarray(picture)
    if min(pixels.shape) < step:
        return np.array(picture.size) / 2
    rows, columns = (length // step for length in pixels.shape)
    blocks = pixels[: rows * step, : columns * step].reshape(rows, step, columns, step)
    contrast = blocks.std(axis=(1, 3))
    textured = (contrast > np.median(contrast)).astype(float)
    share = ndimage.uniform_filter(textured, max(side // step, 1), mode="constant")
    y, x = np.mgrid[:rows, :columns] + 0.5
    share -= 0.01 * (np.abs(x / columns - 0.5) + np.abs(y / rows - 0.5))  # ties: the central one
    row, column = np.unravel_index(share.argmax(), share.shape)
    return step * np.array([column + 0.5, row + 0.5])


def refine(picture, pilots, placement):
    """Return (picture, placement), exact to a fraction of a pixel, from one that is a few off.

    The picture is scaled down if it is larger than its grid.
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
    for side, max_offset in REFINEMENTS:
        placement = _fit(picture, pilots, placement, side, max_offset)
        if side > 2 * TILE and placement.score < MIN_REFINED:
            break
    return picture, placement


def _fit(picture, pilots, placement, side, max_offset):
    """Return a placement bent to the offsets of the blocks in a window, in pixels."""
    low, high = placement.area(picture, side)
    count = np.maximum(np.round((high - low) / TILE), 1).astype(int)
    corner = np.round((low + high - count * TILE) / 2).astype(int)
    detail = _fine_detail(placement.pixels(picture, corner, count * TILE))
    # A block has the size of a tile, so all blocks show it from the same corner on.
    tile_spectrum = np.conj(fft.rfft2(np.roll(pilots.tile, -corner[::-1], axis=(0, 1))))
    points, offsets, weights, total = [], [], [], 0
    for column, row in np.ndindex(*count):
        x, y = TILE * column, TILE * row
        spectrum = fft.rfft2(detail[y : y + TILE, x : x + TILE])
        sums = fft.irfft2(spectrum * tile_spectrum)
        sums /= sums.std() + 1e-9
        size = 2 * max_offset + 1
        near = np.roll(sums, (max_offset, max_offset), (0, 1))[:size, :size]
        down, right = np.unravel_index(near.argmax(), near.shape)
        points.append(corner + (x, y) + TILE / 2)
        offsets.append((right - max_offset, down - max_offset))
        weights.append(max(near.max() - 3, 0) ** 2)
        total += sums[0, 0]
    points, weights = np.array(points), np.array(weights) + 1e-9
    # Weighted least squares: offset = bend @ (point - center) + move, with a penalty on the bend.
    center = weights @ points / weights.sum()
    design = np.column_stack([points - center, np.ones(len(points))])
    normal = (design.T * weights) @ design + STIFFNESS * weights.max() * np.diag([1, 1, 0])
    solution = np.linalg.solve(normal, (design.T * weights) @ np.array(offsets))
    bend = solution[:2].T
    move = solution[2] - solution[:2].T @ center
    return Placement(
        matrix=placement.matrix @ (np.eye(2) + bend),
        shift=placement.matrix @ move + placement.shift,
        center=placement.center,
        score=float(total / np.sqrt(len(points))),
        refined=True,
    )


def _fine_detail(gray):
    """Return what is finer than a few pixels, at the same strength everywhere."""
    detail = gray - ndimage.gaussian_filter(gray, 2)
    power = np.maximum(ndimage.uniform_filter(detail**2, 17), 0)
    return np.clip(detail / (np.sqrt(power) + 0.003), -3, 3)
