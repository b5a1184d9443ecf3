"""Test metrics, baselines and figures for watermark_ae.py."""

import numpy as np
from scipy.stats import norm

from common import metrics, plotting, training

SIGMAS = [0.02, 0.05, 0.1, 0.15, 0.25, 0.5]  # of the noise in noise.png
# How well a watermark is recovered: the name in metrics.json, and a function of (watermarks,
# recovered).
QUALITY = {
    "bits": ("bit_accuracy", metrics.bit_accuracy),
    "gray": ("watermark_psnr", metrics.psnr),
}


def report(folder, settings, model, digits, watermarks, logo=None):
    """Measure a model on the test set, write figures and metrics.json, and print the table.

    Args:
        folder: the run folder.
        settings: the script's `Train`.
        model: of `build_watermark`.
        digits: `data.Images`.
        watermarks: one for each test image.
        logo: a picture as a watermark, shape (28, 28, 1), to embed in all test images as well.
    """
    print(f"Evaluating on {len(digits.x_test):,} test images ...", flush=True)
    kind = settings.watermark
    quality_name, quality = QUALITY[kind]
    images = digits.x_test
    extractor = model.get_layer("extractor")

    def extract(marked):
        return extractor.predict(marked, batch_size=500, verbose=0)

    def embed_and_plot(watermarks, path, title):
        inputs = {"image": images, "watermark": watermarks}
        marked = model.predict(inputs, batch_size=500, verbose=0)["marked"]
        results = evaluate(kind, images, watermarks, marked, extract)
        plot_examples(
            path,
            title=title,
            kind=kind,
            digits=digits,
            watermarks=watermarks,
            marked=marked,
            extract=extract,
            results=results,
        )
        return marked, results

    marked, measured = embed_and_plot(
        watermarks, folder / "watermarks.png", "Embedded and extracted again"
    )
    results = {"model": measured} | evaluate_baselines(kind, images, watermarks, measured["psnr"])
    qualities = [quality(watermarks, extract(add_noise(marked, sigma))) for sigma in SIGMAS]
    rms_change = float(np.sqrt(np.mean(np.square(marked - images))))
    plot_noise(folder, kind, digits, qualities, rms_change, results)
    if logo is not None:
        title = f"{settings.watermark_image.name} in each image"
        logos = np.repeat(logo[np.newaxis], len(images), axis=0)
        _, with_logo = embed_and_plot(logos, folder / "watermark_image.png", title)
        for name in ("psnr", quality_name, f"{quality_name}_noise_0.1"):
            measured[f"logo_{name}"] = with_logo[name]
    plotting.plot_history(
        folder,
        ylabel="squared errors of image and watermark, weighted",
        caption=f"Data: {digits}.",
    )
    training.report(folder, settings, model, digits, results)


def add_noise(marked, sigma):
    """Return marked images with Gaussian noise, not clipped, as in training."""
    rng = np.random.default_rng(training.seed_for("noise"))
    return marked + sigma * rng.standard_normal(marked.shape, dtype="float32")


def evaluate(kind, images, watermarks, marked, extract):
    """Return {metric: value} of marked images and of what `extract` reads from them."""
    name, quality = QUALITY[kind]
    recovered = extract(marked)
    results = {
        "psnr": metrics.psnr(images, marked),
        "ssim": metrics.ssim(images, marked),
        name: quality(watermarks, recovered),
    }
    for sigma in (0.1, 0.25, 0.5):
        with_noise = extract(add_noise(marked, sigma))
        results[f"{name}_noise_{sigma}"] = quality(watermarks, with_noise)
    for part, mask in (("black", images == 0), ("stroke", images > 0)):
        if mask.any():  # photos may have no black pixel
            w, w_recovered = (x[mask].reshape(1, -1, 1, 1) for x in (watermarks, recovered))
            results[f"{name}_{part}"] = quality(w, w_recovered)
    return results


def evaluate_baselines(kind, images, watermarks, psnr):
    """Return {baseline: {metric: value}}; quantization is tuned to this PSNR in dB, the model's."""
    if kind == "gray":
        marked = embed_in_last_bits(images, watermarks, 4)
        mean = np.full_like(watermarks, watermarks.mean())
        return {
            "four last bits": evaluate(
                kind, images, watermarks, marked, lambda images: extract_last_bits(images, 4)
            ),
            "mean watermark": {"watermark_psnr": metrics.psnr(watermarks, mean)},
        }
    marked, step = embed_by_quantization(images, watermarks, psnr)
    last_bits = embed_in_last_bits(images, watermarks)
    return {
        "quantization": evaluate(
            kind, images, watermarks, marked, lambda images: extract_quantized(images, step)
        ),
        "least significant bit": evaluate(kind, images, watermarks, last_bits, extract_last_bits),
    }


def embed_in_last_bits(images, values, count=1):
    """Return images whose last `count` of 8 bits hold the values, which are in [0, 1]."""
    levels, max_value = np.round(images * 255).astype(np.uint8), 2**count - 1
    kept_bits = levels & (255 - max_value)
    return (kept_bits | np.round(values * max_value).astype(np.uint8)) / np.float32(255)


def extract_last_bits(images, count=1):
    """Return the values in the last bits of each pixel, from 0 to 1."""
    max_value = 2**count - 1
    levels = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return (levels & max_value) / np.float32(max_value)


def embed_by_quantization(images, bits, psnr):
    """Return (images, step): gray values are even multiples of the step for a 0, odd ones for a 1.

    Quantization index modulation, which withstands some noise: Chen and Wornell 2001,
    https://doi.org/10.1109/18.923725. The step is the largest that keeps the PSNR, in dB.
    """

    def quantize(step):
        levels = 2 * np.round((images / step - bits) / 2) + bits
        return step * (levels - 2 * (levels * step > 1))  # a level above white would be lost

    low, high = 1e-3, 1.0
    for _ in range(20):  # bisection
        step = (low + high) / 2
        low, high = (low, step) if metrics.psnr(images, quantize(step)) < psnr else (step, high)
    return quantize(low).astype("float32"), low


def extract_quantized(images, step):
    """Return 1 where an odd multiple of the step is nearest to a pixel, else 0."""
    return (np.round(images / step) % 2).astype("float32")


def one_pixel_limit(r, sigma):
    """Return the best possible accuracy of a detector that sees one black pixel.

    On black, a bit can only add light: `a` for a 1, nothing for a 0. If the mean square change
    there is r² = a²/2, the two levels are a = r·√2 apart. Under noise σ the detector decides
    half-way and is right with probability Φ(a / 2σ) = Φ(r / (σ√2)): 0.76 for r = σ = 0.1, which is
    20 dB. A gray pixel can change both ways, which is better.
    """
    return float(norm.cdf(r / (sigma * np.sqrt(2))))


def plot_examples(path, *, title, kind, digits, watermarks, marked, extract, results):
    """Plot eight images and their watermarks, as embedded and as extracted."""
    examples = list(digits.examples(8).values())
    images, watermarks, noisy = (
        values[examples] for values in (digits.x_test, watermarks, add_noise(marked, 0.1))
    )
    marked = marked[examples]
    change = marked - images
    gain = 0.5 / np.quantile(np.abs(change), 0.98)

    def show(recovered):
        if kind == "gray":
            return np.clip(recovered, 0, 1)
        wrong = (recovered > 0.5) != (watermarks > 0.5)
        return np.where(wrong, [0.9, 0.3, 0.1], recovered > 0.5)

    rows = {
        "image": images,
        "watermark": show(watermarks),
        "marked": marked,
        f"difference,\nx {gain:.0f}": np.clip(0.5 + gain * change, 0, 1),
        "extracted": show(extract(marked)),
        "marked, with\nnoise 0.1": np.clip(noisy, 0, 1),
        "extracted\nfrom that": show(extract(noisy)),
    }
    quality_name, _ = QUALITY[kind]
    value, with_noise = results[quality_name], results[f"{quality_name}_noise_0.1"]
    if kind == "bits":
        caption = (
            f"Wrong bits are orange. {value:.1%} of the bits are recovered without noise, "
            f"{with_noise:.1%} with noise of 0.1"
        )
    else:
        caption = (
            f"The extracted watermark has a PSNR of {value:.1f} dB, with noise of 0.1 one of "
            f"{with_noise:.1f} dB"
        )
    caption += f"; the marked images have a PSNR of {results['psnr']:.1f} dB. "
    caption += "These are means over all test images."
    plotting.image_grid(rows, path, title=title, caption=f"{caption} Data: {digits}.")


def plot_noise(folder, kind, digits, qualities, rms_change, results):
    """Plot how much of the watermark comes back against the noise."""
    lines = {"the networks": (SIGMAS, qualities)}
    if kind == "bits":
        limits = [one_pixel_limit(rms_change, sigma) for sigma in SIGMAS]
        lines["limit for one black pixel alone"] = SIGMAS, limits
        caption = (
            "The limit, Φ(r / (σ√2)) with r the root-mean-square change, is that of a detector "
            "that looks at one pixel on black: a bit makes it 0 or r√2, and a guess takes the "
            "nearer one."
        )
    else:
        mean = results["mean watermark"]["watermark_psnr"]
        lines["the mean watermark, whatever the image"] = SIGMAS, [mean] * len(SIGMAS)
        caption = "Below that line, guessing the mean is better."
    plotting.plot_lines(
        lines,
        folder / "noise.png",
        title="Recovery of the watermark under noise",
        caption=f"Marked images of {results['model']['psnr']:.1f} dB. {caption} Data: {digits}.",
        xlabel="standard deviation of the noise",
        ylabel="share of correct bits" if kind == "bits" else "PSNR of the watermark (dB)",
        xscale="log",
    )
