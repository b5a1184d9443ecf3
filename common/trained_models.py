"""Saving, finding and loading trained models."""

import dataclasses
import json
import math
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np

from common import UserError
from common.files import MOST_BYTES, read, see_that_file, write_whole

SHIPPED = Path(__file__).resolve().parent.parent / "models"
MOST_UNITS = 20_000  # of a layer that is loaded; the largest here has 12,544
MOST_CONFIG = 2**20  # bytes of its config.json


def save_model(model, path, replace=False):
    """Save a model whole or not at all, without its optimizer: a third of the size.

    It computes in float32 from then on, whatever it was trained with.
    """
    with write_whole(path, replace) as temporary:
        model.save(temporary)
        # Keras saves the optimizer of a compiled model whatever it is told.
        plain = keras.saving.load_model(temporary, compile=False)
        config = json.dumps(plain.get_config())
        if "bfloat16" in config:
            trained, config = plain, json.loads(config.replace("mixed_bfloat16", "float32"))
            plain = type(plain).from_config(config)
            plain.build_from_config(trained.get_build_config())
            plain.set_weights(trained.get_weights())
        plain.save(temporary)


def load_model(path, names, build_like=None):
    """Return (model, architecture) of a .keras file, read with safe mode on.

    Args:
        path: the file.
        names: {architecture: the name that its models have}.
        build_like: called with the architecture and the model; returns the network that it must
            be, whatever the weights. None: any network of that name will do.

    Raises UserError if there is no such file, it is no Keras model, it is another script's or
    another network, or its weights are not finite.
    """
    wanted = "; --model wants a .keras file of this script"
    see_that_file(path, wanted)
    if Path(path).suffix != ".keras":  # Keras reads older formats, too, and runs what they hold
        raise UserError(f"{path}: not named .keras{wanted}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"unpacks to over {MOST_BYTES:,} bytes")
            config = archive.open("config.json").read(MOST_CONFIG)
        most = _most_units(config)
        if most > MOST_UNITS:  # there may be no memory for its weights
            raise ValueError(f"a layer of {most:,} units, more than {MOST_UNITS:,}")
        with warnings.catch_warnings(action="ignore"):
            warnings.filterwarnings("error", "Skipping")  # what then is missing stays random
            model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever its parts do
        raise UserError(f"{path}: not a model that can be loaded ({error})") from None
    name = model.name.replace("_tutorial", "_autoencoder")  # as the first version called it
    found = [architecture for architecture, wanted in names.items() if wanted == name]
    if not found:
        wanted = " or ".join(map(repr, names.values()))
        raise UserError(f"{path}: holds a model named {model.name!r}; this script needs {wanted}")
    if not _is_like(model, found[0], build_like):
        raise UserError(f"{path}: holds another network than this script's {name!r}")
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise UserError(f"{path}: holds weights that are not finite; its training diverged")
    return model, found[0]


def _most_units(config):
    """Return the largest size of a layer that a config.json names, however it is written."""
    sizes = [0]

    def see(pairs):
        sizes.extend(size for name, size in pairs if name in ("units", "filters", "kernel_size"))
        return dict(pairs)

    json.loads(config, object_pairs_hook=see)
    return max(math.prod(size) if isinstance(size, list) else size for size in sizes)


def _is_like(model, architecture, build_like):
    try:
        return build_like is None or _outline(model) == _outline(build_like(architecture, model))
    except Exception:  # it looks for layers that may not be there
        return False


def _outline(model):
    """Return what is the same in two models of one network: layers with weights, and shapes."""
    nested = [(part.name, _outline(part)) for part in model.layers if isinstance(part, keras.Model)]
    ends = [getattr(model, end, None) or [] for end in ("inputs", "outputs")]
    shapes = [[tuple(tensor.shape) for tensor in group] for group in (*ends, model.weights)]
    return nested, [type(layer) for layer in model.layers if layer.weights], shapes


def predict(model, inputs):
    """Return a model's outputs, float32, for 500 inputs at a time.

    Keras's own `predict` compiles each model first, which takes longer than to run a small one.
    """
    parts = np.array_split(np.asarray(inputs, "float32"), math.ceil(len(inputs) / 500))
    return np.concatenate([np.asarray(model(part)) for part in parts])


def model_to_evaluate(settings):
    """Return --model's model, or None, and the settings with its architecture."""
    if settings.model is None:
        return None, settings
    model, architecture = load_model(settings.model, settings.names, settings.build_like)
    return model, dataclasses.replace(settings, architecture=architecture)


def shipped_beside(settings, dataset):
    """Return {architecture: model} of the other networks in models/ that know the same dataset."""
    models = {}
    for architecture, name in settings.names.items():
        trained_on = read_report(SHIPPED / f"{name}.json").get("dataset", {}).get("name")
        if architecture != settings.architecture and trained_on == dataset.name:
            models[architecture] = load_model(SHIPPED / f"{name}.keras", settings.names)[0]
    return models


def read_report(report):
    """Return the content of a metrics.json, or {} where there is none that can be read."""
    try:
        return json.loads(read(report))
    except (UserError, ValueError, RecursionError):
        return {}
