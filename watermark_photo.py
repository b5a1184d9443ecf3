"""Train networks that embed a message in a photo of any size and extract it again.

    image (height, width, 1)                 W (height / 8, width / 8, 1), a bit for each cell
      encoder: Conv 16 5x5 relu, Conv 16 3x3   |
    encoded (height, width, 16)                Conv2DTranspose 16 8x8, stride 8
      decoder: both concatenated, Conv 16 3x3 relu, Conv 1 3x3 tanh, times --strength
    marked image = image + that; in photos, smooth places change less
      GaussianNoise, blur                    what happens to it on its way, in training only
      extractor: Conv 24 5x5, Conv 24 3x3, Conv 64 8x8 stride 8, Conv 64 1x1, Conv 1 1x1 sigmoid
    recovered W                              the probability of a 1 in each cell

The bits are a text with an error-correcting code, scattered by a key, in tiles that repeat. Known
signs between them show where the cells are after cropping, scaling and rotation. A message is read
back before the marked photo is written.

Examples:
  python watermark_photo.py --input photo.png --message "© 2026 me" --key secret
  python watermark_photo.py --input marked.png --extract --key secret
  python watermark_photo.py --capacity photo.png     how many bytes it holds
  python watermark_photo.py                          train the networks

Sources: after J. Zhu et al., "HiDDeN: Hiding Data with Deep Networks", 2018,
https://arxiv.org/abs/1807.09937. Trained on textures and on pictures of scikit-image.
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
RECIPES = {
    "fast": {"epochs": 10, "batch_size": 16, "learning_rate": 0.003, "steps_per_epoch": 200},
}
# Pictures of scikit-image.
TRAINING_PICTURES = (
    "astronaut.png brick.png camera.png clock_motion.png coins.png grass.png gravel.png "
    "hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png page.png retina.jpg"
).split()
VALIDATION_PICTURES = ["chelsea.png"]
TEST_PICTURES = ["coffee.png", "rocket.jpg"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    recipe: cli.Hidden[str] = "fast"
    data_dir: cli.Hidden[None] = None
    noise: float = 0.1
    """standard deviation of the noise in training; pixels are in [0, 1]"""
    strength: float = 0.0175
    """the maximum change of a pixel"""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise <= 1:
            raise ValueError("--noise must be between 0 and 1")
        if not 1e-4 <= self.strength <= 1:
            raise ValueError("--strength must be between 0.0001 and 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    message: str | None = None
    """embed this text; a photo of 256x256 pixels holds 40 bytes, 960x643 384, see --capacity"""
    extract: bool = False
    """print the message in the photos"""
    key: str = ""
    """scatters the message, which can only be extracted with the same key"""
    format: Literal["png", "jpeg"] | None = None
    """of the marked photos; by default png"""

    def __post_init__(self):
        if self.extract == (self.message is not None):
            raise ValueError("--input needs either --message TEXT, to embed it, or --extract")
        for name, value in (("--output-dir", self.output_dir), ("--format", self.format)):
            if self.extract and value:
                raise ValueError(f"{name} has no effect with --extract, which writes nothing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    capacity: list[Path]
    """print how many bytes of a message these photos can hold"""
    model: Path | None = None
    """a trained model; by default the one in models/"""


def build_photo_watermark(height=None, width=None, channels=1, noise=0.1, strength=0.0175):
    """Return the networks: {image, watermark} to {marked, recovered, recovered_blurred}.

    An image is (n, height, width, channels), of any size whose sides are multiples of 8. Its
    watermark has a bit for each cell of 8x8 pixels: (n, height / 8, width / 8, 1). What one pixel
    cannot carry, 64 of them can, and dozens of cells share each bit of a message.
    """
    if (height or 0) % 8 or (width or 0) % 8:
        raise ValueError(f"height and width must be multiples of 8, not {height} and {width}")

    def conv(filters, size, activation="relu", strides=1):
        return layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            activation=activation,
            kernel_initializer="he_normal",
        )

    image = keras.Input((height, width, channels), name="image")
    x = conv(16, 5)(image)
    encoder = keras.Model(image, conv(16, 3, activation=None)(x), name="encoder")

    encoded = keras.Input((height, width, 16), name="encoded")
    watermark = keras.Input((height and height // 8, width and width // 8, 1), name="watermark")
    signs = layers.Rescaling(2, -1)(watermark)
    pattern = layers.Conv2DTranspose(16, 8, strides=8, use_bias=False)(signs)
    x = layers.Concatenate()([encoded, pattern])
    x = conv(16, 3)(x)
    x = layers.Conv2D(channels, 3, activation="tanh", padding="same")(x)
    decoder = keras.Model([encoded, watermark], layers.Rescaling(strength)(x), name="decoder")

    marked = keras.Input((height, width, channels), name="marked")
    x = conv(24, 5)(marked)
    x = conv(24, 3)(x)
    x = conv(64, 8, strides=8)(x)
    x = conv(64, 1)(x)
    recovered = layers.Conv2D(1, 1, activation="sigmoid")(x)
    extractor = keras.Model(marked, recovered, name="extractor")

    marked = image + decoder([encoder(image), watermark])
    # Clipped to [0, 1], but with the gradient of the identity, as that of a clip is zero outside.
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
    settings = cli.parse(__doc__, argv, Train, Apply, Capacity)
    if not isinstance(settings, Train):
        return apply(settings)
    settings = cli.with_recipe(settings, RECIPES[settings.recipe])
    model = training.load_model(settings.model, NAME) if settings.model else None
    pictures = load_pictures(settings)
    folder = training.run_folder(settings, NAME)
    if model is None:
        model = train(settings, pictures, folder)
    for name in ("encoder", "decoder", "extractor"):
        training.save_model(model.get_layer(name), folder / f"{name}.keras")
    test_bits = random_bits(pictures.x_test, training.seed_for("test"))
    evaluation.watermark_photo.report(folder, settings, model, pictures, test_bits)


def load_pictures(settings):
    """Return patches of 64x64 pixels as `data.Images`: half textures, half parts of pictures.

    Those for validation and for the test are from pictures and textures of their own.
    """
    parts = []
    for part, (count, names) in enumerate(
        [(6_000, TRAINING_PICTURES), (500, VALIDATION_PICTURES), (1_000, TEST_PICTURES)]
    ):
        count = min(settings.limit or count, count)
        pictures = list(textures.pictures([] if settings.synthetic else names).values())
        seed = training.seed_for(settings.seed, "textures", part)
        patches = list(textures.textures(count // 2 if pictures else count, 64, seed))
        rng = np.random.default_rng(training.seed_for(settings.seed, "places", part))
        while len(patches) < count:
            picture = pictures[rng.integers(len(pictures))]
            top, left = (rng.integers(side - 64 + 1) for side in picture.shape)
            patches.append(picture[top : top + 64, left : left + 64])
        patches = np.stack(patches)[rng.permutation(count)]
        parts.append(patches[..., np.newaxis].astype("float32") / 255)
    return data.Images(
        name="textures" if settings.synthetic else "pictures and textures",
        source="synthetic" if settings.synthetic else "local",
        class_names=["picture"],
        x_train=parts[0],
        y_train=np.zeros(len(parts[0]), int),
        x_val=parts[1],
        y_val=np.zeros(len(parts[1]), int),
        x_test=parts[2],
        y_test=np.zeros(len(parts[2]), int),
    )


def random_bits(images, seed):
    """Return a random bit for each cell of images, shape (n, height / 8, width / 8, 1)."""
    count, height, width, _ = images.shape
    shape = count, height // photo.CELL, width // photo.CELL, 1
    return np.random.default_rng(seed).integers(0, 2, shape).astype("float32")


def train(settings, pictures, folder):
    """Return the model with the lowest validation loss."""

    def with_bits(images, seed):
        bits = random_bits(images, seed)
        targets = {"marked": images, "recovered": bits, "recovered_blurred": bits}
        return {"image": images, "watermark": bits}, targets

    def make_batch(indices, seed):
        return with_bits(pictures.x_train[indices], seed)

    batches = training.Batches(make_batch, len(pictures.x_train), settings)
    keras.utils.set_random_seed(settings.seed)
    model = build_photo_watermark(noise=settings.noise, strength=settings.strength)
    schedule = training.warmup_cosine(settings.learning_rate, settings.epochs * len(batches))
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, beta_2=0.95),
        # The marked image needs no loss: the strength bounds its change.
        loss={
            "marked": None,
            "recovered": "binary_crossentropy",
            "recovered_blurred": "binary_crossentropy",
        },
        metrics={"recovered": ["binary_accuracy"]},
    )
    model.summary()
    model.fit(
        batches.dataset(),
        epochs=settings.epochs,
        shuffle=False,  # Batches shuffles
        validation_data=with_bits(pictures.x_val, training.seed_for("validation")),
        validation_batch_size=500,
        callbacks=training.callbacks(folder, settings, batches),
        verbose=2,
    )
    return training.best_model(folder, NAME)


def apply(settings):
    """Do what --message, --extract or --capacity asks for; return the exit code."""
    paths = settings.capacity if isinstance(settings, Capacity) else settings.input
    message_files.check(paths)
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
