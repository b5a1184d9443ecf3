"""Train three small networks that hide bits or a picture in an image and read them back.

    image (28, 28, 1)              W (28, 28, 1), zeros and ones; or see --watermark
      encoder, 593 parameters        |
        Conv 8 5x5, Conv 4 3x3,      |
        Conv 2 3x3, Conv 1 3x3       |
    encoded (28, 28, 1) - - - - - - -'
      decoder, 547 parameters      both laid side by side, (28, 28, 2)
        Conv 2 5x5, Conv 4 3x3, Conv 8 3x3, Conv 1 3x3 sigmoid
    marked image (28, 28, 1)       what one publishes: it should look like the image
      GaussianNoise                what happens to it on its way, in training only
      extractor, 537 parameters
        Conv 8 5x5, Conv 4 3x3, Conv 1 3x3 sigmoid
    recovered W (28, 28, 1)        the probability of a one; other W have another last activation

Each network is called like a layer to build the whole, 1,677 parameters, and is saved on its own,
too. To hide a message in a photo, see watermark_photo.py.

Run it:
  python watermark_ae.py                             train in four minutes, evaluate, plot
  python watermark_ae.py --noise 0.12 --epochs 80    bits that survive noise
  python watermark_ae.py --watermark grey --watermark-image logo.png    a picture in each image
  python watermark_ae.py --recipe published          train as the source article did

The networks and the recipe `published` are those of a blog article on watermarking with
autoencoders. Noise between the two halves: Zhu et al. 2018, https://arxiv.org/abs/1807.09937
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, batches, command_line, data, devices, image_files, metrics, plotting
from common import run_folder, trained_models
from common.command_line import flag, number, path
from common.own_pictures import fit_square

import dataclasses
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from scipy.stats import norm

RECIPES = {
    "fast": {"epochs": 40, "batch_size": 64, "learning_rate": 0.005, "max_steps_per_epoch": 141},
    # Keras 2's default rate of Adadelta; Keras 3's is a thousandth of it.
    "published": {"epochs": 5, "batch_size": 64, "learning_rate": 1.0, "noise": 0.5, "psnr": None},
}
# {kind of W: (the extractor's last activation, W's least value, its greatest here)}. The activation
# gives what W may be: sigmoid 0 to 1, tanh -1 to 1, relu all that is positive. (With none, a linear
# one, W could be anything.)
KINDS = {
    "bits": ("sigmoid", 0, 1),
    "grey": ("sigmoid", 0, 1),
    "signed": ("tanh", -1, 1),
    "positive": ("relu", 0, 2),
}
EASY_PSNR = 6  # dB, where training starts, and stays for so many steps at least
EASY_STEPS = 100
MODELS = ["encoder.keras", "decoder.keras", "extractor.keras"]
FIGURES = ["watermarks.png", "noise.png", "trade.png"]
LOGO = "watermark_image.png"  # one more with --watermark-image
SIGMAS = [0.02, 0.05, 0.1, 0.15, 0.25, 0.5]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "watermark_ae"
    names = {kind: f"watermark_ae_{kind}" if kind != "bits" else "watermark_ae" for kind in KINDS}
    applications = ()
    build_like = staticmethod(lambda kind, model: build_watermark())
    moved = dict.fromkeys(("--message", "--extract", "--key"), "watermark_photo.py")
    noise: float = flag(
        "standard deviation, in training (default: 0)", 0.0, number(0, 100), ("train",)
    )
    psnr: float = flag("dB of the marked image (default: 20.2)", 20.2, number(0, 100), ("train",))
    watermark: str = flag(
        "what W holds: zeros and ones, or values from 0 to 1, from -1 to 1, or from 0 up "
        "(default: bits)",
        *("bits", str, ("train",)),
        choices=list(KINDS),
    )
    watermark_image: str = flag(
        "then hide this picture in each test image, fitted to 28x28 pixels",
        *(None, path),
        resume=False,
        metavar="FILE",
    )
    input: None = None


def build_encoder(slope=0.2):
    """Return the encoder: (n, 28, 28, 1) to the same shape. With slope 0 it is the article's."""
    image = keras.Input((28, 28, 1), name="image")
    x = image
    for filters, size in ((8, 5), (4, 3), (2, 3), (1, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = ops.maximum(x, slope * x)  # leaky relu
    return keras.Model(image, x, name="encoder")


def build_decoder(slope=0.2):
    """Return the decoder: encoded image and W, both (n, 28, 28, 1), to the marked image."""
    encoded = keras.Input((28, 28, 1), name="encoded")
    watermark = keras.Input((28, 28, 1), name="watermark")
    x = layers.Concatenate()([encoded, watermark])
    for filters, size in ((2, 5), (4, 3), (8, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = ops.maximum(x, slope * x)  # leaky relu
    marked = layers.Conv2D(1, 3, activation="sigmoid", padding="same", dtype="float32")(x)
    return keras.Model([encoded, watermark], marked, name="decoder")


def build_extractor(slope=0.2, activation="sigmoid"):
    """Return the extractor: (n, 28, 28, 1) to W, of bits the probability of a one, the same shape.

    The last activation follows W's values.
    """
    marked = keras.Input((28, 28, 1), name="marked")
    x = marked
    for filters, size in ((8, 5), (4, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = ops.maximum(x, slope * x)  # leaky relu
    # A relu that is zero everywhere has no gradient, and learns nothing ever: it starts above.
    bias = "ones" if activation == "relu" else "zeros"
    last = {"activation": activation, "bias_initializer": bias, "dtype": "float32"}
    recovered = layers.Conv2D(1, 3, padding="same", **last)(x)
    return keras.Model(marked, recovered, name="extractor")


def build_watermark(noise=0.0, slope=0.2, kind="bits"):
    """Return the three networks put together: {image, watermark} to {marked, recovered}."""
    encoder, decoder = build_encoder(slope), build_decoder(slope)
    extractor = build_extractor(slope, KINDS[kind][0])
    image = keras.Input((28, 28, 1), name="image")
    watermark = keras.Input((28, 28, 1), name="watermark")
    marked = decoder([encoder(image), watermark])
    recovered = extractor(layers.GaussianNoise(noise)(marked))
    inputs = {"image": image, "watermark": watermark}
    outputs = {"marked": marked, "recovered": recovered}
    return keras.Model(inputs, outputs, name=Settings.names[kind])


class RaisePsnr(keras.callbacks.Callback):
    """Lets the wanted MSE fall from EASY_PSNR to `psnr` between 10% and 70% of the steps.

    A short training has EASY_STEPS before that. At 6 dB bits cost nothing. They are learned first,
    and hold on while the image gets better.
    """

    def __init__(self, wanted, psnr, epochs, steps_per_epoch):
        super().__init__()
        self.wanted, self.psnr, self.steps = wanted, psnr, steps_per_epoch
        self.all_steps = epochs * steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        """Remember the epoch; a resumed training does not start with the first."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Ask for a little more."""
        step = self.epoch * self.steps + batch
        rising = max(0.1 * self.all_steps, EASY_STEPS), max(0.7 * self.all_steps, 2 * EASY_STEPS)
        psnr = np.interp(step, rising, [EASY_PSNR, self.psnr])
        self.wanted.assign(10 ** (-psnr / 10))

    def on_test_begin(self, logs=None):
        """Validate by the final measure."""
        self.wanted.assign(10 ** (-self.psnr / 10))


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, dict.fromkeys(KINDS, RECIPES), argv)
    settings = dataclasses.replace(settings, architecture=settings.watermark)
    plotting.set_up(settings.show)
    model, settings = trained_models.model_to_evaluate(settings)
    kind = settings.architecture
    logo = read_logo(settings.watermark_image, kind) if settings.watermark_image else None
    digits = data.load_mnist(settings.data_dir, settings.synthetic, settings.limit, settings.seed)

    def with_watermarks(images, seed):
        """Return inputs and targets: images, and a fresh W for each."""
        watermark = random_watermarks(kind, images.shape, seed)
        return {"image": images, "watermark": watermark}, {"marked": images, "recovered": watermark}

    figures = FIGURES if logo is None else [*FIGURES, LOGO]
    with run_folder.RunFolder(settings, digits, MODELS + figures) as run:
        if model is None:
            stream = batches.Batches(
                settings,
                len(digits.x_train),
                lambda chosen, seed: with_watermarks(digits.x_train[chosen], seed),
                few=True,
            )
            keras.utils.set_random_seed(settings.seed)
            keras.config.set_dtype_policy(settings.precision)
            with devices.scope(settings):
                model, callbacks = build_and_compile(settings, stream)
            model.summary()
            validation = with_watermarks(digits.x_validation, batches.seed_for("validation"))
            model.fit(
                stream.dataset(run.first_epoch),
                steps_per_epoch=stream.steps_per_epoch,
                epochs=settings.epochs,
                initial_epoch=run.first_epoch,
                **devices.validation(settings, *validation),
                callbacks=[*callbacks, *run.callbacks(model)],
                shuffle=False,  # the batches come shuffled
                verbose=run.verbose,
            )
            model = run.best_model()
        for name in ("encoder", "decoder", "extractor"):
            trained_models.save_model(model.get_layer(name), run.path(f"{name}.keras"))

        # The test set, once.
        print(f"Evaluating on {len(digits.x_test):,} test images ...", flush=True)
        inputs, _ = with_watermarks(digits.x_test, batches.seed_for("test"))
        results = evaluate_and_plot(run, kind, model, inputs, digits)
        if logo is not None:
            hide_logo(run, kind, model, logo, digits, results["model"])
        loss = "cross-entropy" if kind == "bits" else "squared error"
        run.plot_history(f"loss ({loss} of W, and a penalty)")
        run.finish(model, results)


def read_logo(path, kind):
    """Return a picture as a W of this kind, shape (28, 28, 1), whole in the square.

    As bits it has a one wherever it is bright, by Otsu's threshold. What is transparent becomes
    white, or black where more is seen so.

    Raises:
        UserError: it can't be read, or is the same all over.
    """
    on_both = (image_files.read_grey(path, ground) for ground in ("white", "black"))
    grey = fit_square(max(on_both, key=np.ptp), 28)
    if np.ptp(grey) < 0.02:
        raise UserError(f"{path}: the same grey all over; --watermark-image wants a picture")
    _, least, most = KINDS[kind]
    return 1.0 - metrics.ink(grey) if kind == "bits" else least + (most - least) * grey


def random_watermarks(kind, shape, seed):
    """Return W at random, shape (n, 28, 28, 1): bits, or values even over squares of 1 to 7 pixels.

    Pictures are smooth. A network trained on values that all differ can't tell a smooth W from the
    image it is hidden in.
    """
    rng = np.random.default_rng(seed)
    if kind == "bits":
        return rng.integers(0, 2, shape).astype("float32")
    _, least, most = KINDS[kind]
    values = rng.uniform(least, most, shape).astype("float32")
    sides = rng.choice([1, 2, 4, 7], len(values))
    for side in (2, 4, 7):
        first = np.arange(shape[1]) // side * side
        values[sides == side] = values[sides == side][:, first][:, :, first]
    return values


def evaluate_and_plot(run, kind, model, inputs, digits):
    """Return {"model" or baseline: {metric: value}} on the test set, and write the figures."""
    image, watermark = inputs["image"], inputs["watermark"]
    marked, extract = mark_all(model, inputs), reader_of(model)
    results = {"model": evaluate(kind, image, watermark, marked, extract)}
    _, least, most = KINDS[kind]
    count = 1 if kind == "bits" else 4
    last = hide_in_last_bits(image, (watermark - least) / (most - least), count)
    last_read = evaluate(
        kind, image, watermark, last, lambda x: least + (most - least) * read_last_bits(x, count)
    )
    if kind == "bits":
        quantised, step = quantise(image, watermark, results["model"]["psnr"])
        results["quantisation"] = evaluate(
            kind, image, watermark, quantised, lambda x: read_quantised(x, step)
        )
        results["least_significant_bit"] = last_read
    else:
        results["four_last_bits"] = last_read
        mean = np.full_like(watermark, watermark.mean())
        results["mean_of_w"] = {"watermark_psnr": rightness(kind, watermark, mean)}
    parts = kind, digits, watermark, marked, extract, results["model"]
    plot_examples(run, "watermarks.png", "Hidden, and read back", *parts)
    plot_curves(run, kind, image, watermark, marked, extract, results)
    return results


def hide_logo(run, kind, model, logo, digits, results):
    """Hide one W in all test images, put how well that goes into `results`, and plot examples."""
    image = digits.x_test
    inputs = {"image": image, "watermark": np.repeat(logo[np.newaxis], len(image), axis=0)}
    inputs["watermark"] = inputs["watermark"].astype("float32")
    marked, extract = mark_all(model, inputs), reader_of(model)
    found = evaluate(kind, image, inputs["watermark"], marked, extract)
    measure = "bit_accuracy" if kind == "bits" else "watermark_psnr"
    for name in ("psnr", measure, f"{measure}_noise_0.1"):
        results[f"logo_{name}"] = found[name]
    title = f"{Path(run.settings.watermark_image).name} in each image"
    parts = kind, digits, inputs["watermark"], marked, extract, found
    plot_examples(run, LOGO, title, *parts)


def mark_all(model, inputs):
    """Return the marked images of a whole model's inputs."""
    return model.predict(inputs, batch_size=500, verbose=0)["marked"]


def reader_of(model):
    """Return the function that recovers W from marked images."""
    extractor = model.get_layer("extractor")
    return lambda images: extractor.predict(images, batch_size=500, verbose=0)


def build_and_compile(settings, stream):
    """Return the model of a recipe, ready for `fit`, and the callbacks it needs.

    As published, with the squared error on both outputs, it can't work: the image is the easier
    half, the bits' gradient vanishes before the narrow layers learn to carry them, and half of them
    come back, which is chance. Five things free it: the wanted image quality rises while training
    (RaisePsnr), the penalty's gradient does not fade, relu is leaky, bits have the cross-entropy,
    and there is no noise.
    """
    kind = settings.architecture
    loss_of_w, metric_of_w = of_kind(kind)
    if settings.recipe == "published":
        model = build_watermark(settings.noise, slope=0.0, kind=kind)
        optimizer, callbacks = keras.optimizers.Adadelta(settings.learning_rate), []
        loss = {"marked": "mse", "recovered": "mse"}
    else:
        model = build_watermark(settings.noise, kind=kind)
        steps = settings.epochs * stream.steps_per_epoch
        schedule = batches.warm_up_and_cosine(settings.learning_rate, steps)
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
        wanted = keras.Variable(10 ** (-settings.psnr / 10), trainable=False)  # squared error
        callbacks = [RaisePsnr(wanted, settings.psnr, settings.epochs, stream.steps_per_epoch)]

        def quality_penalty(image, marked):
            """Zero while the images are as good as wanted. A logarithm's gradient does not fade.

            One value for all images, but of shape (n,): of a scalar Keras would take the sum over
            the devices, not the mean.
            """
            penalty = 2 * ops.relu(ops.log(ops.mean(ops.square(marked - image)) / wanted))
            return penalty * ops.ones_like(image[:, 0, 0, 0])

        loss = {"marked": quality_penalty, "recovered": loss_of_w}
    model.compile(optimizer, loss=loss, metrics={"marked": [psnr], "recovered": [metric_of_w]})
    return model, callbacks


def of_kind(kind):
    """Return the loss of W and its metric, for `compile`.

    Bits have a cross-entropy. Of values the squared error counts, in parts of their variance: as
    large at the start as that of bits, whatever their range.
    """
    if kind == "bits":
        return "binary_crossentropy", "binary_accuracy"
    span = KINDS[kind][2] - KINDS[kind][1]

    def error_in_variances(watermark, recovered):
        return 12 / span**2 * ops.mean(ops.square(recovered - watermark), axis=-1)

    def watermark_psnr(watermark, recovered):
        return psnr(watermark / span, recovered / span)

    return error_in_variances, watermark_psnr


def psnr(image, marked):
    """Return the peak signal-to-noise ratio of each image in dB, shape (n,)."""
    return -10 * ops.log10(ops.mean(ops.square(marked - image), axis=(1, 2, 3)))


def hide_in_last_bits(images, values, count=1):
    """Return images whose 8-bit levels have `values` in their last bits: the classical way.

    Args:
        images: float32 in [0, 1].
        values: in [0, 1]; `count` bits of each are kept, of a bit the bit itself.
    """
    levels, most = np.round(images * 255).astype(np.uint8), 2**count - 1
    return (levels & (255 - most) | np.round(values * most).astype(np.uint8)) / np.float32(255)


def read_last_bits(images, count=1):
    """Return what the last bits of each pixel say, 0 to 1; pixels are clipped first."""
    most = 2**count - 1
    return (np.round(np.clip(images, 0, 1) * 255).astype(np.uint8) & most) / np.float32(most)


def quantise(images, bits, psnr):
    """Return images whose grey levels, an even or odd multiple of a step, say the bits; the step.

    Quantisation index modulation, Chen and Wornell 2001, https://doi.org/10.1109/18.923725: the
    classical way that stands noise. The step leaves the images this PSNR in dB, or more.
    """

    def with_step(step):
        levels = 2 * np.round((images / step - bits) / 2) + bits
        return step * (levels - 2 * (levels * step > 1))  # none is above white, where it is lost

    low, high = 1e-3, 1.0
    for _ in range(20):  # bisection
        step = (low + high) / 2
        low, high = (low, step) if metrics.psnr(images, with_step(step)) < psnr else (step, high)
    return with_step(low).astype("float32"), low


def read_quantised(images, step):
    """Return 1 where a pixel is next to an odd multiple of the step, else 0."""
    return (np.round(images / step) % 2).astype("float32")


def noisy(marked, sigma):
    """Return marked images under Gaussian noise that nothing clips, as in training."""
    epsilon = np.random.default_rng(batches.seed_for("noise")).standard_normal(
        marked.shape, dtype="float32"
    )
    return marked + np.float32(sigma) * epsilon


def one_pixel_limit(change, sigma):
    """Return how often a detector that looks at one black pixel alone can be right.

    On a black ground a bit can only add light: a for a one, nothing for a zero. The mean square
    change is r² = a²/2, so the two levels lie a = r·√2 apart. Under noise σ the detector cuts
    half-way and is right with probability Φ(a / 2σ) = Φ(r / (σ√2)): 0.76 for r = σ = 0.1, which is
    20 dB. A grey pixel can go both ways and do better.

    Args:
        change: r.
        sigma: standard deviation of the Gaussian noise, above 0.
    """
    return float(norm.cdf(change / (sigma * np.sqrt(2))))


def rightness(kind, watermark, found):
    """Return how right a recovered W is: the share of right bits, or the PSNR of values in dB.

    PSNR's peak is the span of the values.
    """
    if kind == "bits":
        return metrics.bit_accuracy(watermark, found)
    span = KINDS[kind][2] - KINDS[kind][1]
    return metrics.psnr(watermark / span, found / span)


def evaluate(kind, image, watermark, marked, extract):
    """Return {metric: value} of marked images and of the W that `extract` reads from them."""
    results = {"psnr": metrics.psnr(image, marked), "ssim": metrics.ssim(image, marked)}
    found, name = extract(marked), "bit_accuracy" if kind == "bits" else "watermark_psnr"
    results[name] = rightness(kind, watermark, found)
    for sigma in (0.1, 0.25, 0.5):
        results[f"{name}_noise_{sigma}"] = rightness(kind, watermark, extract(noisy(marked, sigma)))
    for part, where in (("black", image == 0), ("stroke", image > 0)):
        if where.any():  # photos may have no black pixel
            pair = (values[where].reshape(1, -1, 1, 1) for values in (watermark, found))
            results[f"{name}_{part}"] = rightness(kind, *pair)
    return results


def plot_examples(run, name, title, kind, digits, watermark, marked, extract, results):
    """Write a figure of images and W, as it is hidden and as it is read back."""
    examples = list(digits.examples(8).values())
    watermark, on_its_way = watermark[examples], noisy(marked, 0.1)[examples]
    change = (marked - digits.x_test)[examples]
    gain = 0.5 / np.quantile(np.abs(change), 0.98)
    _, least, most = KINDS[kind]

    def shown(found):
        if kind != "bits":
            return np.clip((found - least) / (most - least), 0, 1)
        wrong = (found > 0.5) != (watermark > 0.5)
        return np.where(wrong, [0.9, 0.3, 0.1], (found > 0.5) * [1.0, 1.0, 1.0])

    rows = {
        "image": digits.x_test[examples],
        "W": shown(watermark),
        "marked": marked[examples],
        f"difference,\nx {gain:.0f}": np.clip(0.5 + gain * change, 0, 1),
        "W read back": shown(extract(marked[examples])),
        "marked, under\nnoise 0.1": np.clip(on_its_way, 0, 1),
        "W read\nfrom that": shown(extract(on_its_way)),
    }
    measure = "bit_accuracy" if kind == "bits" else "watermark_psnr"
    quality, calm, through_noise = (
        results[name] for name in ("psnr", measure, f"{measure}_noise_0.1")
    )
    if kind == "bits":
        said = f"Wrong bits in orange. Over all test images the marked ones have {quality:.1f} dB, "
        said += f"and {calm:.1%} of the bits come back without noise, "
        said += f"{through_noise:.1%} under noise of 0.1."
    else:
        said = f"W is {kind}, black for {least}, white for {most}. Over all test images the marked "
        said += f"ones have {quality:.1f} dB, the W read back {calm:.1f} dB, "
        said += f"under noise of 0.1 {through_noise:.1f} dB."
    run.plot(*(plotting.image_rows, rows, name, title), said)


def plot_curves(run, kind, image, watermark, marked, extract, results):
    """Write figures of how right W is over the noise, and over the quality of the image."""
    right = [rightness(kind, watermark, extract(noisy(marked, sigma))) for sigma in SIGMAS]
    lines, caption = {"the networks": (SIGMAS, right)}, f"At {results['model']['psnr']:.1f} dB. "
    if kind == "bits":
        what, column = "share of right bits", "binary_accuracy"
        change = float(np.sqrt(np.mean(np.square(marked - image))))
        limit = [one_pixel_limit(change, sigma) for sigma in SIGMAS]
        lines["one black pixel alone, at most"] = SIGMAS, limit
        caption += "The limit, Φ(r / (σ√2)) with r the root-mean-square change, is that of a "
        caption += "detector which looks at one pixel on a black ground."
    else:
        what, column = "PSNR of the recovered W (dB)", "watermark_psnr"
        mean = results["mean_of_w"]["watermark_psnr"]
        lines["the mean of W, whatever the image"] = SIGMAS, [mean] * len(SIGMAS)
        caption += "Below the line, guessing is better."
    run.plot(
        *(plotting.curves, lines, "noise.png"),
        "Bits that come back through noise" if kind == "bits" else "W read through noise",
        caption,
        ("standard deviation of the noise", what),
        ticks=SIGMAS,
    )
    if not run.history:
        return
    # In the first tenth of its epochs it learns to write bits at all.
    rows = run.history[len(run.history) // 10 :]
    columns = "val_marked_psnr", f"val_recovered_{column}"
    run.plot(
        plotting.curves,
        {"an epoch of training": [[row[name] for row in rows] for name in columns]},
        "trade.png",
        "What image quality costs",
        "As training asks for a better image, W is harder to read. Without noise.",
        ("PSNR of the marked image (dB)", what),
        shown=f"{run.dataset.summary()['validation']:,} validation images",
        join="",
    )


if __name__ == "__main__":
    command_line.start(main)
