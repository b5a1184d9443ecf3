"""Train a variational autoencoder on pictures of clothes, and sample new ones from it.

    image (28, 28, 1)                            z (2)
      Conv 32 3x3 relu            (28, 28, 32)     Dense 12,544 relu, reshaped   (14, 14, 64)
      Conv 64 3x3 relu, stride 2  (14, 14, 64)     Conv2DTranspose 32, stride 2  (28, 28, 32)
      Conv 64 3x3 relu            (14, 14, 64)     Conv 1 3x3 sigmoid            (28, 28, 1)
      Conv 64 3x3 relu            (14, 14, 64)   reconstruction (28, 28, 1)
      Flatten, Dense 32 relu      (32)
      z_mean (2), z_log_var (2)                  encoder 494,244 + decoder 56,385 parameters
      z = z_mean + exp(z_log_var / 2) * epsilon, with epsilon from N(0, 1)

Examples:
  python vae_fashion.py                     two latent dimensions, in four minutes
  python vae_fashion.py --latent-dim 16
  python vae_fashion.py --architecture dense --dataset mnist
  python vae_fashion.py --data-dir DIR      read Fashion-MNIST, or your own pictures, from DIR
  python vae_fashion.py --generate 25       25 new images as PNG files, and a contact sheet
  python vae_fashion.py --decode runs/vae_fashion_generated/latent.csv
                                            decode codes into images
  python vae_fashion.py --input samples/shoe.png --vary 8
                                            encode, reconstruct and vary a picture

The convolutional network and its recipe `published`, apart from the loss (see the comment above
`reconstruction`), are those of a blog article on generating clothes, the dense ones those of
Keras's old example on MNIST. VAE: Kingma and Welling 2013, https://arxiv.org/abs/1312.6114
"""

import dataclasses
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from keras import layers, ops

import evaluation.vae_fashion
from common import cli, data, training
from tools import explorer, latents

NAMES = {"conv": "vae_fashion", "dense": "vae_fashion_dense"}  # of the models
# What --recipe sets; a flag on the command line takes precedence. Without steps_per_epoch, an epoch
# is one pass over the training data.
RECIPES = {
    "conv": {
        "fast": {"epochs": 12, "batch_size": 16, "learning_rate": 0.005, "steps_per_epoch": 875},
        "published": {"epochs": 20, "batch_size": 16, "learning_rate": 0.001},
    },
    "dense": {
        "fast": {"epochs": 10, "batch_size": 64, "learning_rate": 0.004, "steps_per_epoch": 300},
        "published": {"epochs": 50, "batch_size": 128, "learning_rate": 0.001},
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    architecture: Literal["conv", "dense"] = "conv"
    """convolutional, or dense as in Keras's old example"""
    dataset: Literal["fashion", "mnist"] = "fashion"
    """Fashion-MNIST or MNIST"""
    latent_dim: int = 2
    """number of latent dimensions"""
    beta: float = 1.0
    """weight of the KL divergence; with 1 the loss is the negative ELBO, below 1 no bound"""

    def __post_init__(self):
        super().__post_init__()
        if not 2 <= self.latent_dim <= 1_000:
            raise ValueError("--latent-dim must be between 2 and 1000")
        if not 0 <= self.beta < float("inf"):
            raise ValueError("--beta must be finite and not negative")


@keras.saving.register_keras_serializable("vae_fashion")
class Sampling(layers.Layer):
    """Samples z from N(z_mean, exp(z_log_var)), in training and in prediction."""

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        """Return z for [z_mean, z_log_var], all of shape (n, latent_dim)."""
        z_mean, z_log_var = inputs
        # The reparameterization trick: a sample of N(μ, σ²) has no derivative with respect to μ and
        # σ, but z = μ + σ·ε with ε from N(0, 1) has: dz/dμ = 1, dz/dσ = ε. So the gradient of the
        # decoder's error reaches the encoder.
        epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(z_log_var / 2) * epsilon


def build_encoder(
    architecture="conv", latent_dim=2, height=28, width=28, channels=1, initializer="he_normal"
):
    """Return the encoder: images to [z_mean, z_log_var, z], each (n, latent_dim).

    Most of the convolutional encoder's weights are in its Dense layer of 32: a convolution applies
    the same few weights at every place.
    """
    conv_args = {"activation": "relu", "kernel_initializer": initializer}
    image = keras.Input((height, width, channels), name="image")
    if architecture == "conv":
        x = layers.Conv2D(32, 3, padding="same", **conv_args)(image)
        x = layers.Conv2D(64, 3, strides=2, padding="same", **conv_args)(x)
        x = layers.Conv2D(64, 3, padding="same", **conv_args)(x)
        x = layers.Conv2D(64, 3, padding="same", **conv_args)(x)
        x = layers.Dense(32, **conv_args)(layers.Flatten()(x))
    else:
        x = layers.Dense(512, **conv_args)(layers.Flatten()(image))
    # An image's code is a normal distribution, not a point: the approximate posterior q(z|x).
    # z_mean is its mean, z_log_var the logarithm of its variance, and z a sample of it. Predicting
    # the logarithm keeps the variance positive. Training decodes z, so the decoder also learns the
    # surroundings of z_mean; figures decode z_mean. New images are decoded samples of the prior,
    # N(0, 1).
    z_mean = layers.Dense(latent_dim, name="z_mean")(x)
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(x)
    z = Sampling(name="z")([z_mean, z_log_var])
    return keras.Model(image, [z_mean, z_log_var, z], name="encoder")


def build_decoder(
    architecture="conv", latent_dim=2, height=28, width=28, channels=1, initializer="he_normal"
):
    """Return the decoder: (n, latent_dim) to images, shape (n, height, width, channels)."""
    conv_args = {"activation": "relu", "kernel_initializer": initializer}
    z = keras.Input((latent_dim,), name="z")
    if architecture == "conv":
        if height % 2 or width % 2:
            raise ValueError(f"height and width must be even, not {height} and {width}")
        x = layers.Dense(height // 2 * (width // 2) * 64, **conv_args)(z)
        x = layers.Reshape((height // 2, width // 2, 64))(x)
        x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", **conv_args)(x)
        x = layers.Conv2D(channels, 3, activation="sigmoid", padding="same", name="image")(x)
    else:
        x = layers.Dense(512, **conv_args)(z)
        x = layers.Dense(height * width * channels, activation="sigmoid")(x)
        x = layers.Reshape((height, width, channels), name="image")(x)
    return keras.Model(z, x, name="decoder")


# The evidence is p(x), the probability of an image. The loss should be -log p(x), but p(x) is an
# integral over all z. The ELBO (evidence lower bound) is a lower bound on log p(x), so its negative
# is an upper bound on -log p(x). One sample of z for each image estimates the negative ELBO:
#
#     sum over pixels of BCE(x, decoded) + sum over latent dimensions of KL
#
# The loss is in nats (1 nat = 1.44 bits), because the logarithms are natural. The article's loss is
# not a bound: its β is effectively 0.2 (docs/results.md). So --recipe published does not use it.


@keras.saving.register_keras_serializable("vae_fashion")
def reconstruction(image, decoded):
    """Return -log p(x|z), the cross-entropy summed over the pixels, in nats, shape (n,).

    A gray value counts as the probability of white, so a gray pixel costs something even in a
    perfect copy. Strictly, this is a likelihood for black and white pixels only.
    """
    return ops.sum(ops.binary_crossentropy(image, decoded), axis=(1, 2, 3))


def kl_divergence(z_mean, z_log_var):
    """Return KL(N(z_mean, exp(z_log_var)) ‖ N(0, 1)) in nats, shape (n,).

    It pulls all codes towards one distribution, which can be sampled, and makes the clouds of
    neighboring codes overlap, so that they decode to similar images. Without it each code would
    shrink towards a point, as in a plain autoencoder, whose decoder learns nothing about the gaps
    between points.
    """
    return 0.5 * ops.sum(ops.square(z_mean) + ops.exp(z_log_var) - 1 - z_log_var, axis=-1)


@keras.saving.register_keras_serializable("vae_fashion")
class VAE(keras.Model):
    """Encoder and decoder, trained together. `beta` is the weight of the KL divergence."""

    def __init__(self, encoder, decoder, beta=1.0, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder, self.beta = encoder, decoder, beta
        self.kl = keras.metrics.Mean("kl")

    def call(self, image):
        """Return the decoded z, sampled in prediction as in training; add the KL to the loss."""
        z_mean, z_log_var, z = self.encoder(image)
        kl = kl_divergence(z_mean, z_log_var)
        self.add_loss(self.beta * ops.mean(kl))
        self.kl.update_state(kl)
        return self.decoder(z)

    def get_config(self):
        """Return the constructor arguments, for saving."""
        arguments = {"encoder": self.encoder, "decoder": self.decoder, "beta": self.beta}
        return super().get_config() | arguments

    @classmethod
    def from_config(cls, config):
        """Build the model that `get_config` describes."""
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        decoder = keras.saving.deserialize_keras_object(config.pop("decoder"))
        return cls(encoder, decoder, **config)


def build_vae(
    architecture="conv",
    latent_dim=2,
    height=28,
    width=28,
    channels=1,
    beta=1.0,
    initializer="he_normal",
):
    """Return the VAE: images, shape (n, height, width, channels), to their reconstructions."""
    encoder = build_encoder(architecture, latent_dim, height, width, channels, initializer)
    decoder = build_decoder(architecture, latent_dim, height, width, channels, initializer)
    name = "vae_fashion" if architecture == "conv" else "vae_fashion_dense"
    model = VAE(encoder, decoder, beta, name=name)
    model(ops.zeros((1, height, width, channels)))  # builds it
    return model


def init_first_layer(decoder, seed):
    """Initialize the decoder's first layer so that its ReLUs switch on all over latent space.

    A unit switches on at the hyperplane w·z + b = 0. With Keras's b = 0 all of them pass through
    the origin, and training has to move them outwards. The weights are drawn anew, with he_normal's
    variance.
    """
    dense = decoder.layers[1]  # [0] is the input
    rng = np.random.default_rng(training.seed_for(seed, "first layer"))
    kernel, bias = dense.get_weights()
    scale = np.sqrt(2 / len(kernel))  # He et al. 2015, https://arxiv.org/abs/1502.01852
    dense.set_weights([rng.normal(0, scale, kernel.shape), rng.uniform(-2, 2, bias.shape)])


def main(argv=None):
    # An Apply, Generate or Decode if --input, --generate or --decode is given, otherwise a Train.
    settings = cli.parse(__doc__, argv, Train, Apply, Generate, Decode)
    if not isinstance(settings, Train):
        return apply(settings)
    if settings.model:  # evaluate this one; loaded before the data, to fail early if it is damaged
        model = training.load_model(settings.model, *NAMES.values())
        settings = dataclasses.replace(
            settings,
            architecture="conv" if model.name == NAMES["conv"] else "dense",
            latent_dim=model.decoder.input_shape[-1],
            beta=model.beta,
        )
    # A flag that was not given takes the recipe's value.
    settings = cli.with_recipe(settings, RECIPES[settings.architecture][settings.recipe])
    load = data.load_mnist if settings.dataset == "mnist" else data.load_fashion_mnist
    dataset = load(settings)  # x_train, x_val, x_test: (n, 28, 28, 1) in [0, 1]
    # The folder of --output-dir or --resume, or a new one in runs/; report() adds its figures.
    folder = training.run_folder(settings, NAMES[settings.architecture])
    if not settings.model:
        model = train(settings, dataset, folder)
    # The decoder alone makes new images. The encoder alone turns each image into a few numbers,
    # z_mean: to find similar images, to plot a collection, or as features for a classifier.
    training.save_model(model.encoder, folder / "encoder.keras")
    training.save_model(model.decoder, folder / "decoder.keras")
    # A web page: drag a point over the latent plane and see it decoded.
    explorer.write(folder / "explorer.html", model.encoder, model.decoder, dataset)
    evaluation.vae_fashion.report(folder, settings, model, dataset)


def train(settings, dataset, folder):
    """Return the model with the lowest validation loss."""

    def make_batch(indices, seed):  # the seed is unused: nothing here is random
        return dataset.x_train[indices], dataset.x_train[indices]  # input and target

    steps_per_epoch = training.steps_per_epoch(settings, len(dataset.x_train))
    keras.utils.set_random_seed(settings.seed)
    model = build_vae(
        settings.architecture,
        settings.latent_dim,
        beta=settings.beta,
        # glorot_uniform: Keras's default, as in the article
        initializer="he_normal" if settings.recipe == "fast" else "glorot_uniform",
    )
    if settings.recipe == "fast":
        init_first_layer(model.decoder, settings.seed)
        # The untrained decoder outputs about the mean pixel value.
        training.init_output_bias(model.decoder, dataset.x_train)
        steps = settings.epochs * steps_per_epoch
        # warms up to the learning rate in 5% of the steps, then decays to zero on a cosine
        schedule = training.warmup_cosine(settings.learning_rate, steps, warmup=0.05)
        # beta_2=0.95 averages squared gradients over about 20 steps. The default, 0.999, averages
        # over about 1,000.
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    elif settings.architecture == "conv":  # as in the article
        optimizer = keras.optimizers.RMSprop(settings.learning_rate)
    else:  # as in Keras's old example
        optimizer = keras.optimizers.Adam(settings.learning_rate)
    # VAE.call adds the KL divergence to the loss; the metric shows the reconstruction alone.
    model.compile(optimizer, loss=reconstruction, metrics=[reconstruction])
    model.encoder.summary()
    model.decoder.summary()
    # An endless tf.data.Dataset that calls make_batch(indices, seed) for each step, with shuffled
    # indices and a new seed. A resumed run starts after the last epoch in folder/history.csv.
    batches = training.batches(make_batch, len(dataset.x_train), settings, folder)
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # already shuffled; with True, Keras only warns
        validation_data=(dataset.x_val, dataset.x_val),
        validation_batch_size=500,
        # save history.csv, the best model and a backup for --resume after each epoch
        callbacks=training.callbacks(folder, settings),
        verbose=2,  # one line per epoch
    )
    return training.best_model(folder, NAMES[settings.architecture])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    vary: int = 0
    """number of variations of each image"""
    spread: float | None = None
    """scale of the variations, in units of the encoder's σ; by default, one at which they clearly
    differ"""
    seed: int | None = None
    """seed of the variations; by default a new one each time"""
    no_invert: bool = False
    """do not invert dark-on-light pictures (the model expects light on dark)"""

    def __post_init__(self):
        if not 0 <= self.vary <= 10_000:
            raise ValueError("--vary must be between 0 and 10000")
        if self.spread is not None and not 0 <= self.spread <= 1_000:
            raise ValueError("--spread must be between 0 and 1000")
        if self.seed is not None and self.seed < 0:
            raise ValueError("--seed must not be negative")
        if not self.vary and (self.spread, self.seed) != (None, None):
            raise ValueError("--spread and --seed need --vary")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate(cli.Pretrained):
    generate: int
    """number of new images"""
    seed: int | None = None
    """the same seed gives the same images; by default a new one each time"""

    def __post_init__(self):
        if not 1 <= self.generate <= 10_000:
            raise ValueError("--generate must be between 1 and 10000")
        if self.seed is not None and self.seed < 0:
            raise ValueError("--seed must not be negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decode(cli.Pretrained):
    decode: Path
    """a latent.csv from --generate or --input, to decode into images"""


def apply(settings):
    """Carry out --input, --generate or --decode with a trained model."""
    model = training.load_model(settings.model, *NAMES.values())
    if isinstance(settings, Generate):
        latents.generate(model.decoder, settings.generate, settings.seed, settings.output_dir)
    elif isinstance(settings, Decode):
        latents.decode_file(model.decoder, settings.decode, settings.output_dir)
    else:
        dataset_name = training.trained_on(settings.model, NAMES["conv"])
        latents.encode(model, dataset_name, settings)


if __name__ == "__main__":
    cli.run(main)
