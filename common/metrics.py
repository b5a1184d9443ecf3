"""How near images are to clean ones. All are float32 in [0, 1], shape (n, height, width, 1)."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from skimage.filters import rank
from skimage.metrics import structural_similarity


def mse(clean, images):
    """Return the mean squared error over all pixels."""
    return float(np.mean(np.square(clean - images), dtype="float64"))


def rmse(clean, images):
    """Return the root of the mean squared error over all pixels."""
    return mse(clean, images) ** 0.5


def psnr(clean, images):
    """Return the peak signal-to-noise ratio in dB, 10·log10(1 / MSE), averaged over the images.

    It is infinite as soon as one image is exact.
    """
    errors = np.mean(np.square(clean - images), axis=(1, 2, 3), dtype="float64")
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(errors)))


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


def switching_median(images):
    """Return the images with only their pure black and white pixels replaced by the 3x3 median.

    It suits noise that is nothing but black and white: Sun and Neuvo 1994,
    https://doi.org/10.1016/0167-8655(94)90082-5
    """
    return np.where((images == 0) | (images == 1), median_3x3(images), images)


def background_median(page, window=21):
    """Return a page divided by its background: the median over a square around each pixel.

    Args:
        page: shape (height, width, 1).
        window: side of the square in pixels; half of what lies in it must be paper.
    """
    levels = np.round(page[..., 0] * 255).astype(np.uint8)
    background = rank.median(levels, np.ones((window, window), bool))[..., np.newaxis]
    return np.clip(page * 255 / np.maximum(background, 1), 0, 1).astype("float32")


def importance_weighted_bound(encoder, decoder, x, samples=100, seed=3):
    """Return a bound on -log p(x) in nats, mean over the images; tighter than the negative ELBO.

    It is -log of the mean over samples z of q(z|x) of p(x|z)·p(z) / q(z|x): Burda et al. 2015,
    https://arxiv.org/abs/1509.00519

    Args:
        encoder: (n, height, width, 1) to [z_mean, z_log_var, z].
        decoder: (n, latent_dim) to (n, height, width, 1), the probability of white.
        x: the images.
        samples: per image.
        seed: of the samples.
    """
    rng, bounds = np.random.default_rng(seed), []
    for images in np.array_split(x, max(len(x) // 10, 1)):
        z_mean, z_log_var, _ = (np.asarray(part) for part in encoder(images))
        epsilon = rng.standard_normal((samples, *z_mean.shape), dtype="float32")
        z = z_mean + np.exp(z_log_var / 2) * epsilon
        log_ratio = 0.5 * np.sum(epsilon**2 + z_log_var - z**2, axis=-1)  # of p(z) to q(z|x)
        y = np.asarray(decoder(z.reshape(-1, z.shape[-1]))).reshape(samples, *images.shape)
        y = np.clip(y, 1e-7, 1 - 1e-7)
        log_likelihood = np.sum(images * np.log(y) + (1 - images) * np.log1p(-y), axis=(2, 3, 4))
        bounds.extend(np.log(samples) - logsumexp(log_ratio + log_likelihood, axis=0))
    return float(np.mean(bounds))


def pca(train, test, components):
    """Return the test images rebuilt from their first principal components in the training images.

    Args:
        train, test: images, shapes (n, height, width, 1) and (m, height, width, 1).
        components: how many numbers an image may keep.
    """
    mean = train.mean(0).ravel()
    centred = train.reshape(len(train), -1) - mean
    # The right singular vectors of the images are those of their much smaller scatter matrix.
    axes = np.linalg.svd(centred.T @ centred)[2][:components]
    return (((test.reshape(len(test), -1) - mean) @ axes.T) @ axes + mean).reshape(test.shape)


def knn_accuracy(codes, labels, test_codes, test_labels, k=10):
    """Return the share of test codes whose k nearest codes have its label by majority."""
    neighbours = cKDTree(codes).query(test_codes, min(k, len(codes)), workers=-1)[1]
    votes = labels[neighbours].reshape(len(test_codes), -1)
    counts = np.stack([(votes == label).sum(1) for label in range(labels.max() + 1)], axis=1)
    return float(np.mean(counts.argmax(1) == test_labels))


def compare(clean, candidates, functions):
    """Return {candidate: {metric: value}} for images that stand for the same clean ones.

    Args:
        clean: the true images.
        candidates: {name: images}.
        functions: the metrics, each called with (clean, images); a metric is named as its function.
    """
    return {
        name: {function.__name__: function(clean, images) for function in functions}
        for name, images in candidates.items()
    }


def bit_accuracy(bits, probabilities):
    """Return the share of bits (0 or 1) that are right when probabilities are rounded."""
    return float(np.mean((probabilities > 0.5) == (bits > 0.5)))


def hide_in_last_bit(images, bits):
    """Return images whose 8-bit values have the watermark as their last bit.

    Args:
        images: float32 in [0, 1], shape (n, height, width, 1).
        bits: 0 or 1, shape (n, height / c, width / c, 1): one for each cell of c x c pixels.
    """
    cell = images.shape[1] // bits.shape[1]
    spread = np.repeat(np.repeat(bits, cell, axis=1), cell, axis=2).astype(np.uint8)
    levels = np.round(images * 255).astype(np.uint8)
    return ((levels & 0xFE) | spread) / np.float32(255)


def read_last_bit(images, cell=1):
    """Return the mean last bit of each cell of `cell` x `cell` pixels; values are clipped first."""
    last = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8) & 1
    count, height, width, _ = last.shape
    return last.reshape(count, height // cell, cell, width // cell, cell, 1).mean((2, 4))
