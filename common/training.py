"""Training: seeds, batches, learning rate, run folder, callbacks, models, metrics.json."""

import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import platform
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import scipy.special
import tensorflow as tf

from common import files
from common.cli import UserError

MODELS = Path(__file__).resolve().parent.parent / "models"  # trained, ready to use
MAX_PASSES_PER_EPOCH = 20  # so that --limit also shortens epochs


def seed_for(*names):
    """Return a seed derived from a tuple of names, such as ("test",) or (0, "train", 12).

    Different uses get independent seeds. With plain integers, a run with seed 1 could get the noise
    of the validation set.
    """
    return int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:16], "big")


def steps_per_epoch(settings, count):
    """Return --steps-per-epoch, capped at 20 passes over `count` examples; if unset, one pass."""
    steps_per_pass = math.ceil(count / settings.batch_size)
    return min(settings.steps_per_epoch or steps_per_pass, MAX_PASSES_PER_EPOCH * steps_per_pass)


def batches(make_batch, count, settings, folder=None):
    """Return an endless tf.data.Dataset of shuffled batches, for `fit` with steps_per_epoch.

    Each pass over the training data has its own order. A batch depends only on the seed and on the
    step, so runs with the same seed see the same batches, and so does a resumed run.

    `make_batch` is a function of (indices, seed) that returns (inputs, targets), `count` the number
    of training examples. Of `settings`, a `cli.Train`, batch_size, steps_per_epoch and seed are
    used. With a run folder, the first step follows the last epoch in its history.csv.
    """
    steps_per_pass = math.ceil(count / settings.batch_size)
    example = make_batch(np.arange(1), seed=0)
    arrays = keras.tree.flatten(example)

    @functools.lru_cache(2)
    def order_of(pass_number):
        rng = np.random.default_rng(seed_for(settings.seed, "order", pass_number))
        return rng.permutation(count)

    def flat_batch(step):
        pass_number, position = divmod(int(step), steps_per_pass)
        indices = order_of(pass_number)[position * settings.batch_size :][: settings.batch_size]
        batch = make_batch(indices, seed_for(settings.seed, "train", int(step)))
        # TensorFlow may use an array's memory as its own and write to it. A copy protects the
        # training images, and targets that are the same array as the inputs.
        return [np.array(array) for array in keras.tree.flatten(batch)]

    # A keras.utils.PyDataset ran at half the speed here.
    def load(step):
        tensors = tf.numpy_function(flat_batch, [step], [array.dtype for array in arrays])
        for tensor, array in zip(tensors, arrays, strict=True):
            tensor.set_shape((None, *array.shape[1:]))
        return keras.tree.pack_sequence_as(example, tensors)

    epochs_done = len(read_history(folder)) if folder else 0
    first_step = epochs_done * steps_per_epoch(settings, count)
    return tf.data.Dataset.counter(first_step).map(load).prefetch(2)


def warmup_cosine(peak, steps, warmup=0.2):
    """Return a learning rate that rises linearly to `peak`, then falls to zero along a cosine.

    The rise takes a share `warmup` of the steps, but at least 100 steps: starting at the peak would
    ruin the initial weights. Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983
    """
    warmup_steps = max(int(warmup * steps), 100)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 50,
        warmup_target=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(steps - warmup_steps, 1),
    )


def init_output_bias(model, images):
    """Set the bias of the final sigmoid so that the untrained model outputs about the mean pixel.

    Karpathy 2019, "init well": https://karpathy.github.io/2019/04/25/recipe/
    """
    bias = [layer for layer in model.layers if layer.weights][-1].bias
    mean = float(np.clip(np.mean(images), 0.01, 0.99))
    bias.assign(np.full(bias.shape, scipy.special.logit(mean)))


def run_folder(settings, name):
    """Create and return the run folder, and save the command line in it.

    It is the folder of --resume or --output-dir, or a new one in runs/. Raises UserError if there
    are other files in it.
    """
    if settings.resume:
        model_file = settings.resume / "model.keras"
        # A crash while it was saved may have cut it short; the next epoch then replaces it.
        if zipfile.is_zipfile(model_file):
            found = model_name(model_file)
            if found != name:
                raise UserError(f"{settings.resume}: a training of {found}, not of {name}")
        return settings.resume
    if settings.output_dir and settings.output_dir.is_dir():
        # A training that was interrupted in its first epoch left nothing to continue.
        unused = files.is_run_folder(settings.output_dir) and not read_history(settings.output_dir)
        allowed = {"arguments.json", "history.csv", "tensorboard"} if unused else set()
        if {path.name for path in settings.output_dir.iterdir()} - allowed:
            raise UserError(f"{settings.output_dir} is not empty; use another --output-dir")
    folder = files.output_folder(settings.output_dir, name)
    files.write_json(folder / "arguments.json", settings.arguments, replace=True)
    print(f"Results go to {files.printable(folder)}", flush=True)
    return folder


def callbacks(folder, settings, patience=None):
    """Return the callbacks for `fit`, and print how to resume.

    They write history.csv, the best model and what --resume needs. With `patience` they stop after
    that many epochs without a lower validation loss.
    """
    print(f"To continue after an interruption: --resume {files.printable(folder)}", flush=True)
    history = read_history(folder)
    has_model = zipfile.is_zipfile(folder / "model.keras")  # not if a crash cut it short
    best = min(row["val_loss"] for row in history) if history and has_model else math.inf
    seconds_before = history[-1]["seconds"] if history else 0.0
    start = time.perf_counter()

    def on_epoch_end(epoch, logs):
        logs["seconds"] = seconds_before + time.perf_counter() - start  # CSVLogger writes it

    callback_list = [
        keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.CSVLogger(folder / "history.csv", append=bool(history)),
        keras.callbacks.ModelCheckpoint(
            folder / "model.keras", save_best_only=True, initial_value_threshold=best
        ),
        keras.callbacks.BackupAndRestore(
            folder / "backup", double_checkpoint=True, delete_checkpoint=False
        ),
    ]
    if patience:
        callback_list.append(keras.callbacks.EarlyStopping(patience=patience))
    if settings.tensorboard:
        callback_list.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    return callback_list


def read_history(folder):
    """Return the rows of history.csv as dicts of numbers, [] if there is no such file.

    An epoch that was logged and, after an interruption, repeated has two rows; the later counts.
    """
    path = folder / "history.csv"
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: float(x) for key, x in row.items()} for row in csv.DictReader(file)]
        if rows and not {"epoch", "loss", "val_loss"} <= rows[0].keys():
            raise ValueError("columns are missing")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); start another training") from None
    return list({row["epoch"]: row for row in rows}.values())


def best_model(folder, name):
    """Load the best model of a run, and rewrite its file without optimizer and loss.

    The file shrinks to a third.
    """
    path = folder / "model.keras"
    if not path.exists():
        raise UserError("training diverged in its first epoch; try a lower --learning-rate")
    model = load_model(path, name)
    save_model(model, path)
    return model


def save_model(model, path):
    """Save a model, completely or not at all."""
    with files.write_whole(path, replace=True) as temporary:
        model.save(temporary)


def model_name(path):
    """Return the name of the model in a .keras file. Raises UserError if it is not such a file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))["config"]["name"]
    except Exception as error:  # zipfile, zlib and json raise many kinds
        raise UserError(f"{path}: not a model that can be loaded ({error})") from None


def load_model(path, *names):
    """Return a trained model, without loss and optimizer.

    `path` is the .keras file; None: the one in models/ with the first of the names. Raises
    UserError if it is not a Keras model, or a model with none of these names.
    """
    path = Path(path or MODELS / f"{names[0]}.keras")
    files.check_file(path)
    if path.suffix != ".keras":  # Keras also reads older formats, which may hold code
        raise UserError(f"{path}: not a .keras file")
    name = model_name(path)
    if name not in names:
        raise UserError(f"{path}: holds a model named {name}, not {' or '.join(names)}")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the parts of a model raise
        raise UserError(f"{path}: not a model that can be loaded ({error})") from None


def trained_on(path, name):
    """Return the name of the dataset that a model was trained on, or "" if it is unknown.

    A model in models/ has it in the .json file beside it, one in a run folder in metrics.json.
    """
    path = Path(path or MODELS / f"{name}.keras")
    for report in (path.with_suffix(".json"), path.with_name("metrics.json")):
        try:
            return str(json.loads(report.read_text(encoding="utf-8"))["dataset"]["name"])
        except (OSError, ValueError, TypeError, LookupError):
            continue
    return ""


def report(folder, settings, model, dataset, results, row="model", networks=()):
    """Write metrics.json and print the final table.

    `settings` are the script's `Train`, `dataset` has `summary()`, and `results` is {row: {metric:
    value}}. `row` names the row of the trained model, `networks` those of other networks, which are
    printed but not written to metrics.json. All other rows are baselines.
    """
    history = read_history(folder)
    content = {
        "model": model.name,
        "settings": dataclasses.asdict(settings),
        "dataset": dataset.summary(),
        "parameters": model.count_params(),
        "epochs": len(history) or None,
        "seconds_training": history[-1]["seconds"] if history else None,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")},
        "test": results[row],
        "baselines": {name: results[name] for name in results if name not in {row, *networks}},
    }
    files.write_json(folder / "metrics.json", content)
    print(f"\n{dataset}")
    print_table(results)
    seconds = f"Trained in {history[-1]['seconds']:.0f} s. " if history else ""
    print(f"{seconds}Results are in {files.printable(folder)}/", flush=True)


def print_table(results):
    """Print {row: {column: value}} with aligned columns."""
    columns = list(dict.fromkeys(column for row in results.values() for column in row))
    label_width = max(map(len, results))
    print(" " * label_width + "".join(f"  {column:>8}" for column in columns))
    for name, row in results.items():
        line = f"{name:<{label_width}}"
        for column in columns:
            value = f"{row[column]:.4f}" if column in row else "-"
            line += f"  {value:>{max(len(column), 8)}}"
        print(line)
