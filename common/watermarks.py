"""What watermark_ae.py measures and draws: marked images, and the bits that come back."""

import numpy as np
from scipy.stats import norm

from common import metrics, plotting

SIGMAS = [0.02, 0.05, 0.1, 0.15, 0.25, 0.5]


def noisy(marked, sigma):
    """Return marked images under Gaussian noise that nothing clips, as in training."""
    epsilon = np.random.default_rng(3).standard_normal(marked.shape, dtype="float32")
    return marked + np.float32(sigma) * epsilon


def one_pixel_limit(change, sigma):
    """Return how often a detector that looks at one black pixel alone can be right.

    A one adds light and a zero nothing, so at root-mean-square change r the levels are r·√2 apart;
    a cut half-way between them is right with probability Φ(r / (σ√2)).

    Args:
        change: r.
        sigma: standard deviation of the Gaussian noise, above 0.
    """
    return float(norm.cdf(change / (sigma * np.sqrt(2))))


def evaluate(image, bits, marked, extract):
    """Return {metric: value} of marked images and of the bits that `extract` reads from them."""
    results = {"psnr": metrics.psnr(image, marked), "ssim": metrics.ssim(image, marked)}
    results["bit_accuracy"] = metrics.bit_accuracy(bits, extract(marked))
    for sigma in (0.1, 0.25, 0.5):
        found = extract(noisy(marked, sigma))
        results[f"bit_accuracy_noise_{sigma}"] = metrics.bit_accuracy(bits, found)
    if bits.shape == image.shape:
        found = extract(marked)
        for name, where in (("black", image == 0), ("stroke", image > 0)):
            results[f"bit_accuracy_{name}"] = metrics.bit_accuracy(bits[where], found[where])
    return results


def draw(run, pictures, image, bits, marked, extract, results):
    """Write figures: images and bits, accuracy over noise, and accuracy over image quality."""
    show, folder, footer = run.args.show, run.folder, f"Data: {pictures}."
    few = pictures.first_of_each_class()[:8] if len(pictures.class_names) > 1 else range(8)
    few, on_its_way = list(few), noisy(marked, 0.1)
    change = (marked - image)[few]
    gain = 0.5 / np.quantile(np.abs(change), 0.98)

    def coloured(found):
        wrong = (found > 0.5) != (bits[few] > 0.5)
        return np.where(wrong, [0.9, 0.3, 0.1], (found > 0.5) * [1.0, 1.0, 1.0])

    plotting.image_rows(
        {
            "image": image[few],
            "W": bits[few],
            "marked": marked[few],
            f"difference,\nx {gain:.0f}": np.clip(0.5 + gain * change, 0, 1),
            "W read back": coloured(extract(marked[few])),
            "marked, under\nnoise 0.1": np.clip(on_its_way[few], 0, 1),
            "W read\nfrom that": coloured(extract(on_its_way[few])),
        },
        folder / "watermarks.png",
        "Hidden, and read back",
        "Wrong bits in orange. Over all test images the marked ones have "
        f"{results['psnr']:.1f} dB, and {results['bit_accuracy']:.1%} of the bits come back "
        f"without noise, {results['bit_accuracy_noise_0.1']:.1%} under noise of 0.1.\n{footer}",
        show,
    )
    change = float(np.sqrt(np.mean(np.square(marked - image))))
    accuracy = [metrics.bit_accuracy(bits, extract(noisy(marked, s))) for s in SIGMAS]
    limit = [one_pixel_limit(change, sigma) for sigma in SIGMAS]
    lines = {run.args.names[run.args.architecture]: accuracy}
    if bits.shape == image.shape:
        lines["one black pixel alone, at most"] = limit
    plotting.curves(
        SIGMAS,
        lines,
        folder / "noise.png",
        "Bits that come back through noise",
        f"At {results['psnr']:.1f} dB. The limit, Φ(r / (σ√2)) with r the root-mean-square change, "
        f"is that of a detector which looks at one pixel on a black ground.\n{footer}",
        "standard deviation of the noise",
        "share of right bits",
        show=show,
    )
    if run.history and "val_marked_psnr" in run.history[0] and bits.shape == image.shape:
        # In the first tenth of its epochs it learns to write bits at all.
        rows = run.history[len(run.history) // 10 :]
        rows = sorted(rows, key=lambda row: row["val_marked_psnr"])
        plotting.curves(
            [row["val_marked_psnr"] for row in rows],
            {"an epoch of training": [row["val_recovered_binary_accuracy"] for row in rows]},
            folder / "trade.png",
            "What image quality costs",
            "As training asks for a better image, its bits are harder to read. Validation images, "
            f"without noise.\n{footer}",
            "PSNR of the marked image (dB)",
            "share of right bits",
            show=show,
            xscale="linear",
        )
