"""Train five kinds of autoencoders on digits and compare their codes.

    image (28, 28, 1) -> flat (784) -> code (size) -> flat (784) -> reconstruction (28, 28, 1)

                  encoder             decoder
    linear        Dense size          Dense 784       outputs span the PCA subspace
    plain         Dense 256, size     Dense 256, 784  outputs form a curved surface; less error
    sparse        Dense 1,024         its transpose   keeps only the 51 largest of 1,024
    contractive   Dense 128, sigmoid  its transpose   penalizes how much the code changes with x
    variational   Dense 256, size     Dense 256, 784  codes are distributions, not points

An autoencoder reconstructs its input through a bottleneck: a code too limited to hold all of it.
The kinds differ in what limits the code, and so in what it is good for.

Examples:
  python latent_spaces.py                     train all 20 networks, in a few minutes
  python latent_spaces.py --epochs 2          a quick try
  python latent_spaces.py --input samples/seven.png
                                              encode and reconstruct a picture with each
  python latent_spaces.py --data-dir DIR      read MNIST, or your own pictures, from DIR

k-sparse: Makhzani and Frey 2013, https://arxiv.org/abs/1312.5663. Contractive: Rifai et al. 2011,
https://icml.cc/2011/papers/455_icmlpaper.pdf. Variational: Kingma and Welling 2013,
https://arxiv.org/abs/1312.6114. Linear: Baldi and Hornik 1989,
https://doi.org/10.1016/0893-6080(89)90014-2
"""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import evaluation.latent_spaces
from common import cli, data, training
from tools import latents

NAME = "latent_spaces"
SIZES = [2, 4, 8, 16, 32, 64, 128]  # of the code: how many numbers it has


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    epochs: int = 10
    """number of epochs for each network"""
    # These have no flag here, because they differ between the 20 networks or do not apply to them.
    recipe: cli.Hidden[str] = "fast"
    batch_size: cli.Hidden[None] = None
    learning_rate: cli.Hidden[None] = None
    steps_per_epoch: cli.Hidden[None] = None
    resume: cli.Hidden[None] = None
    tensorboard: cli.Hidden[bool] = False
    model: cli.Hidden[None] = None


@dataclasses.dataclass
class Experiment:
    """A network and how it is trained."""

    build: Callable  # returns the model
    loss: Callable
    peak_learning_rate: float
    steps_per_epoch: int
    batch_size: int = 128


def build_linear(size=32, height=28, width=28, channels=1):
    """Return the linear autoencoder of images, shape (n, height, width, channels).

    Without a nonlinearity the two layers are one matrix of rank at most `size`. The best such
    matrix projects onto the subspace of the leading principal components. Gradient descent finds
    that subspace, but not the components: any other basis of it fits as well.
    """
    image = keras.Input((height, width, channels), name="image")
    code = layers.Dense(size, name="code")(layers.Flatten()(image))
    # The rows of this layer's kernel are the axes of the subspace.
    x = layers.Dense(height * width * channels, name="rows")(code)
    x = layers.Reshape((height, width, channels))(x)
    return keras.Model(image, x, name="latent_spaces_linear")


def build_plain(size=32, height=28, width=28, channels=1):
    """Return the plain autoencoder of images in [0, 1], shape (n, height, width, channels).

    ReLU layers on both sides of the code let the decoder output a curved surface instead of a
    plane.
    """
    image = keras.Input((height, width, channels), name="image")
    x = layers.Flatten()(image)
    x = layers.Dense(256, activation="relu", kernel_initializer="he_normal")(x)
    code = layers.Dense(size, name="code")(x)
    x = layers.Dense(256, activation="relu", kernel_initializer="he_normal")(code)
    x = layers.Dense(height * width * channels, activation="sigmoid")(x)
    x = layers.Reshape((height, width, channels))(x)
    return keras.Model(image, x, name="latent_spaces_plain")


@keras.saving.register_keras_serializable("latent_spaces")
class TiedDense(layers.Layer):
    """A Dense layer that can also decode, with its transposed kernel (tied weights).

    `contraction` is the weight of the contractive penalty, whose formula assumes a sigmoid; 0 is
    none. With untied weights the encoder could escape it by shrinking its weights while the decoder
    enlarges its own.
    """

    def __init__(self, units, activation=None, contraction=0.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.contraction = units, contraction
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        """Create the kernel, and a bias for each direction."""
        # Border pixels are black in all digits, so their weights get almost no gradient and keep
        # their initial values, which are therefore small.
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.kernel = self.add_weight((input_shape[-1], self.units), small, name="w")
        self.bias = self.add_weight((self.units,), "zeros", name="b")
        self.bias_back = self.add_weight((input_shape[-1],), "zeros", name="b_back")

    def call(self, x, back=False):
        """Encode flat images, shape (n, pixels); with `back`, decode codes, shape (n, units)."""
        if back:
            return self.activation(ops.matmul(x, ops.transpose(self.kernel)) + self.bias_back)
        h = self.activation(ops.matmul(x, self.kernel) + self.bias)
        if self.contraction:
            # The squared Frobenius norm of the Jacobian ∂h/∂x measures how much the code h changes
            # with the image x. For h = sigmoid(W·x + b) its row i is h_i * (1 - h_i) * w_i.
            squared_slopes = ops.square(h * (1 - h))
            norms = ops.sum(squared_slopes * ops.sum(ops.square(self.kernel), axis=0), axis=-1)
            self.add_loss(self.contraction * ops.mean(norms))
        return h


@keras.saving.register_keras_serializable("latent_spaces")
class KeepLargest(layers.Layer):
    """Keeps the k largest numbers of a code and sets the others to zero."""

    def __init__(self, k, **kwargs):
        super().__init__(**kwargs)
        self.k = k

    def call(self, code):
        """Return the sparse code, shape (n, units)."""
        threshold = ops.top_k(code, self.k)[0][:, -1:]  # the k-th largest of each code
        return ops.where(code >= threshold, code, 0.0)


def build_sparse(units=1024, active=51, height=28, width=28, channels=1):
    """Return the k-sparse autoencoder of images, shape (n, height, width, channels).

    The code is larger than the image, but only `active` of its units are nonzero at a time, so each
    unit comes to represent a feature that is present or absent, such as a stroke. With all units
    active it just learns to copy.
    """
    image = keras.Input((height, width, channels), name="image")
    tied = TiedDense(units)
    code = KeepLargest(active, name="code")(tied(layers.Flatten()(image)))
    x = layers.Reshape((height, width, channels))(tied(code, back=True))
    return keras.Model(image, x, name="latent_spaces_sparse")


def build_contractive(units=128, contraction=0.05, height=28, width=28, channels=1):
    """Return the contractive autoencoder of images in [0, 1], shape (n, height, width, channels).

    The loss adds `contraction` times the squared Frobenius norm of the encoder's Jacobian ∂h/∂x.
    This penalty makes codes insensitive to changes in the image, except those that reconstruction
    needs, so noise moves a code less.
    """
    image = keras.Input((height, width, channels), name="image")
    tied = TiedDense(units, "sigmoid", contraction, name="tied")
    code = tied(layers.Flatten()(image))
    code = layers.Identity(name="code")(code)  # `encoder_and_decoder` cuts here
    x = layers.Reshape((height, width, channels))(tied(code, back=True))
    return keras.Model(image, x, name="latent_spaces_contractive")


@keras.saving.register_keras_serializable("latent_spaces")
class Sampling(layers.Layer):
    """Samples a code from N(z_mean, exp(z_log_var)) and adds the KL divergence to the loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, z_mean, z_log_var, training=False):
        """Return a sample of z in training, else z_mean, so that each image has one code."""
        kl = 0.5 * ops.sum(ops.square(z_mean) + ops.exp(z_log_var) - 1 - z_log_var, axis=-1)
        self.add_loss(ops.mean(kl))
        epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(z_log_var / 2) * epsilon if training else z_mean


def build_variational(size=32, height=28, width=28, channels=1):
    """Return the variational autoencoder of images in [0, 1], shape (n, height, width, channels).

    A plain latent space has three weaknesses: gaps between codes, which decode to nothing like a
    digit; overlapping classes; and no distribution to sample from. Here each code is a normal
    distribution, and the KL divergence pulls all of them towards N(0, 1). That closes most gaps,
    and N(0, 1) can be sampled; classes overlap slightly more. See vae_fashion.py.
    """
    image = keras.Input((height, width, channels), name="image")
    x = layers.Flatten()(image)
    x = layers.Dense(256, activation="relu", kernel_initializer="he_normal")(x)
    z_mean = layers.Dense(size)(x)
    z_log_var = layers.Dense(size)(x)
    code = Sampling(name="code")(z_mean, z_log_var)
    x = layers.Dense(256, activation="relu", kernel_initializer="he_normal")(code)
    x = layers.Dense(height * width * channels, activation="sigmoid")(x)
    x = layers.Reshape((height, width, channels))(x)
    return keras.Model(image, x, name="latent_spaces_variational")


def encoder_and_decoder(model):
    """Return the encoder and the decoder of an autoencoder, cut after its layer `code`."""
    code = model.get_layer("code").output
    return keras.Model(model.input, code), keras.Model(code, model.output)


def squared_error(image, output):
    """Return the squared error summed over the pixels, shape (n,)."""
    return ops.sum(ops.square(image - output), axis=(1, 2, 3))


def cross_entropy(image, output):
    """Return the cross-entropy summed over the pixels, shape (n,), in nats as the KL is."""
    return ops.sum(ops.binary_crossentropy(image, output), axis=(1, 2, 3))


# The networks of a group differ in one number. The variational ones use the cross-entropy, because
# the KL divergence is in nats, too.
EXPERIMENTS = {
    f"linear_{size}": Experiment(
        partial(build_linear, size), squared_error, peak_learning_rate=0.005, steps_per_epoch=500
    )
    for size in SIZES
}
EXPERIMENTS |= {
    f"plain_{size}": Experiment(
        partial(build_plain, size), squared_error, peak_learning_rate=0.005, steps_per_epoch=200
    )
    for size in SIZES
}
# "copying" and "uncontracted" are controls: all units active, no penalty.
EXPERIMENTS |= {
    name: Experiment(
        partial(build_sparse, active=active),
        squared_error,
        peak_learning_rate=0.004,
        steps_per_epoch=100,
    )
    for name, active in {"sparse": 51, "copying": 1024}.items()
}
EXPERIMENTS |= {
    name: Experiment(
        partial(build_contractive, contraction=contraction),
        squared_error,
        peak_learning_rate=0.01,
        steps_per_epoch=300,
    )
    for name, contraction in {"contractive": 0.05, "uncontracted": 0.0}.items()
}
EXPERIMENTS |= {
    f"variational_{size}": Experiment(
        partial(build_variational, size),
        cross_entropy,
        peak_learning_rate=0.005,
        steps_per_epoch=200,
    )
    for size in (2, 32)
}
# {kind: its experiment}: these models are saved, and --input applies them.
SAVED = {
    "linear": "linear_32",
    "plain": "plain_32",
    "sparse": "sparse",
    "contractive": "contractive",
    "variational": "variational_32",
}


def main(argv=None):
    # An Apply if --input is given, otherwise a Train.
    settings = cli.parse(__doc__, argv, Train, Apply)
    if isinstance(settings, Apply):
        return apply(settings)
    digits = data.load_mnist(settings)  # x_train, x_val, x_test: (n, 28, 28, 1) in [0, 1]
    # The folder of --output-dir, or a new one in runs/; report() adds figures and metrics.json.
    folder = training.run_folder(settings, NAME)
    models, training_log = {}, {}
    for name, experiment in EXPERIMENTS.items():
        models[name], training_log[name] = train(experiment, settings, digits)
        loss, seconds = training_log[name]["val_loss"], training_log[name]["seconds"]
        print(f"{name}: validation loss {loss:.4g} after {seconds:.0f} s", flush=True)
    for kind, name in SAVED.items():
        training.save_model(models[name], folder / f"{kind}.keras")
    # {name: (encoder, decoder)}
    halves = {name: encoder_and_decoder(model) for name, model in models.items()}
    evaluation.latent_spaces.report(folder, settings, digits, models, halves, training_log)


def train(experiment, settings, digits):
    """Return the trained model and {loss, val_loss, seconds}."""
    start = time.perf_counter()
    total_steps = settings.epochs * experiment.steps_per_epoch
    # Shuffled passes, so that every image is seen equally often. With independently sampled images
    # the linear autoencoder's subspace stayed several times farther from PCA's.
    rng = np.random.default_rng(training.seed_for(settings.seed, "order"))
    count = total_steps * experiment.batch_size
    passes = math.ceil(count / len(digits.x_train))
    order = np.concatenate([rng.permutation(len(digits.x_train)) for _ in range(passes)])
    images = tf.constant(digits.x_train)

    def make_batch(indices):
        image = tf.gather(images, indices)
        return image, image  # input and target

    # Each row has the indices of one batch. TensorFlow gathers the images, so that no Python runs
    # between steps, as it would with `training.batches`.
    batches = tf.data.Dataset.from_tensor_slices(order[:count].reshape(total_steps, -1))
    batches = batches.map(make_batch).prefetch(2)

    keras.utils.set_random_seed(settings.seed)
    model = experiment.build()
    # warms up to the learning rate, then decays to zero on a cosine
    schedule = training.warmup_cosine(experiment.peak_learning_rate, total_steps)
    optimizer = keras.optimizers.Adam(schedule)
    # 20 steps per call, because Python's overhead would exceed the training of such small networks.
    model.compile(optimizer, loss=experiment.loss, steps_per_execution=20)
    history = model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=experiment.steps_per_epoch,
        shuffle=False,  # already shuffled; with True, Keras only warns
        verbose=0,
    )
    val_loss = model.evaluate(digits.x_val, digits.x_val, batch_size=500, verbose=0)
    trained = experiment.build()  # a copy without the optimizer, which would triple the file size
    trained.set_weights(model.get_weights())
    return trained, {
        "loss": history.history["loss"][-1],
        "val_loss": val_loss,
        "seconds": time.perf_counter() - start,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    no_invert: bool = False
    """do not invert dark-on-light pictures (the model expects light on dark)"""


def apply(settings):
    """Write the codes and reconstructions of the --input files by each network."""
    names = [f"{NAME}_{kind}" for kind in SAVED]
    if settings.model:
        models = [training.load_model(settings.model, *names)]
    else:
        models = [training.load_model(None, name) for name in names]
    halves = {model.name.removeprefix(f"{NAME}_"): encoder_and_decoder(model) for model in models}
    dataset_name = training.trained_on(settings.model, models[0].name)
    latents.encode_with_each(halves, dataset_name, settings)


if __name__ == "__main__":
    cli.run(main)
