"""Train networks that embed a message in a photo of any size and extract it again.

    image (height, width, 1)             watermark (height / 8, width / 8, 1), a bit for each cell
      encoder: Conv 16 5x5 relu, Conv 16 3x3   |
    encoded (height, width, 16)                Conv2DTranspose 16 8x8, stride 8
      decoder: both concatenated, Conv 16 3x3 relu, Conv 1 3x3 tanh, times --strength
    marked image = image + decoder output
      GaussianNoise                          in training only
      extractor: Conv 24 5x5, Conv 24 3x3, Conv 64 8x8 stride 8, Conv 64 1x1, Conv 1 1x1 sigmoid
    recovered watermark                    the probability of a 1 in each cell, also after a blur

As in watermark_ae.py, the decoder embeds and the extractor reads. tools/messages encodes a text
with an error-correcting code, permutes its bits by a key, and puts them into a tile that repeats
over the photo. A quarter of the cells are pilots, known bits that locate the cells after cropping,
scaling and rotation. Smooth areas are changed less, and each message is read back before the photo
is written.

Examples:
  python watermark_photo.py --input samples/photo.jpg --message "© 2026 me" --key secret
  python watermark_photo.py --input runs/watermark_photo_marked/photo.png --extract --key secret
  python watermark_photo.py --capacity samples/photo.jpg    print how many bytes the photo can hold
  python watermark_photo.py                                 train the networks

After J. Zhu et al., "HiDDeN: Hiding Data with Deep Networks", 2018,
https://arxiv.org/abs/1807.09937. Trained on synthetic textures and scikit-image's pictures.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

import evaluation.watermark_photo
from common import cli, data, training
from synthetic import textures
from tools.messages import files as message_files
from tools.messages import photo

NAME = "watermark_photo"
RECIPE = {"epochs": 10, "batch_size": 16, "learning_rate": 0.003, "steps_per_epoch": 200}
# From scikit-image.
TRAINING_PICTURES = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "clock_motion.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
]
VALIDATION_PICTURES = ["chelsea.png"]
TEST_PICTURES = ["coffee.png", "rocket.jpg"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    noise: float = 0.1
    """standard deviation of the noise in training; pixels are in [0, 1]"""
    strength: float = 0.0175
    """largest change of a pixel, for pixels in [0, 1]"""
    # These have no flag here: there is one recipe, and the pictures come with scikit-image.
    recipe: cli.Hidden[str] = "fast"
    data_dir: cli.Hidden[None] = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise <= 1:
            raise ValueError("--noise must be between 0 and 1")
        if not 1e-4 <= self.strength <= 1:
            raise ValueError("--strength must be between 0.0001 and 1")


def build_photo_watermark(height=None, width=None, channels=1, noise=0.1, strength=0.0175):
    """Return the networks: {image, watermark} to {marked, recovered, recovered_blurred}.

    An image has shape (n, height, width, channels), its watermark (n, height / 8, width / 8, 1).
    Height and width must be multiples of 8, or None to accept any such size.

    A single pixel cannot carry a bit reliably, so each bit of the watermark covers a cell of 8x8
    pixels, and tools/messages spreads each bit of a message over many cells.
    """
    if (height or 0) % 8 or (width or 0) % 8:
        raise ValueError(f"height and width must be multiples of 8, not {height} and {width}")

    conv_args = {"padding": "same", "kernel_initializer": "he_normal"}
    image = keras.Input((height, width, channels), name="image")
    x = layers.Conv2D(16, 5, activation="relu", **conv_args)(image)
    x = layers.Conv2D(16, 3, **conv_args)(x)
    encoder = keras.Model(image, x, name="encoder")

    encoded = keras.Input((height, width, 16), name="encoded")
    watermark = keras.Input((height and height // 8, width and width // 8, 1), name="watermark")
    signs = layers.Rescaling(2, -1)(watermark)  # -1 and 1 for 0 and 1
    # Each sign adds or subtracts a learned pattern of 8x8 pixels.
    pattern = layers.Conv2DTranspose(16, 8, strides=8, use_bias=False)(signs)
    x = layers.Concatenate()([encoded, pattern])
    x = layers.Conv2D(16, 3, activation="relu", **conv_args)(x)
    x = layers.Conv2D(channels, 3, activation="tanh", padding="same")(x)
    decoder = keras.Model([encoded, watermark], layers.Rescaling(strength)(x), name="decoder")

    marked = keras.Input((height, width, channels), name="marked")
    x = layers.Conv2D(24, 5, activation="relu", **conv_args)(marked)
    x = layers.Conv2D(24, 3, activation="relu", **conv_args)(x)
    x = layers.Conv2D(64, 8, strides=8, activation="relu", **conv_args)(x)
    x = layers.Conv2D(64, 1, activation="relu", **conv_args)(x)
    recovered = layers.Conv2D(1, 1, activation="sigmoid")(x)
    extractor = keras.Model(marked, recovered, name="extractor")

    marked = image + decoder([encoder(image), watermark])
    # Clipped in the forward pass only (a straight-through estimator). A plain clip has no gradient
    # outside [0, 1], so nothing would be learned from black and white pixels.
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
    # An Apply or a Capacity if --input or --capacity is given, otherwise a Train.
    settings = cli.parse(__doc__, argv, Train, Apply, Capacity)
    if not isinstance(settings, Train):
        return apply(settings)
    # A flag that was not given takes the recipe's value.
    settings = cli.with_recipe(settings, RECIPE)
    if settings.model:  # evaluate this one; loaded first, so that a bad file is reported at once
        model = training.load_model(settings.model, NAME)
    patches = load_patches(settings)
    # The folder of --output-dir or --resume, or a new one in runs/; report() adds its figures.
    folder = training.run_folder(settings, NAME)
    if not settings.model:
        model = train(settings, patches, folder)
    for name in ("encoder", "decoder", "extractor"):
        training.save_model(model.get_layer(name), folder / f"{name}.keras")
    test_bits = random_bits(patches.x_test, training.seed_for("test"))
    evaluation.watermark_photo.report(folder, settings, model, patches, test_bits)


def train(settings, patches, folder):
    """Return the model with the lowest validation loss."""

    def with_bits(images, seed):
        bits = random_bits(images, seed)
        targets = {"marked": images, "recovered": bits, "recovered_blurred": bits}
        return {"image": images, "watermark": bits}, targets

    def make_batch(indices, seed):
        return with_bits(patches.x_train[indices], seed)

    steps_per_epoch = training.steps_per_epoch(settings, len(patches.x_train))
    keras.utils.set_random_seed(settings.seed)
    model = build_photo_watermark(noise=settings.noise, strength=settings.strength)
    # warms up to the learning rate, then decays to zero on a cosine
    schedule = training.warmup_cosine(settings.learning_rate, settings.epochs * steps_per_epoch)
    # beta_2=0.95 averages squared gradients over about 20 steps. The default, 0.999, averages over
    # about 1,000, too many for such a short run.
    optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    model.compile(
        optimizer,
        # The marked image needs no loss, because the strength limits its change.
        loss={
            "marked": None,
            "recovered": "binary_crossentropy",
            "recovered_blurred": "binary_crossentropy",
        },
        metrics={"recovered": "binary_accuracy"},
    )
    model.summary()
    # An endless tf.data.Dataset that calls make_batch(indices, seed) for each step, with shuffled
    # indices and a new seed. A resumed run starts after the last epoch in folder/history.csv.
    batches = training.batches(make_batch, len(patches.x_train), settings, folder)
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # already shuffled; with True, Keras only warns
        # The patches depend on --seed, so runs with different seeds are not comparable.
        validation_data=with_bits(patches.x_val, training.seed_for("validation")),
        validation_batch_size=500,
        # save history.csv, the best model and a backup for --resume after each epoch
        callbacks=training.callbacks(folder, settings),
        verbose=2,  # one line per epoch
    )
    return training.best_model(folder, NAME)


def load_patches(settings):
    """Return 64x64 patches as `data.Images`: half of them textures, half cut from pictures.

    The splits share neither pictures nor textures. There are no classes, so all labels are 0.
    """
    splits = [(6_000, TRAINING_PICTURES), (500, VALIDATION_PICTURES), (1_000, TEST_PICTURES)]
    arrays = []
    for split, (count, picture_names) in enumerate(splits):
        x = make_patches(settings, split, count, picture_names)
        arrays += [x, np.zeros(len(x), int)]
    name = "textures" if settings.synthetic else "pictures and textures"
    source = "synthetic" if settings.synthetic else "local"
    return data.Images(name, source, ["picture"], *arrays)


def make_patches(settings, split, count, picture_names):
    """Return the shuffled patches of one split, float32 in [0, 1], shape (count, 64, 64, 1).

    With --synthetic all are textures; --limit caps the count. `split` is part of the random seed.
    """
    count = min(settings.limit or count, count)
    pictures = list(textures.pictures([] if settings.synthetic else picture_names).values())
    seed = training.seed_for(settings.seed, "textures", split)
    patches = list(textures.make_textures(count // 2 if pictures else count, 64, seed))
    rng = np.random.default_rng(training.seed_for(settings.seed, "places", split))
    while len(patches) < count:
        picture = pictures[rng.integers(len(pictures))]
        top, left = (rng.integers(side - 64 + 1) for side in picture.shape)
        patches.append(picture[top : top + 64, left : left + 64])
    patches = np.stack(patches)[rng.permutation(count)]
    return patches[..., np.newaxis].astype("float32") / 255


def random_bits(images, seed):
    """Return one random bit per cell of images, shape (n, height / 8, width / 8, 1)."""
    count, height, width, _ = images.shape
    shape = count, height // 8, width // 8, 1
    return np.random.default_rng(seed).integers(0, 2, shape).astype("float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    message: str | None = None
    """embed this text; a 256x256 photo holds 40 bytes, a 960x643 photo 384 (see --capacity)"""
    extract: bool = False
    """print the message found in each photo"""
    key: str = ""
    """secret that permutes the message; needed again to extract it"""
    format: Literal["png", "jpeg"] | None = None
    """format of the marked photos; None: png"""

    def __post_init__(self):
        embed = self.message is not None
        if embed == self.extract:
            raise ValueError("--input needs exactly one of --message TEXT and --extract")
        if any("\ud800" <= letter <= "\udfff" for letter in (self.message or "") + self.key):
            raise ValueError("--message and --key must be text in UTF-8")
        if self.extract and self.output_dir:
            raise ValueError("--output-dir has no effect with --extract, which writes nothing")
        if self.extract and self.format:
            raise ValueError("--format has no effect with --extract, which writes nothing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    capacity: list[Path]
    """print how many bytes of a message each of these photos can hold"""
    model: Path | None = None
    """trained model; None: the one in models/"""


def apply(settings):
    """Carry out --message, --extract or --capacity; return the exit code."""
    paths = settings.capacity if isinstance(settings, Capacity) else settings.input
    message_files.check(paths)  # each can be read; if there is only one, it is an image
    watermark = photo.Watermark(training.load_model(settings.model, NAME))
    if isinstance(settings, Capacity):
        return message_files.print_capacity(watermark, paths)
    if settings.extract:
        return message_files.extract_from_files(watermark, paths, settings.key)
    return message_files.embed_in_files(
        watermark,
        paths,
        settings.message,
        settings.key,
        settings.output_dir,
        settings.format or "png",
    )


if __name__ == "__main__":
    cli.run(main)
