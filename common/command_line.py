"""The command line that all scripts share, and how a script ends."""

import argparse
import contextlib
import dataclasses
import importlib.util
import inspect
import itertools
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import tensorflow

from common import UserError, answer_signals, devices, files, without_start_up_noise

_RENAMED = {  # words of the first version
    ("--recipe", "tutorial"): "--recipe published",
    ("--architecture", "tutorial"): "--architecture autoencoder",
}
_EVERY, _TRAIN = (), ("train",)


def number(least, most=1e6, kind=float):
    """Return an argparse type: a number of this kind, int or float, within bounds."""

    def parse(text):
        with contextlib.suppress(ValueError):
            if least <= kind(text) <= most:
                return kind(text)
        whole = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"{text!r} is not a {whole} from {least} to {most:g}")

    return parse


def whole(least, most=10**6):
    """Return an argparse type: a whole number within bounds."""
    return number(least, most, int)


def number_or_all(text):
    """Return an argparse type's value: "all", or a whole number from 1."""
    return text if text == "all" else whole(1)(text)


def path(text):
    """Return an argparse type's value: the words of a path, of which there must be some."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; leave it out, or give a path")
    return text


def flag(text, default=None, kind=str, only=("train", "model"), resume=True, **options):
    """Return a field of `Settings` that is a flag of the command line.

    Args:
        text: its line in --help.
        default: its value where it is not given.
        kind: bool, for a flag without a value, or an argparse type.
        only: the actions in which it has an effect, as `Settings.action` names them; none: all.
        resume: whether it affects the training, so that a resumed one must have the same value.
        options: for argparse's `add_argument`: choices, metavar, nargs.
    """
    options |= {"action": "store_true"} if kind is bool else {"type": kind}
    metadata = {"options": {"help": text, **options}, "only": only, "resume": resume}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run does: the flags all scripts share. A script adds its own in a subclass."""

    script = ""  # the name of the file, without .py
    names = {}  # {architecture: name of its models and run folders}, default first
    applied = None  # the architecture that is applied where none is asked for; None: the default
    applications = ("input",)  # flags that apply a trained model to something
    loses_by_bfloat16 = False
    moved = {}  # {flag of the first version: the script that has it now}
    build_like = None  # see `trained_models.load_model`

    recipe: str = flag(
        "train as the source article did, or to its quality in less time (default: fast)",
        *("fast", str, _TRAIN),
        choices=["fast", "published"],
    )
    epochs: int = flag("epochs of training", None, whole(1), _TRAIN, metavar="N")
    batch_size: int = flag("examples in a step", None, whole(1), _TRAIN, metavar="N")
    learning_rate: float = flag(
        "the highest of the training", None, number(1e-12, 1e38), _TRAIN, metavar="X"
    )
    data_dir: str = flag(
        "read the dataset from this folder alone", None, path, resume=False, metavar="DIR"
    )
    synthetic: bool = flag("use the synthetic stand-in for the dataset", False, bool)
    limit: int = flag("use N training and N test images", None, whole(10), metavar="N")
    output_dir: str = flag("default: a new one in runs/", None, path, _EVERY, False, metavar="DIR")
    seed: int = flag(
        "the same seed gives the same run (default: 0)", None, whole(0, 2**32 - 1), metavar="N"
    )
    precision: str = flag(
        "of the computation (default: float32)",
        *("float32", str, _TRAIN),
        choices=["float32", "mixed_bfloat16"],
    )
    devices: int = flag(
        "train on this many GPUs of this machine, or on all",
        1,
        number_or_all,
        _TRAIN,
        metavar="N|all",
    )
    resume: bool = flag("go on with an interrupted training", False, bool, _TRAIN, False)
    tensorboard: bool = flag("log for TensorBoard", False, bool, _TRAIN, False)
    show: bool = flag("open the figures in windows as well", False, bool, resume=False)
    model: str = flag("evaluate or apply this model", None, path, _EVERY, False, metavar="FILE")
    input: list = flag(
        "apply the trained model to these", None, path, _EVERY, False, nargs="+", metavar="FILE"
    )

    # Not flags: what the recipe says, and how the script was called.
    architecture: str = "autoencoder"
    max_steps_per_epoch: int | None = None
    patience: int | None = None
    command: str = ""

    @property
    def name(self):
        """The name of the model and of the run folder."""
        return self.names[self.architecture]

    @property
    def action(self):
        """What is asked for: "train", "model" (evaluate one), or one of `applications`."""
        asked = [name for name in (*self.applications, "model") if getattr(self, name) is not None]
        return asked[0] if asked else "train"

    def to_resume(self):
        """Return {name: value} of the settings that a resumed training must share."""
        flags = [field for field in dataclasses.fields(self) if field.metadata]
        names = [f.name for f in flags if f.metadata["resume"] and "train" in f.metadata["only"]]
        names += ["script", "architecture", "max_steps_per_epoch", "patience"]
        return {name: getattr(self, name) for name in names}


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are a UserError."""

    def error(self, message):
        """Raise UserError, in place of printing how the command is used."""
        raise UserError(f"{message} (--help lists what there is)")


def _written(name):
    return f"--{name.replace('_', '-')}"


def _parser(kind, docstring):
    """Return the parser of a script; its docstring's first paragraph and "Run it:" are the help."""
    paragraphs = docstring.strip().split("\n\n")
    examples = next(text for text in paragraphs if text.startswith("Run it:"))
    parser = Parser(
        prog=f"{kind.script}.py",
        description=paragraphs[0],
        epilog=examples.replace("Run it:", "examples:"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for field in dataclasses.fields(kind):
        if "options" in field.metadata:
            options = {**field.metadata["options"], "default": argparse.SUPPRESS}
            parser.add_argument(_written(field.name), dest=field.name, **options)
    return parser


def parse(kind, docstring, recipes, argv=None):
    """Return the settings of a run.

    Args:
        kind: the script's subclass of `Settings`.
        docstring: the script's.
        recipes: {architecture: {recipe: {"epochs": …, "batch_size": …, …}}}, the default
            architecture first. A recipe fills in what the command line leaves open; what is None
            in it has no effect.
        argv: the words to parse; None for the command line's own.

    Raises UserError if the words are off, contradict each other, or one has no effect.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    for word, following in itertools.pairwise([*argv, ""]):
        if word.encode(errors="replace").decode() != word:
            raise UserError(f"{word!a}: not UTF-8; rename the file, or type the text anew")
        if (word, following) in _RENAMED:
            raise UserError(f"{word} {following} is now {_RENAMED[word, following]}")
        if re.fullmatch("--.*=--", word):  # which argparse has taken for the end of the flags
            raise UserError(f"argument {word[:-3]}: expected a value, not --")
        if word in kind.moved:
            raise UserError(f"{word} has moved to {kind.moved[word]}")
    given = vars(_parser(kind, docstring).parse_args(argv))
    asked = [name for name in kind.applications if name in given]
    action = kind(**given).action
    for names in (asked, ["synthetic", "data_dir"], ["architecture", "model"]):
        both = [_written(name) for name in names if name in given]
        if len(both) > 1:
            raise UserError(f"{both[0]} and {both[1]} exclude each other; give one of them")
    for field in dataclasses.fields(kind):
        only = field.metadata.get("only") or (action,)
        if field.name in given and action not in only:
            wanted = " or ".join("training" if name == "train" else _written(name) for name in only)
            raise UserError(f"{_written(field.name)} has no effect here; it is for {wanted}")
    default = (asked and kind.applied) or next(iter(recipes))
    architecture = given.get("architecture", default)
    recipe = recipes[architecture].get(given.get("recipe", "fast"))
    if recipe is None:
        raise UserError(f"--recipe {given['recipe']} is not for --architecture {architecture}")
    for name in given.keys() & recipe.keys():
        if recipe[name] is None:
            raise UserError(f"{_written(name)} has no effect with --recipe {given['recipe']}")
    if "tensorboard" in given and not importlib.util.find_spec("tensorboard"):
        raise UserError("--tensorboard needs a package of its own: pip install tensorboard")
    if given.get("precision") == "mixed_bfloat16":
        _refuse_bfloat16(kind)
    if "devices" in given:
        shared = {**recipe, **given}.get("batch_size")
        given["devices"] = devices.choose(given["devices"], shared)
    if action in ("train", "model"):
        files.see_that_writable(given.get("output_dir"))
    filled_in = {"seed": None if asked else 0, "architecture": architecture, **recipe}
    filled_in["command"] = shlex.join(["python", f"{kind.script}.py", *argv])
    return kind(**{**filled_in, **given})


def _refuse_bfloat16(kind):
    """Raise UserError where mixed_bfloat16 would be slower, or the result worse."""
    if kind.loses_by_bfloat16:
        raise UserError(f"{kind.script}.py ends worse with mixed_bfloat16; leave --precision out")
    known = Path("/proc/cpuinfo")
    instructions = known.read_text() if known.is_file() else ""
    if not re.search(r"avx512_bf16|amx_bf16|\bbf16\b", instructions) and not (
        tensorflow.config.list_physical_devices("GPU")
    ):
        raise UserError("this processor has no bfloat16 instructions; leave --precision out")


def start(main, argv=None):
    """Call a script's main and end the process: 0, 1, 2 for bad input, 130 for Ctrl-C.

    SIGTERM and SIGHUP are answered like Ctrl-C, and standard output that can't be written, as when
    `head -1` has hung up or a disk is full, ends nothing.
    """
    name = Path(inspect.getfile(main)).name
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # not where a notebook put its own
            stream.reconfigure(errors="backslashreplace")  # where output is ASCII only
        stream.write = _deaf_to_hang_ups(stream, stream.write)
        stream.flush = _deaf_to_hang_ups(stream, stream.flush)
    try:
        answer_signals(signal.default_int_handler)
        with without_start_up_noise(), tensorflow.GradientTape() as tape:
            # TensorFlow looks for GPUs, and has a remark on the gradient of an UpSampling layer.
            ones = tensorflow.Variable(tensorflow.ones((1, 2, 2, 1)))
            tape.gradient(tensorflow.repeat(ones, 2, axis=1), ones)
        sys.exit(main(argv))
    except UserError as error:
        _say_error(name, str(error))
    except OSError as error:
        _say_error(name, f"{error.filename or 'input or output'}: {error.strerror or error}")
    except (MemoryError, tensorflow.errors.ResourceExhaustedError):
        _say_error(name, "not enough memory; use smaller pictures, or a smaller --batch-size")
    except KeyboardInterrupt as error:
        answer_signals(signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
        notes = getattr(error, "__notes__", ["Nothing half-written is left."])
        print(f"\nInterrupted. {' '.join(notes)}", file=sys.stderr)
        sys.exit(130)
    finally:
        answer_signals(signal.SIG_IGN)  # nor has one while Python ends


def _say_error(name, text):
    """Print an error as one line of at most 300 characters, without its middle, and end with 2."""
    line = "".join(c if c.isprintable() else " " for c in f"{name}: error: {text}")
    line = " ".join(line.split())
    print(line if len(line) <= 300 else f"{line[:180]} … {line[-110:]}", file=sys.stderr)
    sys.exit(2)


def _deaf_to_hang_ups(stream, function):
    """Return a method of a text stream that goes on into nothing when its reader is gone."""

    def call(*words):
        try:
            return function(*words)
        except OSError:  # also a full disk, or a terminal that was closed
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), stream.fileno())

    return call
