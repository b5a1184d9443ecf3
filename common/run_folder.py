"""The folder of a training: history, best model, what resuming takes, metrics.json, figures."""

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow

from common import UserError, files, metrics, plotting
from common.trained_models import load_model, save_model

_FORMAT = 2  # of state.json
_STATE = Path("checkpoint", "state.json")


class RunFolder:
    """The folder of one training or evaluation, and the only one that writes into it.

    A context manager: on Ctrl-C it says what is there and how to go on.
    """

    def __init__(self, settings, dataset, outputs):
        """Choose the folder and see that everything in it is free, or with --resume its own.

        Args:
            settings: `command_line.Settings`; after `patience` epochs without a better validation
                loss training stops.
            dataset: the data, with `summary()`.
            outputs: names of the figures and further models that the script will write.

        Raises:
            UserError: the folder can't be written to, holds other things of those names, is in
                use, or can't be resumed.
        """
        self.settings, self.dataset = settings, dataset
        self._started = time.perf_counter()
        self._state = {"history": []}
        self._own = {"metrics.json", *outputs}
        if settings.action == "train":
            self._own |= {"model.keras", "history.csv", "checkpoint", "loss.png"}
            self._own |= {"tensorboard"} if settings.tensorboard else set()
        name = settings.name + "_evaluation" * (settings.action == "model")
        self._created = not settings.resume and not Path(settings.output_dir or "").is_dir()
        self._created |= settings.output_dir is None
        folder = self._to_resume() if settings.resume else settings.output_dir
        self.folder = files.output_folder(folder, name)
        self._lock = files.lock(self.folder)
        try:
            self._take()
        except UserError:
            self._let_go()
            raise
        self.seconds_before = self.history[-1]["seconds"] if self.history else 0.0
        self.first_epoch = settings.epochs if self.out_of_patience() else len(self.history)

    def _to_resume(self):
        """Return --output-dir's folder, or the newest in runs/, unfinished ones first."""
        name, where = re.escape(self.settings.name) + r"(?:_(\d+))?", Path("runs")
        folders = [Path(self.settings.output_dir)] if self.settings.output_dir else []
        if not folders:
            found = {path: re.fullmatch(name, path.name) for path in where.glob("*")}
            number = {path: int(match[1] or 1) for path, match in found.items() if match}
            finished = {path: (path / "metrics.json").exists() for path in number}
            folders = sorted(number, key=lambda path: (finished[path], -number[path]))
        for folder in folders:
            if (folder / _STATE).is_file():
                return folder
        old = any((folder / "checkpoint" / "config.json").is_file() for folder in folders)
        what = "only a training of the first version" if old else "no interrupted training"
        where = self.settings.output_dir or where / self.settings.name
        raise UserError(f"{where}: {what} there; leave --resume out to start one")

    def _take(self):
        """See that the folder is free, or read what it holds of the training to resume."""
        if (self.folder / "metrics.json").is_file() and (self.folder / _STATE).is_file():
            way = "leave --resume out" if self.settings.resume else "choose another --output-dir"
            raise UserError(f"{self.folder}: holds a finished training; {way}")
        if not self.settings.resume:
            way = "add --resume, or " if (self.folder / _STATE).is_file() else ""
            files.see_that_free(self.folder, sorted(self._own), way)
            print(f"Results go to {self.folder}{os.sep}", flush=True)
            return
        self._state = _read_state(self.folder)
        stored, asked = self._state["settings"], json.loads(json.dumps(self._to_share()))
        for key in sorted(stored.keys() | asked.keys()):
            if stored.get(key) != asked.get(key):
                raise UserError(
                    f"{self.folder} holds a training with {key} {stored.get(key)}, this one has "
                    f"{asked.get(key)}; give the same flags, or another --output-dir"
                )
        print(f"Resuming {self.folder} after epoch {len(self.history)}.", flush=True)
        for name in self._own - {"model.keras", "history.csv", "checkpoint", "tensorboard"}:
            (self.folder / name).unlink(missing_ok=True)  # written, then interrupted

    def _to_share(self):
        """Return what a resumed training must share. A download and its cache hold the same."""
        dataset = {k: v for k, v in self.dataset.summary().items() if k != "source"}
        return {**self.settings.to_resume(), "dataset": dataset}

    def _let_go(self):
        if self._lock is not None:
            os.close(self._lock)
        if self._created:
            with contextlib.suppress(OSError):
                self.folder.rmdir()  # only if nothing was written

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self._let_go()
        if isinstance(error, KeyboardInterrupt) and self.history:
            way = self.settings.command
            way += "" if self.settings.output_dir else f" --output-dir {self.folder}"
            way += "" if self.settings.resume else " --resume"
            model = self.folder / "model.keras"
            error.add_note(f"The best model so far is {model}. Go on with: {way}")

    def path(self, name):
        """Return where to write an output; its name must be among those given at the start."""
        if name not in self._own:
            raise ValueError(f"{name} was not announced")
        return self.folder / name

    # ------------------------------------------------------------ training

    @property
    def history(self):
        """The finished epochs: dicts with epoch, seconds, loss, val_loss and further metrics."""
        return self._state["history"]

    @property
    def verbose(self):
        """Keras's progress bar on a terminal, a line an epoch elsewhere."""
        return 1 if sys.stdout.isatty() else 2

    def callbacks(self, model):
        """Return the callbacks for `fit`, with the model set back to where a resumed run was.

        Keras's BackupAndRestore with ModelCheckpoint and CSVLogger would keep a training in three
        files that a kill can leave at odds, and a resumed run would forget the best value so far.

        Raises:
            UserError: what is stored is damaged.
        """
        if self.settings.resume:
            self._restore(model)
        started = time.perf_counter()

        def keep(epoch, logs):
            seconds = self.seconds_before + time.perf_counter() - started
            row = {"epoch": epoch + 1, "seconds": round(seconds, 3)}
            row |= {name: float(value) for name, value in logs.items()}
            model.stop_training = self.keep(model, row)

        callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=keep)]
        if self.settings.tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(self.path("tensorboard")))
        return callbacks

    def _restore(self, model):
        # The optimizer's state comes with the weights, if its variables are there to take it.
        model.optimizer.build(model.trainable_variables)
        weights, states = self.folder / self._state["weights"], self._state["random_states"]
        try:
            if _sha256(weights) != self._state["weights_sha256"]:
                raise ValueError("its checksum differs")
            model.load_weights(weights)
            for variable, state in zip(_random_states(model), states, strict=True):
                variable.assign(state)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{weights}: damaged ({error}); leave --resume out") from None

    def keep(self, model, row):
        """Store one finished epoch; return whether training should stop.

        Weights and optimizer of each epoch have a file of their own, and state.json, written last,
        says which one counts: so there is no moment in which a kill could leave the two at odds.
        """
        if row["val_loss"] < min(self._finite_losses(), default=math.inf):
            save_model(model, self.path("model.keras"), replace=True)
        history = [*self.history, row]
        weights = self.path("checkpoint") / f"epoch_{len(history)}.weights.h5"
        with files.write_whole(weights, replace=True) as path:
            model.save_weights(path)
        before = self._state.get("weights")
        self._state = {
            "format": _FORMAT,
            "settings": self._to_share(),
            "history": history,
            "random_states": [variable.numpy().tolist() for variable in _random_states(model)],
            "weights": str(weights.relative_to(self.folder)),
            "weights_sha256": _sha256(weights),
        }
        self._write_state()
        if before:
            (self.folder / before).unlink(missing_ok=True)
        return self.out_of_patience()

    def _write_state(self):
        """Write state.json, with a checksum of itself so that damage is seen, and history.csv."""
        text = json.dumps(self._state)
        sealed = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "state": text}
        files.write_json(self.folder / _STATE, sealed, replace=True)
        with files.write_whole(self.path("history.csv"), replace=True) as path:
            rows = [row.values() for row in self.history]
            files.write_csv(path, list(self.history[0]), rows)

    def trained(self, name, train):
        """Return one of several models of this run: trained before an interruption, or now.

        Args:
            name: of the model.
            train: called with nothing; returns the model and a dict with loss and val_loss.

        Raises:
            UserError: training diverged, or what is stored is damaged.
        """
        path = self.path("checkpoint") / f"{name}.keras"
        kept = self._state.get("models", {})
        if name in kept:
            if not path.is_file() or _sha256(path) != kept[name]:
                raise UserError(f"{path}: damaged; leave --resume out")
            return keras.saving.load_model(path, compile=False)
        started = time.perf_counter()
        before = self.history[-1]["seconds"] if self.history else 0.0
        model, losses = train()
        seconds = time.perf_counter() - started
        if not math.isfinite(losses["val_loss"]):
            raise UserError(f"{name}: training diverged; lower --learning-rate")
        print(f"{name}: loss {losses['val_loss']:.4g} after {seconds:.0f} s", flush=True)
        save_model(model, path, replace=True)
        row = {"model": name, "epoch": self.settings.epochs, "seconds": round(before + seconds, 3)}
        self._state = {
            "format": _FORMAT,
            "settings": self._to_share(),
            "history": [*self.history, {**row, **losses}],
            "models": {**kept, name: _sha256(path)},
        }
        self._write_state()
        return model

    def of_each(self, models, results):
        """Return the `models` entry of metrics.json, {name: what is to be known of it}."""
        seconds = np.diff([0.0, *(row["seconds"] for row in self.history)])
        took = dict(zip([row["model"] for row in self.history], seconds, strict=True))
        return {
            name: {**self._training(model, took[name]), "test": results[name]}
            for name, model in models.items()
        }

    def _finite_losses(self):
        return [row["val_loss"] for row in self.history if math.isfinite(row["val_loss"])]

    def out_of_patience(self):
        """Say whether the last `patience` epochs brought no better validation loss."""
        best, patience = min(self._finite_losses(), default=None), self.settings.patience
        epochs = [row["epoch"] for row in self.history if row["val_loss"] == best] or [0]
        return patience is not None and len(self.history) - epochs[0] >= patience

    def best_model(self):
        """Return the model with the lowest validation loss of this run."""
        if not self._finite_losses():
            raise UserError("training diverged: no finite validation loss; lower --learning-rate")
        return load_model(self.path("model.keras"), self.settings.names)[0]

    # ------------------------------------------------------------ results

    def plot(self, function, content, name, title, caption, *more, **options):
        """Write a figure with a function of `plotting`, the data it was made from in its caption.

        Args:
            function: called with content, path, title, caption and whatever follows.
            content: what it plots.
            name: of the file.
            title, caption: of the figure.
            more, options: for the function.
        """
        data = self.dataset.summary()
        trained = f", {data['train']:,} training images" if self.history else ""
        source = f"Data: {data['name']} ({data['source']}){trained}, {data['test']:,} test images."
        options["show"] = self.settings.show
        function(content, self.path(name), title, f"{caption}\n{source}", *more, **options)

    def plot_history(self, loss):
        """Plot the loss curves of a training; `loss` names the loss and its unit."""
        if self.history:
            self.plot(
                *(plotting.loss_curves, self.history, "loss.png"),
                f"Training of {self.settings.name}, recipe {self.settings.recipe}",
                "Training loss is a mean over the epoch while weights still change, validation "
                "loss is taken at its end.",
                loss,
            )

    def _training(self, model, seconds):
        """Return how a model was trained, as metrics.json has it."""
        settings = self.settings
        trained = {
            "epochs": self.history[-1]["epoch"] if self.history else None,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "seed": settings.seed,
            "seconds_training": seconds,
        }
        if not self.history:
            trained |= {"batch_size": None, "learning_rate": None}
        return {"parameters": model.count_params(), **trained}

    def finish(self, model, results, row="model", others=(), models=None):
        """Write metrics.json and print the table that ends every run.

        Args:
            model: the trained model.
            results: {row name: {metric: value}}: the model's row, the baselines' and others'.
            row: the name of the model's row.
            others: names of rows that are no baselines: only printed.
            models: of a run that trains several, `of_each`.
        """
        settings, data = self.settings, self.dataset.summary()
        seconds = self.history[-1]["seconds"] if self.history else None
        libraries = {"keras": keras, "tensorflow": tensorflow, "numpy": np}
        report = {
            "script": settings.script,
            "dataset": data,
            "recipe": settings.recipe if self.history else None,
            "architecture": settings.architecture,
            **self._training(model, seconds),
            "seconds_total": time.perf_counter() - self._started + self.seconds_before,
            "peak_memory_mb": peak_memory_mb(),
            "versions": {"python": platform.python_version()}
            | {name: library.__version__ for name, library in libraries.items()},
            "test": results[row],
            "baselines": {k: v for k, v in results.items() if k != row and k not in others},
            **({"models": models} if models else {}),
        }
        files.write_json(self.path("metrics.json"), report)
        print(f"\n{data['name']} ({data['source']}), {data['test']:,} test images")
        metrics.print_table(results)
        trained = f"Trained in {seconds:.0f} s. " if self.history else ""
        print(f"{trained}Results are in {self.folder}{os.sep}")


def _random_states(model):
    """Return the variables of a model's random generators, which Keras does not save."""
    return [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_state(folder):
    try:
        sealed = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if hashlib.sha256(sealed["state"].encode()).hexdigest() != sealed["sha256"]:
            raise ValueError("its checksum differs")
        state = json.loads(sealed["state"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / _STATE}: damaged ({error}); leave --resume out") from None
    if state["format"] != _FORMAT:
        raise UserError(f"{folder}: of another version; leave --resume out")
    return state


def peak_memory_mb():
    """Return this process's peak resident memory in MB, or None where the system can't tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
