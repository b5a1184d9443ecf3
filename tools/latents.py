"""Using a trained encoder and decoder: generate, encode, vary, decode."""

import csv
import io
import math
import secrets
from pathlib import Path

import numpy as np

from common import files, images, metrics, plotting
from common.cli import UserError
from tools import small_images

SPREAD = 0.25  # of varied codes, in standard deviations of the prior
MAX_LABELED = 200  # images on a sheet; with more, the labels would be too small to read


def decode(decoder, codes):
    """Return the images of codes, shape (n, latent_dim), 500 at a time.

    Keras's `predict` would first compile the model, which takes longer than running a small one.
    """
    parts = [codes[start : start + 500] for start in range(0, len(codes), 500)]
    return np.concatenate([np.asarray(decoder(part)) for part in parts])


def plane_codes(limit, count):
    """Return codes, shape (count * count, 2), evenly over a latent plane, row by row.

    z_1 from left to right, and z_2 from bottom to top, go from -limit to limit.
    """
    steps = limit * ((2 * np.arange(count) + 1) / count - 1)
    return np.stack(np.meshgrid(steps, steps[::-1]), axis=-1).reshape(-1, 2)


def generate(decoder, count, seed, output_dir):
    """Write decoded samples of the prior as PNG files, all of them on a sheet, and their codes."""
    seed = new_seed() if seed is None else seed
    folder = files.output_folder(output_dir, "vae_fashion_generated")
    names = [f"new_{number:03}" for number in range(1, count + 1)]
    files.ensure_not_taken(folder, [f"{name}.png" for name in names] + ["sheet.png", "latent.csv"])
    z = np.random.default_rng(seed).standard_normal((count, decoder.input_shape[1]), "float32")
    new = decode(decoder, z)
    for name, image in zip(names, new, strict=True):
        images.write_image(folder / f"{name}.png", image)
    caption = f"Decoded samples of the prior N(0, 1), seed {seed}."
    write_contact_sheet(new, folder / "sheet.png", f"{count} new images", caption, names)
    write_codes(folder / "latent.csv", names, z)


def new_seed():
    """Draw, print and return a random seed."""
    seed = secrets.randbelow(2**32)
    print(f"Seed {seed}", flush=True)
    return seed


def write_contact_sheet(sheet, path, title, caption, labels):
    """Plot images, shape (n, 28, 28, 1), about as many across as down, at most four to one."""
    columns = max(min(10, math.ceil(len(sheet) ** 0.5)), math.ceil((len(sheet) / 4) ** 0.5))
    plotting.image_sheet(
        sheet,
        path,
        title=title,
        caption=caption,
        columns=columns,
        labels=labels if len(sheet) <= MAX_LABELED else (),
    )


def encode(model, dataset_name, settings):
    """Write codes, reconstructions and variations of image files.

    The model has `encoder`, (n, 28, 28, 1) to [z_mean, z_log_var, z], and `decoder`; the name is
    what it was trained on, see `training.trained_on`. `settings` is vae_fashion.py's `Apply`.
    """
    outputs = images.output_paths(settings.input, settings.output_dir, "vae_fashion_encoded")
    folder, stems = outputs[0][1].parent, [target.stem for _, target in outputs]
    numbers = range(1, settings.vary + 1)
    names = [target.name for _, target in outputs] + [f"{stem}_sheet.png" for stem in stems]
    names += [f"{stem}_variation_{number:03}.png" for stem in stems for number in numbers]
    if settings.vary:
        names += [f"{stem}_variations.png" for stem in stems]
    files.ensure_not_taken(folder, [*names, "latent.csv"])
    seed = new_seed() if settings.vary and settings.seed is None else settings.seed
    rng, codes = np.random.default_rng(seed), []
    for path, target in outputs:
        picture = images.read_visible(path)
        prepared, _ = small_images.prepare(picture, dataset_name, not settings.no_invert)
        z_mean, z_log_var, _ = (np.asarray(part)[0] for part in model.encoder(prepared[np.newaxis]))
        codes.append(z_mean)
        [result] = decode(model.decoder, z_mean[np.newaxis])
        images.write_image(target, result)
        sheet = folder / f"{target.stem}_sheet.png"
        small_images.write_sheet(sheet, picture, prepared, {"reconstruction": result})
        if not settings.vary:
            continue
        if settings.spread is None:
            varied = vary_widely(model.decoder, z_mean, settings.vary, rng)
            caption = "Codes around the image's own, so far apart that they differ (see --spread)."
        else:
            caption = f"Codes around the image's own, --spread {settings.spread:g}."
            epsilon = rng.standard_normal((settings.vary, len(z_mean)))
            z = z_mean + settings.spread * np.exp(z_log_var / 2) * epsilon
            varied = decode(model.decoder, z)
        for number, image in zip(numbers, varied, strict=True):
            images.write_image(folder / f"{target.stem}_variation_{number:03}.png", image)
        write_contact_sheet(
            np.stack(varied),
            folder / f"{target.stem}_variations.png",
            f"Variations of {files.printable(path.name)}",
            f"{caption} Seed {seed}.",
            [f"{number}" for number in numbers],
        )
    write_codes(folder / "latent.csv", stems, np.stack(codes))


def vary_widely(decoder, z, count, rng):
    """Return a list of `count` images, decoded from codes near `z`, that differ.

    Farthest-point sampling chooses them from ten times as many codes, z + SPREAD·ε: the next one is
    always the one whose image is farthest from the nearest of z's own and those chosen before.
    """
    codes = z + SPREAD * rng.standard_normal((min(10 * count, 2_000 + count), len(z)))
    candidates = decode(decoder, np.concatenate([z[np.newaxis], codes]))
    chosen = [0]
    nearest = np.full(len(candidates), np.inf)
    for _ in range(count):
        distance = np.square(candidates - candidates[chosen[-1]]).mean((1, 2, 3))
        nearest = np.minimum(nearest, distance)
        nearest[chosen[-1]] = -1
        chosen.append(int(nearest.argmax()))
    return [candidates[index] for index in chosen[1:]]


def encode_with_each(halves, dataset_name, settings):
    """Write codes and reconstructions of image files by several autoencoders.

    `halves` is {name: (encoder, decoder)}: (n, 28, 28, 1) to (n, size) and back. `settings` is
    latent_spaces.py's `Apply`.
    """
    outputs = images.output_paths(settings.input, settings.output_dir, "latent_spaces_encoded")
    folder = outputs[0][1].parent
    sheets = [folder / f"{target.stem}_sheet.png" for _, target in outputs]
    files.ensure_not_taken(folder, [path.name for path in sheets] + [f"{n}.csv" for n in halves])
    codes = {name: [] for name in halves}
    for (path, _), sheet in zip(outputs, sheets, strict=True):
        picture = images.read_visible(path)
        prepared, _ = small_images.prepare(picture, dataset_name, not settings.no_invert)
        results = {}
        for name, (encoder, decoder) in halves.items():
            code = np.asarray(encoder(prepared[np.newaxis]))
            result = np.clip(np.asarray(decoder(code))[0], 0, 1)
            codes[name].extend(code)
            results[f"{name}\nMSE {metrics.mse(prepared, result):.4f}"] = result
        small_images.write_sheet(sheet, picture, prepared, results)
    for name in halves:
        names = [target.stem for _, target in outputs]
        write_codes(folder / f"{name}.csv", names, np.stack(codes[name]))


def decode_file(decoder, path, output_dir):
    """Write the images of the codes in a latent.csv."""
    names, codes = read_codes(Path(path), decoder.input_shape[1])
    folder = files.output_folder(output_dir, "vae_fashion_decoded")
    files.ensure_not_taken(folder, [f"{name}.png" for name in names])
    for name, image in zip(names, decode(decoder, codes), strict=True):
        images.write_image(folder / f"{name}.png", image)


def write_codes(path, names, codes):
    """Write a latent.csv: name, z_1, z_2, ..."""
    header = ["name", *(f"z_{number}" for number in range(1, codes.shape[1] + 1))]
    names = map(files.printable, names)
    rows = [[name, *map(float, code)] for name, code in zip(names, codes, strict=True)]
    files.write_csv(path, header, rows)
    print(f"Wrote {files.printable(path)}", flush=True)


def read_codes(path, latent_dim):
    """Return the names and codes, shape (n, latent_dim), of a latent.csv.

    Raises UserError if the file is missing, or a line does not hold a name and that many numbers.
    """
    content = files.read(path)
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not lines or lines[0][:1] != ["name"]:
        raise UserError(f"{path}, line 1: not name, z_1, z_2, ...; add such a line")
    codes = {}
    for number, line in enumerate(lines[1:], start=2):
        if not any(map(str.strip, line)):
            continue
        try:
            name, code = line[0], [float(value) for value in line[1:]]
        except ValueError:
            name, code = "", []
        if len(code) != latent_dim or not all(abs(value) < 1e6 for value in code):
            raise UserError(f"{path}, line {number}: not a name and {latent_dim} numbers below 1e6")
        if Path(name).name != name or not name.isprintable() or not name or name in codes:
            raise UserError(f"{path}, line {number}: the name is no file name, or not unique")
        codes[name] = code
    if not codes:
        raise UserError(f"{path}: holds no codes")
    return list(codes), np.array(list(codes.values()))
