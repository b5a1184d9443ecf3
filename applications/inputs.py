"""What applications share: which model to apply, and where each output goes."""

import math
from pathlib import Path

from common import UserError, image_files
from common.files import output_folder, printable, see_that_file, see_that_free
from common.trained_models import SHIPPED, load_model, read_report

# Image files that are written in the format of their input; others become PNG.
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
FIGURE_ENDINGS = IMAGE_ENDINGS[:-1]  # Matplotlib writes no BMP

_LIMITS = {"missed_995": math.nan, "missed_995_noisy": 0.0, "thickest": math.inf}


def model_to_apply(settings, nothing=None, trainings=None):
    """Return (model, architecture) of --model, or else of the one in models/, and say which it is.

    Args:
        settings: `command_line.Settings`.
        nothing: (metric, baseline): a warning is given if the model measured above that baseline,
            which is to do nothing.
        trainings: {architecture: name of its training}, where one run trains several models.

    Raises UserError as `load_model` does.
    """
    path, report = _model_and_report(settings)
    model, architecture = load_model(path, settings.names, settings.build_like)
    about = _describe(report, nothing, (trainings or {}).get(architecture))
    print(f"Using {printable(path)}: {about}", flush=True)
    return model, architecture


def known_of(settings, training=None):
    """Return what is known of the images that the model of `model_to_apply` was trained on.

    `training` is the name of the model's training in a run of several. The dict holds `dataset`,
    its name, and what `small_images.typical` gives; where nothing is known, "", "dark", and limits
    that nothing exceeds.
    """
    report = _model_and_report(settings)[1]
    try:
        own = report.get("models", {}).get(training, report).get("typical", {})
        limits = {name: float(own.get(name, default)) for name, default in _LIMITS.items()}
        ground = own.get("ground", "dark")
        ground = ground if ground in ("light", None) else "dark"
        return {"dataset": report["dataset"]["name"], "ground": ground, **limits}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return {"dataset": "", "ground": "dark", **_LIMITS}


def _model_and_report(settings):
    path = Path(settings.model or SHIPPED / f"{settings.name}.keras")
    report = path.parent / f"{path.stem}.json"
    return path, read_report(report if report.is_file() else path.parent / "metrics.json")


def _describe(report, nothing, training):
    """Say what a model was trained on and how good it is, from its metrics.json."""
    try:
        data, test = report["dataset"], report.get("models", {}).get(training, report)["test"]
        measured = ", ".join(f"{name} {test[name]:.4g}" for name in list(test)[:3])
        text = f"trained on {data['train']:,} images of {data['name']}; its test: {measured}."
        if nothing and test[nothing[0]] > report["baselines"][nothing[1]][nothing[0]]:
            text += f"\n*** This model measured worse than doing nothing ({nothing[0]}). ***"
        return text
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return "what it was trained on, and how good it is, is not known."


def output_paths(inputs, output_dir, name="", endings=IMAGE_ENDINGS):
    """Return [(input, path to write)], under the input's own name, once all inputs can be read.

    Args:
        inputs: the files.
        output_dir, name: where the outputs go, as for `files.output_folder`.
        endings: that outputs may have; an input with another one gets the first of them.

    Raises:
        UserError: an input can't be read, two of them would write the same file, or an output would
            replace an input or anything else.
    """
    names = {}
    for path in dict.fromkeys(map(Path, inputs)):
        see_that_file(path)
        kept = path.suffix if path.suffix.lower() in endings else endings[0]
        target = f"{path.stem}{kept}"
        other, _ = names.setdefault(target.casefold(), (path, target))
        if other is not path:
            raise UserError(f"{other} and {path} would both become {target}; rename one")
    for path, _ in names.values():  # before the first of them is worked on
        image_files.read_grey(path)
    folder = output_folder(output_dir, name)
    see_that_free(folder, [target for _, target in names.values()])
    return [(path, folder / target) for path, target in names.values()]
