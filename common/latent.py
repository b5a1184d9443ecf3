"""What a trained encoder and decoder are good for: new images, variations, walks, figures."""

import csv
from pathlib import Path

import numpy as np
from scipy.stats import norm

from common import UserError, images, metrics, plotting, training


def evaluate(encoder, decoder, dataset, z_mean, z_log_var, kl_divergence):
    """Return {row: {metric: value}} on the test images: mean image, PCA and the model.

    Args:
        encoder: (n, 28, 28, 1) to [z_mean, z_log_var, z].
        decoder: (n, latent_dim) to (n, 28, 28, 1).
        dataset: `data.Images`.
        z_mean, z_log_var: what the encoder makes of its test images.
        kl_divergence: function of z_mean and z_log_var, in nats.
    """
    x, pixels = dataset.x_test, dataset.x_test[0].size

    def fidelity(decoded):
        return {
            "reconstruction": pixels * metrics.binary_crossentropy(x, decoded),
            "mse": metrics.mse(x, decoded),
        }

    epsilon = np.random.default_rng(2).standard_normal(z_mean.shape, "float32")
    model = fidelity(_batched(decoder)(z_mean + np.exp(z_log_var / 2) * epsilon))
    kl = float(np.mean(kl_divergence(z_mean, z_log_var)))
    codes = encoder.predict(dataset.x_train, batch_size=500, verbose=0)[0]
    tighter = metrics.importance_weighted_bound(encoder, decoder, x[:1_000])
    rebuilt = metrics.pca(dataset.x_train, x, z_mean.shape[1])
    return {
        # Clipped, or a single pixel that is sure and wrong costs more than all others.
        "mean_image": fidelity(np.clip(dataset.x_train.mean(0), 0.01, 0.99)),
        "pca": fidelity(np.clip(rebuilt, 0.01, 0.99)),
        "model": {
            "negative_elbo": model["reconstruction"] + kl,
            "reconstruction": model["reconstruction"],
            "kl": kl,
            "importance_weighted_bound": tighter,
            "active_dimensions": int(np.sum(z_mean.var(0) > 0.01)),
            "knn_accuracy": metrics.knn_accuracy(codes, dataset.y_train, z_mean, dataset.y_test),
            "mse": model["mse"],
        },
    }


def draw(run, decoder, dataset, codes):
    """Write the figures of a latent space, and the loss curves.

    Args:
        run: the training's `Run`.
        decoder, dataset: as for `evaluate`.
        codes: z_mean of the test images.
    """
    args, footer, folder = run.args, f"Data: {dataset}.", run.folder
    decode = _batched(decoder)
    x, y, names = dataset.x_test, dataset.y_test, dataset.class_names
    few = dataset.first_of_each_class()
    rows = {"test image": x[few], "reconstruction": decode(codes[few])}
    caption = (
        f"Each image is told to the decoder in {codes.shape[1]} numbers. What they can't carry, "
        f"prints, straps, laces, comes back as the mean over all images with the same numbers: "
        f"blurred.\n{footer}"
    )
    title = "Test images and their reconstructions"
    plotting.image_rows(
        rows, folder / "reconstructions.png", title, caption, args.show, heads=names
    )

    # The two dimensions that say most; all others stay at zero.
    first, second = sorted(np.argsort(codes.var(0))[::-1][:2])
    which = (
        ""
        if codes.shape[1] <= 2
        else f" Of the {codes.shape[1]} dimensions the two most active ones are shown, {first + 1} "
        f"and {second + 1}; in the manifold all others are zero."
    )
    quantiles = norm.ppf(np.linspace(0.05, 0.95, 20))
    grid = np.zeros((400, codes.shape[1]), "float32")
    grid[:, second] = np.repeat(quantiles[::-1], 20)
    grid[:, first] = np.tile(quantiles, 20)
    caption = (
        "Each image is a decoded point; the points are the prior's quantiles from 5% to 95% in "
        "both directions, so that equal areas of the figure are equally likely. Neighbours look "
        f"alike; where two kinds meet, the decoder mixes them.{which}\n{footer}"
    )
    title = "The manifold: what the decoder makes of each place"
    plotting.sheet(decode(grid), 20, folder / "manifold.png", title, caption, args.show)
    caption = (
        "Where the encoder puts the test images (z_mean). It has never seen the labels. The "
        "circles hold 39% and 86% of what the prior draws: the cloud should fill them, and nothing "
        f"should lie far outside.{which}\n{footer}"
    )
    title = "The test set in latent space"
    plane = codes[:, [first, second]]
    plotting.scatter(plane, y, names, folder / "latent.png", title, caption, args.show)

    drawn = np.random.default_rng(args.seed).standard_normal((50, codes.shape[1]), "float32")
    caption = (
        "Decoded draws from the prior N(0, 1), none of them chosen. A draw between two kinds "
        f"is a bit of both.\n{footer}"
    )
    plotting.sheet(decode(drawn), 10, folder / "new.png", "New images", caption, args.show)
    middles = [np.median(codes[y == label], axis=0) for label in range(len(names))]
    few = [int(np.argmin(((codes - middle) ** 2).sum(1))) for middle in middles]
    steps = np.linspace(0, 1, 10)[:, None]
    rows = {
        f"{names[a]}\nto {names[b]}": decode(
            codes[few[a]] + steps * (codes[few[b]] - codes[few[a]])
        )
        for a, b in [(7, 9), (1, 3), (0, 2), (5, 8)]
    }
    caption = (
        "Decoded points on the straight line between the codes of two test images, each one from "
        f"the middle of its class. The way may lead through a third kind.\n{footer}"
    )
    title = "Walks through latent space"
    plotting.image_rows(rows, folder / "walk.png", title, caption, args.show)
    run.draw_history("negative ELBO (nats per image)" if args.beta == 1 else "loss (nats)")


def _batched(decoder):
    return lambda z: decoder.predict(np.asarray(z, "float32"), batch_size=500, verbose=0)


def generate(decoder, count, seed, folder):
    """Write `count` decoded draws from the prior as PNG files, and one sheet of them all."""
    dimensions = decoder.input_shape[1]
    z = np.random.default_rng(seed).standard_normal((count, dimensions), "float32")
    new = _batched(decoder)(z)
    for number, image in enumerate(new, start=1):
        images.write_image(folder / f"new_{number:03}.png", image)
    columns = min(10, int(np.ceil(np.sqrt(count))))
    caption = "Decoded draws from the prior N(0, 1)."
    plotting.sheet(new, columns, folder / "sheet.png", f"{count} new images", caption)
    _write_vectors(folder / "latent.csv", [f"new_{i:03}" for i in range(1, count + 1)], z)


def encode(encoder, decoder, paths, folder, vary=None, spread=1.0, seed=0):
    """Write latent vectors, reconstructions and variations of image files.

    Args:
        encoder, decoder: as for `evaluate`.
        paths: the files; each is fitted into 28x28 pixels.
        folder: where latent.csv and the images go.
        vary: variations of each, z_mean + spread·σ·ε.
        spread: how far they stray, in the encoder's standard deviations σ.
        seed: of the variations.
    """
    targets = images.targets(paths, folder, "_reconstruction.png")
    originals = np.stack([images.fit_square(images.read_grey(path), 28) for path, _ in targets])
    z_mean, z_log_var, _ = encoder.predict(originals, batch_size=500, verbose=0)
    decode = _batched(decoder)
    rebuilt = decode(z_mean)
    rng, sigma = np.random.default_rng(seed), np.exp(z_log_var / 2)
    for index, (path, target) in enumerate(targets):
        images.write_image(target, rebuilt[index])
        row = {"image": originals[[index]], "reconstruction": rebuilt[[index]]}
        if vary:
            epsilon = rng.standard_normal((vary, z_mean.shape[1]))
            varied = decode(z_mean[index] + spread * sigma[index] * epsilon)
            for number, image in enumerate(varied, start=1):
                images.write_image(folder / f"{path.stem}_variation_{number:03}.png", image)
            row["variations"] = varied
        both = np.concatenate(list(row.values()))
        caption = f"From the left: {', '.join(row)}."
        sheet = folder / f"{path.stem}_sheet.png"
        plotting.sheet(both, min(len(both), 10), sheet, path.name, caption)
    _write_vectors(folder / "latent.csv", [path.stem for path, _ in targets], z_mean)


def _write_vectors(path, names, vectors):
    with images.write_whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *(f"z_{i + 1}" for i in range(vectors.shape[1]))])
        for name, vector in zip(names, vectors, strict=True):
            writer.writerow([name, *(repr(float(value)) for value in vector)])
    print(f"Wrote {path}", flush=True)


def decode_file(decoder, path, folder):
    """Write the images of the latent vectors in a latent.csv.

    Raises:
        UserError: the file is missing, or a line does not hold a name and the right count of
            numbers.
    """
    dimensions = decoder.input_shape[1]
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    names, vectors = [], []
    for number, line in enumerate(lines[1:], start=2):
        try:
            name, *values = line
            vector = [float(value) for value in values]
        except ValueError:
            name, vector = "", []
        if len(vector) != dimensions or not np.isfinite(vector).all() or Path(name).name != name:
            raise UserError(
                f"{path}, line {number}: not a name and the {dimensions} numbers this decoder takes"
            )
        names.append(name)
        vectors.append(vector)
    if not vectors:
        raise UserError(f"{path}: no latent vectors; the first line is for column names")
    for name, image in zip(names, _batched(decoder)(vectors), strict=True):
        images.write_image(folder / f"{name}_decoded.png", image)
    print(f"Wrote {len(names)} images into {folder}", flush=True)


def use(args, model):
    """Do what --generate, --input and --decode ask for with a trained model."""
    if args.generate:
        folder = training.output_folder(args, "generated")
        generate(model.decoder, args.generate, args.seed, folder)
    if args.input:
        folder = training.output_folder(args, "encoded")
        encode(model.encoder, model.decoder, args.input, folder, args.vary, args.spread, args.seed)
    if args.decode:
        folder = training.output_folder(args, "decoded")
        decode_file(model.decoder, args.decode, folder)
