"""Test metrics and figures for watermark_photo.py."""

import numpy as np

from common import metrics, plotting, training
from evaluation.watermark_ae import add_noise


def report(folder, settings, model, pictures, bits):
    """Measure a model on the test set, write figures and metrics.json, and print the table.

    `bits` are embedded in the test patches, shape (n, 8, 8, 1).
    """
    print(f"Evaluating on {len(pictures.x_test):,} test patches ...", flush=True)
    inputs = {"image": pictures.x_test, "watermark": bits}
    marked = model.predict(inputs, batch_size=500, verbose=0)["marked"]
    results = evaluate(model.get_layer("extractor"), pictures.x_test, bits, marked)
    plot_patches(folder, pictures, marked, results)
    plotting.plot_history(
        folder,
        ylabel="cross-entropy of the bits (nats)",
        caption="The sum of two losses: for bits extracted after noise, and after a blur and a"
        f" third of that noise. Data: {pictures}.",
    )
    training.report(folder, settings, model, pictures, {"model": results})


def evaluate(extractor, images, bits, marked):
    """Return {metric: value} for marked images and the bits extracted from them."""
    results = {"psnr": metrics.psnr(images, marked), "ssim": metrics.ssim(images, marked)}
    for sigma in (0, 0.1, 0.25):
        recovered = extractor.predict(add_noise(marked, sigma), batch_size=500, verbose=0)
        name = f"bit_accuracy_noise_{sigma}" if sigma else "bit_accuracy"
        results[name] = metrics.bit_accuracy(bits, recovered)
    return results


def plot_patches(folder, pictures, marked, results):
    """Plot eight test patches before and after."""
    images, marked = pictures.x_test[:8], marked[:8]
    gain = 0.5 / np.quantile(np.abs(marked - images), 0.98)
    rows = {
        "image": images,
        "marked": marked,
        f"difference,\nx {gain:.0f}": np.clip(0.5 + gain * (marked - images), 0, 1),
    }
    plotting.image_grid(
        rows,
        folder / "watermarks.png",
        title="Patches of pictures with 64 bits in each",
        caption="Every cell of 8x8 pixels shows nearly the same pattern; its sign is the bit. Over"
        f" all test patches the PSNR is {results['psnr']:.1f} dB, and"
        f" {results['bit_accuracy']:.1%} of the bits are extracted correctly without noise,"
        f" {results['bit_accuracy_noise_0.1']:.1%} under noise of 0.1. Data: {pictures}.",
    )
