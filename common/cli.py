"""Command line: each command is a frozen dataclass, parsed by tyro.

`python script.py` trains. `python script.py --input FILE ...` applies a trained model. Each command
has its own dataclass, so the flags of another command are unknown to it.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

T = TypeVar("T")
Hidden = Annotated[T, tyro.conf.Fixed, tyro.conf.Suppress]  # a field without a flag


class UserError(Exception):
    """A problem that the user can fix. It is shown as one line, without a traceback."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Options shared by all trainings."""

    recipe: Literal["fast", "published"] = "fast"
    """published trains as in the source article, fast is our tuned recipe"""
    epochs: int | None = None
    """number of epochs; None: the recipe's"""
    batch_size: int | None = None
    """examples per step; None: the recipe's"""
    learning_rate: float | None = None
    """learning rate, in `fast` the peak of its schedule; None: the recipe's"""
    steps_per_epoch: int | None = None
    """batches per epoch, at most 20 passes over the training data; None: the recipe's"""
    data_dir: Path | None = None
    """folder to read the dataset from, instead of downloading it"""
    synthetic: bool = False
    """train on the synthetic stand-in for the dataset"""
    limit: int | None = None
    """use only this many images for training and validation, and this many for testing"""
    seed: int = 0
    """seed of all random numbers"""
    output_dir: Path | None = None
    """folder for the results; None: a new one in runs/"""
    resume: Path | None = None
    """continue the interrupted training in this run folder, with the flags it was started with"""
    tensorboard: bool = False
    """also log for TensorBoard"""
    model: Path | None = None
    """evaluate this model instead of training one"""
    arguments: Hidden[tuple[str, ...]] = ()  # the command line, saved in the run folder

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate", "steps_per_epoch"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} must be positive")
        if self.limit is not None and self.limit < 10:
            raise ValueError("--limit must be at least 10")
        if not 0 <= self.seed < 2**32:
            raise ValueError("--seed must be between 0 and 4294967295")
        if self.synthetic and self.data_dir:
            raise ValueError("--synthetic and --data-dir exclude each other")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Options shared by all commands that use a trained model."""

    model: Path | None = None
    """trained model; None: the one in models/"""
    output_dir: Path | None = None
    """folder for the results; None: a new one in runs/"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(Pretrained):
    """Options for applying a trained model to files."""

    input: list[Path]
    """files to apply the model to"""


def parse(description, argv, *commands):
    """Return the command that the user asks for: an instance of one of the dataclasses.

    The first of the commands is the default. Each other one has exactly one required field; its
    flag selects it. `description` is shown by --help, `argv` None means the process's arguments.
    """
    argv = sys.argv[1:] if argv is None else [str(argument) for argument in argv]
    train, *others = commands
    given = {argument.partition("=")[0] for argument in argv}
    flags = {f"--{_required_field(command).replace('_', '-')}": command for command in others}
    for flag, command in flags.items():
        if flag in given:
            settings = _parse(command, argv, description)
            if getattr(settings, _required_field(command)) == []:
                raise UserError(f"{flag} needs at least one file")
            return settings
    script = Path(sys.argv[0]).name
    hint = f"\nHelp for {', '.join(flags)}: python {script} FLAG VALUE --help" if flags else ""
    settings = _parse(train, argv, description + hint)
    if settings.resume:
        folder = settings.resume
        if len(argv) != (2 if argv[0] == "--resume" else 1):  # more than --resume or --resume=…
            raise UserError(f"--resume {folder} reuses the flags of that training; give no others")
        argv = _read_arguments(folder)
        settings = dataclasses.replace(_parse(train, argv, description), resume=folder)
    return dataclasses.replace(settings, arguments=tuple(argv))


def _required_field(command):
    [name] = [f.name for f in dataclasses.fields(command) if f.default is dataclasses.MISSING]
    return name


def _parse(command, argv, description):
    # FlagCreatePairsOff: --synthetic alone, without a --no-synthetic.
    config = (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(command, args=argv, description=description, config=config)


def _read_arguments(folder):
    """Return the command line of an interrupted training, saved in its run folder."""
    if (folder / "metrics.json").exists():
        raise UserError(f"{folder} holds a finished training; leave --resume out to start another")
    try:
        arguments = json.loads((folder / "arguments.json").read_text(encoding="utf-8"))
        if not isinstance(arguments, list):
            raise TypeError("arguments.json is not a list")
        return [str(argument) for argument in arguments]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{folder} holds no interrupted training ({error})") from None


def with_recipe(settings, recipe):
    """Return settings with every unset (None) field taken from the recipe.

    `recipe` is a dict of field values, such as {"epochs": 12, "batch_size": 32}.
    """
    missing = {name: value for name, value in recipe.items() if getattr(settings, name) is None}
    return dataclasses.replace(settings, **missing)


def run(main):
    """Call a script's main() and exit: with one line and code 2 on UserError, 130 on Ctrl-C."""
    try:
        sys.exit(main())
    except UserError as error:
        _exit_with_line(str(error))
    except OSError as error:
        _exit_with_line(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except MemoryError:
        _exit_with_line("not enough memory; use smaller pictures or a smaller --batch-size")
    except KeyboardInterrupt:
        advice = "If a --resume line was printed above, it continues the training."
        print(f"\nInterrupted. {advice}", file=sys.stderr)
        sys.exit(130)


def _exit_with_line(message):
    printable = "".join(c if c.isprintable() else " " for c in message)
    print(f"error: {' '.join(printable.split())}", file=sys.stderr)
    sys.exit(2)
