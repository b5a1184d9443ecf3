"""Train three small networks that embed a watermark in an image and extract it again.

    image (28, 28, 1)              watermark (28, 28, 1): bits, or a picture in gray values
      encoder, 593 parameters        |
        Conv 8 5x5, Conv 4 3x3,      |
        Conv 2 3x3, Conv 1 3x3       |
    encoded (28, 28, 1)              |
      decoder, 547 parameters      both concatenated, (28, 28, 2)
        Conv 2 5x5, Conv 4 3x3, Conv 8 3x3, Conv 1 3x3 sigmoid
    marked image (28, 28, 1)       should look like the image
      GaussianNoise                simulates damage, in training only
      extractor, 537 parameters
        Conv 8 5x5, Conv 4 3x3, Conv 1 3x3 sigmoid
    recovered watermark (28, 28, 1)       for bits: the probability of a 1

They are trained as one model of 1,677 parameters and also saved separately. As in the article, the
network that embeds is called the decoder; in most papers the decoder is the network that extracts.
To embed a text in a photo, see watermark_photo.py.

Examples:
  python watermark_ae.py                       train for about a minute, evaluate, plot
  python watermark_ae.py --recipe published    train as the source article did
  python watermark_ae.py --image-weight 6      better images, fewer correct bits
  python watermark_ae.py --watermark gray --watermark-image samples/logo.png
                                               a picture in each image

The networks and the recipe `published` are those of a blog article on watermarking with
autoencoders. Noise between decoder and extractor: J. Zhu et al., "HiDDeN: Hiding Data with Deep
Networks", 2018, https://arxiv.org/abs/1807.09937
"""

import dataclasses
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

import evaluation.watermark_ae
from common import cli, data, images, metrics, training
from common.cli import UserError

NAMES = {"bits": "watermark_ae", "gray": "watermark_ae_gray"}  # of the models
# What --recipe sets; a flag on the command line takes precedence. Without steps_per_epoch, an epoch
# is one pass over the training data.
PUBLISHED = {
    "epochs": 5,
    "batch_size": 64,
    "learning_rate": 1.0,  # Adadelta's default in Keras 2; in Keras 3 it is 0.001
    "noise": 0.5,
    "image_weight": 1.0,
}
FAST = {
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.005,
    "steps_per_epoch": 141,
    "noise": 0.0,
    "image_weight": 3.0,
}
RECIPES = {
    "bits": {"fast": FAST, "published": PUBLISHED},
    # Gray values have a smaller squared error than bits. With an image weight of 3 it would hardly
    # count, and the networks would not learn to embed them.
    "gray": {"fast": FAST | {"image_weight": 0.3}, "published": PUBLISHED},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    noise: float | None = None
    """standard deviation of the training noise, for pixels in [0, 1]; None: the recipe's"""
    image_weight: float | None = None
    """weight of the image's squared error; the watermark's has weight 1; None: the recipe's"""
    watermark: Literal["bits", "gray"] = "bits"
    """values of the watermark: zeros and ones, or gray values from 0 to 1"""
    watermark_image: Path | None = None
    """also embed this picture in each test image, scaled to 28x28 pixels"""

    def __post_init__(self):
        super().__post_init__()
        if self.noise is not None and not 0 <= self.noise <= 10:
            raise ValueError("--noise must be between 0 and 10")
        if self.image_weight is not None and not 0 < self.image_weight < float("inf"):
            raise ValueError("--image-weight must be positive")


def build_encoder(height=28, width=28, channels=1, slope=0.2):
    """Return the encoder of images, shape (n, height, width, channels).

    `slope` is the negative slope of the leaky ReLU; the article uses ReLU, slope 0.
    """
    image = keras.Input((height, width, channels), name="image")
    x = image
    for filters, size in ((8, 5), (4, 3), (2, 3), (channels, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = layers.LeakyReLU(slope)(x)
    return keras.Model(image, x, name="encoder")


def build_decoder(height=28, width=28, channels=1, slope=0.2):
    """Return the decoder: encoded image and watermark, (n, height, width, 1), to the marked image.

    Concatenate merges the two inside the model, so that gradients reach the encoder.
    """
    encoded = keras.Input((height, width, channels), name="encoded")
    watermark = keras.Input((height, width, 1), name="watermark")
    x = layers.Concatenate()([encoded, watermark])
    for filters, size in ((2, 5), (4, 3), (8, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = layers.LeakyReLU(slope)(x)
    marked = layers.Conv2D(channels, 3, activation="sigmoid", padding="same")(x)
    return keras.Model([encoded, watermark], marked, name="decoder")


def build_extractor(height=28, width=28, channels=1, slope=0.2, activation="sigmoid"):
    """Return the extractor: marked image to watermark, (n, height, width, 1).

    The last activation must be able to output the watermark's values: sigmoid for bits and values
    from 0 to 1, tanh for -1 to 1, relu for values from 0 up, None (linear) for any.
    """
    marked = keras.Input((height, width, channels), name="marked")
    x = marked
    for filters, size in ((8, 5), (4, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = layers.LeakyReLU(slope)(x)
    # With a bias of 0, a single ReLU may start at 0 everywhere, and then gets no gradient.
    bias = "ones" if activation == "relu" else "zeros"
    last = layers.Conv2D(1, 3, padding="same", activation=activation, bias_initializer=bias)
    return keras.Model(marked, last(x), name="extractor")


def build_watermark(
    height=28,
    width=28,
    channels=1,
    noise=0.0,
    slope=0.2,
    activation="sigmoid",
    name="watermark_ae",
):
    """Return one model of all three: {image, watermark} to {marked, recovered}.

    Each is used as a layer: get_layer("encoder") returns the encoder.
    """
    encoder = build_encoder(height, width, channels, slope)
    decoder = build_decoder(height, width, channels, slope)
    extractor = build_extractor(height, width, channels, slope, activation)
    image = keras.Input((height, width, channels), name="image")
    watermark = keras.Input((height, width, 1), name="watermark")
    marked = decoder([encoder(image), watermark])
    recovered = extractor(layers.GaussianNoise(noise)(marked))
    inputs = {"image": image, "watermark": watermark}
    return keras.Model(inputs, {"marked": marked, "recovered": recovered}, name=name)


def main(argv=None):
    settings = cli.parse(__doc__, argv, Train)
    if settings.model:  # evaluate this one; loaded before the data, to fail early if it is damaged
        model = training.load_model(settings.model, *NAMES.values())
        watermark = "bits" if model.name == NAMES["bits"] else "gray"
        settings = dataclasses.replace(settings, watermark=watermark)
    # A flag that was not given takes the recipe's value.
    settings = cli.with_recipe(settings, RECIPES[settings.watermark][settings.recipe])
    logo = None
    if settings.watermark_image:
        logo = read_watermark_image(settings.watermark_image, settings.watermark)
    digits = data.load_mnist(settings)  # x_train, x_val, x_test: (n, 28, 28, 1) in [0, 1]
    # The folder of --output-dir or --resume, or a new one in runs/; report() adds its figures.
    folder = training.run_folder(settings, NAMES[settings.watermark])
    if not settings.model:
        model = train(settings, digits, folder)
    for part in ("encoder", "decoder", "extractor"):
        training.save_model(model.get_layer(part), folder / f"{part}.keras")
    seed = training.seed_for("test")
    test_watermarks = random_watermarks(settings.watermark, digits.x_test.shape, seed)
    evaluation.watermark_ae.report(folder, settings, model, digits, test_watermarks, logo)


def train(settings, digits, folder):
    """Return the model with the lowest validation loss."""

    def with_watermarks(x, seed):
        watermarks = random_watermarks(settings.watermark, x.shape, seed)
        return {"image": x, "watermark": watermarks}, {"marked": x, "recovered": watermarks}

    def make_batch(indices, seed):
        return with_watermarks(digits.x_train[indices], seed)

    steps_per_epoch = training.steps_per_epoch(settings, len(digits.x_train))
    keras.utils.set_random_seed(settings.seed)
    name = NAMES[settings.watermark]
    if settings.recipe == "published":
        # This recipe does not learn to embed: half of the bits are recovered, which is chance. The
        # noise drowns any change small enough to hide. Without noise it learned in one of three
        # runs: see docs/results.md.
        model = build_watermark(noise=settings.noise, slope=0.0, name=name)  # slope 0 is ReLU
        optimizer = keras.optimizers.Adadelta(settings.learning_rate)
    else:
        model = build_watermark(noise=settings.noise, name=name)
        # warms up to the learning rate, then decays to zero on a cosine
        schedule = training.warmup_cosine(settings.learning_rate, settings.epochs * steps_per_epoch)
        # beta_2=0.95 averages squared gradients over about 20 steps. The default, 0.999, averages
        # over about 1,000.
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    # The two losses compete for the marked image: a higher image weight gives better images and
    # fewer correct bits.
    model.compile(
        optimizer,
        loss={"marked": "mse", "recovered": "mse"},  # as in the article
        loss_weights={"marked": settings.image_weight, "recovered": 1.0},
        metrics={
            "marked": psnr,
            "recovered": "binary_accuracy" if settings.watermark == "bits" else psnr,
        },
    )
    model.summary()
    # An endless tf.data.Dataset that calls make_batch(indices, seed) for each step, with shuffled
    # indices and a new seed. A resumed run starts after the last epoch in folder/history.csv.
    batches = training.batches(make_batch, len(digits.x_train), settings, folder)
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # already shuffled; with True, Keras only warns
        validation_data=with_watermarks(digits.x_val, training.seed_for("validation")),
        validation_batch_size=500,
        # save history.csv, the best model and a backup for --resume after each epoch
        callbacks=training.callbacks(folder, settings),
        verbose=2,  # one line per epoch
    )
    return training.best_model(folder, name)


def psnr(target, output):
    """Return the peak signal-to-noise ratio of each image in dB, shape (n,)."""
    return -10 * ops.log10(ops.mean(ops.square(output - target), axis=(1, 2, 3)))


def random_watermarks(kind, shape, seed):
    """Return random watermarks: bits, or gray values in squares of 1 to 7 pixels.

    The squares make them as smooth as pictures. From independent gray values the networks would
    learn to separate rough from smooth, and fail on a picture. `shape` is (n, 28, 28, 1).
    """
    rng = np.random.default_rng(seed)
    if kind == "bits":
        return rng.integers(0, 2, shape).astype("float32")
    values = rng.uniform(0, 1, shape).astype("float32")
    sides = rng.choice([1, 2, 4, 7], len(values))
    for side in (2, 4, 7):
        corner = np.arange(shape[1]) // side * side  # for each pixel, the first index of its square
        values[sides == side] = values[sides == side][:, corner][:, :, corner]
    return values


def read_watermark_image(path, kind):
    """Return a picture as a watermark, shape (28, 28, 1).

    The picture is scaled to fit. Transparent pixels become white, or black if that gives more
    contrast. For bits, bright pixels (Otsu's threshold) are 1.

    Raises UserError if the file cannot be read or is uniformly gray.
    """
    on_white = images.read_gray(path, background="white")
    on_black = images.read_gray(path, background="black")
    picture = on_black if np.ptp(on_black) > np.ptp(on_white) else on_white
    gray = images.fit_square(picture, 28)
    if np.ptp(gray) < 0.02:
        raise UserError(f"{path}: uniformly gray; --watermark-image needs a picture")
    watermark = 1 - metrics.ink(gray) if kind == "bits" else gray  # ink is 1 where it is dark
    return watermark.astype("float32")


if __name__ == "__main__":
    cli.run(main)
