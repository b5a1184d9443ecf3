"""Train three small networks that hide bits in an image and read them back.

    image (28, 28, 1)              W (28, 28, 1), zeros and ones
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
    recovered W (28, 28, 1)        the probability of a one

Models are layers: `encoder(image)`, `decoder([encoded, W])` and `extractor(marked)` are called like
layers to build the whole of 1,677 parameters, and are saved on their own, too. For a message in a
photo there is watermark_photo.py.

Run it:
  python watermark_ae.py                             train in four minutes, evaluate, plot
  python watermark_ae.py --noise 0.12 --epochs 80    bits that survive noise
  python watermark_ae.py --recipe published          train as the source article did

The networks and the recipe `published` are those of a blog article on watermarking with
autoencoders. Noise between the two halves: Zhu et al. 2018, https://arxiv.org/abs/1807.09937
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import batches, command_line, data, devices, metrics, plotting
from common import run_folder, trained_models
from common.command_line import flag, number

import dataclasses

import keras
import numpy as np
from keras import layers, ops
from scipy.stats import norm

RECIPES = {
    "fast": {"epochs": 40, "batch_size": 64, "learning_rate": 0.005, "max_steps_per_epoch": 150},
    # Keras 2's default rate of Adadelta; Keras 3's is a thousandth of it.
    "published": {"epochs": 5, "batch_size": 64, "learning_rate": 1.0, "noise": 0.5, "psnr": None},
}
EASY_PSNR = 6  # dB, where training starts
MODELS = ["encoder.keras", "decoder.keras", "extractor.keras"]
FIGURES = ["watermarks.png", "noise.png", "trade.png"]
SIGMAS = [0.02, 0.05, 0.1, 0.15, 0.25, 0.5]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "watermark_ae"
    names = {"autoencoder": "watermark_ae"}
    applications = ()
    build_like = staticmethod(lambda architecture, model: build_watermark())
    moved = dict.fromkeys(("--message", "--extract", "--key"), "watermark_photo.py")
    noise: float = flag("its standard deviation in training", 0.0, number(0, 100), ("train",))
    psnr: float = flag("dB of the marked image (default: 20.2)", 20.2, number(0, 100), ("train",))
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


def build_extractor(slope=0.2):
    """Return the extractor: (n, 28, 28, 1) to the probability of a one, the same shape."""
    marked = keras.Input((28, 28, 1), name="marked")
    x = marked
    for filters, size in ((8, 5), (4, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = ops.maximum(x, slope * x)  # leaky relu
    recovered = layers.Conv2D(1, 3, activation="sigmoid", padding="same", dtype="float32")(x)
    return keras.Model(marked, recovered, name="extractor")


def build_watermark(noise=0.0, slope=0.2):
    """Return the three networks put together: {image, watermark} to {marked, recovered}."""
    encoder, decoder, extractor = build_encoder(slope), build_decoder(slope), build_extractor(slope)
    image = keras.Input((28, 28, 1), name="image")
    watermark = keras.Input((28, 28, 1), name="watermark")
    marked = decoder([encoder(image), watermark])
    recovered = extractor(layers.GaussianNoise(noise)(marked))
    inputs = {"image": image, "watermark": watermark}
    return keras.Model(inputs, {"marked": marked, "recovered": recovered}, name="watermark_ae")


class RaisePsnr(keras.callbacks.Callback):
    """Lets the wanted MSE fall from EASY_PSNR to `psnr` between 10% and 70% of the steps.

    At 6 dB bits cost nothing. They are learned first, and hold on while the image gets better.
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
        done = (self.epoch * self.steps + batch) / self.all_steps
        psnr = np.interp(done, [0.1, 0.7], [EASY_PSNR, self.psnr])
        self.wanted.assign(10 ** (-psnr / 10))

    def on_test_begin(self, logs=None):
        """Validate by the final measure."""
        self.wanted.assign(10 ** (-self.psnr / 10))


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, {"autoencoder": RECIPES}, argv)
    plotting.set_up(settings.show)
    model, settings = trained_models.model_to_evaluate(settings)
    digits = data.load_mnist(settings.data_dir, settings.synthetic, settings.limit, settings.seed)

    def with_bits(images, seed):
        """Return inputs and targets: images, and fresh bits that are zero or one at random."""
        bits = np.random.default_rng(seed).integers(0, 2, images.shape).astype("float32")
        return {"image": images, "watermark": bits}, {"marked": images, "recovered": bits}

    with run_folder.RunFolder(settings, digits, MODELS + FIGURES) as run:
        if model is None:
            stream = batches.for_recipe(
                settings,
                len(digits.x_train),
                lambda chosen, seed: with_bits(digits.x_train[chosen], seed),
                digits.own,
            )
            keras.utils.set_random_seed(settings.seed)
            keras.config.set_dtype_policy(settings.precision)
            with devices.scope(settings):
                model, callbacks = build_and_compile(settings, stream)
            model.summary()
            validation = with_bits(digits.x_validation, batches.seed_for("validation"))
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
        inputs, _ = with_bits(digits.x_test, batches.seed_for("test"))
        image, bits = inputs["image"], inputs["watermark"]
        marked = model.predict(inputs, batch_size=500, verbose=0)["marked"]
        extractor = model.get_layer("extractor")

        def extract(images):
            return extractor.predict(images, batch_size=500, verbose=0)

        results = {"model": evaluate(image, bits, marked, extract)}
        quantised, step = quantise(image, bits, results["model"]["psnr"])
        results["quantisation"] = evaluate(
            image, bits, quantised, lambda x: read_quantised(x, step)
        )
        last = hide_in_last_bit(image, bits)
        results["least_significant_bit"] = evaluate(image, bits, last, read_last_bit)
        plot_examples(run, digits, bits, marked, extract, results["model"])
        plot_curves(run, image, bits, marked, extract, results["model"])
        run.plot_history("loss (cross-entropy of the bits, and a penalty)")
        run.finish(model, results)
    plotting.wait_for_windows(settings.show)


def build_and_compile(settings, stream):
    """Return the model of a recipe, ready for `fit`, and the callbacks it needs.

    As published, with the squared error on both outputs, it can't work: the image is the easier
    half, the bits' gradient vanishes before the narrow layers learn to carry them, and half of them
    come back, which is chance. Three things free it: the wanted image quality rises while training
    (RaisePsnr), the penalty's gradient does not fade, and relu is leaky.
    """
    if settings.recipe == "published":
        model = build_watermark(settings.noise, slope=0.0)
        optimizer, callbacks = keras.optimizers.Adadelta(settings.learning_rate), []
        loss = {"marked": "mse", "recovered": "mse"}
    else:
        model = build_watermark(settings.noise)
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

        loss = {"marked": quality_penalty, "recovered": "binary_crossentropy"}
    model.compile(
        optimizer, loss=loss, metrics={"marked": [psnr], "recovered": ["binary_accuracy"]}
    )
    return model, callbacks


def psnr(image, marked):
    """Return the peak signal-to-noise ratio of each image in dB, shape (n,)."""
    return -10 * ops.log10(ops.mean(ops.square(marked - image), axis=(1, 2, 3)))


def hide_in_last_bit(images, bits):
    """Return images whose 8-bit values have the bits as their last ones: the classical way."""
    levels = np.round(images * 255).astype(np.uint8)
    return ((levels & 0xFE) | bits.astype(np.uint8)) / np.float32(255)


def read_last_bit(images):
    """Return the last bit of each pixel; values are clipped first."""
    return (np.round(np.clip(images, 0, 1) * 255).astype(np.uint8) & 1).astype("float32")


def quantise(images, bits, psnr):
    """Return images whose grey levels, an even or odd multiple of a step, say the bits; the step.

    Quantisation index modulation, Chen and Wornell 2001, https://doi.org/10.1109/18.923725: the
    classical way that stands noise. The step is the one that gives the images this PSNR in dB.
    """

    def with_step(step):
        levels = 2 * np.round((images / step - bits) / 2) + bits
        return np.clip(levels * step, 0, 1)  # a level above white is lost

    low, high = 1e-3, 1.0
    for _ in range(20):  # bisection
        step = (low + high) / 2
        low, high = (low, step) if metrics.psnr(images, with_step(step)) < psnr else (step, high)
    return with_step(step).astype("float32"), step


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


def evaluate(image, bits, marked, extract):
    """Return {metric: value} of marked images and of the bits that `extract` reads from them."""
    results = {"psnr": metrics.psnr(image, marked), "ssim": metrics.ssim(image, marked)}
    found = extract(marked)
    results["bit_accuracy"] = metrics.bit_accuracy(bits, found)
    for sigma in (0.1, 0.25, 0.5):
        read = extract(noisy(marked, sigma))
        results[f"bit_accuracy_noise_{sigma}"] = metrics.bit_accuracy(bits, read)
    for name, where in (("black", image == 0), ("stroke", image > 0)):
        if not where.any():
            continue  # photos may have no black pixel
        results[f"bit_accuracy_{name}"] = metrics.bit_accuracy(bits[where], found[where])
    return results


def plot_examples(run, digits, bits, marked, extract, results):
    """Write a figure of images and bits, as they are hidden and as they are read back."""
    examples = list(digits.examples(8).values())
    on_its_way = noisy(marked, 0.1)
    change = (marked - digits.x_test)[examples]
    gain = 0.5 / np.quantile(np.abs(change), 0.98)

    def coloured(found):
        wrong = (found > 0.5) != (bits[examples] > 0.5)
        return np.where(wrong, [0.9, 0.3, 0.1], (found > 0.5) * [1.0, 1.0, 1.0])

    rows = {
        "image": digits.x_test[examples],
        "W": bits[examples],
        "marked": marked[examples],
        f"difference,\nx {gain:.0f}": np.clip(0.5 + gain * change, 0, 1),
        "W read back": coloured(extract(marked[examples])),
        "marked, under\nnoise 0.1": np.clip(on_its_way[examples], 0, 1),
        "W read\nfrom that": coloured(extract(on_its_way[examples])),
    }
    run.plot(
        *(plotting.image_rows, rows, "watermarks.png", "Hidden, and read back"),
        f"Wrong bits in orange. Over all test images the marked ones have {results['psnr']:.1f} "
        f"dB, and {results['bit_accuracy']:.1%} of the bits come back without noise, "
        f"{results['bit_accuracy_noise_0.1']:.1%} under noise of 0.1.",
    )


def plot_curves(run, image, bits, marked, extract, results):
    """Write figures of the right bits over the noise, and over the quality of the image."""
    change = float(np.sqrt(np.mean(np.square(marked - image))))
    accuracy = [metrics.bit_accuracy(bits, extract(noisy(marked, sigma))) for sigma in SIGMAS]
    limit = [one_pixel_limit(change, sigma) for sigma in SIGMAS]
    run.plot(
        plotting.curves,
        {
            "watermark_ae": (SIGMAS, accuracy),
            "one black pixel alone, at most": (SIGMAS, limit),
        },
        "noise.png",
        "Bits that come back through noise",
        f"At {results['psnr']:.1f} dB. The limit, Φ(r / (σ√2)) with r the root-mean-square change, "
        "is that of a detector which looks at one pixel on a black ground.",
        *("standard deviation of the noise", "share of right bits"),
        ticks=SIGMAS,
    )
    if not run.history:
        return
    # In the first tenth of its epochs it learns to write bits at all.
    rows = run.history[len(run.history) // 10 :]
    pairs = [(row["val_marked_psnr"], row["val_recovered_binary_accuracy"]) for row in rows]
    run.plot(
        plotting.curves,
        {"an epoch of training": tuple(zip(*sorted(pairs), strict=True))},
        "trade.png",
        "What image quality costs",
        "As training asks for a better image, its bits are harder to read. Validation images, "
        "without noise.",
        *("PSNR of the marked image (dB)", "share of right bits"),
    )


if __name__ == "__main__":
    command_line.start(main)
