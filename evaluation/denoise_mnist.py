"""Test metrics, baselines and figures for denoise_mnist.py."""

import functools

import keras
import numpy as np
from sklearn.linear_model import Ridge

from common import metrics, noise, plotting, training


def report(folder, settings, model, digits, noisy_val):
    """Measure a model on the test set, write figures and metrics.json, and print the table."""
    print(f"Evaluating on {len(digits.x_test):,} test images ...", flush=True)
    noisy = noise.gaussian(digits.x_test, settings.noise, training.seed_for("test"))
    wiener = fit_wiener_filter(settings, digits, noisy_val)
    candidates = {
        "noisy": noisy,
        "median 3x3": metrics.median_3x3(noisy),
        "Wiener filter": wiener(noisy),
        "autoencoder": model.predict(noisy, batch_size=500, verbose=0),
    }
    measures = [metrics.binary_crossentropy, metrics.mse, metrics.psnr, metrics.ssim]
    results = metrics.compare(digits.x_test, candidates, measures)
    # The lowest cross-entropy of any output, above 0 because of gray pixels.
    lowest = metrics.binary_crossentropy(digits.x_test, digits.x_test)
    results["clean"] = {"binary_crossentropy": lowest}
    plot_digits(folder, settings, digits, candidates, results)
    plot_latent(folder, model, digits, noisy)
    plotting.plot_history(
        folder, ylabel="binary cross-entropy (nats per pixel)", caption=f"Data: {digits}."
    )
    training.report(folder, settings, model, digits, results, row="autoencoder")


def fit_wiener_filter(settings, digits, noisy_val):
    """Return the best linear denoiser, as a function of noisy images.

    Ridge regression on the training images predicts each clean pixel from all noisy ones; its
    regularization is chosen on the validation images.
    """
    noisy = noise.gaussian(digits.x_train, settings.noise, training.seed_for("linear filter"))
    flat_noisy, flat_clean = (images.reshape(len(images), -1) for images in (noisy, digits.x_train))
    filters = [Ridge(alpha).fit(flat_noisy, flat_clean) for alpha in (1, 10, 100, 1_000)]

    def apply(ridge, images):
        predicted = ridge.predict(images.reshape(len(images), -1))
        return np.clip(predicted, 0, 1).reshape(images.shape).astype("float32")

    best = max(filters, key=lambda ridge: metrics.psnr(digits.x_val, apply(ridge, noisy_val)))
    return functools.partial(apply, best)


def plot_digits(folder, settings, digits, candidates, results):
    """Plot ten test images: clean, noisy, and restored by each method."""
    examples = digits.examples()
    chosen = list(examples.values())
    rows = {"clean": digits.x_test[chosen]}
    for name, restored in candidates.items():
        rows[f"{name}\n{results[name]['psnr']:.2f} dB"] = restored[chosen]
    plotting.image_grid(
        rows,
        folder / "digits.png",
        title=f"Test images with Gaussian noise, standard deviation {settings.noise:g}",
        caption="The median filter sees nine pixels and cannot tell an edge from a streak of noise."
        " The Wiener filter knows how pixels correlate but treats every image alike. The network"
        " learns what strokes look like. Where the noise hides too much, it outputs the"
        " average of what is possible, which shows as blur. PSNR is the mean over all test images."
        f" Data: {digits}.",
        column_titles=list(examples),
    )


def plot_latent(folder, model, digits, noisy):
    """Plot the 32 feature maps of the latent for three noisy test images."""
    encoder = keras.Model(model.input, model.get_layer("latent").output)
    examples = dict(list(digits.examples().items())[2:5])
    maps = encoder.predict(noisy[list(examples.values())], verbose=0)
    maps = np.moveaxis(maps, -1, 1)[..., np.newaxis]  # (3, 32, 7, 7, 1)
    maps = maps / np.maximum(maps.max(axis=(2, 3), keepdims=True), 1e-6)
    plotting.image_grid(
        dict(zip(examples, maps, strict=True)),
        folder / "latent.png",
        title="The latent: 32 feature maps of 7x7 for each of three noisy images",
        caption="Each map is scaled to its own maximum. Look for some that respond to the"
        " background, and for others that respond to strokes in one direction. A map that is dark"
        " for every image belongs to a dead filter: its ReLU never fires. Together the maps hold"
        f" 1,568 numbers, twice as many as there are pixels. Data: {digits}.",
        cell=0.32,
    )
