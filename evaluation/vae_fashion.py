"""Test metrics, baselines and figures for vae_fashion.py."""

import importlib.util
import itertools
import shutil

import keras
import numpy as np
from matplotlib.figure import Figure
from scipy.special import logsumexp
from sklearn.decomposition import PCA

from common import files, metrics, plotting, training
from tools import latents

IWAE_IMAGES = 1_000  # test images for the importance-weighted bound
PLANE_LIMIT = 2.3  # the manifold covers z from -2.3 to 2.3
PLANE_COUNT = 20  # images along each side of the manifold
CLASS_PAIRS = [(7, 9), (1, 3), (0, 2), (5, 8)]  # to interpolate between


def report(folder, settings, model, dataset):
    """Measure a model on the test set, write figures and metrics.json, and print the table."""
    print(f"Evaluating on {len(dataset.x_test):,} test images ...", flush=True)
    for part in (model.encoder, model.decoder):
        plot_layers(part, folder / f"{part.name}.png")
    z_mean, z_log_var, _ = model.encoder.predict(dataset.x_test, batch_size=500, verbose=0)
    results = baselines(dataset, z_mean.shape[1])
    results["model"] = evaluate(model, dataset, z_mean, z_log_var)
    plot_plane(folder, model.decoder, dataset, z_mean)
    plot_reconstructions(folder, model.decoder, dataset, z_mean)
    plot_samples(folder, settings, model.decoder, dataset, z_mean.shape[1])
    plot_interpolations(folder, model.decoder, dataset, z_mean)
    plotting.plot_history(
        folder,
        ylabel="negative ELBO (nats per image)" if settings.beta == 1 else "loss (nats per image)",
        caption=f"Data: {dataset}.",
    )
    training.report(folder, settings, model, dataset, results)


def plot_layers(model, path):
    """Draw a model's layers with keras.utils.plot_model, where Graphviz and pydot are installed."""
    if shutil.which("dot") and importlib.util.find_spec("pydot"):
        with files.write_whole(path, files.is_run_folder(path.parent)) as temporary:
            keras.utils.plot_model(model, temporary, show_shapes=True, show_layer_names=True)
        print(f"Wrote {path}", flush=True)


def quality(images, decoded):
    """Return {metric: value}: the cross-entropy in nats per image and the mean squared error."""
    pixels = images[0].size
    return {
        "reconstruction": pixels * metrics.binary_crossentropy(images, decoded),
        "mse": metrics.mse(images, decoded),
    }


def baselines(dataset, latent_dim):
    """Return {baseline: {metric: value}} for the mean image and PCA with a code of equal size."""
    train, test = (x.reshape(len(x), -1) for x in (dataset.x_train, dataset.x_test))
    pca = PCA(latent_dim, svd_solver="covariance_eigh").fit(train)
    decoded = pca.inverse_transform(pca.transform(test)).reshape(dataset.x_test.shape)
    # Clipped, because each pixel that is certain and wrong would cost 16 nats.
    return {
        "mean image": quality(dataset.x_test, np.clip(dataset.x_train.mean(0), 0.01, 0.99)),
        "PCA": quality(dataset.x_test, np.clip(decoded, 0.01, 0.99)),
    }


def evaluate(model, dataset, z_mean, z_log_var):
    """Return {metric: value} on the test images, whose codes are N(z_mean, exp(z_log_var))."""
    x = dataset.x_test
    rng = np.random.default_rng(training.seed_for("test"))
    epsilon = rng.standard_normal(z_mean.shape, "float32")
    decoded = latents.decode(model.decoder, z_mean + np.exp(z_log_var / 2) * epsilon)
    kl = 0.5 * np.sum(z_mean**2 + np.exp(z_log_var) - 1 - z_log_var, axis=-1)
    first = slice(IWAE_IMAGES)  # not all, because 100 samples for each are slow
    of_all, of_first = quality(x, decoded), quality(x[first], decoded[first])
    results = {
        "negative_elbo": of_all["reconstruction"] + float(kl.mean()),
        "reconstruction": of_all["reconstruction"],
        "kl": float(kl.mean()),
        "negative_elbo_first": of_first["reconstruction"] + float(kl[first].mean()),
        "importance_weighted_first": importance_weighted_bound(
            model.encoder, model.decoder, x[first]
        ),
        "active_dimensions": int(np.sum(z_mean.var(0) > 0.01)),
        "mse": of_all["mse"],
    }
    if len(np.unique(dataset.y_train)) > 1:  # a single class is always right
        train_codes = model.encoder.predict(dataset.x_train, batch_size=500, verbose=0)[0]
        results["knn_accuracy"] = metrics.knn_accuracy(
            train_codes, dataset.y_train, z_mean, dataset.y_test
        )
    return results


def importance_weighted_bound(encoder, decoder, x, samples=100):
    """Return the importance-weighted bound on -log p(x) in nats, averaged over images.

    It is tighter than the negative ELBO: for each image, -log of the mean of p(x|z)·p(z) / q(z|x)
    over samples z from q(z|x). Burda et al. 2015, https://arxiv.org/abs/1509.00519

    Args:
        encoder: (n, height, width, 1) to [z_mean, z_log_var, z].
        decoder: (n, latent_dim) to (n, height, width, 1), the probability of white.
        x: the images.
        samples: number of samples per image.
    """
    rng, bounds = np.random.default_rng(training.seed_for("importance weights")), []
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


def plot_plane(folder, decoder, dataset, codes):
    """Plot the manifold and the test codes in the two most active latent dimensions."""
    first, second = sorted(np.argsort(codes.var(0))[::-1][:2])
    note = ""
    if codes.shape[1] > 2:
        note = (
            f" Shown are the two most active of {codes.shape[1]} dimensions, {first + 1} and"
            f" {second + 1}; in the manifold all others are zero."
        )
    edge = PLANE_LIMIT * PLANE_COUNT / (PLANE_COUNT - 1)  # half an image beyond its centers
    grid = np.zeros((PLANE_COUNT**2, codes.shape[1]), "float32")
    grid[:, [first, second]] = latents.plane_codes(edge, PLANE_COUNT)

    figure = Figure(figsize=(8.8, 9.2), layout="constrained")
    axis = figure.subplots()
    mosaic = plotting.mosaic(latents.decode(decoder, grid), PLANE_COUNT)
    axis.imshow(mosaic, cmap="gray", vmin=0, vmax=1, extent=(-edge, edge, -edge, edge))
    axis.set(**plotting.LATENT_AXES)
    figure.suptitle("The manifold: decoded points of the latent plane", fontsize=12)
    plotting.save(
        figure,
        folder / "manifold.png",
        f"The decoder can only generate images on a {codes.shape[1]}-dimensional surface, the"
        " manifold. This is the part of it around the origin. Each image is decoded from the point"
        " at its place in latent.png. Neighbors look alike; where two classes meet, the decoder"
        f" mixes them.{note} Data: {dataset}.",
    )

    figure = Figure(figsize=(7.6, 6), layout="constrained")
    axis = figure.subplots()
    points = codes[:, [first, second]]
    plotting.scatter_classes(axis, points, dataset.y_test, dataset.class_names)
    plotting.draw_prior(axis)
    axis.set(title="The test set in latent space", **plotting.LATENT_AXES)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2.5, frameon=False)
    plotting.save(
        figure,
        folder / "latent.png",
        "The codes (z_mean) of the test images. The encoder has never seen the labels. The circles"
        " hold 39% and 86% of the prior: the codes should fill them, and none should lie far"
        f" outside.{note} Data: {dataset}.",
    )


def plot_reconstructions(folder, decoder, dataset, codes):
    """Plot ten test images and their reconstructions."""
    examples = dataset.examples()
    chosen = list(examples.values())
    rows = {
        "test image": dataset.x_test[chosen],
        "reconstruction": latents.decode(decoder, codes[chosen]),
    }
    plotting.image_grid(
        rows,
        folder / "reconstructions.png",
        title="Test images and their reconstructions",
        caption=f"The decoder is given {codes.shape[1]} numbers for each image. Details that they"
        " cannot hold are averaged over all images with the same numbers, which shows as blur."
        f" Data: {dataset}.",
        column_titles=list(examples),
    )


def plot_samples(folder, settings, decoder, dataset, latent_dim):
    """Plot fifty decoded samples from the prior."""
    rng = np.random.default_rng(training.seed_for(settings.seed, "new"))
    plotting.image_sheet(
        latents.decode(decoder, rng.standard_normal((50, latent_dim), "float32")),
        folder / "new.png",
        title="New images",
        caption="Decoded samples from the prior N(0, 1), not selected. A sample between two classes"
        f" looks a bit like both. Data: {dataset}.",
        columns=10,
    )


def plot_interpolations(folder, decoder, dataset, codes):
    """Plot decoded interpolations between the codes of two test images, for pairs of classes."""
    central = {}  # {class: the code nearest to the median of its codes}
    for label in np.unique(dataset.y_test):
        distances = np.square(codes - np.median(codes[dataset.y_test == label], axis=0)).sum(1)
        central[label] = codes[np.argmin(distances)]
    pairs = list(itertools.pairwise(central))[:4] if dataset.own else CLASS_PAIRS
    steps, names, rows = np.linspace(0, 1, 10)[:, np.newaxis], dataset.class_names, {}
    for start, end in pairs:
        if start in central and end in central:
            label = f"{plotting.shorten(names[start], 24)}\nto {plotting.shorten(names[end], 24)}"
            line = central[start] + steps * (central[end] - central[start])
            rows[label] = latents.decode(decoder, line)
    if rows:
        plotting.image_grid(
            rows,
            folder / "walk.png",
            title="Interpolations in latent space",
            caption="Decoded points on the straight line between the codes of two test images,"
            " each near the median of its class. A line may lead through a third class."
            f" Data: {dataset}.",
        )
