"""Train an autoencoder, or a U-Net, to remove salt-and-pepper noise from pictures of clothes.

    noisy image        (28, 28, 1)
      Conv 64 3x3      (28, 28, 64)
      MaxPool 2        (14, 14, 64)
      Conv 32 3x3      (14, 14, 32)
      MaxPool 2        (7, 7, 32)
      Conv 16 3x3      (7, 7, 16)
      MaxPool 2        (4, 4, 16)     latent: 256 numbers
      Conv 16 3x3      (4, 4, 16)
      UpSampling 2     (8, 8, 16)
      Conv 32 3x3      (8, 8, 32)
      UpSampling 2     (16, 16, 32)
      Conv 64 3x3      (14, 14, 64)   without padding
      UpSampling 2     (28, 28, 64)
      Conv 1 3x3
    clean image        (28, 28, 1)    49,761 parameters

This is `--architecture autoencoder`. `--architecture unet`, 90,817 parameters, adds skip
connections: see `build_unet`.

Examples:
  python denoise_fashion.py                       the article's network, in a minute or two
  python denoise_fashion.py --architecture unet   the U-Net, which beats the median filter
  python denoise_fashion.py --recipe published    train as the source article did
  python denoise_fashion.py --noise 0.3 --architecture unet
                                                  more noise, for which the U-Net is better
  python denoise_fashion.py --input samples/noisy.png
                                                  denoise your own picture, of any size
  python denoise_fashion.py --architecture unet --data-dir DIR --patches
                                                  train on patches of your own photos

The network and the recipe `published` are those of a blog article that removes imgaug's
salt-and-pepper noise from Fashion-MNIST. U-Net: Ronneberger et al. 2015,
https://arxiv.org/abs/1505.04597
"""

import dataclasses
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

import evaluation.denoise_fashion
from common import cli, data, images, noise, training
from common.cli import UserError
from tools import tiles

NAMES = {"autoencoder": "denoise_fashion", "unet": "denoise_fashion_unet"}  # of the models
# What --recipe sets; a flag on the command line takes precedence. Without steps_per_epoch, an epoch
# is one pass over the training data.
RECIPES = {
    "autoencoder": {
        "fast": {"epochs": 10, "batch_size": 64, "learning_rate": 0.004, "steps_per_epoch": 150},
        "published": {"epochs": 20, "batch_size": 2048, "learning_rate": 0.001},
    },
    "unet": {  # `published`: the article's recipe on our network
        "fast": {"epochs": 20, "batch_size": 32, "learning_rate": 0.005, "steps_per_epoch": 250},
        "published": {"epochs": 20, "batch_size": 2048, "learning_rate": 0.001},
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    architecture: Literal["autoencoder", "unet"] = "autoencoder"
    """`unet` has skip connections, and predicts the change from noisy to clean"""
    noise: float = 0.1
    """share of pixels to replace with imgaug's salt and pepper: random grays, mostly dark or
    bright"""
    patches: bool = False
    """train the U-Net on patches of 28x28 pixels from the full-size pictures in --data-dir"""

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.noise <= 1:
            raise ValueError("--noise must be between 0 and 1")


def build_autoencoder(height=28, width=28, channels=1, initializer="glorot_uniform"):
    """Return the article's autoencoder, which maps noisy images to clean images of the same shape.

    Images have the shape (n, height, width, channels) and values in [0, 1]. Height and width must
    be 4 more than a multiple of 8 (28, 36, ...), or None to accept any such size.

    Everything the decoder knows about an image of 28x28 passes through a latent of 256 numbers, so
    it must redraw all 784 pixels, including those that were clean.
    """
    for side in (height, width):
        if side is not None and side % 8 != 4:
            raise ValueError(f"height and width must be 8k + 4, such as 28 or 36, not {side}")
    noisy = keras.Input((height, width, channels), name="noisy")
    conv_args = {"activation": "relu", "kernel_initializer": initializer}
    x = layers.Conv2D(64, 3, padding="same", **conv_args)(noisy)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(32, 3, padding="same", **conv_args)(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(16, 3, padding="same", **conv_args)(x)
    latent = layers.MaxPooling2D(2, padding="same", name="latent")(x)

    x = layers.Conv2D(16, 3, padding="same", **conv_args)(latent)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(32, 3, padding="same", **conv_args)(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(64, 3, padding="valid", **conv_args)(x)  # 16 becomes 14
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(channels, 3, activation="sigmoid", padding="same", name="denoised")(x)
    return keras.Model(noisy, x, name="denoise_fashion")


def build_unet(height=28, width=28, channels=1):
    """Return the U-Net, which maps noisy images to clean images of the same shape.

    Images have the shape (n, height, width, channels) and values in [0, 1]. Any fixed height and
    width will do; with None, images need multiples of 8.

        noisy image             (28, 28, 1)
          Conv 64               (28, 28, 64) ------------------------------------------.
          MaxPool, Conv 32      (14, 14, 32) -----------------------------------.      |
          MaxPool, Conv 16      (7, 7, 16) ------------------------------.      |      |
          MaxPool, Conv 16      (4, 4, 16)                               |      |      |
          UpSampling, Concatenate, Conv 32   (7, 7, 32)    <-------------'      |      |
          UpSampling, Concatenate, Conv 64   (14, 14, 64)  <--------------------'      |
          UpSampling, Concatenate, Conv 16   (28, 28, 16)  <---------------------------'
          Conv 1                (28, 28, 1)
        clean image = noisy image + output, clipped to [0, 1]

    The skip connections carry details around the latent, where they would be lost.
    """
    noisy = keras.Input((height, width, channels), name="noisy")
    skip_1 = layers.Conv2D(64, 3, activation="relu", padding="same")(noisy)
    x = layers.MaxPooling2D(2, padding="same")(skip_1)
    skip_2 = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(2, padding="same")(skip_2)
    skip_3 = layers.Conv2D(16, 3, activation="relu", padding="same")(x)
    latent = layers.MaxPooling2D(2, padding="same", name="latent")(skip_3)

    x = layers.Conv2D(16, 3, activation="relu", padding="same")(latent)
    x = upsample_like(skip_3, x)
    x = layers.Concatenate()([x, skip_3])
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = upsample_like(skip_2, x)
    x = layers.Concatenate()([x, skip_2])
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    x = upsample_like(skip_1, x)
    x = layers.Concatenate()([x, skip_1])
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(x)
    # The network predicts the residual, the change from noisy to clean, which is zero for most
    # pixels (Zhang et al. 2017, https://arxiv.org/abs/1608.03981). Untrained, it returns its input.
    residual = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros", name="change")
    x = noisy + residual(x)
    # Clipped in the forward pass only (a straight-through estimator). A plain clip has no gradient
    # outside [0, 1], so a pixel there would teach the network nothing.
    x = x + ops.stop_gradient(ops.clip(x, 0, 1) - x)
    return keras.Model(noisy, x, name="denoise_fashion_unet")


def upsample_like(skip, x):
    """Return x upsampled by 2 and cropped to the size of `skip`: pooling rounds odd sides up.

    Where that size is None, nothing is cropped.
    """
    return layers.UpSampling2D(2)(x)[:, : skip.shape[1], : skip.shape[2]]


def main(argv=None):
    # A cli.Apply if --input is given, otherwise a Train.
    settings = cli.parse(__doc__, argv, Train, cli.Apply)
    if isinstance(settings, cli.Apply):
        return denoise_files(settings)
    if settings.model:  # evaluate this one; loaded before the data, to fail early if it is damaged
        model = training.load_model(settings.model, *NAMES.values())
        architecture = "unet" if model.name == NAMES["unet"] else "autoencoder"
        settings = dataclasses.replace(settings, architecture=architecture)
    if settings.patches and (settings.architecture != "unet" or not settings.data_dir):
        raise UserError("--patches needs --architecture unet and a --data-dir of pictures")
    # A flag that was not given takes the recipe's value.
    settings = cli.with_recipe(settings, RECIPES[settings.architecture][settings.recipe])
    if settings.patches:
        dataset = data.load_pictures(settings, patches=True)  # your own, cut into 28x28 pixels
    else:
        dataset = data.load_fashion_mnist(settings)  # float32 in [0, 1], shape (n, 28, 28, 1)
    # The folder of --output-dir or --resume, or a new one in runs/; report() adds its figures.
    folder = training.run_folder(settings, NAMES[settings.architecture])
    # seed_for hashes its arguments: without --seed, all runs get the same validation noise.
    seed = training.seed_for("validation")
    noisy_val = noise.salt_and_pepper(dataset.x_val, settings.noise, seed)
    if not settings.model:
        model = train(settings, dataset, noisy_val, folder)
    evaluation.denoise_fashion.report(folder, settings, model, dataset, noisy_val)


def train(settings, dataset, noisy_val, folder):
    """Return the model with the lowest validation loss."""
    clean = dataset.x_train
    steps_per_epoch = training.steps_per_epoch(settings, len(clean))
    keras.utils.set_random_seed(settings.seed)
    if settings.recipe == "published":
        # The article adds the noise once, before training, so the network can memorize it.
        noise_seed = training.seed_for(settings.seed, "train")
        noisy = noise.salt_and_pepper(clean, settings.noise, noise_seed)

        def make_batch(indices, seed):  # the noise is fixed, so the seed is not used
            return noisy[indices], clean[indices]

        model = build_unet() if settings.architecture == "unet" else build_autoencoder()
        optimizer = keras.optimizers.Adam(settings.learning_rate)
        patience = 10  # early stopping: after ten epochs without a lower validation loss
    else:
        # Fresh noise in every batch cannot be memorized, and turns each image into many training
        # examples.
        def make_batch(indices, seed):
            return noise.salt_and_pepper(clean[indices], settings.noise, seed), clean[indices]

        if settings.architecture == "unet":
            model = build_unet()
        else:
            # He et al. 2015, for layers with ReLU: https://arxiv.org/abs/1502.01852
            model = build_autoencoder(initializer="he_normal")
            # Untrained, it outputs about the mean pixel value.
            training.init_output_bias(model, clean)
        # warms up to the learning rate, then decays to zero on a cosine
        schedule = training.warmup_cosine(settings.learning_rate, settings.epochs * steps_per_epoch)
        # beta_2=0.95 averages squared gradients over about 20 steps. The default, 0.999, averages
        # over about 1,000.
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
        patience = None
    model.compile(optimizer, loss="mse")  # PSNR is 10 * log10(1 / MSE)
    model.summary()
    # An endless tf.data.Dataset that calls make_batch(indices, seed) for each step, with shuffled
    # indices and a new seed. A resumed run starts after the last epoch in folder/history.csv.
    batches = training.batches(make_batch, len(clean), settings, folder)
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # already shuffled; with True, Keras only warns
        validation_data=(noisy_val, dataset.x_val),
        validation_batch_size=500,
        # save history.csv, the best model and a backup for --resume after each epoch
        callbacks=training.callbacks(folder, settings, patience),
        verbose=2,  # one line per epoch
    )
    return training.best_model(folder, NAMES[settings.architecture])


def denoise_files(settings):
    """Write a denoised copy of each --input file, at its own size."""
    # by default the U-Net
    model = training.load_model(settings.model, NAMES["unet"], NAMES["autoencoder"])
    unet = model.name == NAMES["unet"]
    # Convolutions have the same weights at any size.
    network = build_unet(None, None) if unet else build_autoencoder(None, None)
    network.set_weights(model.get_weights())
    outputs = images.output_paths(settings.input, settings.output_dir, f"{model.name}_denoised")

    def with_test_time_augmentation(image):
        # Averages the outputs for the picture and for a copy rotated by 90°: 0.4 dB better on
        # photos, because their errors partly cancel.
        rotated = network(np.rot90(image, axes=(1, 2)))
        return (network(image) + np.rot90(rotated, -1, axes=(1, 2))) / 2

    # The U-Net takes sides of 8k pixels, the autoencoder of 8k + 4.
    tiles.denoise_files(
        with_test_time_augmentation, outputs, multiple=8, plus=0 if unet else 4, color=True
    )


if __name__ == "__main__":
    cli.run(main)
