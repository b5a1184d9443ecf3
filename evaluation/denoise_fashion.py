"""Test metrics, baselines and figures for denoise_fashion.py."""

import functools

import numpy as np

from common import metrics, noise, plotting, training

# {label: model in models/}
NETWORKS = {
    "as published": "denoise_fashion_published",
    "autoencoder": "denoise_fashion",
    "U-Net": "denoise_fashion_unet",
}
REMARKS = {
    "as published": "As published, the network is undertrained. ",
    "autoencoder": "The autoencoder redraws the entire image from 256 numbers. ",
    "U-Net": "The U-Net can copy the pixels that were not replaced. ",
}
SHARES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]


def report(folder, settings, model, clothes, noisy_val):
    """Measure a model on the test set, write figures and metrics.json, and print the table."""
    print(f"Evaluating on {len(clothes.x_test):,} test images ...", flush=True)
    noisy = noise.salt_and_pepper(clothes.x_test, settings.noise, training.seed_for("test"))
    if settings.architecture == "unet":
        row = "U-Net"
    else:
        row = "as published" if settings.recipe == "published" else "autoencoder"
    networks = {row: model} | load_other_networks(row, settings, clothes)
    methods = {
        "noisy": lambda images: images,
        "median 3x3": metrics.median_3x3,
        "outlier median": fit_outlier_median(noisy_val[:500], clothes.x_val[:500]),
    }
    for label in NETWORKS:
        if label in networks:
            predict = networks[label].predict
            methods[label] = functools.partial(predict, batch_size=500, verbose=0)
    candidates = {label: restore(noisy) for label, restore in methods.items()}
    measures = [metrics.mse, metrics.psnr, metrics.ssim]
    results = metrics.compare(clothes.x_test, candidates, measures)
    remarks = "".join(REMARKS[label] for label in methods if label in REMARKS)
    plot_clothes(folder, settings, clothes, candidates, results, remarks)
    plot_shares(folder, settings, clothes, methods, remarks)
    plotting.plot_history(folder, ylabel="mean squared error", caption=f"Data: {clothes}.")
    training.report(folder, settings, model, clothes, results, row=row, networks=networks)


def load_other_networks(row, settings, clothes):
    """Return {label: other network in models/}, without those trained on other data or noise."""
    if settings.noise != 0.1:
        return {}
    return {
        # the published model is named denoise_fashion, too
        label: training.load_model(None, name, "denoise_fashion")
        for label, name in NETWORKS.items()
        if label != row and training.trained_on(None, name) == clothes.name
    }


def fit_outlier_median(noisy, clean):
    """Return a median filter that replaces only outliers, as a function of noisy images.

    A pixel is an outlier if it differs strongly even from its four most similar neighbors: the
    rank-ordered absolute difference of Garnett et al. 2005,
    https://doi.org/10.1109/TIP.2005.857261. The threshold is chosen on the given images. A filter
    that looks for pure black and white would miss nearly all of imgaug's noise, only 5.6% of which
    is pure, and would mistake a black background for noise.
    """

    def difference(images):
        padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        neighbors = np.delete(windows.reshape(*images.shape, 9), 4, axis=-1)
        return np.sort(abs(neighbors - images[..., np.newaxis]), axis=-1)[..., :4].sum(-1)

    def restore(images, threshold):
        return np.where(difference(images) > threshold, metrics.median_3x3(images), images)

    thresholds = np.arange(0.3, 2.5, 0.1)
    best = max(thresholds, key=lambda threshold: metrics.psnr(clean, restore(noisy, threshold)))
    return lambda images: restore(images, best)


def plot_clothes(folder, settings, clothes, candidates, results, remarks):
    """Plot ten test images: clean, noisy, and restored by each method."""
    examples = clothes.examples()
    chosen = list(examples.values())
    rows = {"clean": clothes.x_test[chosen]}
    for label, restored in candidates.items():
        rows[f"{label}\n{results[label]['psnr']:.2f} dB"] = restored[chosen]
    plotting.image_grid(
        rows,
        folder / "clothes.png",
        title=f"Test images with {settings.noise:.0%} salt-and-pepper noise",
        caption="A median filter smears fine detail, less so if it replaces only outliers. "
        f"{remarks}PSNR is the mean over all test images. Data: {clothes}.",
        column_titles=list(examples),
    )


def plot_shares(folder, settings, clothes, methods, remarks):
    """Plot the PSNR of each method against the share of replaced pixels."""
    print("Measuring at other noise levels ...", flush=True)
    clean = clothes.x_test[:1_000]
    lines = {label: ([], []) for label in methods}
    for share in SHARES:
        noisy = noise.salt_and_pepper(clean, share, training.seed_for("test", share))
        for label, restore in methods.items():
            lines[label][0].append(100 * share)
            lines[label][1].append(metrics.psnr(clean, restore(noisy)))
    plotting.plot_lines(
        lines,
        folder / "noise.png",
        title="How much noise each method can remove",
        caption=f"The networks were trained with a share of {settings.noise:.0%} only. {remarks}"
        f"PSNR is the mean over {len(clean):,} test images. Data: {clothes}.",
        xlabel="replaced pixels (%)",
        ylabel="PSNR (dB)",
    )
