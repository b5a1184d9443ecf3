"""How near images are to clean ones. All are float32 in [0, 1], shape (n, height, width, 1)."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity


def mse(clean, images):
    """Return the mean squared error over all pixels."""
    return float(np.mean(np.square(clean - images), dtype="float64"))


def psnr(clean, images):
    """Return the peak signal-to-noise ratio in dB, 10·log10(1 / MSE), averaged over the images.

    An image that is exact counts with 100 dB.
    """
    squares = clean - images
    squares *= squares  # in place: a photo may take half of the memory there is
    errors = np.mean(squares, axis=(1, 2, 3), dtype="float64")
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))


def ssim(clean, images):
    """Return the structural similarity (1 is identical), averaged over the images.

    Windows of 7x7, Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861
    """
    pairs = zip(clean[..., 0], images[..., 0], strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=1.0) for a, b in pairs]))


def binary_crossentropy(clean, images):
    """Return the mean over pixels of -x·log(y) - (1 - x)·log(1 - y), in nats.

    The images y are clipped to [1e-7, 1 - 1e-7] as Keras does.
    """
    y = np.clip(images, 1e-7, 1 - 1e-7)
    return float(-np.mean(clean * np.log(y) + (1 - clean) * np.log1p(-y), dtype="float64"))


def median_3x3(images):
    """Return the images after a median filter of 3x3 pixels, the classical answer to noise."""
    return ndimage.median_filter(images, size=(1, 3, 3, 1), mode="nearest")


def principal_components(images):
    """Return the mean of images, shape (pixels,), and their principal axes, rows, longest first."""
    flat = images.reshape(len(images), -1)
    mean = flat.mean(0)
    # The right singular vectors of the images are those of their much smaller scatter matrix.
    return mean, np.linalg.svd((flat - mean).T @ (flat - mean))[2]


def project(images, mean, axes, count):
    """Return the first principal components of images, shape (n, count)."""
    return (images.reshape(len(images), -1) - mean) @ axes[:count].T


def rebuild(images, mean, axes, count):
    """Return images rebuilt from their first principal components, in the same shape."""
    return (project(images, mean, axes, count) @ axes[:count] + mean).reshape(images.shape)


def knn_accuracy(codes, labels, test_codes, test_labels, k=10):
    """Return the share of test codes whose k nearest codes have its label by majority."""
    neighbours = cKDTree(codes).query(test_codes, min(k, len(codes)), workers=-1)[1]
    votes = labels[neighbours].reshape(len(test_codes), -1)
    counts = np.stack([(votes == label).sum(1) for label in range(labels.max() + 1)], axis=1)
    return float(np.mean(counts.argmax(1) == test_labels))


def compare(clean, candidates, functions):
    """Return {candidate: {metric: value}} for {candidate: images}, by functions of this module."""
    return {
        name: {function.__name__: function(clean, images) for function in functions}
        for name, images in candidates.items()
    }


def bit_accuracy(bits, probabilities):
    """Return the share of bits (0 or 1) that are right when probabilities are rounded."""
    return float(np.mean((probabilities > 0.5) == (bits > 0.5)))


def print_table(results):
    """Print {row: {column: value}} aligned."""
    fullest_first = sorted(results.values(), key=len, reverse=True)
    columns = dict.fromkeys(name for row in fullest_first for name in row)
    line = f"{{:<{max(map(len, results))}}}"
    line += "".join(f"  {{:>{max(len(name), 8)}}}" for name in columns)
    print(line.format("", *columns))
    for name, row in results.items():
        print(line.format(name, *(f"{row[c]:.4f}" if c in row else "-" for c in columns)))


def ink(page):
    """Return what is ink on a page, float32 in [0, 1], by Otsu's threshold: bools of its shape."""
    levels = np.round(page * 255).astype(np.uint8)
    return levels <= threshold_otsu(levels) if levels.min() < levels.max() else levels < 128
