"""Test metrics, baselines and figures for latent_spaces.py."""

import numpy as np
from matplotlib.figure import Figure
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial.distance import pdist
from scipy.stats import chi2
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin_min

from common import files, metrics, plotting, training

JACOBIAN_IMAGES = 500  # test images to compute the Jacobian for
PLANE_SAMPLES = 2_000  # points, and codes, to measure the gaps of a latent plane with
LABELS = {  # row labels in autoencoders.png
    "PCA 32": "PCA, 32",
    "linear_32": "linear, 32",
    "plain_32": "plain, 32",
    "sparse": "sparse, 51 of 1,024",
    "copying": "all 1,024",
    "contractive": "contractive, 128",
    "uncontracted": "not contracted, 128",
    "variational_32": "variational, 32",
}


def report(folder, settings, digits, models, halves, training_log):
    """Measure all models on the test set, write figures and reports, and print the table.

    Args:
        folder: the run folder.
        settings: the script's `Train`.
        digits: `data.Images`.
        models: {name of the experiment: its model}.
        halves: {name: (encoder, decoder)}.
        training_log: {name: {loss, val_loss, seconds}} of the trainings.
    """
    print(f"Evaluating on {len(digits.x_test):,} test images ...", flush=True)
    x = digits.x_test
    reconstructed = {name: np.asarray(model(x)) for name, model in models.items()}
    pca = PCA(svd_solver="covariance_eigh").fit(digits.x_train.reshape(len(digits.x_train), -1))
    sizes = [int(name.split("_")[1]) for name in models if name.startswith("plain_")]
    for size in (*sizes, 51):  # 51: as many as the sparse autoencoder's active units
        reconstructed[f"PCA {size}"] = reconstruct(pca, x, size)
    results = metrics.compare(x, reconstructed, [metrics.mse, metrics.psnr])
    for name in ("linear_2", "linear_32"):
        results[name]["angle_to_pca"] = angle_to_pca(models[name], pca)
    for name in ("sparse", "copying"):
        results[name] |= sparsity(halves[name][0], x)
    spectra = {}
    for name in ("contractive", "uncontracted"):
        kernel = models[name].get_layer("tied").get_weights()[0]
        spectra[name], contraction = measure_contraction(halves[name][0], kernel, x)
        results[name] |= contraction
    planes = {name: halves[name] for name in ("plain_2", "variational_2")}
    for name, (encoder, decoder) in planes.items():
        results[name] |= measure_plane(encoder, decoder, digits)

    plot_planes(folder, planes, digits, results)
    plot_autoencoders(folder, halves, reconstructed, digits, pca, results)
    plot_errors(folder, sizes, digits, results)
    plot_components(folder, models["linear_32"], digits, pca, results)
    plot_spectra(folder, spectra, digits, results)
    networks = {
        name: {"parameters": model.count_params(), **training_log[name], "test": results[name]}
        for name, model in models.items()
    }
    files.write_json(folder / "networks.json", networks)
    training.report(
        folder, settings, models["plain_32"], digits, results, row="plain_32", networks=models
    )


# ---------------------------------------------------------------- metrics of codes


def reconstruct(pca, images, count):
    """Return images reconstructed from their first `count` principal components."""
    axes = pca.components_[:count]
    projected = (images.reshape(len(images), -1) - pca.mean_) @ axes.T
    return (projected @ axes + pca.mean_).reshape(images.shape)


def angle_to_pca(model, pca):
    """Return the largest angle in degrees between the linear autoencoder's subspace and PCA's."""
    rows = model.get_layer("rows").get_weights()[0]
    angles = subspace_angles(rows.T, pca.components_[: len(rows)].T)
    return float(np.degrees(angles.max()))


def sparsity(encoder, images):
    """Return the mean share of units that are nonzero, and the share that never are."""
    active = np.asarray(encoder(images)) != 0
    return {"active_units": float(active.mean()), "dead_units": float(1 - active.any(0).mean())}


def measure_contraction(encoder, kernel, images):
    """Return the encoder's mean singular values and {metric: value} on the first images.

    Args:
        encoder: (n, 28, 28, 1) to sigmoid(x·W + b), shape (n, units).
        kernel: W, shape (pixels, units).
        images: shape (n, 28, 28, 1).

    Returns:
        The singular values of the Jacobian, shape (units,), largest first, averaged over images.
        A dict: `jacobian`, its mean Frobenius norm; `jacobian_normalized`, that norm divided by the
        mean distance between codes; `movement`, the mean change of a code under noise of σ = 0.1,
        divided by the same distance.
    """
    images = images[:JACOBIAN_IMAGES]
    h = np.asarray(encoder(images))
    # J = diag(h(1 - h))·Wᵀ; the eigenvalues of J·Jᵀ are the squares of its singular values.
    slopes = h * (1 - h)
    squares = np.linalg.eigvalsh(slopes[:, :, None] * (kernel.T @ kernel) * slopes[:, None, :])
    singular = np.sqrt(np.maximum(squares[:, ::-1], 0))
    norm, distance = float(np.sqrt((singular**2).sum(1)).mean()), float(pdist(h).mean()) + 1e-12
    rng = np.random.default_rng(training.seed_for("test"))
    noisy = images + rng.normal(0, 0.1, images.shape).astype("float32")
    movement = np.linalg.norm(np.asarray(encoder(noisy)) - h, axis=1).mean()
    return singular.mean(0), {
        "jacobian": norm,
        "jacobian_normalized": norm / distance,
        "movement": float(movement) / distance,
    }


def measure_plane(encoder, decoder, digits):
    """Return `gaps`, `knn_accuracy` and `in_prior` of a two-dimensional latent space.

    gaps: the share of places, uniform over the ellipse that holds 95% of the codes, whose decoded
    image is farther from every training image than 95% of test reconstructions are.
    knn_accuracy: how often the 10 nearest training codes predict the class.
    in_prior: the share of test codes in the circle that holds 95% of the prior N(0, 1).

    Args:
        encoder: (n, 28, 28, 1) to (n, 2).
        decoder: (n, 2) to (n, 28, 28, 1).
        digits: `data.Images`.
    """
    rng = np.random.default_rng(training.seed_for("test"))
    train_codes, codes = (np.asarray(encoder(x)) for x in (digits.x_train, digits.x_test))
    mean, root = codes.mean(0), covariance_root(codes)
    radii = np.linalg.norm(np.linalg.solve(root, (codes - mean).T), axis=0)
    angle = rng.uniform(0, 2 * np.pi, PLANE_SAMPLES)
    radius = np.quantile(radii, 0.95) * np.sqrt(rng.uniform(size=PLANE_SAMPLES))
    places = (root @ (radius * [np.cos(angle), np.sin(angle)])).T + mean
    sample = codes[rng.permutation(len(codes))[:PLANE_SAMPLES]]
    in_between, reconstructions = (
        distance_to_nearest(np.asarray(decoder(z)), digits.x_train) for z in (places, sample)
    )
    return {
        "gaps": float(np.mean(in_between > np.quantile(reconstructions, 0.95))),
        "knn_accuracy": metrics.knn_accuracy(train_codes, digits.y_train, codes, digits.y_test),
        "in_prior": float(np.mean(np.square(codes).sum(1) < chi2.ppf(0.95, df=2))),
    }


def covariance_root(codes):
    """Return L, where L·Lᵀ is the covariance of codes, shape (n, 2), even if they lie on a line."""
    return np.linalg.cholesky(np.cov(codes.T) + 1e-12 * np.eye(2))


def distance_to_nearest(images, others):
    """Return each image's root mean square distance to the nearest of the others, shape (n,)."""
    images, others = (x.reshape(len(x), -1) for x in (images, others))
    return pairwise_distances_argmin_min(images, others)[1] / np.sqrt(images.shape[1])


# ---------------------------------------------------------------- figures


def plot_planes(folder, planes, digits, results):
    """Plot latent planes side by side: codes by class, the same region decoded, and samples."""
    label_length = max(len(plotting.shorten(name, 20)) for name in digits.class_names)
    figure = Figure(
        figsize=(3.7 * len(planes) + 0.9 + 0.1 * label_length, 11), layout="constrained"
    )
    axes = figure.subplots(3, len(planes))
    figure.suptitle("Three weaknesses of a plain latent space", fontsize=12)
    samples = np.random.default_rng(training.seed_for("prior")).standard_normal((144, 2), "float32")
    for (above, middle, below), (name, (encoder, decoder)) in zip(
        axes.T, planes.items(), strict=True
    ):
        codes = np.asarray(encoder(digits.x_test))
        low, high = np.quantile(codes, [0.025, 0.975], axis=0)
        grid = np.stack(np.meshgrid(*np.linspace(low, high, 16).T), axis=-1)[::-1]
        images = np.asarray(decoder(grid.reshape(-1, 2)))
        plotting.scatter_classes(above, codes[:3_000], digits.y_test[:3_000], digits.class_names)
        title = f"{name.split('_')[0]}\n10 nearest: {results[name]['knn_accuracy']:.0%}"
        above.set(title=title, xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="auto")
        region = (low[0], high[0], low[1], high[1])
        middle.imshow(plotting.mosaic(images, 16), cmap="gray", vmin=0, vmax=1, extent=region)
        title = f"gaps: {results[name]['gaps']:.0%}"
        middle.set(title=title, aspect="auto", **plotting.LATENT_AXES)
        decoded = plotting.mosaic(np.asarray(decoder(samples)), 12)
        below.imshow(decoded, cmap="gray", vmin=0, vmax=1)
        below.set(title=f"codes within the prior: {results[name]['in_prior']:.0%}")
        below.set_axis_off()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", markerscale=2.5, frameon=False)
    plotting.save(
        figure,
        folder / "planes.png",
        "Top, separability: codes of test images, the central 95% along each axis. '10 nearest' is"
        " how often the 10 nearest training codes predict the class; training used no labels."
        " Middle, gaps: the same region, decoded; the share of places whose image is farther from"
        " every training image than 95% of test reconstructions are. Bottom, sampling: decoded"
        " samples of N(0, 1), and the share of codes in the circle that holds 95% of it. Nothing"
        " tells a plain autoencoder where to put its codes, so no distribution is known to sample"
        f" from. Data: {digits}.",
    )


def around_gray(changes):
    """Return changes, shape (n, 28, 28, 1), each scaled into [0, 1] with zero at 0.5."""
    return 0.5 + changes / np.maximum(2 * abs(changes).max((1, 2, 3), keepdims=True), 1e-6)


def unit_effects(encoder, decoder, images, count):
    """Return how the mean image changes when one unit rises by its standard deviation.

    The units are those of medium variance; constant units are left out.

    Returns:
        Images, shape (n, 28, 28, 1) with n at most `count`, from `around_gray`.
    """
    codes = np.asarray(encoder(images))
    mean, step = codes.mean(0), codes.std(0)
    varying = np.argsort(step)[np.count_nonzero(step == 0) :]
    units = varying[max(0, (len(varying) - count) // 2) :][:count]
    moved = np.repeat(mean[np.newaxis], len(units), axis=0)
    moved[np.arange(len(units)), units] += step[units]
    return around_gray(np.asarray(decoder(moved)) - np.asarray(decoder(mean[np.newaxis])))


def plot_autoencoders(folder, halves, reconstructed, digits, pca, results):
    """Plot a row for each autoencoder: reconstructions, and what single units represent."""
    examples = digits.examples(8)
    chosen = list(examples.values())
    count = len(chosen)  # a small test set has fewer
    rows = {"input": [*digits.x_test[chosen], *[None] * (1 + count)]}
    for name, label in LABELS.items():
        if name in halves:
            encoder, decoder = halves[name]
            units = list(unit_effects(encoder, decoder, digits.x_test[:1_000], count))
            units += [None] * (count - len(units))
        else:
            units = around_gray(pca.components_[:count].reshape(count, 28, 28, 1))
        images = np.clip(reconstructed[name][chosen], 0, 1)
        rows[f"{label}\nMSE {results[name]['mse']:.4f}"] = [*images, None, *units]
    plotting.image_grid(
        rows,
        folder / "autoencoders.png",
        title="Test images, their reconstructions, and what single units represent",
        caption="Right: how the mean image changes when one unit of medium variance rises, white"
        " where it gets brighter, black where it gets darker; of PCA, the first components. Once"
        " trained, units of the sparse autoencoder are strokes. With all its units active the same"
        f" network just copies, and its units represent no feature. Data: {digits}.",
        column_titles=[*examples, "", "units", *[""] * (count - 1)],
        cell=0.55,
    )


def plot_errors(folder, sizes, digits, results):
    """Plot the error against the size of the bottleneck."""
    names = {"PCA": "PCA {}", "linear": "linear_{}", "plain": "plain_{}"}
    plotting.plot_lines(
        {
            label: (sizes, [results[name.format(size)]["mse"] for size in sizes])
            for label, name in names.items()
        },
        folder / "error.png",
        title="Error against the size of the bottleneck",
        caption="Trained for long enough, the linear autoencoder has PCA's error, the lowest that a"
        " linear one can have. The plain one needs fewer numbers for the same error, until there"
        f" are so many that the short training limits it. Data: {digits}.",
        xlabel="numbers in the code",
        ylabel="MSE on test images",
        xscale="log",
    )


def plot_components(folder, model, digits, pca, results):
    """Plot the linear autoencoder's basis beside the principal components."""
    rows = model.get_layer("rows").get_weights()[0]
    components = pca.components_[: len(rows)]
    # An orthonormal basis of the same subspace, then the rotation that brings it closest to PCA's.
    basis = np.linalg.svd(rows, full_matrices=False)[2]
    aligned = orthogonal_procrustes(basis.T, components.T)[0].T @ basis
    axes = {"its own axes": rows, "aligned": aligned, "PCA": components}
    plotting.image_grid(
        {label: around_gray(x[:8].reshape(-1, 28, 28, 1)) for label, x in axes.items()},
        folder / "components.png",
        title="The linear autoencoder's axes and principal components",
        caption="First row: what the first numbers of its code represent, mixtures of components."
        " Second row: the same subspace, after orthogonal Procrustes alignment. Third row:"
        " principal components. Trained for long enough, both span the same subspace; here the"
        f" largest angle between the two is {results['linear_32']['angle_to_pca']:.2f}°. Data:"
        f" {digits}.",
    )


def plot_spectra(folder, spectra, digits, results):
    """Plot the Jacobian's singular values with and without the penalty."""
    plotting.plot_lines(
        {
            f"{LABELS[name]}, MSE {results[name]['mse']:.4f}": (np.arange(1, 1 + len(s)), s)
            for name, s in spectra.items()
        },
        folder / "jacobian.png",
        title="How much a code changes with the image",
        caption="Singular values of the encoder's Jacobian, averaged over"
        f" {min(JACOBIAN_IMAGES, len(digits.x_test))} test images. The penalty lowers all of them,"
        f" so a code changes less with the image. Data: {digits}.",
        xlabel="index of the singular value",
        ylabel="mean over images",
    )
