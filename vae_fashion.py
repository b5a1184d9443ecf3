"""Train a variational autoencoder on pictures of clothes, and sample new ones from it.

    image (28, 28, 1)                            z (2)
      Conv 32 3x3 relu            (28, 28, 32)     Dense 12,544 relu, reshaped   (14, 14, 64)
      Conv 64 3x3 relu, stride 2  (14, 14, 64)     Conv2DTranspose 32, stride 2  (28, 28, 32)
      Conv 64 3x3 relu            (14, 14, 64)     Conv 1 3x3 sigmoid            (28, 28, 1)
      Conv 64 3x3 relu            (14, 14, 64)   reconstruction
      Flatten, Dense 32 relu      (32)
      z_mean (2), z_log_var (2)                  encoder 494,244 + decoder 56,385 parameters
      z = z_mean + exp(z_log_var / 2)·ε, with ε from N(0, 1)

Run it:
  python vae_fashion.py                                two latent dimensions, in four minutes
  python vae_fashion.py --latent-dim 16
  python vae_fashion.py --architecture dense --dataset mnist
  python vae_fashion.py --architecture dense --compare-beta
  python vae_fashion.py --generate 25                  new clothes as PNG files, and a sheet
  python vae_fashion.py --input shoe.png --vary 8      its code, and 8 variations
  python vae_fashion.py --data-dir DIR                 Fashion-MNIST, or pictures of yours
  python vae_fashion.py --decode latent.csv            codes back into images

The convolutional network and its recipe `published` are those of a blog article on generating
clothes, trained on the true loss here; the dense one is from Keras's old example on MNIST. VAE:
Kingma and Welling 2013, https://arxiv.org/abs/1312.6114
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, batches, command_line, data, devices, files, metrics, plotting
from common import run_folder, trained_models
from common.command_line import flag, number, path, whole
from applications import explorer, inputs, latent_walks, small_images

import dataclasses
import functools
import importlib.util
import itertools
import secrets
import shutil

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops
from scipy.special import logsumexp

TRAIN = ("train",)
FAST_CONV = {"epochs": 12, "batch_size": 16, "learning_rate": 0.005, "max_steps_per_epoch": 875}
FAST_DENSE = {"epochs": 10, "batch_size": 64, "learning_rate": 0.004, "max_steps_per_epoch": 300}
RECIPES = {
    "conv": {
        "fast": FAST_CONV,
        "published": {"epochs": 20, "batch_size": 16, "learning_rate": 0.001},
    },
    "dense": {
        "fast": FAST_DENSE,
        "published": {"epochs": 50, "batch_size": 128, "learning_rate": 0.001},
    },
}
BETAS = [0, 1, 4]  # of --compare-beta
REACH = 2.3  # of the manifold's figure, in standard deviations of the prior
FIRST = 1_000  # test images that the importance-weighted bound is taken on
MODELS = ["encoder.keras", "decoder.keras"]
FIGURES = ["reconstructions.png", "manifold.png", "latent.png", "new.png", "walk.png"]
FIGURES += ["explorer.html"]  # a page to drag a point over the manifold
DIAGRAMS = ["encoder.png", "decoder.png"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "vae_fashion"
    names = {"conv": "vae_fashion", "dense": "vae_fashion_dense"}
    applications = ("input", "generate", "decode")
    build_like = staticmethod(
        lambda architecture, model: build_vae(architecture, model.decoder.input_shape[1])
    )

    architecture: str = flag("default: conv", choices=list(names), only=TRAIN)
    dataset: str = flag("default: fashion", "fashion", choices=["fashion", "mnist"])
    latent_dim: int = flag("numbers in a code (default: 2)", 2, whole(2, 1_000), TRAIN)
    beta: float = flag("weight of the KL divergence (default: 1)", 1.0, number(0), TRAIN)
    compare_beta: bool = flag("train with β = 0, 1 and 4 (dense only)", False, bool, TRAIN)
    seed: int = flag(
        "the same seed gives the same run (default: 0; --generate, --vary: a new one each time)",
        *(None, whole(0, 2**32 - 1), ("train", "model", "generate", "input")),
    )
    generate: int = flag("make N new images", None, whole(1, 10_000), (), metavar="N")
    vary: int = flag("N variations of each", 0, whole(1, 10_000), ("input",), metavar="N")
    spread: float = flag(
        "how far they stray, in the encoder's own σ (default: so far that they differ)",
        *(None, number(0), ("input",)),
    )
    no_invert: bool = flag(
        "take dark on light as it is, where the training images are light on dark",
        *(False, bool, ("input",), False),
    )
    decode: str = flag(
        "turn the codes of a latent.csv into images", None, path, only=(), metavar="CSV"
    )


@keras.saving.register_keras_serializable("vae_fashion")
class Sampling(layers.Layer):
    """Samples z = z_mean + exp(z_log_var / 2)·ε, which gradients can pass through."""

    # The reparameterisation trick. A number taken from N(μ, σ²) has no derivative with respect to
    # μ and σ: it is not computed from them, only likelier or less likely. So the random number is
    # taken from N(0, 1), which depends on nothing, and moved and stretched: z = μ + σ·ε has the
    # same distribution, dz/dμ = 1 and dz/dσ = ε, and the encoder learns from the decoder's error.

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        """Return z, shape (n, latent_dim), for a list of z_mean and z_log_var of that shape."""
        z_mean, z_log_var = inputs
        epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(z_log_var / 2) * epsilon

    def get_config(self):
        """Return what `from_config` needs."""
        return {**super().get_config(), "seed": self.seed}


def build_conv_encoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the encoder: (n, 28, 28, 1) to [z_mean, z_log_var, z], each (n, latent_dim)."""
    relu = {"activation": "relu", "kernel_initializer": initializer}
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(32, 3, padding="same", **relu)(image)
    x = layers.Conv2D(64, 3, strides=2, padding="same", **relu)(x)
    x = layers.Conv2D(64, 3, padding="same", **relu)(x)
    x = layers.Conv2D(64, 3, padding="same", **relu)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(32, **relu)(x)
    z_mean = layers.Dense(latent_dim, name="z_mean", dtype="float32")(x)
    z_log_var = layers.Dense(latent_dim, name="z_log_var", dtype="float32")(x)
    z = Sampling(name="z", dtype="float32")([z_mean, z_log_var])
    return keras.Model(image, [z_mean, z_log_var, z], name="encoder")


def build_conv_decoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the decoder: (n, latent_dim) to (n, 28, 28, 1), values in [0, 1]."""
    relu = {"activation": "relu", "kernel_initializer": initializer}
    z = keras.Input((latent_dim,), name="z")
    x = layers.Dense(14 * 14 * 64, dtype="float32", **relu)(z)
    x = layers.Reshape((14, 14, 64))(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", **relu)(x)
    sigmoid = {"activation": "sigmoid", "dtype": "float32"}
    image = layers.Conv2D(1, 3, padding="same", name="image", **sigmoid)(x)
    return keras.Model(z, image, name="decoder")


def build_dense_encoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the encoder: (n, 28, 28, 1) to [z_mean, z_log_var, z], each (n, latent_dim)."""
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Flatten()(image)
    x = layers.Dense(512, activation="relu", kernel_initializer=initializer)(x)
    z_mean = layers.Dense(latent_dim, name="z_mean", dtype="float32")(x)
    z_log_var = layers.Dense(latent_dim, name="z_log_var", dtype="float32")(x)
    z = Sampling(name="z", dtype="float32")([z_mean, z_log_var])
    return keras.Model(image, [z_mean, z_log_var, z], name="encoder")


def build_dense_decoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the decoder: (n, latent_dim) to (n, 28, 28, 1), values in [0, 1]."""
    z = keras.Input((latent_dim,), name="z")
    x = layers.Dense(512, "relu", kernel_initializer=initializer, dtype="float32")(z)
    x = layers.Dense(28 * 28, "sigmoid", dtype="float32")(x)
    image = layers.Reshape((28, 28, 1), name="image", dtype="float32")(x)
    return keras.Model(z, image, name="decoder")


BUILDERS = {
    "conv": (build_conv_encoder, build_conv_decoder),
    "dense": (build_dense_encoder, build_dense_decoder),
}


# What is wrong with the loss that the article publishes, and what each fault does:
# 1. The cross-entropy is the mean over the pixels, 784 times as small as their sum. Beside it the
#    KL divergence weighs 784 times too much, and the encoder stops telling images apart.
# 2. Against that the KL divergence is multiplied by 5e-4. Together that is a β of 0.39, with fault
#    3 of 0.2: better images, but the codes fill another space than the prior, and samples of it
#    fall into gaps. It is no bound on -log p(x) any more, so two models can't be compared by it.
# 3. The KL divergence is averaged over the latent dimensions too, where it should be summed: with
#    more dimensions it weighs less and less. And exp(s) is the standard deviation in the sampling
#    but the variance in the KL divergence, so the codes are pulled to the wrong width.


def reconstruction(image, decoded):
    """Return the cross-entropy summed over the pixels, in nats, shape (n,).

    On a grey value x it is the expected code length of a pixel that is white with probability x,
    so bounds can't be compared with those of a density of grey values.
    """
    return ops.sum(keras.losses.binary_crossentropy(image, decoded), axis=(1, 2))


def kl_divergence(z_mean, z_log_var):
    """Return KL(N(z_mean, exp(z_log_var)) ‖ N(0, 1)) in nats, shape (n,).

    Without it the encoder would put each image far from all others, with no variance: a plain
    autoencoder, whose decoder knows what to make of those points alone. It pulls all codes towards
    one distribution that can be sampled, and they overlap, so that neighbours look alike.
    """
    return 0.5 * ops.sum(ops.square(z_mean) + ops.exp(z_log_var) - 1 - z_log_var, axis=-1)


@keras.saving.register_keras_serializable("vae_fashion")
class VAE(keras.Model):
    """Encoder and decoder trained together; its output is the decoded z.

    Its loss, reconstruction + KL divergence, is an upper bound on -log p(x), the negative ELBO.
    `beta` weighs the second term.
    """

    def __init__(self, encoder, decoder, beta=1.0, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder, self.beta = encoder, decoder, beta
        self.kl = keras.metrics.Mean("kl", dtype="float32")

    def call(self, image):
        """Return the reconstruction; the KL term joins the loss on the way."""
        z_mean, z_log_var, z = self.encoder(image)
        kl = kl_divergence(z_mean, z_log_var)
        self.add_loss(self.beta * ops.mean(kl))
        self.kl.update_state(kl)
        return self.decoder(z)

    def get_config(self):
        """Return what `from_config` needs."""
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        parts = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**super().get_config(), **parts, "beta": self.beta}

    @classmethod
    def from_config(cls, config):
        """Build the model that `get_config` describes."""
        for name in ("encoder", "decoder"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def build_vae(architecture="conv", latent_dim=2, beta=1.0, initializer="glorot_uniform"):
    """Return encoder and decoder put together, built for images of (28, 28, 1)."""
    encoder, decoder = (build(latent_dim, initializer) for build in BUILDERS[architecture])
    name = "vae_fashion" if architecture == "conv" else f"vae_fashion_{architecture}"
    model = VAE(encoder, decoder, beta, name=name)
    model(np.zeros((1, 28, 28, 1), "float32"))
    return model


def spread_first_layer(decoder, seed):
    """Initialise the decoder's first layer so that its units differ all over the latent space.

    A relu unit bends where w·z + b = 0. Keras sets b to 0, so that all of them bend along
    lines through the origin and have to be carried outwards step by step.
    """
    dense = next(layer for layer in decoder.layers if isinstance(layer, layers.Dense))
    rng = np.random.default_rng(batches.seed_for(seed, "first layer"))
    kernel, bias = dense.get_weights()
    scale = np.sqrt(2 / len(kernel))  # He et al. 2015, https://arxiv.org/abs/1502.01852
    dense.set_weights([rng.normal(0, scale, kernel.shape), rng.uniform(-2, 2, bias.shape)])


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, RECIPES, argv)
    plotting.set_up(settings.show)
    if settings.action in settings.applications:
        return apply(settings)
    if settings.compare_beta:
        return compare_beta(settings)

    model, settings = trained_models.model_to_evaluate(settings)
    clothes = load(settings)
    with run_folder.RunFolder(settings, clothes, MODELS + FIGURES + DIAGRAMS) as run:
        if model is None:
            stream = stream_of(settings, clothes)
            keras.utils.set_random_seed(settings.seed)
            keras.config.set_dtype_policy(settings.precision)
            with devices.scope(settings):
                model = build_and_compile(settings, stream, clothes)
            model.encoder.summary()
            model.decoder.summary()
            model.fit(
                stream.dataset(run.first_epoch),
                steps_per_epoch=stream.steps_per_epoch,
                epochs=settings.epochs,
                initial_epoch=run.first_epoch,
                **devices.validation(settings, clothes.x_validation, clothes.x_validation),
                callbacks=run.callbacks(model),
                shuffle=False,  # the batches come shuffled
                verbose=run.verbose,
            )
            model = run.best_model()
        # Of the encoder's three outputs the third is the decoder's input: decoder(encoder(x)[2]).
        # Each is a model of its own; the decoder alone makes new images.
        encoder, decoder = model.encoder, model.decoder
        for part in (encoder, decoder):
            trained_models.save_model(part, run.path(f"{part.name}.keras"))
            diagram(part, run.path(f"{part.name}.png"))

        # The test set, once.
        print(f"Evaluating on {len(clothes.x_test):,} test images ...", flush=True)
        z_mean, z_log_var, _ = encoder.predict(clothes.x_test, batch_size=500, verbose=0)
        results = evaluate(encoder, decoder, clothes, z_mean, z_log_var)
        plot_plane(run, decoder, clothes, z_mean)
        plot_images(run, decoder, clothes, z_mean)
        explorer.write(run.path("explorer.html"), decoder, clothes, z_mean)
        run.plot_history("negative ELBO (nats per image)" if settings.beta == 1 else "loss (nats)")
        some = slice(2_000)
        rebuilt = trained_models.predict(decoder, z_mean[some])
        run.finish(model, results, typical=small_images.typical(clothes.x_test[some], rebuilt))


def load(settings):
    """Return the dataset that --dataset names."""
    loader = data.load_mnist if settings.dataset == "mnist" else data.load_fashion_mnist
    return loader(settings.data_dir, settings.synthetic, settings.limit, settings.seed)


def stream_of(settings, clothes):
    """Return the stream of batches: each image is its own target."""

    def make_batch(chosen, seed):
        return clothes.x_train[chosen], clothes.x_train[chosen]

    return batches.Batches(settings, len(clothes.x_train), make_batch, clothes.own)


def sample_prior(seed, count, latent_dim):
    """Return samples of the prior, for the figures of new images: (count, latent_dim)."""
    rng = np.random.default_rng(batches.seed_for(seed, "new"))
    return rng.standard_normal((count, latent_dim), "float32")


def diagram(model, path):
    """Plot a model's layers with keras.utils.plot_model, where Graphviz is installed."""
    if shutil.which("dot") and importlib.util.find_spec("pydot"):
        with files.write_whole(path) as temporary:
            keras.utils.plot_model(model, temporary, show_shapes=True, show_layer_names=True)
        print(f"Wrote {path}", flush=True)


def build_and_compile(settings, stream, clothes):
    """Return the model of a recipe, ready for `fit`."""
    initializer = "he_normal" if settings.recipe == "fast" else "glorot_uniform"
    model = build_vae(settings.architecture, settings.latent_dim, settings.beta, initializer)
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    if settings.recipe == "fast":
        spread_first_layer(model.decoder, settings.seed)
        batches.init_output_bias(model.decoder, clothes.x_train)
        steps = settings.epochs * stream.steps_per_epoch
        schedule = batches.warm_up_and_cosine(settings.learning_rate, steps, warm_up=0.05)
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    elif settings.architecture == "conv":
        optimizer = keras.optimizers.RMSprop(settings.learning_rate)
    model.compile(optimizer, loss=reconstruction, metrics=[reconstruction])
    return model


def apply(settings):
    """Do what --generate, --input or --decode asks for with a trained model."""
    for name in ("seed", "spread"):
        if settings.input and not settings.vary and getattr(settings, name) is not None:
            raise UserError(f"--{name} has no effect without --vary, which says how many")
    model, _ = inputs.model_to_apply(settings, ("mse", "mean_image"))
    folder = settings.output_dir
    seed = secrets.randbelow(2**32) if settings.seed is None else settings.seed
    if settings.generate or settings.vary:
        print(f"Seed {seed}", flush=True)
    if settings.generate:
        latent_walks.generate(model.decoder, settings.generate, seed, folder)
    elif settings.decode:
        latent_walks.decode_file(model.decoder, settings.decode, folder)
    else:
        known, invert = inputs.known_of(settings), not settings.no_invert
        varied = settings.vary, settings.spread, seed
        latent_walks.encode(model, settings.input, folder, known, invert, *varied)


def compare_beta(settings):
    """Train the dense network with three weights of the KL divergence, and compare the codes."""
    if settings.architecture != "dense" or settings.beta != Settings.beta:
        raise UserError("--compare-beta is for --architecture dense, and sets --beta itself")
    for name in ("tensorboard", "precision"):
        if getattr(settings, name) != getattr(Settings, name):
            raise UserError(f"--{name} has no effect with --compare-beta; leave it out")
    clothes = load(settings)

    def train(beta):
        stream = stream_of(settings, clothes)
        keras.utils.set_random_seed(settings.seed)
        weighed = dataclasses.replace(settings, beta=float(beta))
        with devices.scope(settings):
            model = build_and_compile(weighed, stream, clothes)
        devices.set_apart(model)
        history = model.fit(
            stream.dataset(),
            steps_per_epoch=stream.steps_per_epoch,
            epochs=settings.epochs,
            **devices.validation(settings, clothes.x_validation, clothes.x_validation),
            shuffle=False,
            verbose=0,
        ).history
        return model, {name: history[name][-1] for name in ("loss", "val_loss")}

    with run_folder.RunFolder(settings, clothes, ["beta.png", "explorer.html"]) as run:
        models = {
            f"beta_{beta}": run.trained(f"beta_{beta}", functools.partial(train, beta))
            for beta in BETAS
        }
        results, columns = {}, {}
        epsilon = sample_prior(settings.seed, 36, settings.latent_dim)
        for name, model in models.items():
            z_mean, z_log_var, _ = model.encoder.predict(clothes.x_test, batch_size=500, verbose=0)
            rows = evaluate(model.encoder, model.decoder, clothes, z_mean, z_log_var)
            results[name] = rows["model"]
            new = trained_models.predict(model.decoder, epsilon)
            columns[f"β = {name.removeprefix('beta_')}"] = z_mean[:, :2], new, None
            if name == "beta_1":
                explorer.write(run.path("explorer.html"), model.decoder, clothes, z_mean)
        run.plot(
            *(plotting.planes, columns, "beta.png", "The weight β of the KL divergence"),
            "Above: codes of test images (z_mean) and the prior's 1σ and 2σ. Below: decoded "
            "samples of the prior. With β = 0 nothing holds the codes together: most of them lie "
            "far out, and the prior's samples fall between them. With β = 1 codes and prior agree. "
            "With β = 4 the codes crowd together and tell less: images are blurred.",
            *(clothes.y_test, clothes.class_names),
        )
        run.finish(models["beta_1"], results, "beta_1", others=models, models=models)


def evaluate(encoder, decoder, dataset, z_mean, z_log_var):
    """Return {row: {metric: value}} on the test images: mean image, PCA and the model.

    Args:
        encoder: (n, 28, 28, 1) to [z_mean, z_log_var, z].
        decoder: (n, latent_dim) to (n, 28, 28, 1).
        dataset: `data.Images`.
        z_mean, z_log_var: what the encoder makes of its test images.
    """
    x, pixels = dataset.x_test, dataset.x_test[0].size

    def fidelity(decoded, x=x):
        return {
            "reconstruction": pixels * metrics.binary_crossentropy(x, decoded),
            "mse": metrics.mse(x, decoded),
        }

    rng = np.random.default_rng(batches.seed_for("test"))
    epsilon = rng.standard_normal(z_mean.shape, "float32")
    decoded = trained_models.predict(decoder, z_mean + np.exp(z_log_var / 2) * epsilon)
    kl = np.asarray(kl_divergence(z_mean, z_log_var))
    codes = encoder.predict(dataset.x_train, batch_size=500, verbose=0)[0]
    components = metrics.principal_components(dataset.x_train)
    rebuilt = metrics.rebuild(x, *components, z_mean.shape[1])
    model, first = fidelity(decoded), slice(FIRST)
    return {
        # Clipped, or a single pixel that is sure and wrong costs more than all others.
        "mean_image": fidelity(np.clip(dataset.x_train.mean(0), 0.01, 0.99)),
        "pca": fidelity(np.clip(rebuilt, 0.01, 0.99)),
        "model": {
            "negative_elbo": model["reconstruction"] + float(kl.mean()),
            "reconstruction": model["reconstruction"],
            "kl": float(kl.mean()),
            # Of the same images, the first ones: 100 samples of each take their time.
            "negative_elbo_first": fidelity(decoded[first], x[first])["reconstruction"]
            + float(kl[first].mean()),
            "importance_weighted_first": importance_weighted_bound(encoder, decoder, x[first]),
            "active_dimensions": int(np.sum(z_mean.var(0) > 0.01)),
            "knn_accuracy": metrics.knn_accuracy(codes, dataset.y_train, z_mean, dataset.y_test),
            "mse": model["mse"],
        },
    }


def importance_weighted_bound(encoder, decoder, x, samples=100):
    """Return a bound on -log p(x) in nats, mean over the images; tighter than the negative ELBO.

    It is -log of the mean over samples z of q(z|x) of p(x|z)·p(z) / q(z|x): Burda et al. 2015,
    https://arxiv.org/abs/1509.00519

    Args:
        encoder: (n, height, width, 1) to [z_mean, z_log_var, z].
        decoder: (n, latent_dim) to (n, height, width, 1), the probability of white.
        x: the images.
        samples: per image.
    """
    rng, bounds = np.random.default_rng(batches.seed_for("importance weights")), []
    for images in np.array_split(x, max(len(x) // 10, 1)):
        z_mean, z_log_var, _ = (np.asarray(part) for part in encoder(images))
        epsilon = rng.standard_normal((samples, *z_mean.shape), dtype="float32")
        z = z_mean + np.exp(z_log_var / 2) * epsilon
        log_ratio = 0.5 * np.sum(epsilon**2 + z_log_var - z**2, axis=-1)  # of p(z) to q(z|x)
        y = np.asarray(decoder(z.reshape(-1, z.shape[-1]))).reshape(samples, *images.shape)
        y = np.clip(y, 1e-7, 1 - 1e-7)
        log_likelihood = np.sum(images * np.log(y) + (1 - images) * np.log1p(-y), axis=(2, 3, 4))
        bounds.extend(np.log(samples) - logsumexp(log_ratio + log_likelihood, axis=0))
    return float(np.mean(bounds))


def plot_plane(run, decoder, dataset, codes):
    """Write figures of the two latent dimensions that say most: the manifold, and the codes."""
    first, second = sorted(np.argsort(codes.var(0))[::-1][:2])
    which = (
        f" Of the {codes.shape[1]} dimensions the two most active ones are shown, {first + 1} "
        f"and {second + 1}; in the manifold all others are zero."
    ) * (codes.shape[1] > 2)
    places = np.linspace(-REACH, REACH, 20)
    grid = np.zeros((400, codes.shape[1]), "float32")
    grid[:, second] = np.repeat(places[::-1], 20)
    grid[:, first] = np.tile(places, 20)
    run.plot(
        *(plot_manifold, trained_models.predict(decoder, grid), "manifold.png"),
        "The manifold: what the decoder makes of each place",
        "Each image is a decoded point, at its place in the scatter plot of latent.png. Neighbours "
        f"look alike; where two kinds meet, the decoder mixes them.{which}",
    )
    run.plot(
        *(plot_codes, codes[:, [first, second]], "latent.png"),
        "The test set in latent space",
        "Where the encoder puts the test images (z_mean). It has never seen the labels. The "
        "circles hold 39% and 86% of the prior: the cloud should fill them, and nothing should "
        f"lie far outside.{which}",
        *(dataset.y_test, dataset.class_names),
    )


def plot_manifold(images, path, title, caption, show=False):
    """Plot 20 rows of 20 decoded images over the part of the latent plane that they show."""
    figure, axis = plt.subplots(figsize=(8.8, 9.2), layout="constrained")
    edge = REACH * 20 / 19  # half an image further out
    region = {"extent": (-edge, edge, -edge, edge)}
    axis.imshow(plotting.mosaic(images, 20), cmap="gray", vmin=0, vmax=1, **region)
    axis.set(**plotting.LATENT_AXES)
    figure.suptitle(title, fontsize=12)
    plotting.save(figure, path, caption, show)


def plot_codes(points, path, title, caption, labels, names, show=False):
    """Plot points, shape (n, 2), by class, with the 1- and 2-sigma circles of the normal prior."""
    figure, axis = plt.subplots(figsize=(7.6, 6), layout="constrained")
    plotting.mark_classes(axis, points, labels, names)
    plotting.mark_prior(axis)
    axis.set(title=title, **plotting.LATENT_AXES)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2.5, frameon=False)
    plotting.save(figure, path, caption, show)


def plot_images(run, decoder, dataset, codes):
    """Write figures of reconstructions, samples, and walks between two codes."""
    examples = dataset.examples()
    chosen = list(examples.values())
    rows = {"test image": dataset.x_test[chosen]}
    rows["reconstruction"] = trained_models.predict(decoder, codes[chosen])
    run.plot(
        *(plotting.image_rows, rows, "reconstructions.png"),
        "Test images and their reconstructions",
        f"The decoder is told each image in {codes.shape[1]} numbers. Details that "
        "they can't carry come back as the mean over all images with the same numbers: blurred.",
        column_titles=examples,
    )
    z = sample_prior(run.settings.seed, 50, codes.shape[1])
    run.plot(
        *(plotting.sheet, trained_models.predict(decoder, z), "new.png", "New images"),
        "Decoded samples of the prior N(0, 1), none of them chosen. A sample between two kinds "
        "is a bit of both.",
        columns=10,
    )
    middle = {}
    for label in np.unique(dataset.y_test):
        distance = codes - np.median(codes[dataset.y_test == label], axis=0)
        middle[label] = codes[np.argmin(np.square(distance).sum(1))]
    steps, names = np.linspace(0, 1, 10)[:, None], dataset.class_names
    pairs = [(7, 9), (1, 3), (0, 2), (5, 8)]
    if dataset.own:
        pairs = list(itertools.pairwise(middle))[:4]
    rows = {}
    for a, b in pairs:
        if a in middle and b in middle:
            label = f"{plotting.short(names[a], 24)}\nto {plotting.short(names[b], 24)}"
            line = middle[a] + steps * (middle[b] - middle[a])
            rows[label] = trained_models.predict(decoder, line)
    if rows:
        run.plot(
            *(plotting.image_rows, rows, "walk.png", "Walks through latent space"),
            "Decoded points on the straight line between the codes of two test images, each one "
            "from the middle of its class. The way may lead through a third kind.",
        )


if __name__ == "__main__":
    command_line.start(main)
