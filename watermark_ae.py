"""Train three small networks that embed a watermark in an image and extract it again.

    image (28, 28, 1)              watermark (28, 28, 1): bits, or a picture in gray values
      encoder, 593 parameters        |
        Conv 8 5x5, Conv 4 3x3,      |
        Conv 2 3x3, Conv 1 3x3       |
    encoded (28, 28, 1)              |
      decoder, 547 parameters      both concatenated, (28, 28, 2)
        Conv 2 5x5, Conv 4 3x3, Conv 8 3x3, Conv 1 3x3 sigmoid
    marked image (28, 28, 1)       is published, and should look like the image
      GaussianNoise                what happens to it on its way, in training only
      extractor, 537 parameters
        Conv 8 5x5, Conv 4 3x3, Conv 1 3x3 sigmoid
    recovered watermark (28, 28, 1)       of bits, the probability of a 1

They are trained as one model of 1,677 parameters and also saved separately. The article calls the
embedding network the decoder; in most papers the decoder is what is the extractor here. To embed a
text in a photo, see watermark_photo.py.

Examples:
  python watermark_ae.py                             train for four minutes, evaluate, plot
  python watermark_ae.py --recipe published          train as the source article did
  python watermark_ae.py --noise 0.12 --epochs 80    robust to noise
  python watermark_ae.py --watermark gray --watermark-image samples/logo.png
                                                     a picture in each image

Sources: the networks and the recipe `published` are those of a blog article on watermarking with
autoencoders; noise between decoder and extractor: J. Zhu et al., "HiDDeN: Hiding Data with Deep
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

NAMES = {"bits": "watermark_ae", "gray": "watermark_ae_gray"}
RECIPES = {
    "fast": {
        "epochs": 40,
        "batch_size": 64,
        "learning_rate": 0.005,
        "steps_per_epoch": 141,
        "noise": 0.0,
        "psnr": 20.2,
    },
    # Keras 2's default learning rate of Adadelta; that of Keras 3 is a thousandth of it.
    "published": {"epochs": 5, "batch_size": 64, "learning_rate": 1.0, "noise": 0.5},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    noise: float | None = None
    """standard deviation of the training noise, for pixels in [0, 1]; default: the recipe's"""
    psnr: float | None = None
    """quality of the marked images in dB, by default 20.2"""
    watermark: Literal["bits", "gray"] = "bits"
    """values of the watermark: zeros and ones, or gray values from 0 to 1"""
    watermark_image: Path | None = None
    """also embed this picture in each test image, scaled to 28x28 pixels"""

    def __post_init__(self):
        super().__post_init__()
        if self.noise is not None and not 0 <= self.noise <= 10:
            raise ValueError("--noise must be between 0 and 10")
        if self.psnr is not None and not 0 <= self.psnr <= 100:
            raise ValueError("--psnr must be between 0 and 100")
        if self.psnr is not None and self.recipe == "published":
            raise ValueError("--psnr has no effect with --recipe published")


def build_encoder(height=28, width=28, channels=1, slope=0.2):
    """Return the encoder: (n, height, width, channels) to the same shape.

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

    The two are merged by a layer, inside the model. If NumPy merged them between two models, no
    gradient would pass, and the encoder would never learn what the extractor needs.
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

    The activation has to fit the values of the watermark: sigmoid for bits and for values from 0 to
    1, tanh for -1 to 1, relu for positive values without a limit, None (linear) for any.
    """
    marked = keras.Input((height, width, channels), name="marked")
    x = marked
    for filters, size in ((8, 5), (4, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = layers.LeakyReLU(slope)(x)
    # A ReLU that is zero everywhere has no gradient and never learns. A bias of 1 avoids that.
    bias = "ones" if activation == "relu" else "zeros"
    last = layers.Conv2D(1, 3, padding="same", activation=activation, bias_initializer=bias)
    return keras.Model(marked, last(x), name="extractor")


def build_watermark(height=28, width=28, channels=1, noise=0.0, slope=0.2, name="watermark_ae"):
    """Return one model of all three: {image, watermark} to {marked, recovered}.

    Each is called like a layer; get_layer("encoder") and so on return them.
    """
    encoder = build_encoder(height, width, channels, slope)
    decoder = build_decoder(height, width, channels, slope)
    extractor = build_extractor(height, width, channels, slope)
    image = keras.Input((height, width, channels), name="image")
    watermark = keras.Input((height, width, 1), name="watermark")
    marked = decoder([encoder(image), watermark])
    recovered = extractor(layers.GaussianNoise(noise)(marked))
    inputs = {"image": image, "watermark": watermark}
    return keras.Model(inputs, {"marked": marked, "recovered": recovered}, name=name)


class RaisePsnr(keras.callbacks.Callback):
    """Raises the demand on marked images during training, from 6 dB to `psnr`.

    At 6 dB bits cost no image quality. So the networks learn to embed them first, and keep them
    while images get better: between 10% and 70% of the steps, but not in the first 100.

    Args:
        max_mse: keras.Variable, the mean squared error above which images are penalized.
        psnr: in dB.
        steps: of the training.
        steps_per_epoch: of the training.
    """

    def __init__(self, max_mse, psnr, steps, steps_per_epoch):
        super().__init__()
        self.max_mse, self.psnr, self.steps_per_epoch = max_mse, psnr, steps_per_epoch
        self.rise = max(0.1 * steps, 100), max(0.7 * steps, 200)

    def on_epoch_begin(self, epoch, logs=None):
        """Keep the number of the epoch: a resumed training does not start with the first."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Ask for slightly better images."""
        step = self.epoch * self.steps_per_epoch + batch
        self.max_mse.assign(10 ** (-np.interp(step, self.rise, [6, self.psnr]) / 10))

    def on_test_begin(self, logs=None):
        """Validate with the final demand, so that epochs can be compared."""
        self.max_mse.assign(10 ** (-self.psnr / 10))


def main(argv=None):
    settings = cli.parse(__doc__, argv, Train)
    settings = cli.with_recipe(settings, RECIPES[settings.recipe])
    model = None
    if settings.model:
        model = training.load_model(settings.model, NAMES["bits"], NAMES["gray"])
        trained_for = "bits" if model.name == NAMES["bits"] else "gray"
        settings = dataclasses.replace(settings, watermark=trained_for)
    path, kind = settings.watermark_image, settings.watermark
    logo = read_watermark_image(path, kind) if path else None
    digits = data.load_mnist(settings)
    folder = training.run_folder(settings, NAMES[kind])
    if model is None:
        model = train(settings, digits, folder)
    for name in ("encoder", "decoder", "extractor"):
        training.save_model(model.get_layer(name), folder / f"{name}.keras")
    test_watermarks = random_watermarks(kind, digits.x_test.shape, training.seed_for("test"))
    evaluation.watermark_ae.report(folder, settings, model, digits, test_watermarks, logo)


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
    watermark = 1 - metrics.ink(gray) if kind == "bits" else gray
    return watermark.astype("float32")


def random_watermarks(kind, shape, seed):
    """Return random watermarks: bits, or gray values in squares of 1 to 7 pixels.

    Shape (n, 28, 28, 1). Gray pictures are smooth, hence the squares: trained on independent
    values, a network cannot separate a smooth watermark from the image.
    """
    rng = np.random.default_rng(seed)
    if kind == "bits":
        return rng.integers(0, 2, shape).astype("float32")
    values = rng.uniform(0, 1, shape).astype("float32")
    sides = rng.choice([1, 2, 4, 7], len(values))
    for side in (2, 4, 7):
        first = np.arange(shape[1]) // side * side  # the first index of each square
        values[sides == side] = values[sides == side][:, first][:, :, first]
    return values


def train(settings, digits, folder):
    """Return the model with the lowest validation loss."""

    def with_watermarks(images, seed):
        watermarks = random_watermarks(settings.watermark, images.shape, seed)
        inputs = {"image": images, "watermark": watermarks}
        return inputs, {"marked": images, "recovered": watermarks}

    def make_batch(indices, seed):
        return with_watermarks(digits.x_train[indices], seed)

    batches = training.Batches(make_batch, len(digits.x_train), settings)
    keras.utils.set_random_seed(settings.seed)
    model, callbacks = compile_model(settings, len(batches))
    model.summary()
    model.fit(
        batches.dataset(),
        epochs=settings.epochs,
        shuffle=False,  # batches are already shuffled
        validation_data=with_watermarks(digits.x_val, training.seed_for("validation")),
        validation_batch_size=500,
        callbacks=[*callbacks, *training.callbacks(folder, settings, batches)],
        verbose=2,
    )
    return training.best_model(folder, NAMES[settings.watermark])


def compile_model(settings, steps_per_epoch):
    """Return the model of a recipe, compiled, and the callbacks that it needs.

    As published, with the squared error on both outputs, it does not learn to embed bits: half of
    them come back, which is chance. The image is the easier half, and the gradient of the bits
    vanishes before the narrow layers learn to carry them. `fast` changes five things: the demand on
    the image rises during training (RaisePsnr), the gradient of its penalty does not vanish, ReLU
    is leaky, bits have the cross-entropy as their loss, and there is no noise.
    """
    name, bits = NAMES[settings.watermark], settings.watermark == "bits"
    metrics_of_outputs = {"marked": [psnr], "recovered": ["binary_accuracy" if bits else psnr]}
    if settings.recipe == "published":
        model = build_watermark(noise=settings.noise, slope=0.0, name=name)
        optimizer = keras.optimizers.Adadelta(settings.learning_rate)
        losses = {"marked": "mse", "recovered": "mse"}
        model.compile(optimizer, losses, metrics=metrics_of_outputs)
        return model, []

    model = build_watermark(noise=settings.noise, name=name)
    steps = settings.epochs * steps_per_epoch
    schedule = training.warmup_cosine(settings.learning_rate, steps)
    max_mse = keras.Variable(10 ** (-settings.psnr / 10), trainable=False)

    def quality_penalty(image, marked):
        # Zero while images are good enough. The gradient of a logarithm does not vanish.
        return 2 * ops.relu(ops.log(ops.mean(ops.square(marked - image)) / max_mse))

    def error_in_variances(watermark, recovered):
        # A uniform W has a variance of 1/12. So the loss starts at 1, near that of bits.
        return 12 * ops.mean(ops.square(recovered - watermark), axis=-1)

    model.compile(
        optimizer=keras.optimizers.Adam(schedule, beta_2=0.95),
        loss={
            "marked": quality_penalty,
            "recovered": "binary_crossentropy" if bits else error_in_variances,
        },
        metrics=metrics_of_outputs,
    )
    return model, [RaisePsnr(max_mse, settings.psnr, steps, steps_per_epoch)]


def psnr(image, marked):
    """Return the peak signal-to-noise ratio of each image in dB, shape (n,)."""
    return -10 * ops.log10(ops.mean(ops.square(marked - image), axis=(1, 2, 3)))


if __name__ == "__main__":
    cli.run(main)
