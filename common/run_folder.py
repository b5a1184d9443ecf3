"""The folder of a training: history, best model, what resuming takes, metrics.json, figures."""

import contextlib
import hashlib
import json
import os
import platform
import re
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow

from common import UserError, answer_signals, devices, files, metrics, plotting
from common.trained_models import load_model, save_model

STATE = Path("checkpoint", "state.npz")
WRITTEN = Path("checkpoint", "written.txt")  # names of figures and the like, one a line
BEST = Path("checkpoint", "best.keras")  # what is to become
MODEL = "model.keras"
_FORMAT = 5  # of STATE


class RunFolder:
    """The folder of one training or evaluation, and the only one that writes into it.

    A context manager: on Ctrl-C it says what is there and how to go on.
    """

    def __init__(self, settings, dataset, outputs):
        """Choose the folder and see that everything in it is free, or with --resume its own.

        Args:
            settings: `command_line.Settings`.
            dataset: the data, with `summary()`.
            outputs: names of the figures and further models that the script will write.

        Raises UserError if the folder can't be written to, holds other things of those names, is in
        use, or can't be resumed.
        """
        self.settings, self.dataset = settings, dataset
        # The finished epochs: dicts with epoch, seconds, loss, val_loss and further metrics.
        self.history, self._variables = [], []
        self._files = {}  # {name: SHA-256} of the files that a resumed run goes on with
        self.verbose = 1 if sys.stdout.isatty() else 2  # a progress bar, or a line an epoch
        self._started = time.perf_counter()
        self._outputs = {"loss.png", *outputs}
        self._own = {"metrics.json", *outputs}
        if settings.action == "train":
            self._own |= {MODEL, "history.csv", "checkpoint", "loss.png"}
            self._own |= {"tensorboard"} if settings.tensorboard else set()
        name = settings.name + "_evaluation" * (settings.action == "model")
        given = self._to_resume() if settings.resume else settings.output_dir
        self._created = not (given and os.path.lexists(given))
        self.folder = files.output_folder(given, name)
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
        where, name = self.settings.output_dir, self.settings.name
        if where:
            folders = [Path(where)]
        else:
            found = [p for p in Path("runs").glob("*") if re.fullmatch(rf"{name}(_\d+)?", p.name)]
            found.sort(key=lambda path: (len(path.name), path.name))  # _10 comes after _9
            folders = sorted(found[::-1], key=lambda path: (path / "metrics.json").exists())
        for folder in folders:
            if (folder / STATE).is_file():
                return folder
        earlier = any([*(folder / "checkpoint").glob("*.json")] for folder in folders)
        what = "only a training of an earlier version" if earlier else "no interrupted training"
        where = where or Path("runs", name)
        raise UserError(f"{where}: {what} there; leave --resume out to start one")

    def _take(self):
        """See that the folder is free, or read what it holds of the training to resume."""
        begun, resume = (self.folder / STATE).is_file(), self.settings.resume
        if begun and (self.folder / "metrics.json").is_file():
            way = "leave --resume out" if resume else "choose another --output-dir"
            raise UserError(f"{self.folder}: holds a finished training; {way}")
        if begun and self.settings.action == "model":
            way = "choose another --output-dir"
            raise UserError(f"{self.folder}: holds an unfinished training; {way}")
        if not resume:
            way = "add --resume, or " if begun else ""
            files.see_that_free(self.folder, sorted(self._own), way)
            print(f"Results go to {self.folder}{os.sep}", flush=True)
            return
        stored, self.history, self._files, self._variables = read_state(self.folder / STATE)
        asked = self._to_share()
        for key in sorted(stored.keys() | asked.keys()):
            if stored.get(key) != asked.get(key):
                raise UserError(
                    f"{self.folder} holds a training with {key} {stored.get(key)}, this one has "
                    f"{asked.get(key)}; give the same flags, or another --output-dir"
                )
        self._move_best()
        if MODEL in self._files:
            self._see_that_kept(MODEL)
        written = files.read(self.folder / WRITTEN).split() if self._has(WRITTEN) else []
        mine = [name for name in self._outputs if name.encode() in written]
        files.see_that_free(self.folder, sorted({*self._outputs, "metrics.json"} - {*mine}))
        print(f"Resuming {self.folder} after epoch {len(self.history)}.", flush=True)
        for name in mine:
            (self.folder / name).unlink(missing_ok=True)  # written, then interrupted

    def _has(self, name):
        return os.path.lexists(self.folder / name)

    def _see_that_kept(self, name):
        """Raise UserError if a file is not the one that this training has written."""
        if files.sha256(self.folder / name, "; leave --resume out") != self._files[name]:
            path = self.folder / name
            raise UserError(f"{path}: damaged, or of another training; leave --resume out")

    def _move_best(self):
        """Give the best model its place, once the state says that it is."""
        best = self.folder / BEST
        if best.is_file() and files.sha256(best) == self._files.get(MODEL):
            os.replace(best, self.folder / MODEL)

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
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted:
            answer_signals(signal.SIG_IGN)  # a second one would take the place of the first
            with contextlib.suppress(OSError, UserError):
                self._move_best()  # what came may have come just before
        self._let_go()
        if interrupted and self._has(STATE) and not self._has("metrics.json"):
            way = self.settings.command
            way += "" if self.settings.output_dir else f" --output-dir {self.folder}"
            way += "" if self.settings.resume else " --resume"
            best = f"The best model so far is {self.folder / MODEL}. " * self._has(MODEL)
            error.add_note(f"{best}Go on with: {way}")

    def path(self, name):
        """Return where to write an output; its name must be among those given at the start."""
        if name not in self._own:
            raise ValueError(f"{name} was not announced")
        if name in self._outputs and self._has(STATE):
            with (self.folder / WRITTEN).open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        return self.folder / name

    # ------------------------------------------------------------ training

    def callbacks(self, model):
        """Return the callbacks for `fit`, with the model set back to where a resumed run was.

        Keras's BackupAndRestore with ModelCheckpoint and CSVLogger would keep a training in three
        files that a kill can leave at odds, and a resumed run would forget the best value so far.
        Raises UserError if what is stored is of another network.
        """
        if self._variables:
            try:
                for variable, value in zip(_variables(model), self._variables, strict=True):
                    variable.assign(value)
            except ValueError as error:
                state = self.folder / STATE
                raise UserError(f"{state}: does not fit ({error}); leave --resume out") from None
        devices.set_apart(model)
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

    def keep(self, model, row):
        """Store one finished epoch; return whether training should stop.

        All that resuming takes is in one file, replaced as a whole, with the checksum of the best
        model. So at no moment could a kill leave weights, optimizer, history and model at odds.
        """
        kept = dict(self._files)
        if _best_epoch([*self.history, row]) > len(self.history):
            save_model(model, self.folder / BEST, replace=True)
            kept[MODEL] = files.sha256(self.folder / BEST)
        self._store(row, kept, [keras.ops.convert_to_numpy(value) for value in _variables(model)])
        self._move_best()
        return self.out_of_patience()

    def _store(self, row, kept, variables=()):
        """Write the state of the training with one more row, and history.csv for the reader.

        `kept` is {name: SHA-256} of the files that a resumed run goes on with.
        """
        history = [*self.history, row]
        state = {"format": _FORMAT, "settings": self._to_share(), "history": history}
        text = json.dumps({**state, "files": kept}).encode()
        whole = files.write_whole(self.folder / STATE, replace=True)
        with whole as path, path.open("wb") as file:
            np.savez(file, np.bytes_(text), np.bytes_(_digest(text, variables)), *variables)
        self.history, self._files = history, kept
        rows = [row.values() for row in self.history]
        files.write_csv(self.path("history.csv"), list(row), rows, replace=True)

    def trained(self, name, train):
        """Return one of several models of this run: trained before an interruption, or now.

        `train` returns the model and a dict with loss and val_loss. Raises UserError if training
        diverged, or what is stored is damaged.
        """
        file = f"checkpoint/{name}.keras"
        path = self.folder / file
        if file not in self._files:
            started = time.perf_counter()
            before = self.history[-1]["seconds"] if self.history else 0.0
            model, losses = train()
            seconds = time.perf_counter() - started
            if not np.isfinite(losses["val_loss"]):
                raise UserError(f"{name}: training diverged; lower --learning-rate")
            print(f"{name}: loss {losses['val_loss']:.4g} after {seconds:.0f} s", flush=True)
            save_model(model, path, replace=True)
            row = {"model": name, "epoch": self.settings.epochs}
            row |= {"seconds": round(before + seconds, 3), **losses}
            self._store(row, {**self._files, file: files.sha256(path)})
        self._see_that_kept(file)
        return keras.saving.load_model(path, compile=False)  # without copies on further devices

    def out_of_patience(self):
        """Say whether the last `patience` epochs brought no better validation loss."""
        patience = self.settings.patience
        return patience is not None and len(self.history) - _best_epoch(self.history) >= patience

    def best_model(self):
        """Return the model with the lowest validation loss of this run."""
        if not _best_epoch(self.history):
            raise UserError("training diverged: no finite validation loss; lower --learning-rate")
        self._see_that_kept(MODEL)
        return load_model(self.folder / MODEL, self.settings.names)[0]

    # ------------------------------------------------------------ results

    def plot(self, function, content, name, title, caption, *more, shown=None, **options):
        """Write a figure with a function of `plotting`, and name its data in the caption.

        `shown` says what is in it, where that is not the test images.
        """
        data = self.dataset.summary()
        trained = f", {data['train']:,} training images" if self.history else ""
        source = f"{data['name']} ({data['source']}){trained}"
        if not shown:
            source += f", {data['test']:,} test images"
        elif trained:
            source = f"{shown}; trained on {source}"
        else:
            source = shown
        options["show"] = self.settings.show
        function(content, self.path(name), title, f"{caption}\nData: {source}.", *more, **options)

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
        settings, trained = self.settings, bool(self.history)
        return {
            "parameters": model.count_params(),
            "epochs": self.history[-1]["epoch"] if trained else None,
            "batch_size": settings.batch_size if trained else None,
            "learning_rate": settings.learning_rate if trained else None,
            "seed": settings.seed,
            "seconds_training": seconds,
        }

    def finish(self, model, results, row="model", others=(), models=None, typical=None):
        """Write metrics.json and print the table that ends every run.

        Args:
            model: the trained model.
            results: {row: {metric: value}}. `row` is the model's, `others` are only printed, the
                rest are baselines.
            models: {row: model} of a run that trains several, in that order.
            typical: what an application should know of the test images; with `models` {row: that}.
        """
        settings, data = self.settings, self.dataset.summary()
        seconds = [row["seconds"] for row in self.history] or [None]
        libraries = keras, tensorflow, np
        report = {
            "script": settings.script,
            "dataset": data,
            "recipe": settings.recipe if self.history else None,
            "architecture": settings.architecture,
            **self._training(model, seconds[-1]),
            "seconds_total": time.perf_counter() - self._started + self.seconds_before,
            "peak_memory_mb": peak_memory_mb(),
            "versions": {"python": platform.python_version()}
            | {library.__name__: library.__version__ for library in libraries},
            "test": results[row],
            "baselines": {k: v for k, v in results.items() if k != row and k not in others},
        }
        if typical and not models:
            report["typical"] = typical
        if models:
            report["models"] = {
                name: {**self._training(each, took), "test": results[name]}
                | ({"typical": typical[name]} if typical else {})
                for (name, each), took in zip(models.items(), np.diff([0.0, *seconds]), strict=True)
            }
        files.write_json(self.path("metrics.json"), report)
        print(f"\n{data['name']} ({data['source']}), {data['test']:,} test images")
        metrics.print_table(results)
        trained = f"Trained in {seconds[-1]:.0f} s. " if self.history else ""
        print(f"{trained}Results are in {self.folder}{os.sep}", flush=True)
        if settings.show:
            plotting.plt.show()  # until the reader closes the windows


def _best_epoch(history):
    """Return the epoch with the lowest validation loss, 0 where none was finite."""
    return int(np.nanargmin([np.inf, *(row["val_loss"] for row in history)]))


def _variables(model):
    """Return all that training changes: weights, random generators, the optimizer's state."""
    with model.distribute_strategy.scope():
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _digest(text, variables):
    """Return the checksum of all that a state holds. A zip's own are of its bytes, not of sense."""
    whole = hashlib.sha256(text)
    for value in variables:
        whole.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    return whole.hexdigest()


def read_state(path):
    """Return settings, history, checksums and variables of an interrupted training."""
    try:
        with np.load(path) as archive:
            text, digest, *variables = (archive[name] for name in archive.files)
        state = json.loads(text.item())
        if state["format"] != _FORMAT:
            raise ValueError(f"format {state['format']}")
        if _digest(text.item(), variables).encode() != digest.item():
            raise ValueError("its checksum differs")
        return state["settings"], state["history"], state["files"], variables
    except Exception as error:  # zipfile, NumPy and json raise many kinds
        raise UserError(
            f"{path}: damaged or of another version ({error}); leave --resume out"
        ) from None


def peak_memory_mb():
    """Return this process's peak resident memory in MB, or None where the system can't tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
