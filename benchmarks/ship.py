"""Put the models of a finished run into models/, compressed, each with its report beside it.

Examples:
  python -m benchmarks.ship runs/denoise_mnist
  python -m benchmarks.ship runs/vae_fashion --rounding half       weights in half precision
  python -m benchmarks.ship runs/latent_spaces --rounding coarse   weights in steps of σ / 32
"""

import dataclasses
import importlib
import json
import zipfile
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tyro

from benchmarks.tables import script_of
from common import cli, files, training
from common.cli import UserError

LICENSES = {
    "MNIST": "CC BY-SA 3.0, trained on MNIST by Yann LeCun and Corinna Cortes",
    "Fashion-MNIST": "MIT, trained on Fashion-MNIST by Zalando SE",
    "NoisyOffice": "CC BY 4.0, trained on NoisyOffice by F. Zamora-Martinez, S. España-Boquera and "
    "M. J. Castro-Bleda",
    "pictures and textures": "MIT, trained on synthetic textures and pictures of scikit-image",
}
LOCAL = ("data_dir", "output_dir", "resume", "model", "arguments")  # settings of this machine alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    folder: tyro.conf.Positional[Path]
    """run folder of a finished training"""
    rounding: Literal["none", "half", "coarse"] = "none"
    """of the weights: their files compress better, and predictions change little"""
    models: Path = training.MODELS
    """folder that the models go to"""


def round_weight(weight, rounding):
    """Return a weight rounded to half precision, or to multiples of 1/32 standard deviation."""
    if rounding == "half":
        return weight.astype("float16").astype("float32")
    step = float(weight.std()) / 32 or 1
    return (np.round(weight / step) * step).astype("float32")


def ship(model, report, settings):
    """Write a model and its report into models/; return the path."""
    if settings.rounding != "none":
        weights = [round_weight(weight, settings.rounding) for weight in model.get_weights()]
        model.set_weights(weights)
    path = settings.models / f"{model.name}.keras"
    training.save_model(model, path)
    compress(path)
    files.write_json(path.with_suffix(".json"), report, replace=True)
    return path


def compress(path):
    """Compress the entries of a .keras file, which Keras only stores."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with (
        files.write_whole(path, replace=True) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, content in entries.items():
            archive.writestr(name, content)


def main(argv=None):
    settings = tyro.cli(Settings, args=argv, description=__doc__)
    report = json.loads(files.read(settings.folder / "metrics.json"))
    if report["settings"].get("model"):
        raise UserError(f"{settings.folder}: holds an evaluation, not a training")
    for name in LOCAL:
        report["settings"].pop(name, None)
    report["license"] = LICENSES.get(report["dataset"]["name"], "")
    script = importlib.import_module(script_of(report["model"]))  # registers layers of its own
    reports = {"model.keras": report}
    if (settings.folder / "networks.json").exists():  # of latent_spaces.py, which trains many
        networks = json.loads(files.read(settings.folder / "networks.json"))
        reports = {
            f"{kind}.keras": report
            | {
                "model": f"{script.NAME}_{kind}",
                "parameters": networks[name]["parameters"],
                "seconds_training": networks[name]["seconds"],
                "test": networks[name]["test"],
            }
            for kind, name in script.KINDS.items()
        }
    for file_name, model_report in reports.items():
        model = keras.saving.load_model(settings.folder / file_name, compile=False)
        path = ship(model, model_report, settings)
        print(f"Wrote {path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    cli.run(main)
