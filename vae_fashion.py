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
  python vae_fashion.py                                two latent dimensions, in four minutes
  python vae_fashion.py --latent-dim 16
  python vae_fashion.py --architecture dense --dataset mnist
  python vae_fashion.py --generate 25                  new clothes as PNG files, and a sheet
  python vae_fashion.py --input shoe.png --vary 8      its code, its reconstruction, 8 variations
  python vae_fashion.py --decode latent.csv            codes back into images
  python vae_fashion.py --data-dir DIR                 Fashion-MNIST, or your own pictures

The convolutional network and its recipe `published` are those of a blog article on generating
clothes, trained on the true loss here; the dense one is from Keras's old example on MNIST. VAE:
Kingma and Welling 2013, https://arxiv.org/abs/1312.6114
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

NAMES = {"conv": "vae_fashion", "dense": "vae_fashion_dense"}
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
    """the network: convolutional, or dense as in the example on MNIST"""
    dataset: Literal["fashion", "mnist"] = "fashion"
    """Fashion-MNIST or MNIST"""
    latent_dim: int = 2
    """numbers in a code"""
    beta: float = 1.0
    """weight of the KL divergence; with any other than 1 the loss is no bound on -log p(x)"""

    def __post_init__(self):
        super().__post_init__()
        if not 2 <= self.latent_dim <= 1_000:
            raise ValueError("--latent-dim must be between 2 and 1000")
        if not 0 <= self.beta < float("inf"):
            raise ValueError("--beta must not be negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    vary: int = 0
    """number of variations of each image"""
    spread: float | None = None
    """sample them with this many of the encoder's σ; by default they are chosen to differ"""
    seed: int | None = None
    """seed of the variations; by default a new one each time"""
    invert: bool = True
    """leave dark on light as it is; by default it becomes light on dark, as in training"""

    def __post_init__(self):
        if not 0 <= self.vary <= 10_000:
            raise ValueError("--vary must be between 0 and 10000")
        if not self.vary and (self.spread, self.seed) != (None, None):
            raise ValueError("--spread and --seed need --vary")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decode:
    decode: Path
    """a latent.csv, as --generate and --input write it, to turn into images"""
    model: Path | None = None
    """a trained model; by default the one in models/"""
    output_dir: Path | None = None
    """where the images go; by default a new folder in runs/"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate:
    generate: int
    """number of new images"""
    seed: int | None = None
    """the same seed gives the same images; by default a new one each time"""
    model: Path | None = None
    """a trained model; by default the one in models/"""
    output_dir: Path | None = None
    """where the images go; by default a new folder in runs/"""

    def __post_init__(self):
        if not 1 <= self.generate <= 10_000:
            raise ValueError("--generate must be between 1 and 10000")


@keras.saving.register_keras_serializable("vae_fashion")
class Sampling(layers.Layer):
    """Samples z from N(z_mean, exp(z_log_var)), in a way that gradients can pass through."""

    # The reparameterization trick: a sample of N(μ, σ²) has no derivative with respect to μ and σ.
    # So ε is sampled from N(0, 1), which depends on nothing, and z = μ + σ·ε. This z has the same
    # distribution, dz/dμ = 1 and dz/dσ = ε: the encoder learns from the decoder's error.

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        """Return z for [z_mean, z_log_var], all of shape (n, latent_dim)."""
        z_mean, z_log_var = inputs
        epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(z_log_var / 2) * epsilon

    def get_config(self):
        """Return what a saved model keeps of it."""
        return super().get_config() | {"seed": self.seed}


def build_encoder(
    architecture="conv", latent_dim=2, height=28, width=28, channels=1, initializer="he_normal"
):
    """Return the encoder: images to [z_mean, z_log_var, z], each (n, latent_dim)."""
    relu = {"activation": "relu", "kernel_initializer": initializer}
    image = keras.Input((height, width, channels), name="image")
    if architecture == "conv":
        x = layers.Conv2D(32, 3, padding="same", **relu)(image)
        x = layers.Conv2D(64, 3, strides=2, padding="same", **relu)(x)
        x = layers.Conv2D(64, 3, padding="same", **relu)(x)
        x = layers.Conv2D(64, 3, padding="same", **relu)(x)
        x = layers.Dense(32, **relu)(layers.Flatten()(x))
    else:
        x = layers.Dense(512, **relu)(layers.Flatten()(image))
    z_mean = layers.Dense(latent_dim, name="z_mean")(x)
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(x)
    z = Sampling(name="z")([z_mean, z_log_var])
    return keras.Model(image, [z_mean, z_log_var, z], name="encoder")


def build_decoder(
    architecture="conv", latent_dim=2, height=28, width=28, channels=1, initializer="he_normal"
):
    """Return the decoder: (n, latent_dim) to images, shape (n, height, width, channels)."""
    relu = {"activation": "relu", "kernel_initializer": initializer}
    z = keras.Input((latent_dim,), name="z")
    if architecture == "conv":
        if height % 2 or width % 2:
            raise ValueError(f"height and width must be even, not {height} and {width}")
        x = layers.Dense(height // 2 * (width // 2) * 64, **relu)(z)
        x = layers.Reshape((height // 2, width // 2, 64))(x)
        x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", **relu)(x)
        x = layers.Conv2D(channels, 3, activation="sigmoid", padding="same", name="image")(x)
    else:
        x = layers.Dense(512, **relu)(z)
        x = layers.Dense(height * width * channels, activation="sigmoid")(x)
        x = layers.Reshape((height, width, channels), name="image")(x)
    return keras.Model(z, x, name="decoder")


# The loss is the negative ELBO, an upper bound on -log p(x). What the article publishes is not:
# 1. It averages the cross-entropy over the pixels, so that beside it the KL divergence weighs 784
#    times too much, and multiplies the KL divergence by 5e-4. Together that is a β of 0.39, with 2.
#    of 0.2: better reconstructions, but the codes no longer follow the prior, and samples of it
#    fall into gaps.
# 2. It averages the KL divergence over the latent dimensions, where it should be summed, and takes
#    exp(z_log_var) for the standard deviation in the sampling but for the variance in the KL
#    divergence.


@keras.saving.register_keras_serializable("vae_fashion")
def reconstruction(image, decoded):
    """Return -log p(x|z), the cross-entropy summed over the pixels, in nats, shape (n,).

    A gray value x counts as a pixel that is white with probability x.
    """
    return ops.sum(ops.binary_crossentropy(image, decoded), axis=(1, 2, 3))


def kl_divergence(z_mean, z_log_var):
    """Return KL(N(z_mean, exp(z_log_var)) ‖ N(0, 1)) in nats, shape (n,).

    It pulls all codes towards one distribution that can be sampled, and makes them overlap, so that
    neighbors look alike. Without it the encoder would put each image far from all others, with no
    variance: a plain autoencoder, whose decoder can make nothing of the points in between.
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
        """Return the decoded z; the KL divergence is added to the loss."""
        z_mean, z_log_var, z = self.encoder(image)
        kl = kl_divergence(z_mean, z_log_var)
        self.add_loss(self.beta * ops.mean(kl))
        self.kl.update_state(kl)
        return self.decoder(z)

    def get_config(self):
        """Return what a saved model keeps of it."""
        serialize = keras.saving.serialize_keras_object
        parts = {"encoder": serialize(self.encoder), "decoder": serialize(self.decoder)}
        return super().get_config() | parts | {"beta": self.beta}

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


def spread_first_layer(decoder, seed):
    """Initialize the decoder's first layer so that its units differ all over the latent space.

    A ReLU unit bends where w·z + b = 0. Keras sets b to 0, so that all of them bend along lines
    through the origin and have to be moved outwards step by step.
    """
    dense = next(layer for layer in decoder.layers if isinstance(layer, layers.Dense))
    rng = np.random.default_rng(training.seed_for(seed, "first layer"))
    kernel, bias = dense.get_weights()
    scale = np.sqrt(2 / len(kernel))  # He et al. 2015, https://arxiv.org/abs/1502.01852
    dense.set_weights([rng.normal(0, scale, kernel.shape), rng.uniform(-2, 2, bias.shape)])


def main(argv=None):
    settings = cli.parse(__doc__, argv, Train, Apply, Generate, Decode)
    if not isinstance(settings, Train):
        return apply(settings)
    model = None
    if settings.model:
        model = training.load_model(settings.model, *NAMES.values())
        architecture = "conv" if model.name == NAMES["conv"] else "dense"
        settings = dataclasses.replace(settings, architecture=architecture)
    settings = cli.with_recipe(settings, RECIPES[settings.architecture][settings.recipe])
    load = data.load_mnist if settings.dataset == "mnist" else data.load_fashion_mnist
    clothes = load(settings)
    folder = training.run_folder(settings, NAMES[settings.architecture])
    keras.utils.set_random_seed(settings.seed)
    if model is None:
        model = train(settings, clothes, folder)
    # Each part is a model of its own. Of the encoder's three outputs the third is the decoder's
    # input: decoder(encoder(x)[2]). The decoder alone makes new images.
    training.save_model(model.encoder, folder / "encoder.keras")
    training.save_model(model.decoder, folder / "decoder.keras")
    explorer.write(folder / "explorer.html", model.encoder, model.decoder, clothes)
    evaluation.vae_fashion.report(folder, settings, model, clothes)


def train(settings, clothes, folder):
    """Return the model with the lowest validation loss."""
    batches = training.Batches(
        lambda indices, seed: (clothes.x_train[indices], clothes.x_train[indices]),
        len(clothes.x_train),
        settings,
    )
    model = build_vae(
        settings.architecture,
        settings.latent_dim,
        beta=settings.beta,
        initializer="he_normal" if settings.recipe == "fast" else "glorot_uniform",
    )
    if settings.recipe == "fast":
        spread_first_layer(model.decoder, settings.seed)
        training.init_output_bias(model.decoder, clothes.x_train)
        steps = settings.epochs * len(batches)
        schedule = training.warmup_cosine(settings.learning_rate, steps, warmup=0.05)
        # beta_2 = 0.95 forgets old squared gradients after about 20 steps instead of 1,000.
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    elif settings.architecture == "conv":
        optimizer = keras.optimizers.RMSprop(settings.learning_rate)
    else:
        optimizer = keras.optimizers.Adam(settings.learning_rate)
    model.compile(optimizer, loss=reconstruction, metrics=[reconstruction])
    model.encoder.summary()
    model.decoder.summary()
    model.fit(
        batches.dataset(),
        epochs=settings.epochs,
        shuffle=False,  # Batches shuffles
        validation_data=(clothes.x_val, clothes.x_val),
        validation_batch_size=500,
        callbacks=training.callbacks(folder, settings, batches),
        verbose=2,
    )
    return training.best_model(folder, NAMES[settings.architecture])


def apply(settings):
    """Do what --input, --generate or --decode asks for with a trained model."""
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
