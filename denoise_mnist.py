"""Train a convolutional autoencoder to remove Gaussian noise from handwritten digits.

    noisy digit (28, 28, 1)
      Conv 32 3x3 relu  (28, 28, 32)
      MaxPool 2         (14, 14, 32)
      Conv 32 3x3 relu  (14, 14, 32)
      MaxPool 2         (7, 7, 32)     latent
      Conv 32 3x3 relu  (7, 7, 32)
      UpSampling 2      (14, 14, 32)
      Conv 32 3x3 relu  (14, 14, 32)
      UpSampling 2      (28, 28, 32)
      Conv 1 3x3 sigmoid
    clean digit (28, 28, 1)            28,353 parameters

Examples:
  python denoise_mnist.py                      train for about 30 seconds, evaluate, plot
  python denoise_mnist.py --recipe published   train as the source article did
  python denoise_mnist.py --epochs 48 --batch-size 64
                                               train longer, like the model in models/
  python denoise_mnist.py --noise 0.7          more noise
  python denoise_mnist.py --data-dir DIR       read MNIST, or your own pictures, from DIR
  python denoise_mnist.py --input samples/seven.png
                                               denoise your own digit

The network and the recipe `published` are from F. Chollet, "Building Autoencoders in Keras",
https://blog.keras.io/building-autoencoders-in-keras.html
"""

import dataclasses

import keras
import numpy as np
from keras import layers

import evaluation.denoise_mnist
from common import cli, data, files, images, noise, training
from tools import small_images, tiles

NAME = "denoise_mnist"
# What --recipe sets; a flag on the command line takes precedence. The learning rate of `fast` is
# the peak of a schedule. Without steps_per_epoch, an epoch is one pass over the training data; with
# it, the 12 epochs of `fast` are one pass over MNIST.
RECIPES = {
    "fast": {"epochs": 12, "batch_size": 32, "learning_rate": 0.01, "steps_per_epoch": 140},
    "published": {"epochs": 100, "batch_size": 128, "learning_rate": 0.001},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):  # adds flags to those in common/cli.py; below each is its --help
    noise: float = 0.5
    """standard deviation of the noise, before the result is clipped to [0, 1]"""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise <= 10:
            raise ValueError("--noise must be between 0 and 10")


def build_denoiser(height=28, width=28, channels=1):
    """Return the autoencoder, which maps noisy images to clean images of the same shape.

    Images have the shape (n, height, width, channels) and values in [0, 1]. Height and width must
    be multiples of 4, or None to accept any such size.

    An autoencoder usually has a bottleneck. This one has none: the latent holds 7 * 7 * 32 = 1,568
    numbers, twice as many as there are pixels. It does not need one, because a copy of the noisy
    input has a high loss. Denoising works because noise is independent between pixels, while
    strokes are not. The loss is lowest when each output pixel is its expected clean value, given
    the noisy pixels around it, here a window of about 24 x 24.
    """
    if (height or 0) % 4 or (width or 0) % 4:
        raise ValueError(f"height and width must be multiples of 4, not {height} and {width}")
    noisy = keras.Input((height, width, channels), name="noisy")
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(noisy)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    latent = layers.MaxPooling2D(2, name="latent")(x)

    x = layers.Conv2D(32, 3, activation="relu", padding="same")(latent)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(channels, 3, activation="sigmoid", padding="same", name="denoised")(x)
    return keras.Model(noisy, x, name="denoise_mnist")


def main(argv=None):
    # An Apply if --input is given, otherwise a Train.
    settings = cli.parse(__doc__, argv, Train, Apply)
    if isinstance(settings, Apply):
        return denoise_files(settings)
    # A flag that was not given takes the recipe's value.
    settings = cli.with_recipe(settings, RECIPES[settings.recipe])
    if settings.model:  # evaluate this one; loaded before the data, to fail early if it is damaged
        model = training.load_model(settings.model, NAME)
    digits = data.load_mnist(settings)  # x_train, x_val, x_test: (n, 28, 28, 1) in [0, 1]
    # The folder of --output-dir or --resume, or a new one in runs/; report() adds its figures.
    folder = training.run_folder(settings, NAME)
    # seed_for hashes its arguments: without --seed, all runs get the same validation noise.
    noisy_val = noise.gaussian(digits.x_val, settings.noise, training.seed_for("validation"))
    if not settings.model:
        model = train(settings, digits, noisy_val, folder)
    evaluation.denoise_mnist.report(folder, settings, model, digits, noisy_val)


def train(settings, digits, noisy_val, folder):
    """Return the model with the lowest validation loss."""
    clean = digits.x_train
    steps_per_epoch = training.steps_per_epoch(settings, len(clean))
    keras.utils.set_random_seed(settings.seed)
    model = build_denoiser()
    if settings.recipe == "published":
        # The article adds the noise once, before training, so the network can memorize it.
        noisy = noise.gaussian(clean, settings.noise, training.seed_for(settings.seed, "train"))

        def make_batch(indices, seed):  # the noise is fixed, so the seed is not used
            return noisy[indices], clean[indices]

        optimizer = keras.optimizers.Adam(settings.learning_rate)
    else:
        # Fresh noise in every batch cannot be memorized, and turns each image into many training
        # examples.
        def make_batch(indices, seed):
            return noise.gaussian(clean[indices], settings.noise, seed), clean[indices]

        training.init_output_bias(model, clean)  # untrained, it outputs about the mean pixel value
        # warms up to the learning rate, then decays to zero on a cosine
        schedule = training.warmup_cosine(settings.learning_rate, settings.epochs * steps_per_epoch)
        # beta_2=0.95 averages squared gradients over about 20 steps. The default, 0.999, averages
        # over about 1,000, too many for a run of 1,680 steps.
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    # For a clean pixel x and an output y the loss is -x * log(y) - (1 - x) * log(1 - y), which is
    # lowest at y = x, also for gray pixels. Its gradient at the sigmoid's input is y - x. That of
    # the squared error has an extra factor y * (1 - y), so near 0 or 1 even a wrong y hardly
    # changes.
    model.compile(optimizer, loss="binary_crossentropy")
    model.summary()
    # An endless tf.data.Dataset that calls make_batch(indices, seed) for each step, with shuffled
    # indices and a new seed. A resumed run starts after the last epoch in folder/history.csv.
    batches = training.batches(make_batch, len(clean), settings, folder)
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # already shuffled; with True, Keras only warns
        validation_data=(noisy_val, digits.x_val),
        validation_batch_size=500,
        # save history.csv, the best model and a backup for --resume after each epoch
        callbacks=training.callbacks(folder, settings),
        verbose=2,  # one line per epoch
    )
    return training.best_model(folder, NAME)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    no_invert: bool = False
    """do not invert dark-on-light pictures (the model expects light on dark)"""
    tile: bool = False
    """denoise a picture of many digits at its own size; digits should be about 20 pixels tall"""


def denoise_files(settings):
    """Write a denoised copy of each --input file and, without --tile, a sheet to check it by.

    The sheet shows the picture, what the network was given, and what it made of it.
    """
    model = training.load_model(settings.model, NAME)
    # decides how pictures are cropped and centered
    dataset_name = training.trained_on(settings.model, NAME)
    outputs = images.output_paths(settings.input, settings.output_dir, f"{NAME}_denoised")
    if settings.tile:
        network = build_denoiser(None, None)  # convolutions have the same weights at any size
        network.set_weights(model.get_weights())
        return tiles.denoise_files(network, outputs, multiple=4, invert=not settings.no_invert)
    sheet_paths = [target.with_name(f"{path.stem}_sheet.png") for path, target in outputs]
    files.ensure_not_taken(sheet_paths[0].parent, [path.name for path in sheet_paths])
    for (path, target), sheet_path in zip(outputs, sheet_paths, strict=True):
        picture = images.read_visible(path)
        model_input, inverted = small_images.prepare(picture, dataset_name, not settings.no_invert)
        denoised = model.predict(model_input[np.newaxis], verbose=0)[0]
        images.write_image(target, 1 - denoised if inverted else denoised)
        small_images.write_sheet(sheet_path, picture, model_input, {"denoised": denoised})


if __name__ == "__main__":
    cli.run(main)
