"""Metrics. Unless stated otherwise, images are float32 in [0, 1], shape (n, height, width, 1)."""

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity
from sklearn.neighbors import KNeighborsClassifier


def mse(clean, images):
    """Return the mean squared error over all pixels."""
    return float(np.mean(np.square(clean - images), dtype="float64"))


def psnr(clean, images):
    """Return the peak signal-to-noise ratio in dB, 10·log10(1 / MSE), averaged over the images.

    An exact image counts as 100 dB.
    """
    squares = clean - images
    squares *= squares  # in place: a photo may take half of the memory
    errors = np.mean(squares, axis=(1, 2, 3), dtype="float64")
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))


def ssim(clean, images):
    """Return the structural similarity (1 is identical), averaged over the images.

    Over windows of 7x7 pixels, scikit-image's default, not the Gaussian ones of 11x11 pixels in
    Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861
    """
    pairs = zip(clean[..., 0], images[..., 0], strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=1.0) for a, b in pairs]))


def binary_crossentropy(clean, images):
    """Return the mean over pixels of -x·log(y) - (1 - x)·log(1 - y) in nats.

    x is the clean pixel and y the output, clipped to [1e-7, 1 - 1e-7] as in Keras.
    """
    y = np.clip(images, 1e-7, 1 - 1e-7)
    return float(-np.mean(clean * np.log(y) + (1 - clean) * np.log1p(-y), dtype="float64"))


def compare(clean, candidates, functions):
    """Return {candidate: {metric: value}} for {candidate: images} and a list of functions."""
    return {
        name: {function.__name__: function(clean, images) for function in functions}
        for name, images in candidates.items()
    }


def median_3x3(images):
    """Return images after a 3x3 median filter."""
    return ndimage.median_filter(images, size=(1, 3, 3, 1), mode="nearest")


def knn_accuracy(codes, labels, test_codes, test_labels, k=10):
    """Return the accuracy with which the k nearest codes predict the class of test codes.

    Codes have shape (n, size), labels are integers, shape (n,).
    """
    classifier = KNeighborsClassifier(min(k, len(codes)), n_jobs=-1).fit(codes, labels)
    return float(classifier.score(test_codes, test_labels))


def bit_accuracy(bits, probabilities):
    """Return the share of bits (0 or 1) that the probabilities predict, at a threshold of 0.5."""
    return float(np.mean((probabilities > 0.5) == (bits > 0.5)))


def ink(page):
    """Return the ink mask of a page by Otsu's threshold, bool, in the page's shape."""
    levels = np.round(page * 255).astype(np.uint8)
    return levels <= threshold_otsu(levels) if levels.min() < levels.max() else levels < 128


def f_measure(predicted, truth):
    """Return the harmonic mean of precision and recall of two bool arrays, 0 to 1.

    The DIBCO contests rank binarization methods by it: Gatos et al. 2009,
    https://doi.org/10.1109/ICDAR.2009.246
    """
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0
