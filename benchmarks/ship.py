"""Put the model of a finished run into models/, with what is to be known of it beside it.

Run it:
  python benchmarks/ship.py runs/denoise_mnist
  python benchmarks/ship.py runs/vae_fashion --half        weights rounded to half precision
  python benchmarks/ship.py runs/latent_spaces --coarse    to steps of σ / 32, a byte for each
  python benchmarks/ship.py --typical --data-dir DIR       measure what `typical` says of each model
                                                           in models/ again, on its test images
"""

import argparse
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, batches, command_line, data, files, noise  # noqa: E402
from common import run_folder, trained_models  # noqa: E402
from applications import small_images  # noqa: E402

import numpy as np  # noqa: E402

LICENCES = {
    "MNIST": "CC BY-SA 3.0, trained on MNIST by Yann LeCun and Corinna Cortes",
    "Fashion-MNIST": "MIT, trained on Fashion-MNIST by Zalando SE",
    "NoisyOffice": "CC BY 4.0, trained on NoisyOffice by F. Zamora-Martinez, S. España-Boquera and "
    "M. J. Castro-Bleda",
    "pictures and textures": "MIT, trained on synthetic textures and pictures of scikit-image",
}


def coarse(weight):
    """Return a weight rounded to multiples of a 32nd of its standard deviation."""
    step = float(weight.std()) / 32 or 1
    return (np.round(weight / step) * step).astype("float32")


ROUND = {"half": lambda weight: weight.astype("float16").astype("float32"), "coarse": coarse}


def ship(folder, rounded=None):
    """Write models/NAME.keras and models/NAME.json from a run folder; return {path: its bytes}.

    Raises:
        UserError: the folder holds no finished run.
    """
    report = trained_models.read_report(folder / "metrics.json")
    if not report.get("recipe"):
        raise UserError(f"{folder}: no finished training there")
    report["settings"] = run_folder.read_state(folder / run_folder.STATE)[0]
    report["licence"] = LICENCES[report["dataset"]["name"]]
    report["rounded"] = rounded
    module = __import__(report["script"])  # knows the layers of its own
    trained = report.pop("models", None)
    if trained is None:
        return dict([_ship_model(folder / "model.keras", module.Settings.names, report)])
    return dict(
        _ship_model(folder / f"{kind}.keras", module.Settings.names, report | trained[name])
        for kind, name in module.KINDS.items()
    )


def _ship_model(source, names, report):
    """Write one model with its report beside it; return its path and how many bytes it has."""
    model, architecture = trained_models.load_model(source, names)
    if report["rounded"]:
        model.set_weights([ROUND[report["rounded"]](weight) for weight in model.get_weights()])
    path = trained_models.SHIPPED / f"{names[architecture]}.keras"
    trained_models.save_model(model, path, replace=True)
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    deflated = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 9}
    with (
        files.write_whole(path, replace=True) as temporary,
        zipfile.ZipFile(temporary, "w", **deflated) as archive,
    ):
        for name, data in content.items():
            archive.writestr(name, data)
    files.write_json(path.with_suffix(".json"), report, replace=True)
    return path, path.stat().st_size


def measure_typical(data_dir):
    """Put `typical` into each models/NAME.json whose script keeps it; return {path: it}.

    As at the end of a training: on the first test images, for the denoiser also under noise.
    """
    measured, some = {}, slice(2_000)
    digits = data.load_mnist(data_dir).x_test[some]
    noisy = noise.gaussian(digits, 0.5, batches.seed_for("test"))
    images = {"vae_fashion": data.load_fashion_mnist(data_dir).x_test[some]}
    for script in ("denoise_mnist", "vae_fashion", "latent_spaces"):
        module, x = __import__(script), images.get(script, digits)
        for name in module.Settings.names.values():
            path = trained_models.SHIPPED / f"{name}.keras"
            report = trained_models.read_report(path.with_suffix(".json"))
            if not report:
                continue  # not every network is shipped
            model, _ = trained_models.load_model(path, module.Settings.names)
            if script == "vae_fashion":
                codes = trained_models.predict(lambda part, m=model: m.encoder(part)[0], x)
                rebuilt = trained_models.predict(model.decoder, codes)
            else:
                rebuilt = trained_models.predict(model, x)
            both = (
                (noisy, trained_models.predict(model, noisy)) if script == "denoise_mnist" else ()
            )
            report["typical"] = measured[path] = small_images.typical(x, rebuilt, *both)
            files.write_json(path.with_suffix(".json"), report, replace=True)
    return measured


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", type=Path)
    parser.add_argument("--typical", action="store_true")
    parser.add_argument("--data-dir", metavar="DIR")
    for name in ROUND:
        parser.add_argument(f"--{name}", dest="rounded", action="store_const", const=name)
    args = parser.parse_args(argv)
    if args.typical:
        for path, typical in measure_typical(args.data_dir).items():
            print(f"{path}: {typical}")
    for folder in args.folders:
        for path, size in ship(folder, args.rounded).items():
            print(f"{path}: {size:,} bytes")


if __name__ == "__main__":
    command_line.start(main)
