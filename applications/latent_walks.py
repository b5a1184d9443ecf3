"""What a trained encoder and decoder are good for: new images, codes, variations."""

import csv
import io
import math
from pathlib import Path

import numpy as np

from applications import small_images
from applications.inputs import FIGURE_ENDINGS, output_paths
from common import UserError, files, image_files, metrics, plotting
from common.trained_models import predict

MOST_CODES = 10_000  # in a latent.csv
FARTHEST = 1e6  # from the origin of the latent space, in a latent.csv
STRAY = 0.25  # of variations, in standard deviations of the prior


def plane(decoder, reach, count):
    """Return `count` times `count` decoded images in one, evenly over a latent plane.

    Args:
        decoder: (n, 2) to (n, 28, 28, 1).
        reach: z_1 from left to right, and z_2 from bottom to top, go from -reach to reach.
        count: images along each.

    Returns:
        float32 in [0, 1], shape (28 * count, 28 * count).
    """
    steps = reach * (np.arange(count) + 0.5 - count / 2) / (count / 2)
    z = np.stack(np.meshgrid(steps, steps[::-1]), -1).reshape(-1, 2)
    return plotting.mosaic(predict(decoder, z), count)


def generate(decoder, count, seed, output_dir):
    """Write `count` decoded samples of the prior as PNG files, one sheet of them all, their codes.

    Args:
        decoder: (n, latent_dim) to (n, 28, 28, 1).
        count: how many.
        seed: the same seed gives the same images.
        output_dir: where they go; None: a new folder in runs/.
    """
    folder = files.output_folder(output_dir, "vae_fashion_generated")
    names = [f"new_{number:03}" for number in range(1, count + 1)]
    files.see_that_free(folder, [f"{name}.png" for name in names] + ["sheet.png", "latent.csv"])
    z = np.random.default_rng(seed).standard_normal((count, decoder.input_shape[1]), "float32")
    new = predict(decoder, z)
    for name, image in zip(names, new, strict=True):
        image_files.write_image(folder / f"{name}.png", image)
    caption = f"Decoded samples of the prior N(0, 1), seed {seed}."
    _sheet(new, folder / "sheet.png", f"{count} new images", caption, names)
    _write_codes(folder / "latent.csv", names, z)


def _sheet(images, path, title, caption, labels):
    """Write all images on one sheet, with labels while they are few enough to be read."""
    columns = max(min(10, math.ceil(len(images) ** 0.5)), math.ceil((len(images) / 4) ** 0.5))
    labels = labels if len(images) <= 200 else ()
    plotting.sheet(images, path, title, caption, columns, labels=labels)


def encode(model, paths, output_dir, known, invert=True, vary=0, spread=None, seed=0):
    """Write codes, reconstructions and variations of image files.

    Args:
        model: has `encoder`, (n, 28, 28, 1) to [z_mean, z_log_var, z], each (n, latent_dim), and
            `decoder`, (n, latent_dim) to (n, 28, 28, 1).
        paths: the files; each becomes 28x28 pixels.
        output_dir: where latent.csv and the images go; None: a new folder in runs/.
        known: of `inputs.known_of`.
        invert: whether a picture of another ground than the training images' is inverted.
        vary: how many variations of each.
        spread: how far they stray, in the encoder's standard deviations: z_mean + spread·σ·ε. None:
            so far that they differ, see `vary_widely`.
        seed: of the variations.
    """
    targets = output_paths(paths, output_dir, "vae_fashion_encoded")
    folder = targets[0][1].parent
    stems = [path.stem for path, _ in targets]
    varied = [f"{stem}_variation_{n:03}.png" for stem in stems for n in range(1, vary + 1)]
    names = [target.name for _, target in targets] + [f"{stem}_sheet.png" for stem in stems]
    files.see_that_free(folder, [*names, *varied, "latent.csv"])
    originals = np.stack([small_images.read_small(path, known, invert)[0] for path, _ in targets])
    z_mean, z_log_var, _ = model.encoder.predict(originals, batch_size=500, verbose=0)
    rebuilt, rng = predict(model.decoder, z_mean), np.random.default_rng(seed)
    for index, (path, target) in enumerate(targets):
        small_images.warn_if_unlike(path, originals[index], [rebuilt[index]], [known])
        image_files.write_image(target, rebuilt[index])
        images, labels = [originals[index], rebuilt[index]], ["image", "rebuilt"]
        if vary and spread is None:
            images += vary_widely(model.decoder, z_mean[index], vary, rng)
        elif vary:
            epsilon = rng.standard_normal((vary, z_mean.shape[1]))
            sigma = np.exp(z_log_var[index] / 2)
            images += [*predict(model.decoder, z_mean[index] + spread * sigma * epsilon)]
        for number, image in enumerate(images[2:], start=1):
            name = f"{path.stem}_variation_{number:03}.png"
            image_files.write_image(folder / name, image)
            labels.append(f"variation {number}")
        caption = "The image as the model is given it, what it makes of it"
        caption += ", and decoded codes near its own." if vary else "."
        target = folder / f"{path.stem}_sheet.png"
        _sheet(np.stack(images), target, path.name, caption, labels)
    _write_codes(folder / "latent.csv", stems, z_mean)


def vary_widely(decoder, z, count, rng):
    """Return a list of `count` images, decoded from codes near `z`, that differ.

    Of ten times as many codes, z + STRAY·ε, the next one is always that whose image is farthest
    from the nearest of those chosen before and of that of z itself.
    """
    codes = z + STRAY * rng.standard_normal((min(10 * count, 2_000 + count), len(z)))
    images = predict(decoder, np.concatenate([z[np.newaxis], codes]))
    chosen, nearest = [0], np.full(len(images), np.inf)
    for _ in range(count):
        distance = np.square(images - images[chosen[-1]]).mean((1, 2, 3))
        nearest = np.minimum(nearest, distance)
        nearest[chosen[-1]] = -1
        chosen.append(int(nearest.argmax()))
    return [images[number] for number in chosen[1:]]


def encode_with_each(parts, paths, output_dir, known, invert=True):
    """Write codes and reconstructions of image files by several autoencoders.

    Args:
        parts: {name: (encoder, decoder)}: (n, 28, 28, 1) to (n, size) and back.
        paths: the files; each becomes 28x28 pixels.
        output_dir: where a sheet of each file and a CSV file of each autoencoder's codes go; None:
            a new folder in runs/.
        known: [of `inputs.known_of`, for each autoencoder]; they were trained on the same images.
        invert: whether a picture of another ground than the training images' is inverted.
    """
    targets = output_paths(paths, output_dir, "latent_spaces_encoded", FIGURE_ENDINGS)
    folder = targets[0][1].parent
    files.see_that_free(folder, [f"{name}.csv" for name in parts])
    images = [small_images.read_small(path, known[0], invert)[0] for path, _ in targets]
    images = np.stack(images)
    codes, rebuilt = rebuild_with_each(parts, images)
    for name in parts:
        _write_codes(folder / f"{name}.csv", [target.name for _, target in targets], codes[name])
    for index, (path, target) in enumerate(targets):
        row = [each[index] for each in rebuilt.values()]
        small_images.warn_if_unlike(path, images[index], row, known)
        errors = [
            f"{name} {metrics.mse(images[index], each[index]):.4f}"
            for name, each in rebuilt.items()
        ]
        caption = f"The image in 28x28 pixels and its reconstructions. MSE: {', '.join(errors)}."
        labels = ["image", *rebuilt]
        plotting.sheet(
            np.stack([images[index], *row]), target, path.name, caption, len(labels), labels=labels
        )


def rebuild_with_each(parts, images):
    """Return ({name: codes}, {name: reconstructions}) of images, shape (n, 28, 28, 1).

    `parts` is as for `encode_with_each`.
    """
    codes = {name: predict(encoder, images) for name, (encoder, _) in parts.items()}
    rebuilt = {
        name: np.clip(predict(decoder, codes[name]), 0, 1) for name, (_, decoder) in parts.items()
    }
    return codes, rebuilt


def decode_file(decoder, path, output_dir):
    """Write the images of the codes in a latent.csv.

    Args:
        decoder: (n, latent_dim) to (n, 28, 28, 1).
        path: a file as `generate` and `encode` write it.
        output_dir: where the images go; None: a new folder in runs/.

    Raises:
        UserError: the file is missing, or a line does not hold a name and the right count of
            numbers.
    """
    names, codes = _read_codes(Path(path), decoder.input_shape[1])
    folder = files.output_folder(output_dir, "vae_fashion_decoded")
    files.see_that_free(folder, [f"{name}.png" for name in names])
    for name, image in zip(names, predict(decoder, codes), strict=True):
        image_files.write_image(folder / f"{name}.png", image)


def _write_codes(path, names, codes):
    header = ["name", *(f"z_{i + 1}" for i in range(codes.shape[1]))]
    rows = [[name, *map(float, code)] for name, code in zip(names, codes, strict=True)]
    files.write_csv(path, header, rows)
    print(f"Wrote {files.printable(path)}", flush=True)


def _read_codes(path, dimensions):
    content = files.read(path, "; --decode wants a latent.csv")
    try:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        lines = list(csv.reader(text))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if len(lines) > MOST_CODES:
        raise UserError(f"{path}: has more than {MOST_CODES:,} lines; split it")
    names, codes = {}, []
    for number, line in enumerate(lines, start=1):
        if not any(map(str.strip, line)):
            continue
        if number == 1:
            if line[0] != "name":
                raise UserError(f"{path}, line 1: not name, z_1, z_2, …; add such a line of names")
            continue
        try:
            name, code = line[0], [float(value) for value in line[1:]]
        except ValueError:
            name, code = "", []
        usable = Path(name).name == name and name.isprintable()
        if len(code) != dimensions or not np.isfinite(code).all() or not usable:
            raise UserError(
                f"{path}, line {number}: not a name and the {dimensions} numbers this decoder takes"
            )
        if max(map(abs, code)) > FARTHEST:
            raise UserError(f"{path}, line {number}: a number above {FARTHEST:g}")
        if not name or name in names:
            raise UserError(f"{path}, line {number}: each line needs a name of its own")
        names[name] = number
        codes.append(code)
    if not codes:
        raise UserError(f"{path}: no codes; the first line is for column names")
    return list(names), codes
