"""Train five kinds of autoencoders on digits, and compare what their bottlenecks hold.

    image (28, 28, 1) -> flat (784) -> code (k) -> flat (784) -> reconstruction (28, 28, 1)

    linear        Dense k             Dense 784                     finds the space of PCA
    plain         Dense 256, k        Dense 256, 784                bends it: less error at equal k
    sparse        Dense 1,024         its transpose                 the 51 largest of 1,024 are kept
    contractive   Dense 128, sigmoid  its transpose                 pays for codes that move
    variational   Dense 256, k        Dense 256, 784                codes are clouds, not points

An autoencoder is trained to return its own input through a code that can't hold everything: a
bottleneck. What limits the code differs, and with it what the code is good for. Each network is
trained for a few seconds, 20 trainings in all.

Run it:
  python latent_spaces.py                     everything, in five minutes
  python latent_spaces.py --epochs 2          a quick try
  python latent_spaces.py --input seven.png   a picture's code and reconstruction by each
  python latent_spaces.py --data-dir DIR      MNIST, or pictures of yours, from a folder

k-sparse: Makhzani and Frey 2013, https://arxiv.org/abs/1312.5663. Contractive: Rifai et al. 2011,
https://icml.cc/2011/papers/455_icmlpaper.pdf. Variational: Kingma and Welling 2013,
https://arxiv.org/abs/1312.6114. Linear: Baldi and Hornik 1989,
https://doi.org/10.1016/0893-6080(89)90014-2
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import batches, command_line, data, devices, metrics, plotting
from common import run_folder, trained_models
from common.command_line import flag, path
from applications import inputs, latent_walks, small_images

import dataclasses
import functools
import math

import keras
import numpy as np
import tensorflow
from keras import layers, ops
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial.distance import pdist

SIZES = [2, 4, 8, 16, 32, 64, 128]  # of the bottleneck
SIZE = 32  # where the five are compared
UNITS, ACTIVE = 1_024, 51  # of the sparse one, and how many are on: 5%
# Steps are those of each epoch, whatever the number of images.
RECIPES = {"fast": {"epochs": 10}}
LINEAR = {"steps": 500, "batch_size": 128, "learning_rate": 0.005}
DEEP = {"steps": 200, "batch_size": 128, "learning_rate": 0.005}
WIDE = {"steps": 100, "batch_size": 128, "learning_rate": 0.004}
SIGMOID = {"steps": 300, "batch_size": 128, "learning_rate": 0.01}
CONTRACTION = 0.05
# The trainings whose models are kept and applied: {kind: name of the training}.
KINDS = {
    "linear": f"linear_{SIZE}",
    "plain": f"plain_{SIZE}",
    "sparse": "sparse",
    "contractive": "contractive",
    "variational": f"variational_{SIZE}",
}
MODELS = [f"{kind}.keras" for kind in KINDS]
FIGURES = ["planes.png", "autoencoders.png", "error.png", "components.png", "jacobian.png"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "latent_spaces"
    names = {kind: f"latent_spaces_{kind}" for kind in KINDS}
    build_like = staticmethod(
        lambda kind, model: TRAININGS[KINDS[kind]][0](model.get_layer("code").output.shape[1])
    )
    recipe: str = "fast"
    precision: str = "float32"
    batch_size: None = None
    learning_rate: None = None
    tensorboard: bool = False
    model: str = flag("apply this model alone", None, path, ("input",), False, metavar="FILE")
    no_invert: bool = flag(
        "take dark on light as it is, where the training images are light on dark",
        *(False, bool, ("input",), False),
    )

    @property
    def name(self):
        """The name of the model, or of the run folder of all five."""
        return self.names.get(self.architecture, self.script)


def build_linear(size=32):
    """Return the linear autoencoder: (n, 28, 28, 1) to the same shape.

    Without a bend between them, two layers are one matrix of rank `size`. The one with the least
    squared error is known: it projects onto the first principal components. Gradient descent finds
    the same space, but not the components themselves: any other axes in it do as well.
    """
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Flatten()(image)
    code = layers.Dense(size, name="code")(x)
    x = layers.Dense(784, name="rows")(code)
    rebuilt = layers.Reshape((28, 28, 1))(x)
    return keras.Model(image, rebuilt, name="latent_spaces_linear")


def build_plain(size=32):
    """Return the undercomplete autoencoder: (n, 28, 28, 1) to the same shape, in [0, 1].

    With relus between, the codes follow a bent surface instead of a flat one.
    """
    relu = {"activation": "relu", "kernel_initializer": "he_normal"}
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Flatten()(image)
    x = layers.Dense(256, **relu)(x)
    code = layers.Dense(size, name="code")(x)
    x = layers.Dense(256, **relu)(code)
    x = layers.Dense(784, activation="sigmoid")(x)
    rebuilt = layers.Reshape((28, 28, 1))(x)
    return keras.Model(image, rebuilt, name="latent_spaces_plain")


@keras.saving.register_keras_serializable("latent_spaces")
class TiedDense(layers.Layer):
    """A Dense layer that maps back with the same weights, transposed.

    With weights of its own the decoder could undo whatever a penalty does to the encoder's.
    """

    def __init__(self, units, activation=None, contraction=0.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.contraction = units, contraction
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        """Make one kernel, and a bias for each way."""
        # Small at first: at the border, where no digit has ink, they stay as they are.
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.kernel = self.add_weight((input_shape[-1], self.units), small, name="w")
        self.bias = self.add_weight((self.units,), "zeros", name="b")
        self.bias_back = self.add_weight((input_shape[-1],), "zeros", name="b_back")

    def call(self, x, back=False):
        """Return the code of an image, (n, units), or with `back` the image of a code."""
        if back:
            return self.activation(ops.matmul(x, ops.transpose(self.kernel)) + self.bias_back)
        h = self.activation(ops.matmul(x, self.kernel) + self.bias)
        if self.contraction:
            # How far the code moves when the image does: the Jacobian of sigmoid(W·x + b) has
            # the rows h·(1 - h)·w, so its squared Frobenius norm costs no more than a layer.
            slopes = ops.square(h * (1 - h))
            norms = ops.sum(slopes * ops.sum(ops.square(self.kernel), axis=0), axis=-1)
            self.add_loss(self.contraction * ops.mean(norms))
        return h

    def get_config(self):
        """Return what `from_config` needs."""
        own = {"units": self.units, "contraction": self.contraction}
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), **own, "activation": activation}


@keras.saving.register_keras_serializable("latent_spaces")
class KeepLargest(layers.Layer):
    """Keeps the k largest numbers of a code and sets all others to zero."""

    def __init__(self, k, **kwargs):
        super().__init__(**kwargs)
        self.k = k

    def call(self, code):
        """Return the code with zeros in it, (n, units)."""
        least = ops.top_k(code, self.k)[0][:, -1:]
        return ops.where(code >= least, code, 0.0)

    def get_config(self):
        """Return what `from_config` needs."""
        return {**super().get_config(), "k": self.k}


def build_sparse(units=1024, active=51):
    """Return the k-sparse autoencoder: (n, 28, 28, 1) to the same shape.

    The code is larger than the image, but only `active` of its units are on at a time, others for
    another image. So each unit comes to stand for something that is there or not: a stroke. With
    all units on (`active` equal to `units`) it learns to copy, and the units stand for nothing.
    """
    image = keras.Input((28, 28, 1), name="image")
    tied = TiedDense(units)
    x = layers.Flatten()(image)
    code = KeepLargest(active, name="code")(tied(x))
    rebuilt = layers.Reshape((28, 28, 1))(tied(code, back=True))
    return keras.Model(image, rebuilt, name="latent_spaces_sparse")


def build_contractive(units=128, contraction=0.05):
    """Return the contractive autoencoder: (n, 28, 28, 1) to the same shape, in [0, 1].

    Its loss grows with the squared norm of the encoder's Jacobian ∂h/∂x. The reconstruction needs
    codes that tell digits apart, the penalty wants codes that stay where they are. Without
    `contraction` it is its own plain twin.
    """
    image = keras.Input((28, 28, 1), name="image")
    tied = TiedDense(units, "sigmoid", contraction, name="tied")
    h = layers.Identity(name="code")(tied(layers.Flatten()(image)))
    rebuilt = layers.Reshape((28, 28, 1))(tied(h, back=True))
    return keras.Model(image, rebuilt, name="latent_spaces_contractive")


@keras.saving.register_keras_serializable("latent_spaces")
class Sample(layers.Layer):
    """Samples a code around z_mean while training, and adds the KL divergence to the loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, z_mean, z_log_var, training=False):
        """Return z, (n, size); after training z_mean, so that an image has one code."""
        kl = 0.5 * ops.sum(ops.square(z_mean) + ops.exp(z_log_var) - 1 - z_log_var, axis=-1)
        self.add_loss(ops.mean(kl))
        epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(z_log_var / 2) * epsilon if training else z_mean


def build_variational(size=32):
    """Return the variational autoencoder: (n, 28, 28, 1) to the same shape, in [0, 1].

    The plain one with clouds for codes, which the KL divergence pulls towards one normal
    distribution; vae_fashion.py has the whole story.
    """
    relu = {"activation": "relu", "kernel_initializer": "he_normal"}
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Flatten()(image)
    x = layers.Dense(256, **relu)(x)
    z_mean = layers.Dense(size)(x)
    z_log_var = layers.Dense(size)(x)
    code = Sample(name="code")(z_mean, z_log_var)
    x = layers.Dense(256, **relu)(code)
    x = layers.Dense(784, activation="sigmoid")(x)
    rebuilt = layers.Reshape((28, 28, 1))(x)
    return keras.Model(image, rebuilt, name="latent_spaces_variational")


def split(model):
    """Return the encoder and the decoder of an autoencoder: it is cut at the layer `code`."""
    code = model.get_layer("code").output
    return keras.Model(model.input, code), keras.Model(code, model.output)


def squared_error(image, rebuilt):
    """Return the squared error summed over the pixels, shape (n,): 784 times the MSE."""
    return ops.sum(ops.square(image - rebuilt), axis=(1, 2, 3))


def cross_entropy(image, rebuilt):
    """Return the cross-entropy summed over the pixels, in nats, as the KL divergence is."""
    return ops.sum(keras.losses.binary_crossentropy(image, rebuilt), axis=(1, 2))


# {name: (function that builds the network, its arguments, its loss, how it is trained)}
TRAININGS = {
    **{f"linear_{size}": (build_linear, [size], squared_error, LINEAR) for size in SIZES},
    **{f"plain_{size}": (build_plain, [size], squared_error, DEEP) for size in SIZES},
    "sparse": (build_sparse, [UNITS, ACTIVE], squared_error, WIDE),
    "copying": (build_sparse, [UNITS, UNITS], squared_error, WIDE),
    "contractive": (build_contractive, [128, CONTRACTION], squared_error, SIGMOID),
    "uncontracted": (build_contractive, [128, 0.0], squared_error, SIGMOID),
    "variational_2": (build_variational, [2], cross_entropy, DEEP),
    f"variational_{SIZE}": (build_variational, [SIZE], cross_entropy, DEEP),
}


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, {"five": RECIPES}, argv)
    plotting.set_up(settings.show)
    if settings.input:
        return apply(settings)

    for *_, recipe in TRAININGS.values():
        devices.see_that_shared(recipe["batch_size"], settings.devices)
    digits = data.load_mnist(settings.data_dir, settings.synthetic, settings.limit, settings.seed)
    with run_folder.RunFolder(settings, digits, MODELS + FIGURES) as run:
        models = {
            name: run.trained(name, functools.partial(train, name, settings, digits))
            for name in TRAININGS
        }
        for kind, name in KINDS.items():
            trained_models.save_model(models[name], run.path(f"{kind}.keras"))

        # The test set, once.
        print(f"Evaluating on {len(digits.x_test):,} test images ...", flush=True)
        rebuilt = {
            name: trained_models.predict(model, digits.x_test) for name, model in models.items()
        }
        components = metrics.principal_components(digits.x_train)
        for count in (*SIZES, ACTIVE):
            rebuilt[f"pca_{count}"] = metrics.rebuild(digits.x_test, *components, count)
        measures = [metrics.mse, metrics.psnr]
        results = metrics.compare(digits.x_test, rebuilt, measures)

        for size in (2, SIZE):
            results[f"linear_{size}"] |= compare_with_pca(models[f"linear_{size}"], components)
        for name in ("sparse", "copying"):
            results[name] |= sparsity(models[name], digits.x_test)
        spectra = {}
        for name in ("contractive", "uncontracted"):
            spectra[name], more = contraction(models[name], digits.x_test)
            results[name] |= more
        planes = {name: split(models[name]) for name in ("plain_2", "variational_2")}
        for name, parts in planes.items():
            results[name] |= faults_of_plane(*parts, digits, components, name == "plain_2")
        results["images"] = {"frechet": frechet(digits.x_train, digits.x_test, components)}

        plot_planes(run, planes, digits, results)
        plot_autoencoders(run, models, rebuilt, digits, components, results)
        plot_errors_and_components(run, models, components, results)
        plot_spectra(run, spectra, results)
        main_one = f"plain_{SIZE}"
        x, some = digits.x_test, slice(2_000)
        typical = {name: small_images.typical(x[some], rebuilt[name][some]) for name in models}
        run.finish(models[main_one], results, main_one, TRAININGS, models, typical)


def train(name, settings, digits):
    """Train one of `TRAININGS`; return the model, and its losses at the end."""
    build, sizes, loss, recipe = TRAININGS[name]
    steps = settings.epochs * recipe["steps"]
    images = tensorflow.constant(digits.x_train)
    # Each image once before any of them twice: with a fresh choice for each batch the linear
    # autoencoder's space stays several times as far from that of PCA.
    rng = np.random.default_rng(batches.seed_for(settings.seed, "order"))
    passes = math.ceil(steps * recipe["batch_size"] / len(images))
    order = np.concatenate([rng.permutation(len(images)) for _ in range(passes)])
    order = order[: steps * recipe["batch_size"]].reshape(steps, -1)
    # Made by TensorFlow alone, 20 steps at a time: Python takes longer for a batch than these
    # networks for a step.
    stream = tensorflow.data.Dataset.from_tensor_slices(order)
    stream = stream.map(lambda chosen: (tensorflow.gather(images, chosen),) * 2).prefetch(2)
    keras.utils.set_random_seed(settings.seed)
    with devices.scope(settings):
        model = build(*sizes)
        schedule = batches.warm_up_and_cosine(recipe["learning_rate"], steps)
        # On several devices TensorFlow fails in the loop over these steps.
        at_once = 20 if settings.devices == 1 else 1
        model.compile(keras.optimizers.Adam(schedule), loss=loss, steps_per_execution=at_once)
    devices.set_apart(model)
    lengths = {"epochs": settings.epochs, "steps_per_epoch": recipe["steps"]}
    history = model.fit(stream, **lengths, shuffle=False, verbose=0)
    pair, batch_size = devices.validation(settings, *(digits.x_validation,) * 2).values()
    validation = model.evaluate(*pair, batch_size, verbose=0)
    return model, {"loss": history.history["loss"][-1], "val_loss": validation}


def apply(settings):
    """Write the code and the reconstruction of the --input files by each of the five."""
    if settings.model:
        each = [settings]
    else:
        each = [dataclasses.replace(settings, architecture=kind) for kind in KINDS]
    models = [(one, *inputs.model_to_apply(one, trainings=KINDS)) for one in each]
    parts = {kind: split(model) for _, model, kind in models}
    known = [inputs.known_of(one, KINDS[kind]) for one, _, kind in models]
    folder, invert = settings.output_dir, not settings.no_invert
    latent_walks.encode_with_each(parts, settings.input, folder, known, invert)


# ---------------------------------------------------------------- what the codes are like


def compare_with_pca(model, components):
    """Return the largest angle in degrees between the linear autoencoder's space and PCA's."""
    rows = model.get_layer("rows").get_weights()[0]
    angles = subspace_angles(rows.T, components[1][: len(rows)].T)
    return {"angle_to_pca": float(np.degrees(angles.max()))}


def sparsity(model, images):
    """Return the share of units that are on for an image, and of those that never are."""
    on = trained_models.predict(split(model)[0], images) != 0
    return {"active_units": float(on.mean()), "dead_units": float(1 - on.any(0).mean())}


def contraction(model, images, count=500):
    """Return the Jacobians' mean singular values at the first images, and what follows from them.

    Returns:
        An array of shape (units,), largest first, and a dict: `jacobian`, the mean Frobenius norm;
        `jacobian_normalised`, the same divided by the mean distance between codes;
        `movement`, how far a code moves under noise of σ = 0.1, also divided by that distance.
    """
    images = images[:count]
    kernel = model.get_layer("tied").get_weights()[0]
    encoder = split(model)[0]
    h = trained_models.predict(encoder, images)
    # J = diag(h(1 - h))·Wᵀ; the eigenvalues of J·Jᵀ are the squares of its singular values.
    slopes = h * (1 - h)
    squares = np.linalg.eigvalsh(slopes[:, :, None] * (kernel.T @ kernel) * slopes[:, None, :])
    singular = np.sqrt(np.maximum(squares[:, ::-1], 0))
    norm, distance = float(np.sqrt((singular**2).sum(1)).mean()), float(pdist(h).mean()) + 1e-12
    rng = np.random.default_rng(batches.seed_for("test"))
    noisy = images + rng.normal(0, 0.1, images.shape).astype("float32")
    moved = np.linalg.norm(trained_models.predict(encoder, noisy) - h, axis=1).mean()
    return singular.mean(0), {
        "jacobian": norm,
        "jacobian_normalised": norm / distance,
        "movement": float(moved) / distance,
    }


def root_of_covariance(codes):
    """Return L with L·Lᵀ the covariance of codes, shape (n, 2), even where all lie on a line."""
    return np.linalg.cholesky(np.cov(codes.T) + 1e-12 * np.eye(2))


def faults_of_plane(encoder, decoder, digits, components, fit_gaussian, points=2_000):
    """Return what is wrong with a latent space of two dimensions: lower is better but for one.

    No network judges this: an image counts as strange if it is far from every training image.

    Args:
        encoder: (n, 28, 28, 1) to (n, 2).
        decoder: (n, 2) to (n, 28, 28, 1).
        digits: `data.Images`.
        components: of `metrics.principal_components`.
        fit_gaussian: sample from a Gaussian fitted to the training codes, not from N(0, 1).
        points: how many places, pairs and samples to try.

    Returns:
        A dict. `gaps`: the share of places, evenly spread over the ellipse that holds 95% of the
        codes, where the decoded image is strange: farther from all training images than 95% of the
        reconstructions of test images are. `knn_accuracy`: how often the 10 nearest training codes
        tell the digit; higher is better. `middle`: how far from training images the decoded
        middle between two codes is, in terms of the two ends. `frechet`: see there.
    """
    rng = np.random.default_rng(batches.seed_for("test"))

    def strangeness(codes):
        return distance_to_nearest(trained_models.predict(decoder, codes), digits.x_train)

    train, codes = (trained_models.predict(encoder, x) for x in (digits.x_train, digits.x_test))
    mean, spread = codes.mean(0), root_of_covariance(codes)
    radii = np.linalg.norm(np.linalg.solve(spread, (codes - mean).T), axis=0)
    angle, share = rng.uniform(0, 2 * np.pi, points), np.sqrt(rng.uniform(size=points))
    disc = np.quantile(radii, 0.95) * share * [np.cos(angle), np.sin(angle)]
    some = codes[rng.permutation(len(codes))[:points]]
    reconstructions = strangeness(some)
    others = rng.permutation(some)
    samples = rng.standard_normal((min(5 * points, len(codes)), 2))
    if fit_gaussian:
        samples = samples @ root_of_covariance(train).T + train.mean(0)
    return {
        "gaps": float(
            np.mean(strangeness((spread @ disc).T + mean) > np.quantile(reconstructions, 0.95))
        ),
        "knn_accuracy": metrics.knn_accuracy(train, digits.y_train, codes, digits.y_test),
        "middle": float(strangeness((some + others) / 2).mean() / reconstructions.mean()),
        "frechet": frechet(trained_models.predict(decoder, samples), digits.x_test, components),
    }


def distance_to_nearest(images, others):
    """Return how far each image is from the nearest of the others, shape (n,).

    The distance is the root mean square over the pixels.
    """
    flat, known = images.reshape(len(images), -1), others.reshape(len(others), -1)
    lengths = np.square(known).sum(1)
    nearest = [
        np.min(lengths - 2 * (part @ known.T), axis=1) + np.square(part).sum(1)
        for part in np.array_split(flat, math.ceil(len(flat) / 500))
    ]
    return np.sqrt(np.maximum(np.concatenate(nearest), 0) / flat.shape[1])


def frechet(images, others, components, count=64):
    """Return the Fréchet distance of two sets of images in the space of `count` components.

    |m₁ - m₂|² + trace(C₁ + C₂ - 2·√(C₁·C₂)), of the means and covariances: Heusel et al. 2017,
    https://arxiv.org/abs/1706.08500, with PCA where they have a network.
    """
    (m_1, c_1), (m_2, c_2) = (
        (codes.mean(0), np.cov(codes.T))
        for codes in (metrics.project(each, *components, count) for each in (images, others))
    )
    # The trace of a root is the sum of the roots of the eigenvalues. None is below zero but for
    # rounding, and here C₁ and C₂ may be singular.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(c_1 @ c_2).real, 0))
    return float(np.square(m_1 - m_2).sum() + np.trace(c_1 + c_2) - 2 * roots.sum())


# ---------------------------------------------------------------- figures


def plot_planes(run, planes, digits, results):
    """Write a figure of latent planes side by side: codes, and the decoded grid of their region."""
    columns = {}
    for name, (encoder, decoder) in planes.items():
        codes = trained_models.predict(encoder, digits.x_test)
        low, high = np.quantile(codes, [0.025, 0.975], axis=0)
        grid = np.stack(np.meshgrid(*np.linspace(low, high, 16).T), axis=-1)[::-1]
        heading = "gaps {gaps:.0%}, 10 nearest {knn_accuracy:.0%}".format(**results[name])
        columns[f"{name.split('_')[0]}: {heading}"] = (
            *(codes, trained_models.predict(decoder, grid.reshape(-1, 2))),
            (low[0], high[0], low[1], high[1]),
        )
    run.plot(
        *(plotting.planes, columns, "planes.png"),
        "Two latent dimensions: plain and variational",
        "Above: the codes of test images, the middle 95% in each direction. Below: what the "
        "decoder makes of the same region. Nothing tells the plain autoencoder where to "
        "put its codes; the variational one is pulled towards the origin. 'Gaps' are places whose "
        "image is farther from all training images than 95% of reconstructions are.",
        *(digits.y_test, digits.class_names),
    )


def unit_effects(decoder, codes, units):
    """Return what changes in the mean image when one unit rises by its standard deviation.

    Returns:
        (units, 28, 28, 1), grey 0.5 where nothing changes, each scaled to its own range.
    """
    mean, step = codes.mean(0), codes.std(0)
    moved = np.repeat(mean[None], len(units), axis=0)
    moved[np.arange(len(units)), units] += step[units]
    change = trained_models.predict(decoder, moved) - trained_models.predict(decoder, mean[None])
    return around_grey(change)


def around_grey(changes):
    """Return changes, shape (n, 28, 28, 1), each scaled to its own range: 0.5 where it is zero."""
    return 0.5 + changes / np.maximum(2 * abs(changes).max((1, 2, 3), keepdims=True), 1e-6)


def plot_autoencoders(run, models, rebuilt, digits, components, results, count=8):
    """Write a figure with a row for each autoencoder: reconstructions, and what units stand for."""
    titles = digits.examples(count)
    examples = list(titles.values())
    count = len(examples)  # a small test set has fewer
    rows = {"input": [*digits.x_test[examples], *[None] * (1 + count)]}
    axes = around_grey(components[1][:count].reshape(count, 28, 28, 1))
    labels = {
        f"pca_{SIZE}": f"PCA, {SIZE}",
        f"linear_{SIZE}": f"linear, {SIZE}",
        f"plain_{SIZE}": f"plain, {SIZE}",
        "sparse": f"sparse, {ACTIVE} of {UNITS:,}",
        "copying": f"all {UNITS:,}",
        "contractive": "contractive, 128",
        "uncontracted": "not contracted, 128",
        f"variational_{SIZE}": f"variational, {SIZE}",
    }
    for name, label in labels.items():
        units = axes
        if name in models:
            encoder, decoder = split(models[name])
            codes = trained_models.predict(encoder, digits.x_test[:1_000])
            varying = np.argsort(codes.std(0))[np.count_nonzero(codes.std(0) == 0) :]
            middle = max(0, (len(varying) - count) // 2)
            units = unit_effects(decoder, codes, varying[middle : middle + count])
        pictures = np.clip(rebuilt[name][examples], 0, 1)
        label = f"{label}\nMSE {results[name]['mse']:.4f}"
        rows[label] = [*pictures, None, *units]
    run.plot(
        *(plotting.image_rows, rows, "autoencoders.png"),
        "Eight bottlenecks: test images, reconstructions, and what single units stand for",
        "At the right: what one unit more changes in the image, white where it gets brighter, "
        "black where it gets darker; the units in the middle of how much they vary. Those of the "
        "sparse one are strokes. With all of its units on the same network copies, and its units "
        "stand for nothing.",
        cell=0.55,
        column_titles=[*titles, "", "units", *[""] * (count - 1)],
    )


def plot_errors_and_components(run, models, components, results):
    """Write figures of the error over the size of the bottleneck, and of PCA's and linear axes."""
    lines = {
        label: (SIZES, [results[f"{name}_{size}"]["mse"] for size in SIZES])
        for label, name in {"PCA": "pca", "linear": "linear", "plain": "plain"}.items()
    }
    run.plot(
        *(plotting.curves, lines, "error.png", "Error over the size of the bottleneck"),
        "The linear autoencoder lies on PCA. The plain one needs fewer numbers for the same error, "
        "until there are so many that the training time is what limits it.",
        ("numbers in the code", "MSE on test images"),
        ticks=SIZES,
        wide="PCA",
    )
    count, axes = 8, components[1][:SIZE]
    found = models[f"linear_{SIZE}"].get_layer("rows").get_weights()[0]
    # An orthonormal basis of its space, then the rotation that brings it nearest to PCA's.
    basis = np.linalg.svd(found, full_matrices=False)[2]
    turned = orthogonal_procrustes(basis.T, axes.T)[0].T @ basis
    rows = {"its own axes": found, "aligned": turned, "PCA": axes}
    rows = {label: around_grey(x[:count].reshape(-1, 28, 28, 1)) for label, x in rows.items()}
    angle = results[f"linear_{SIZE}"]["angle_to_pca"]
    run.plot(
        *(plotting.image_rows, rows, "components.png"),
        f"The linear autoencoder spans PCA's space of {SIZE} dimensions, in axes of its own",
        "First row: what its code's first numbers stand for, mixtures of components. Second row: "
        "the same space, turned by orthogonal Procrustes alignment. Third row: the principal "
        f"components. The largest angle between the two spaces is {angle:.2f}°.",
    )


def plot_spectra(run, spectra, results):
    """Write a figure of the Jacobians' singular values with and without the penalty."""
    labels = {"contractive": "contractive", "uncontracted": "its twin without the penalty"}
    lines = {
        f"{labels[name]}, MSE {results[name]['mse']:.4f}": (np.arange(1, 1 + len(s)), s)
        for name, s in spectra.items()
    }
    run.plot(
        *(plotting.curves, lines, "jacobian.png", "How far a code moves when the image does"),
        "Singular values of the encoder's Jacobian, mean over 500 test images. The penalty "
        "lowers all of them, the small ones somewhat more.",
        ("singular value, by size", "mean over images"),
    )


if __name__ == "__main__":
    command_line.start(main)
