"""Copy the models of a finished run to models/, compressed, each with its report.

Examples:
  python -m benchmarks.ship runs/denoise_mnist
  python -m benchmarks.ship runs/vae_fashion --rounding half       weights in half precision
  python -m benchmarks.ship runs/latent_spaces --rounding coarse   weights in steps of σ / 32
"""

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


def round_weight(weight, rounding):
    """Return a weight rounded to half precision, or to multiples of 1/32 standard deviation."""
    if rounding == "none":
        return weight
    if rounding == "half":
        return weight.astype("float16").astype("float32")
    step = float(weight.std()) / 32 or 1
    return (np.round(weight / step) * step).astype("float32")


def ship(model, report, rounding):
    """Write a model and its report to models/."""
    model.set_weights([round_weight(weight, rounding) for weight in model.get_weights()])
    suffix = "_published" if report["settings"].get("recipe") == "published" else ""
    path = training.MODELS / f"{model.name}{suffix}.keras"
    with files.write_whole(path, replace=True) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        # Keras stores them without compression.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    files.write_json(path.with_suffix(".json"), report, replace=True)
    print(f"Wrote {path}, {path.stat().st_size:,} bytes")


def main(folder: tyro.conf.Positional[Path], rounding: Literal["none", "half", "coarse"] = "none"):
    """Ship the models of a run.

    Args:
        folder: run folder of a finished training.
        rounding: of the weights. Rounded ones compress better, and predictions change little.
    """
    report = json.loads(files.read(folder / "metrics.json"))
    if report["settings"].get("model"):
        raise UserError(f"{folder}: holds an evaluation, not a training")
    for name in ("data_dir", "output_dir", "resume", "model", "arguments"):  # hold local paths
        report["settings"].pop(name, None)
    report["license"] = LICENSES.get(report["dataset"]["name"], "")
    script = importlib.import_module(script_of(report["model"]))  # registers layers of its own
    reports = {"model.keras": report}
    if (folder / "networks.json").exists():  # of latent_spaces.py, which trains many networks
        networks = json.loads(files.read(folder / "networks.json"))
        reports = {
            f"{kind}.keras": report
            | {
                "model": f"{script.NAME}_{kind}",
                "parameters": networks[name]["parameters"],
                "seconds_training": networks[name]["seconds"],
                "test": networks[name]["test"],
            }
            for kind, name in script.SAVED.items()
        }
    for file_name, model_report in reports.items():
        model = keras.saving.load_model(folder / file_name, compile=False)
        ship(model, model_report, rounding)


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main, description=__doc__))
