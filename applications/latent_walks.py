"""What a trained encoder and decoder are good for: new images, codes, variations."""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from applications.inputs import output_paths
from common import UserError, files, image_files, metrics, plotting
from common.trained_models import predict

MOST_CODES = 10_000  # in a latent.csv
FARTHEST = 1e6  # from the origin of the latent space, in a latent.csv


def decode(decoder, z):
    """Return the images, shape (n, 28, 28, 1), of codes of shape (n, latent_dim)."""
    return decoder.predict(np.asarray(z, "float32"), batch_size=500, verbose=0)


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
    new = decode(decoder, z)
    for name, image in zip(names, new, strict=True):
        image_files.write_image(folder / f"{name}.png", image)
    columns = min(10, int(np.ceil(np.sqrt(count))))
    caption = f"Decoded samples of the prior N(0, 1), seed {seed}."
    plotting.sheet(new, folder / "sheet.png", f"{count} new images", caption, columns)
    _write_codes(folder / "latent.csv", names, z)


def encode(encoder, decoder, paths, output_dir, vary=None, spread=1.0, seed=0):
    """Write codes, reconstructions and variations of image files.

    Args:
        encoder: (n, 28, 28, 1) to [z_mean, z_log_var, z], each (n, latent_dim).
        decoder: (n, latent_dim) to (n, 28, 28, 1).
        paths: the files; each is fitted into 28x28 pixels.
        output_dir: where latent.csv and the images go; None: a new folder in runs/.
        vary: how many variations of each, z_mean + spread·σ·ε.
        spread: how far they stray, in the encoder's standard deviations σ.
        seed: of the variations.
    """
    folder = files.output_folder(output_dir, "vae_fashion_encoded")
    targets = output_paths(paths, folder, "_reconstruction.png")
    stems = [path.stem for path, _ in targets]
    varied = [f"{stem}_variation_{n:03}.png" for stem in stems for n in range(1, (vary or 0) + 1)]
    files.see_that_free(folder, [f"{stem}_sheet.png" for stem in stems] + varied + ["latent.csv"])
    originals = [fit_square(image_files.read_grey(path), 28) for path, _ in targets]
    z_mean, z_log_var, _ = encoder.predict(np.stack(originals), batch_size=500, verbose=0)
    rebuilt = decode(decoder, z_mean)
    rng, sigma = np.random.default_rng(seed), np.exp(z_log_var / 2)
    for index, (path, target) in enumerate(targets):
        image_files.write_image(target, rebuilt[index])
        row = {"image": originals[index][np.newaxis], "reconstruction": rebuilt[[index]]}
        if vary:
            epsilon = rng.standard_normal((vary, z_mean.shape[1]))
            row["variations"] = decode(decoder, z_mean[index] + spread * sigma[index] * epsilon)
            for number, image in enumerate(row["variations"], start=1):
                name = f"{path.stem}_variation_{number:03}.png"
                image_files.write_image(folder / name, image)
        both = np.concatenate(list(row.values()))
        caption = f"From the left: {', '.join(row)}."
        target = folder / f"{path.stem}_sheet.png"
        plotting.sheet(both, target, path.name, caption, min(len(both), 10))
    _write_codes(folder / "latent.csv", stems, z_mean)


def encode_with_each(parts, paths, output_dir):
    """Write codes and reconstructions of image files by several autoencoders.

    Args:
        parts: {name: (encoder, decoder)}: (n, 28, 28, 1) to (n, size) and back.
        paths: the files; each is fitted into 28x28 pixels.
        output_dir: where a sheet of each file and a CSV file of each autoencoder's codes go; None:
            a new folder in runs/.
    """
    folder = files.output_folder(output_dir, "latent_spaces_encoded")
    targets = output_paths(paths, folder, "_sheet.png")
    files.see_that_free(folder, [f"{name}.csv" for name in parts])
    images = np.stack([fit_square(image_files.read_grey(path), 28) for path, _ in targets])
    rebuilt = {"image": images}
    for name, (encoder, decoder) in parts.items():
        codes = predict(encoder, images)
        rebuilt[name] = np.clip(predict(decoder, codes), 0, 1)
        _write_codes(folder / f"{name}.csv", [path.stem for path, _ in targets], codes)
    for index, (path, target) in enumerate(targets):
        row = [each[index] for each in rebuilt.values()]
        errors = ", ".join(
            f"{name} (MSE {metrics.mse(images[index], each[index]):.4f})"
            for name, each in list(rebuilt.items())[1:]
        )
        caption = f"From the left: the image in 28x28 pixels, {errors}."
        plotting.sheet(np.stack(row), target, path.name, caption, len(row))


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
    files.see_that_free(folder, [f"{name}_decoded.png" for name in names])
    for name, image in zip(names, decode(decoder, codes), strict=True):
        image_files.write_image(folder / f"{name}_decoded.png", image)


def _write_codes(path, names, codes):
    header = ["name", *(f"z_{i + 1}" for i in range(codes.shape[1]))]
    rows = [[name, *map(float, code)] for name, code in zip(names, codes, strict=True)]
    files.write_csv(path, header, rows)
    print(f"Wrote {path}", flush=True)


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


def fit_square(image, side):
    """Return an image, shape (height, width, 1), scaled into a black square of (side, side, 1)."""
    picture = Image.fromarray(image[..., 0])
    picture = ImageOps.pad(picture, (side, side), Image.Resampling.BOX, color=0)
    return np.clip(np.asarray(picture), 0, 1)[..., np.newaxis]
