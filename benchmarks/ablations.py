"""Ablations behind what the lessons say: trainings that differ in one thing.

The rows of a table differ only in what their labels name: they see the same images for the same
number of steps. All values are measured on validation images.

Examples:
  python -m benchmarks.ablations --data-dir DIR              run all ablations
  python -m benchmarks.ablations watermark --data-dir DIR    run one ablation
  python -m benchmarks.tables                                write the tables of docs/results.md
"""

import time

import keras
import numpy as np
import tyro
from keras import layers, ops
from matplotlib.figure import Figure

import clean_documents
import denoise_fashion
import denoise_mnist
import vae_fashion
import watermark_ae
from benchmarks import trainings
from common import cli, data, metrics, noise, noisy_office, plotting, training


def fit(model, make_batch, count, *, steps, batch_size, seed, validation=None):
    """Train a compiled model on batches as the scripts make them; return Keras's history."""
    settings = cli.Train(batch_size=batch_size, steps_per_epoch=max(steps // 20, 1), seed=seed)
    steps_per_epoch = training.steps_per_epoch(settings, count)
    return model.fit(
        training.batches(make_batch, count, settings),
        epochs=max(steps // steps_per_epoch, 1),
        steps_per_epoch=steps_per_epoch,
        shuffle=False,
        validation_data=validation,
        validation_batch_size=500,
        verbose=0,
    ).history


def adam(peak, steps):
    """Return the optimizer of the `fast` recipes."""
    return keras.optimizers.Adam(training.warmup_cosine(peak, steps), beta_2=0.95)


def over_seeds(rows, train, seeds):
    """Return {label: {metric: [value for each seed]}} of train(row, seed) for {label: row}."""
    results = {label: {} for label in rows}
    for seed in range(seeds):
        for label, row in rows.items():
            start = time.perf_counter()
            keras.utils.set_random_seed(seed)
            measured = train(row, seed)
            for metric, value in measured.items():
                results[label].setdefault(metric, []).append(value)
            seconds = time.perf_counter() - start
            print(f"{label}, seed {seed}: {measured}, {seconds:.0f} s", flush=True)
    return results


# False means Adadelta instead of Adam, ReLU instead of leaky ReLU, and the squared error instead of
# the bits' cross-entropy. The weight is that of the image's loss.
PUBLISHED = {"noise": 0.5, "adam": False, "leaky": False, "cross_entropy": False, "weight": 1.0}
FAST = PUBLISHED | {"noise": 0.0, "adam": True, "leaky": True}
FAST["weight"] = watermark_ae.FAST["image_weight"]
WATERMARKS = {
    "`published`": PUBLISHED,
    "`published` without noise": PUBLISHED | {"noise": 0.0},
    "`published` with Adam": PUBLISHED | {"adam": True},
    "`published` with leaky ReLU": PUBLISHED | {"leaky": True},
    "`published` with cross-entropy": PUBLISHED | {"cross_entropy": True},
    "`published` without noise, with Adam": PUBLISHED | {"noise": 0.0, "adam": True},
    "`fast`": FAST,
    "`fast` with noise 0.5": FAST | {"noise": 0.5},
    "`fast` with Adadelta": FAST | {"adam": False},
    "`fast` with ReLU": FAST | {"leaky": False},
    "`fast` with cross-entropy": FAST | {"cross_entropy": True},
    "`fast`, image weight 1": FAST | {"weight": 1.0},
    "`fast`, image weight 6": FAST | {"weight": 6.0},
}


def watermark(settings, steps=1_000):
    """Train watermark_ae.py's networks with one change at a time to each recipe."""
    digits = data.load_mnist(settings)
    images = digits.x_val[:1_000]
    bits = watermark_ae.random_watermarks("bits", images.shape, seed=1)

    def make_batch(indices, seed):
        image = digits.x_train[indices]
        watermark = watermark_ae.random_watermarks("bits", image.shape, seed)
        return {"image": image, "watermark": watermark}, {"marked": image, "recovered": watermark}

    def train(row, seed):
        slope = 0.2 if row["leaky"] else 0.0
        model = watermark_ae.build_watermark(noise=row["noise"], slope=slope)
        bits_loss = "binary_crossentropy" if row["cross_entropy"] else "mse"
        model.compile(
            adam(0.005, steps) if row["adam"] else keras.optimizers.Adadelta(1.0),
            loss={"marked": "mse", "recovered": bits_loss},
            loss_weights={"marked": row["weight"], "recovered": 1.0},
        )
        fit(model, make_batch, len(digits.x_train), steps=steps, batch_size=16, seed=seed)
        outputs = model.predict({"image": images, "watermark": bits}, batch_size=500, verbose=0)
        return {
            "bit_accuracy": metrics.bit_accuracy(bits, outputs["recovered"]),
            "psnr": metrics.psnr(images, outputs["marked"]),
        }

    return over_seeds(WATERMARKS, train, settings.seeds or 3)


def noise_once(settings, steps=2_000):
    """Train denoise_mnist.py's network with noise added once, and with fresh noise in each batch.

    It sees each of a few images often enough to memorize noise that does not change.
    """
    digits = data.load_mnist(settings)
    sigma = 0.5
    clean, clean_val = digits.x_train[:1_000], digits.x_val[:2_000]
    noisy = noise.gaussian(clean, sigma, training.seed_for(0, "train"))
    noisy_val = noise.gaussian(clean_val, sigma, training.seed_for("validation"))
    lines = {}

    def train(label, seed):
        def make_batch(indices, seed):
            if label == "noise added once":
                return noisy[indices], clean[indices]
            return noise.gaussian(clean[indices], sigma, seed), clean[indices]

        model = denoise_mnist.build_denoiser()
        training.init_output_bias(model, clean)
        model.compile(adam(0.01, steps), loss="binary_crossentropy")
        history = fit(
            model,
            make_batch,
            len(clean),
            steps=steps,
            batch_size=32,
            seed=seed,
            validation=(noisy_val, clean_val),
        )
        seen = np.linspace(0, steps, len(history["loss"]) + 1)[1:]
        lines[f"{label}, training"] = seen, history["loss"]
        lines[f"{label}, validation"] = seen, history["val_loss"]
        return {name: history[name][-1] for name in ("loss", "val_loss")}

    labels = ("noise added once", "fresh noise in each batch")
    results = over_seeds({label: label for label in labels}, train, seeds=1)
    path = settings.images / "denoise_mnist_noise.png"
    path.unlink(missing_ok=True)
    plotting.plot_lines(
        lines,
        path,
        title="Why each batch gets fresh noise",
        caption="The same network, learning rate and 1,000 of the images; only the noise differs."
        " Noise that is added once is memorized: the training loss falls, the validation loss does"
        " not. With fresh noise no input comes twice, and each image serves as many training"
        " examples."
        f" Data: {digits}.",
        xlabel="steps of 32 images",
        ylabel="cross-entropy (nats per pixel)",
    )
    return results


def skips(settings, steps=500):
    """Train denoise_fashion.py's autoencoder with and without the U-Net's two differences.

    These are skip connections, and adding the output to the input.
    """
    clothes = data.load_fashion_mnist(settings)
    share = 0.1  # of pixels that are replaced
    clean = clothes.x_val[:2_000]
    noisy = noise.salt_and_pepper(clean, share, training.seed_for("validation"))

    def make_batch(indices, seed):
        images = clothes.x_train[indices]
        return noise.salt_and_pepper(images, share, seed), images

    def train(row, seed):
        with_skips, adds = row
        if with_skips:
            body = denoise_fashion.build_unet()
            features = body.get_layer("change").input
        else:
            body = denoise_fashion.build_autoencoder(initializer="he_normal")
            features = body.get_layer("denoised").input
        if adds:
            change = layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros")(features)
            x = body.input + change
            model = keras.Model(body.input, x + ops.stop_gradient(ops.clip(x, 0, 1) - x))
        else:
            output = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(features)
            model = keras.Model(body.input, output)
            training.init_output_bias(model, clothes.x_train)
        model.compile(adam(0.005, steps), loss="mse")
        fit(model, make_batch, len(clothes.x_train), steps=steps, batch_size=32, seed=seed)
        return {"psnr": metrics.psnr(clean, model.predict(noisy, batch_size=500, verbose=0))}

    rows = {
        "neither: the autoencoder": (False, False),
        "adds to its input": (False, True),
        "skip connections": (True, False),
        "both: the U-Net": (True, True),
    }
    return over_seeds(rows, train, settings.seeds or 1)


def patches(settings, steps=400):
    """Train clean_documents.py's autoencoder on patches, and on as many pixels of full pages."""
    office = noisy_office.load_noisy_office(settings)
    dirty_pages, clean_pages = noisy_office.pad_and_stack(office.train)
    dirty_val, clean_val = noisy_office.pad_and_stack(office.validation)
    side = 128
    per_page = clean_documents.PATCHES_PER_PAGE
    page_steps = max(steps * 8 * side**2 // dirty_pages[0].size, 20)

    def page_batch(indices, seed):
        return dirty_pages[indices], clean_pages[indices]

    def patch_batch(indices, seed):
        rng = np.random.default_rng(seed)
        chosen = [office.train[index // per_page] for index in indices]
        cut = [clean_documents.cut_patch(page.dirty, page.clean, side, rng) for page in chosen]
        dirty, clean = (np.stack(images)[..., np.newaxis] for images in zip(*cut, strict=True))
        return dirty, clean

    def train(row, seed):
        make_batch, count, row_steps, batch_size = row
        model = clean_documents.build_autoencoder()
        model.compile(adam(0.005, row_steps), loss="mse")
        fit(model, make_batch, count, steps=row_steps, batch_size=batch_size, seed=seed)
        cleaned = model.predict(dirty_val, batch_size=4, verbose=0)
        return {"rmse": metrics.mse(clean_val, cleaned) ** 0.5}

    pages, few = len(office.train), page_steps // 8
    rows = {
        f"{steps:,} steps of 8 patches of 128x128": (patch_batch, pages * per_page, steps, 8),
        f"{page_steps:,} steps of one page": (page_batch, pages, page_steps, 1),
        f"{few:,} steps of 8 pages": (page_batch, pages, few, 8),
    }
    return over_seeds(rows, train, settings.seeds or 3)


def beta(settings, steps=1_000):
    """Train vae_fashion.py's network with three weights of the KL divergence, and plot each."""
    clothes = data.load_fashion_mnist(settings)
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    rows = {"β = 0": 0.0, "β = 1": 1.0, "β = 4": 4.0}
    panels = dict(zip(rows.values(), figure.subplots(2, 3).T, strict=True))

    def make_batch(indices, seed):
        return clothes.x_train[indices], clothes.x_train[indices]

    def train(weight, seed):
        model = vae_fashion.build_vae(beta=weight)
        vae_fashion.init_first_layer(model.decoder, seed)
        training.init_output_bias(model.decoder, clothes.x_train)
        model.compile(adam(0.005, steps), loss=vae_fashion.reconstruction)
        fit(model, make_batch, len(clothes.x_train), steps=steps, batch_size=16, seed=seed)
        z_mean, z_log_var, _ = model.encoder.predict(clothes.x_val, batch_size=500, verbose=0)
        decoded = model.decoder.predict(z_mean, batch_size=500, verbose=0)
        kl = np.asarray(vae_fashion.kl_divergence(z_mean, z_log_var))

        codes, samples = panels[weight]
        codes.set(title=f"β = {weight:g}")
        plotting.scatter_classes(codes, z_mean, clothes.y_val, clothes.class_names)
        plotting.draw_prior(codes)
        z = np.random.default_rng(0).standard_normal((64, 2)).astype("float32")
        images = plotting.mosaic(model.decoder.predict(z, verbose=0), 8)
        samples.imshow(images, cmap="gray", vmin=0, vmax=1)
        samples.set_axis_off()
        return {
            "mse": metrics.mse(clothes.x_val, decoded),
            "kl": float(kl.mean()),
            "spread": float(z_mean.std()),
        }

    results = over_seeds(rows, train, seeds=1)
    path = settings.images / "vae_fashion_beta.jpg"
    path.unlink(missing_ok=True)
    plotting.save(
        figure,
        path,
        "Above, the codes of the validation images; the circles are the prior's at one and two"
        " standard deviations. Below, decoded samples of the prior. Without the KL divergence"
        " (β = 0) codes lie anywhere: some are far outside the prior, which hardly ever samples"
        " there, and where it does sample there may be none; those samples come out dark. The"
        f" higher β, the closer the codes are to the prior. Data: {clothes}.",
    )
    return results


ABLATIONS = {
    "watermark": watermark,
    "noise": noise_once,
    "skips": skips,
    "patches": patches,
    "beta": beta,
}


def main(argv=None):
    settings = tyro.cli(
        trainings.Options, args=argv, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    settings.check(ABLATIONS)
    for name in settings.names or ABLATIONS:
        print(f"\n=== {name}", flush=True)
        trainings.store(settings.results, f"ablation_{name}", {"rows": ABLATIONS[name](settings)})


if __name__ == "__main__":
    cli.run(main)
