"""Train networks that hide a message in a photo of any size and read it back.

    image (height, width, 1)                 W (height / 8, width / 8, 1), a bit for each cell
      encoder: Conv 16 5x5 relu, Conv 16 3x3   |
    encoded (height, width, 16)                Conv2DTranspose 16 8x8, stride 8
      decoder: both side by side, Conv 16 3x3 relu, Conv 1 3x3 tanh, times --strength
    marked image = image + that, in photos times what their texture hides
      GaussianNoise, blur                    what happens to it on its way, in training only
      extractor: Conv 24 5x5, Conv 24 3x3, Conv 64 8x8 stride 8, Conv 64 1x1, Conv 1 1x1 sigmoid
    recovered W                              the probability of a one in each cell

Smooth ground changes least. The bits are a coded text, scattered by a key, in tiles that repeat;
known signs say where they are after cropping, scaling, turning. All is read back before writing.

Run it:
  python watermark_photo.py --input photo.png --message "© 2026 me" --key secret
  python watermark_photo.py --input marked/photo.png --extract --key secret
  python watermark_photo.py --capacity photo.png     how many bytes it holds
  python watermark_photo.py                          train the networks

It trains on textures and pictures of scikit-image. Zhu et al. 2018: arxiv.org/abs/1807.09937
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, batches, command_line, data, devices, metrics, plotting
from common import run_folder, trained_models
from common.command_line import flag, number
from applications import inputs, messages
from synthetic import textures

import contextlib
import dataclasses
import sys

import keras
import numpy as np
from keras import layers, ops

TRAIN, INPUT = ("train",), ("input",)
RECIPES = {
    "fast": {"epochs": 10, "batch_size": 16, "learning_rate": 0.003, "max_steps_per_epoch": 200},
}
# Those that scikit-image ships; the last ones are held out.
PICTURES = [
    *("astronaut.png", "brick.png", "camera.png", "clock_motion.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("page.png", "retina.jpg", "chelsea.png", "coffee.png", "rocket.jpg"),
]
MODELS = ["encoder.keras", "decoder.keras", "extractor.keras"]
FIGURES = ["watermarks.png"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "watermark_photo"
    names = {"residual": "watermark_photo"}
    build_like = staticmethod(lambda architecture, model: build_photo_watermark())
    applications = ("input", "capacity")
    recipe: str = "fast"
    data_dir: None = None
    noise: float = flag("standard deviation of the noise (default: 0.1)", 0.1, number(0, 1), TRAIN)
    strength: float = flag(
        "the most a pixel changes (default: 0.0175)", 0.0175, number(1e-4, 1), TRAIN
    )
    message: str = flag(
        "hide this text in the --input images; a photo of 128x128 pixels holds 8 bytes, 256x256 "
        "40, 400x400 128, 960x643 384, read after JPEG 75; --capacity says how many yours holds",
        *(None, str, INPUT),
    )
    extract: bool = flag("read the message of the --input images", False, bool, INPUT)
    key: str = flag("scatters the message; reading takes the same", "", str, INPUT)
    format: str = flag(
        "of the marked images (default: png)", None, str, INPUT, choices=list(messages.FORMATS)
    )
    capacity: list = flag(
        "print how many bytes these can hold", None, str, (), False, nargs="+", metavar="FILE"
    )


def build_photo_watermark(noise=0.1, strength=0.0175):
    """Return networks for images of any size whose sides are multiples of 8.

    The watermark has a bit for each cell of 8x8 pixels: (n, height / 8, width / 8, 1). What one
    pixel can't carry, the 64 of a cell can, and dozens of cells do for each bit of a message.
    """
    conv = {"padding": "same", "kernel_initializer": "he_normal"}
    image = keras.Input((None, None, 1), name="image")
    x = layers.Conv2D(16, 5, activation="relu", **conv)(image)
    encoder = keras.Model(image, layers.Conv2D(16, 3, **conv)(x), name="encoder")

    encoded = keras.Input((None, None, 16), name="encoded")
    watermark = keras.Input((None, None, 1), name="watermark")
    sign = layers.Rescaling(2, -1)(watermark)
    pattern = layers.Conv2DTranspose(16, 8, strides=8, use_bias=False)(sign)
    x = layers.Concatenate()([encoded, pattern])
    x = layers.Conv2D(16, 3, activation="relu", **conv)(x)
    x = layers.Conv2D(1, 3, activation="tanh", padding="same", dtype="float32")(x)
    decoder = keras.Model(
        [encoded, watermark], layers.Rescaling(strength, dtype="float32")(x), name="decoder"
    )

    marked = keras.Input((None, None, 1), name="marked")
    x = layers.Conv2D(24, 5, activation="relu", **conv)(marked)
    x = layers.Conv2D(24, 3, activation="relu", **conv)(x)
    x = layers.Conv2D(64, 8, strides=8, activation="relu", **conv)(x)
    x = layers.Conv2D(64, 1, activation="relu", **conv)(x)
    recovered = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x)
    extractor = keras.Model(marked, recovered, name="extractor")

    image = keras.Input((None, None, 1), name="image")
    watermark = keras.Input((None, None, 1), name="watermark")
    change = decoder([encoder(image), watermark])
    marked = image + change
    # Clipped to [0, 1], but for the gradient: where it is zero, nothing can be learned any more.
    marked = marked + ops.stop_gradient(ops.clip(marked, 0, 1) - marked)
    blurred = layers.AveragePooling2D(3, strides=1, padding="same")(marked)
    outputs = {
        "marked": marked,
        "recovered": extractor(layers.GaussianNoise(noise)(marked)),
        "recovered_blurred": extractor(layers.GaussianNoise(noise / 3)(blurred)),
    }
    inputs = {"image": image, "watermark": watermark}
    return keras.Model(inputs, outputs, name="watermark_photo")


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, {"residual": RECIPES}, argv)
    plotting.set_up(settings.show)
    if settings.action in settings.applications:
        return hide_or_reveal(settings)

    model, settings = trained_models.model_to_evaluate(settings)
    pictures = load_pictures(settings.synthetic, settings.limit, settings.seed)

    def with_bits(images, seed):
        """Return inputs and targets: images, and a fresh bit for each cell."""
        count, height, width, _ = images.shape
        shape = (count, height // messages.CELL, width // messages.CELL, 1)
        bits = np.random.default_rng(seed).integers(0, 2, shape).astype("float32")
        targets = {"marked": images, "recovered": bits, "recovered_blurred": bits}
        return {"image": images, "watermark": bits}, targets

    with run_folder.RunFolder(settings, pictures, MODELS + FIGURES) as run:
        if model is None:
            stream = batches.Batches(
                settings,
                len(pictures.x_train),
                lambda chosen, seed: with_bits(pictures.x_train[chosen], seed),
            )
            keras.utils.set_random_seed(settings.seed)
            keras.config.set_dtype_policy(settings.precision)
            with devices.scope(settings):
                model = build_photo_watermark(settings.noise, settings.strength)
                steps = settings.epochs * stream.steps_per_epoch
                schedule = batches.warm_up_and_cosine(settings.learning_rate, steps)
                loss = dict.fromkeys(("recovered", "recovered_blurred"), "binary_crossentropy")
                loss["marked"] = None  # its quality is bounded by the strength
                optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
                model.compile(optimizer, loss, metrics={"recovered": ["binary_accuracy"]})
            model.summary()
            validation = with_bits(pictures.x_validation, batches.seed_for("validation"))
            model.fit(
                stream.dataset(run.first_epoch),
                steps_per_epoch=stream.steps_per_epoch,
                epochs=settings.epochs,
                initial_epoch=run.first_epoch,
                **devices.validation(settings, *validation),
                callbacks=run.callbacks(model),
                shuffle=False,  # the batches come shuffled
                verbose=run.verbose,
            )
            model = run.best_model()
        for name in ("encoder", "decoder", "extractor"):
            trained_models.save_model(model.get_layer(name), run.path(f"{name}.keras"))

        # The test set, once.
        inputs, _ = with_bits(pictures.x_test, batches.seed_for("test"))
        marked = model.predict(inputs, batch_size=500, verbose=0)["marked"]
        results = {"model": evaluate(model.get_layer("extractor"), inputs, marked)}
        plot_examples(run, inputs["image"][:8], marked[:8], results["model"])
        run.plot_history("cross-entropy of the bits (nats)")
        run.finish(model, results)


def load_pictures(synthetic=False, limit=None, seed=0):
    """Return pieces of 64x64 pixels as `data.Images`, of one class: half textures, half pictures.

    One picture (a cat) is for validation, two (a cup, a rocket) for the test, with textures of
    their own.

    Args:
        synthetic: textures alone.
        limit: use at most this many pieces for training, for validation and for the test each.
        seed: of the textures, and of where pieces are cut.
    """
    parts = []
    for part, (count, names) in enumerate(
        [(6_000, PICTURES[:-3]), (500, PICTURES[-3:-2]), (1_000, PICTURES[-2:])]
    ):
        count = min(limit or count, count)
        found = list(textures.pictures([] if synthetic else names).values())
        pieces = list(
            textures.textures(
                count // 2 if found else count, 64, batches.seed_for(seed, "textures", part)
            )
        )
        rng = np.random.default_rng(batches.seed_for(seed, "places", part))
        while len(pieces) < count:
            picture = found[rng.integers(len(found))]
            top, left = (rng.integers(side - 64 + 1) for side in picture.shape)
            pieces.append(picture[top : top + 64, left : left + 64])
        pieces = np.stack(pieces)[rng.permutation(count)]
        parts += [pieces[..., np.newaxis].astype("float32") / 255, np.zeros(count, int)]
    name = "textures" if synthetic else "pictures and textures"
    return data.Images(name, "synthetic" if synthetic else "local", ["picture"], *parts)


def hide_or_reveal(settings):
    """Do what --message, --extract or --capacity asks for; return the exit code."""
    if settings.input and settings.extract == (settings.message is not None):
        raise UserError("--input wants either --message TEXT, to hide it, or --extract, to read it")
    asked = "--extract" if settings.extract else "--capacity" if settings.capacity else None
    for name, given in (("--output-dir", settings.output_dir), ("--format", settings.format)):
        if asked and given:
            raise UserError(f"{name} has no effect with {asked}, which writes nothing")
    messages.see_that_files(settings.capacity or settings.input)
    with contextlib.redirect_stdout(sys.stderr if asked else sys.stdout):
        model, _ = inputs.model_to_apply(settings)  # standard output is for what was asked
    if settings.capacity:
        return messages.print_capacity(model, settings.capacity)
    if settings.extract:
        return messages.reveal(model, settings.input, settings.key)
    return messages.hide(
        *(model, settings.input, settings.message, settings.key),
        *(settings.output_dir, settings.format or "png"),
    )


def evaluate(extractor, inputs, marked):
    """Return {metric: value} of marked images and of the bits that are read from them."""
    image, bits = inputs["image"], inputs["watermark"]
    results = {"psnr": metrics.psnr(image, marked), "ssim": metrics.ssim(image, marked)}
    for sigma in (0, 0.1, 0.25):
        epsilon = np.random.default_rng(batches.seed_for("noise")).standard_normal(
            marked.shape, dtype="float32"
        )
        found = extractor.predict(marked + sigma * epsilon, batch_size=500, verbose=0)
        name = f"bit_accuracy_noise_{sigma}" if sigma else "bit_accuracy"
        results[name] = metrics.bit_accuracy(bits, found)
    return results


def plot_examples(run, images, marked, results):
    """Write a figure of images before and after."""
    gain = 0.5 / np.quantile(np.abs(marked - images), 0.98)
    rows = {
        "image": images,
        "marked": marked,
        f"difference,\nx {gain:.0f}": np.clip(0.5 + gain * (marked - images), 0, 1),
    }
    run.plot(
        *(plotting.image_rows, rows, "watermarks.png"),
        "Pieces of pictures with 64 bits in each",
        f"Over all test pieces the marked ones have {results['psnr']:.1f} dB, and "
        f"{results['bit_accuracy']:.1%} of the bits come back without noise, "
        f"{results['bit_accuracy_noise_0.1']:.1%} under noise of 0.1.",
    )


if __name__ == "__main__":
    command_line.start(main)
