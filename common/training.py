"""Command line, run folder and callbacks: what every script does around its own training."""

import argparse
import csv
import importlib.util
import json
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow

from common import UserError, images, plotting
from common.images import write_whole

_STARTED = time.perf_counter()
_ROOT = Path(__file__).resolve().parent.parent
# Names the run folder and the error lines; argument_parser() sets it anew.
SCRIPT = Path(sys.argv[0]).stem


# ---------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (--help lists what there is)")


def argument_parser(script, docstring):
    """Return a parser with the flags all five scripts share.

    Args:
        script: the script's `__file__`.
        docstring: the script's; its first paragraph becomes the help's first lines, and the
            paragraph that starts with "Run it:" the examples at its end.
    """
    global SCRIPT
    SCRIPT = Path(script).stem
    paragraphs = docstring.strip().split("\n\n")
    examples = next(text for text in paragraphs if text.startswith("Run it:"))
    parser = _Parser(
        prog=f"{SCRIPT}.py",
        description=paragraphs[0],
        epilog=examples.replace("Run it:", "examples:"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--recipe",
        choices=["fast", "tutorial"],
        default="fast",
        help="train as the tutorial did, or to its quality in less time (default: fast)",
    )
    add("--epochs", type=whole_number(1), help="train this many epochs instead of the recipe's")
    add("--batch-size", type=whole_number(1), help="images per training step")
    add("--learning-rate", type=number(above=0), help="the optimizer's (highest) learning rate")
    add("--data-dir", metavar="DIR", help="read the dataset from this folder and nowhere else")
    add("--synthetic", action="store_true", help="use the drawn stand-in for the dataset")
    add("--limit", type=whole_number(10), metavar="N", help="use N training and N test images")
    add("--output-dir", metavar="DIR", help=f"where results go (default: runs/{SCRIPT})")
    add("--seed", type=whole_number(0), default=0, help="repeats a run exactly (default: 0)")
    add("--resume", action="store_true", help="go on with an interrupted training")
    add("--tensorboard", action="store_true", help="log for TensorBoard into the run folder")
    add("--show", action="store_true", help="open the figures in windows as well")
    add("--model", metavar="FILE", help="evaluate and draw this trained model, without training")
    add("--input", nargs="+", metavar="FILE", help="apply the trained model to these images")
    return parser


def whole_number(least):
    """Return an argparse type: a whole number that is not below `least`."""

    def parse(text):
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return parse


def number(at_least=-math.inf, above=-math.inf, at_most=math.inf):
    """Return an argparse type: a finite number within bounds."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (above < value <= at_most and value >= at_least and math.isfinite(value)):
            bounds = f"above {above:g}" if above > -math.inf else f"from {at_least:g} up"
            bounds += f", at most {at_most:g}" if at_most < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}")
        return value

    return parse


def parse(parser, recipes, argv=None):
    """Parse the command line, and fill in from the recipe what it leaves open.

    Args:
        parser: from `argument_parser`.
        recipes: {architecture: {recipe: {"epochs": …, "batch_size": …, …}}}; the first
            architecture is the default, and `parser` knows --architecture if there are more.
        argv: the words to parse; None for the command line's own.

    Returns:
        The namespace, with the recipe's settings; the `architecture`; `names`, which holds the
        name of the run folder and of the Keras model by architecture; `wanted`, the names a model
        file may bear; and the `command`.

    Raises:
        UserError: the words are off or contradict each other.
    """
    args = parser.parse_args(argv)
    default = next(iter(recipes))
    asked = getattr(args, "architecture", None)
    args.architecture = asked or default
    args.names = {name: SCRIPT if name == default else f"{SCRIPT}_{name}" for name in recipes}
    args.wanted = [args.names[name] for name in ([asked] if asked else recipes)]
    for one, other in [
        ("synthetic", "data_dir"),
        ("model", "resume"),
        ("input", "resume"),
    ]:
        if getattr(args, one) and getattr(args, other):
            one, other = (f"--{name.replace('_', '-')}" for name in (one, other))
            raise UserError(f"{one} and {other} contradict each other; leave one out")
    for name, value in recipes[args.architecture][args.recipe].items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    words = sys.argv if argv is None else [parser.prog, *argv]
    args.command = shlex.join(word for word in words if word != "--resume")
    return args


def start(main, argv=None):
    """Call a script's main and turn what a user can mend into one line and an exit code."""
    try:
        sys.exit(main(argv))
    except UserError as error:
        print(f"{SCRIPT}.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\nInterrupted. {Run.how_to_go_on}", file=sys.stderr)
        sys.exit(130)


# ---------------------------------------------------------------- training data


class Batches:
    """An endless stream of shuffled batches, cut into epochs.

    A batch depends on the seed and on its number alone. So a run repeats exactly, and a resumed
    one sees what it would have seen without the interruption.
    """

    def __init__(self, count, make_batch, batch_size, longest_epoch=None, seed=0):
        """Describe the stream.

        Args:
            count: how many training examples there are.
            make_batch: called with an array of their chosen indices and a seed for what it draws;
                returns (inputs, targets), each an array or a dict or tuple of arrays.
            batch_size: examples per batch.
            longest_epoch: batches after which an epoch ends although the examples do not; the
                next one goes on from there. None: an epoch is one pass over the examples.
            seed: of the order and of what `make_batch` draws.
        """
        self.count, self.make_batch = count, make_batch
        self.batch_size, self.seed = batch_size, seed
        self.batches_per_pass = math.ceil(count / batch_size)
        self.steps_per_epoch = min(longest_epoch or math.inf, self.batches_per_pass)
        self._order = (None, None)

    def batch(self, step):
        """Return (inputs, targets) of a training step, counted from 0."""
        number, position = divmod(int(step), self.batches_per_pass)
        if self._order[0] != number:
            generator = np.random.default_rng([self.seed, 0, number])
            self._order = number, generator.permutation(self.count)
        chosen = self._order[1][position * self.batch_size :][: self.batch_size]
        return self.make_batch(chosen, seed=[self.seed, 1, int(step)])

    def from_epoch(self, epoch):
        """Return the stream from an epoch on, as a tf.data.Dataset.

        The next batch is made while the network trains on this one.
        """
        sample = self.make_batch(np.arange(1), seed=[0])
        flat = tensorflow.nest.flatten(sample)

        def load(step):
            arrays = tensorflow.numpy_function(
                lambda step: tensorflow.nest.flatten(self.batch(step)),
                [step],
                [array.dtype for array in flat],
            )
            for tensor, array in zip(arrays, flat, strict=True):
                tensor.set_shape((None, *array.shape[1:]))
            return tensorflow.nest.pack_sequence_as(sample, arrays)

        steps = tensorflow.data.Dataset.range(epoch * self.steps_per_epoch, np.iinfo("int64").max)
        return steps.map(load).prefetch(2)


def denoising_batches(args, clean, corrupt):
    """Return the stream of (noisy, clean) batches of a recipe.

    `tutorial` draws the noise once, before training; `fast` draws it afresh for each batch.

    Args:
        args: from `parse`.
        clean: the training images.
        corrupt: called with images and a seed, returns noisy ones.
    """
    if args.recipe == "tutorial":
        noisy = corrupt(clean, args.seed)

        def make_batch(chosen, seed):
            return noisy[chosen], clean[chosen]
    else:

        def make_batch(chosen, seed):
            return corrupt(clean[chosen], seed), clean[chosen]

    return Batches(len(clean), make_batch, args.batch_size, args.longest_epoch, args.seed)


def warm_up_and_cosine(peak, steps, warm_up=0.2):
    """Return a learning rate that rises to `peak`, then falls to zero.

    It rises over `warm_up`, a share of the steps, and falls along half a cosine: Loshchilov and
    Hutter 2016, https://arxiv.org/abs/1608.03983
    """
    rising = int(warm_up * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 50,
        warmup_target=peak,
        warmup_steps=rising,
        decay_steps=steps - rising,
    )


def start_at_mean(model, images):
    """Set the bias of a sigmoid's layer so that the untrained model answers the mean grey value.

    Otherwise it answers 0.5, and in the first steps every weight is moved to make all pixels
    darker: Karpathy 2019, "init well", https://karpathy.github.io/2019/04/25/recipe/

    Args:
        model: its last layer with weights has a sigmoid and a bias.
        images: what it is to learn, values in [0, 1].
    """
    bias = [layer for layer in model.layers if layer.weights][-1].bias
    mean = float(np.clip(np.mean(images), 0.01, 0.99))
    bias.assign(np.full(bias.shape, np.log(mean / (1 - mean))))


# ---------------------------------------------------------------- run folder


class Run:
    """The folder of one training: model.keras, history.csv, metrics.json and the figures."""

    how_to_go_on = "Nothing was changed."

    def __init__(self, args, dataset):
        """Open the folder, and with --resume see what it holds.

        Args:
            args: from `parse`; with `patience`, training stops after this many epochs without a
                better validation loss.
            dataset: the data, with `summary()`.

        Raises:
            UserError: the folder can't be written to, or can't be resumed.
        """
        self.args, self.dataset = args, dataset
        self.patience = getattr(args, "patience", None)
        self.folder = output_folder(args, "evaluation" if args.model else "")
        self.model_file = self.folder / "model.keras"
        self._history_file = self.folder / "history.csv"
        self._config_file = self.folder / "checkpoint" / "config.json"
        self.history = self._read_history() if args.resume else []
        self.first_epoch = args.epochs if self.out_of_patience() else len(self.history)
        self.seconds_before = self.history[-1]["seconds"] if self.history else 0.0
        if args.resume:
            print(f"Resuming {self.folder} after epoch {len(self.history)}.", flush=True)
            Run.how_to_go_on = self._how_to_go_on()

    def _state_file(self):
        """Return where weights and optimizer are after the last finished epoch.

        Each epoch has a file of its own, and config.json says which one counts: so there is no
        moment in which a kill could leave the two at odds.
        """
        return self.folder / "checkpoint" / f"epoch_{len(self.history)}.weights.h5"

    def _configuration(self):
        apart = (
            "output_dir data_dir synthetic resume tensorboard show model input names wanted command"
        )
        settings = {k: v for k, v in vars(self.args).items() if k not in apart.split()}
        dataset = self.dataset.summary()
        del dataset["source"]  # a download and the cache it fills hold the same
        return {"script": SCRIPT, **settings, "dataset": dataset}

    def _read_history(self):
        """Return the finished epochs of the run to resume; its state file says how many."""
        try:
            stored = json.loads(self._config_file.read_text())
            epochs, self._random_states = stored.pop("epochs_finished"), stored.pop("random_states")
            with self._history_file.open(newline="") as file:
                rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        except FileNotFoundError:
            raise UserError(
                f"{self.folder}: no interrupted training there; leave --resume out to start one"
            ) from None
        except (ValueError, KeyError, AttributeError, OSError) as error:
            raise UserError(f"{self.folder}: damaged ({error}); leave --resume out") from None
        asked = json.loads(json.dumps(self._configuration()))
        for key in sorted(stored.keys() | asked.keys()):
            if stored.get(key) != asked.get(key):
                raise UserError(
                    f"{self.folder} holds a training with {key} {stored.get(key)}, this one has "
                    f"{asked.get(key)}; give the same flags, or another --output-dir"
                )
        # An epoch after the last stored state is trained again.
        return [dict(row, epoch=int(row["epoch"])) for row in rows[:epochs]]

    def callbacks(self, model):
        """Return the callbacks for `fit`, with the model set back to where a resumed run was."""
        if self.args.resume:
            # The optimizer's state comes with the weights, if its variables are there to take it.
            model.optimizer.build(model.trainable_variables)
            try:
                model.load_weights(self._state_file())
            except (OSError, ValueError, KeyError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(
                    f"{self._state_file()}: damaged ({reason}); leave --resume out"
                ) from None
            for variable, state in zip(_random_states(model), self._random_states, strict=True):
                variable.assign(state)
        callbacks = [_Keeper(self)]
        if self.args.tensorboard:
            if not importlib.util.find_spec("tensorboard"):
                raise UserError("--tensorboard needs a package of its own: pip install tensorboard")
            callbacks.append(keras.callbacks.TensorBoard(self.folder / "tensorboard"))
        return callbacks

    @property
    def verbose(self):
        """Keras's progress bar on a terminal, a line an epoch elsewhere."""
        return 1 if sys.stdout.isatty() else 2

    def keep(self, model, row):
        """Store one finished epoch; return whether training should stop."""
        best = min(self._finite_losses(), default=math.inf)
        if row["val_loss"] < best:
            save_model(model, self.model_file)
        if not self.history:  # only now is an older run in this folder really replaced
            for stale in [*self.folder.glob("*.png"), self.folder / "metrics.json"]:
                stale.unlink(missing_ok=True)
            self._config_file.unlink(missing_ok=True)
        self.history.append(row)
        with write_whole(self._history_file) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(self.history)
        with write_whole(self._state_file()) as path:
            model.save_weights(path)
        config = {**self._configuration(), "epochs_finished": len(self.history)}
        config["random_states"] = [variable.numpy().tolist() for variable in _random_states(model)]
        write_json(self._config_file, config)
        for state_file in self._config_file.parent.glob("epoch_*.weights.h5"):
            if state_file != self._state_file():
                state_file.unlink()
        Run.how_to_go_on = self._how_to_go_on()
        return self.out_of_patience()

    def _finite_losses(self):
        return [row["val_loss"] for row in self.history if math.isfinite(row["val_loss"])]

    def out_of_patience(self):
        """Say whether the last `patience` epochs brought no better validation loss."""
        best = min(self._finite_losses(), default=None)
        epochs = [row["epoch"] for row in self.history if row["val_loss"] == best] or [0]
        return self.patience is not None and len(self.history) - epochs[0] >= self.patience

    def _how_to_go_on(self):
        return (
            f"The best model so far is {self.model_file}. "
            f"Go on with: python {self.args.command} --resume"
        )

    def best_model(self):
        """Return the model with the lowest validation loss of this run."""
        if not self._finite_losses():
            raise UserError("training diverged: no finite validation loss; lower --learning-rate")
        return keras.saving.load_model(self.model_file, compile=False)

    def other_models(self, *same):
        """Return {architecture: model} of the other architectures' runs under the same conditions.

        Args:
            same: the settings that must agree; the data must anyway.
        """
        args, found = self.args, {}
        for architecture, name in args.names.items() if not args.output_dir else ():
            folder = Path("runs", name)
            if architecture == args.architecture or not (folder / "model.keras").is_file():
                continue
            try:
                other = json.loads((folder / "checkpoint" / "config.json").read_text())
            except (OSError, ValueError):
                continue
            ours = self._configuration()
            if all(other.get(key) == ours[key] for key in ("dataset", *same)):
                found[architecture] = load_model(folder / "model.keras", [name])
        return found

    def draw_history(self, loss):
        """Draw the loss curves of a training; `loss` names the loss and its unit."""
        if self.history:
            plotting.loss_curves(
                self.history,
                self.folder / "loss.png",
                f"Training of {self.args.names[self.args.architecture]}, recipe {self.args.recipe}",
                "Training loss is a mean over the epoch while weights still change, validation "
                f"loss is taken at its end.\nData: {self.dataset}.",
                loss,
                self.args.show,
            )

    def finish(self, model, results, test="model", others=()):
        """Write metrics.json and print the table that ends every run.

        Args:
            model: the trained model.
            results: {row name: {metric: value}}: the model's row, the baselines' and others'.
            test: the name of the model's row.
            others: names of rows that are no baselines: only printed.
        """
        args = self.args
        report = {
            "script": SCRIPT,
            "dataset": self.dataset.summary(),
            "recipe": None if args.model else args.recipe,
            "architecture": args.architecture,
            "parameters": model.count_params(),
            "epochs": len(self.history) or None,
            "batch_size": None if args.model else args.batch_size,
            "learning_rate": None if args.model else args.learning_rate,
            "seed": args.seed,
            "seconds_training": self.history[-1]["seconds"] if self.history else None,
            "seconds_total": time.perf_counter() - _STARTED,
            "peak_memory_mb": peak_memory_mb(),
            "versions": {
                "python": platform.python_version(),
                "keras": keras.__version__,
                "tensorflow": tensorflow.__version__,
                "numpy": np.__version__,
            },
            "test": results[test],
            "baselines": {k: v for k, v in results.items() if k != test and k not in others},
        }
        write_json(self.folder / "metrics.json", report)
        data = report["dataset"]
        print(f"\n{data['name']} ({data['source']}), {data['test']:,} test images")
        print_table(results)
        if self.history:
            print(f"Trained in {report['seconds_training']:.0f} s. ", end="")
        print(f"Results are in {self.folder}{os.sep}")


def _random_states(model):
    """Return the variables of a model's random generators, which Keras does not save."""
    return [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]


class _Keeper(keras.callbacks.Callback):
    """Hands each finished epoch to the run: history, best model, and all that resuming needs.

    Keras's BackupAndRestore with ModelCheckpoint and CSVLogger would do it in three files that a
    kill can leave at odds, and a resumed run would forget the best value so far.
    """

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_train_begin(self, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = self.run.seconds_before + time.perf_counter() - self.started
        logs = {name: float(value) for name, value in (logs or {}).items()}
        row = {"epoch": epoch + 1, "seconds": round(seconds, 3), **logs}
        if self.run.keep(self.model, row):
            self.model.stop_training = True


def output_folder(args, default=""):
    """Return the folder for results, made and seen to be writable.

    Args:
        args: from `parse`; without --output-dir it is runs/<script>.
        default: a folder below that, where --output-dir does not say otherwise.

    Raises:
        UserError: it can't be written to.
    """
    folder = Path(args.output_dir or Path("runs", args.names[args.architecture], default))
    with write_whole(folder / "writable") as probe:
        probe.touch()
    (folder / "writable").unlink()
    return folder


def save_model(model, path):
    """Save a model whole or not at all, without its optimizer: a third of the size."""
    with write_whole(path) as temporary:
        model.save(temporary)
        # Keras saves the optimizer of a compiled model whatever it is told.
        keras.saving.load_model(temporary, compile=False).save(temporary)


def load_model(path, names):
    """Load a trained model with safe mode on.

    Args:
        path: a .keras file.
        names: what the model may be named.

    Raises:
        UserError: there is no such file, it is no Keras model, or it is another script's.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; --model wants one that {SCRIPT}.py trained")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever its parts do
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: not a model that can be loaded ({reason})") from None
    if model.name not in names:
        wanted = " or ".join(repr(name) for name in names)
        raise UserError(f"{path}: holds a model named {model.name!r}, {SCRIPT}.py needs {wanted}")
    return model


def given_model(args):
    """Return the model of --model, whose architecture `args` takes on; None without --model."""
    if args.model is None:
        return None
    model = load_model(args.model, args.wanted)
    args.architecture = _architecture(args, model)
    return model


def _architecture(args, model):
    return next(key for key, name in args.names.items() if name == model.name)


def find_model(args, shipped):
    """Return the model for --input: --model's, else the newest run's, else one in models/.

    Args:
        args: from `parse`; where --architecture was given, only its models come into question.
        shipped: the architecture to take from models/ where none was asked for.
    """
    path = args.model
    if path is None:
        trained = [Path("runs", name, "model.keras") for name in args.wanted]
        trained = sorted(filter(Path.is_file, trained), key=os.path.getmtime)
        name = args.names[shipped]
        name = name if name in args.wanted else args.wanted[0]
        path = trained[-1] if trained else _ROOT / "models" / f"{name}.keras"
    print(f"Using the model {path}", flush=True)
    return load_model(path, args.wanted)


def denoise_files(args, shipped, builders, multiple, plus=0):
    """Write a denoised copy of each --input file, whatever its size.

    The networks are convolutional, so trained weights fit a network of any image size.

    Args:
        args: from `parse`.
        shipped: as for `find_model`.
        builders: {architecture: function of height and width that returns the network}.
        multiple: the network takes sides that are a multiple of this,
        plus: and this many pixels more.
    """
    trained = find_model(args, shipped)
    model = builders[_architecture(args, trained)](None, None)
    model.set_weights(trained.get_weights())
    folder = output_folder(args, "denoised")
    for path, target in images.targets(args.input, folder, "_denoised.png"):
        image = images.read_grey(path)
        height, width = image.shape[:2]
        padded = images.pad_to_multiple(image, multiple, plus)
        images.write_image(target, model.predict(padded[None], verbose=0)[0, :height, :width])
        print(f"Wrote {target}", flush=True)


def peak_memory_mb():
    """Return this process's peak resident memory in MB, or None where the system can't tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def write_json(path, content):
    """Write JSON whole or not at all; what JSON cannot say, such as an infinite PSNR, is null."""

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(clean(content), indent=2, allow_nan=False) + "\n")


def print_table(results):
    """Print {row: {column: value}} aligned."""
    fullest_first = sorted(results.values(), key=len, reverse=True)
    columns = list(dict.fromkeys(name for row in fullest_first for name in row))
    width = max(len(name) for name in results)
    print(" " * width, *[f"{name:>{max(len(name), 8)}}" for name in columns], sep="  ")
    for name, row in results.items():
        cells = [f"{row[c]:.4f}" if c in row else "-" for c in columns]
        cells = [f"{cell:>{max(len(c), 8)}}" for c, cell in zip(columns, cells, strict=True)]
        print(f"{name:<{width}}", *cells, sep="  ")
