"""Run the trainings whose results README.md and docs/results.md show, and plot them over time.

How much faster than `published` is our recipe, `fast` or `long`? Both train the same network on the
same data, with the same validation images. The speed-up is the time `published` takes to reach its
best validation loss, divided by the time ours takes to reach the same loss. One point says little
about two curves, so losses 1% and 5% above the best one are compared, too. Between epochs the loss
is interpolated linearly. watermark_ae.py has no speed-up: as published, it learns nothing.

All trainings take about four hours on 2 cores, which should run nothing else. Trainings already in
the results file are not repeated, so an interrupted run continues where it stopped.

Examples:
  python -m benchmarks.trainings --data-dir DIR                      run all trainings
  python -m benchmarks.trainings denoise_mnist --data-dir DIR        run those of one script
  python -m benchmarks.trainings denoise_mnist/fast --data-dir DIR   run one training
  python -m benchmarks.tables                                        write README's tables
"""

import dataclasses
import datetime
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from common import cli, files, plotting, training
from common.cli import UserError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
IMAGES = ROOT / "docs" / "images"
# {script/name: (flags, number of seeds)}: three seeds where a training takes up to five minutes
TRAININGS = {
    "latent_spaces/fast": ("", 3),
    "denoise_mnist/published": ("--recipe published", 1),
    "denoise_mnist/fast": ("", 3),
    "denoise_mnist/long": ("--epochs 48 --batch-size 64", 3),
    "denoise_fashion/published": ("--recipe published", 1),
    "denoise_fashion/fast": ("", 3),
    "denoise_fashion/unet": ("--architecture unet", 1),
    "vae_fashion/published": ("--recipe published", 1),
    "vae_fashion/fast": ("", 3),
    "vae_fashion/long": ("--epochs 56", 1),
    "vae_fashion/dense": ("--architecture dense", 1),
    "clean_documents/published": ("--architecture autoencoder --recipe published", 1),
    "clean_documents/fast": ("--architecture autoencoder", 3),
    "clean_documents/unet": ("--architecture unet", 1),
    "clean_documents/shipped": ("--recipe shipped", 1),
    "watermark_ae/published": ("--recipe published", 3),
    "watermark_ae/fast": ("--watermark-image samples/logo.png", 3),
    "watermark_ae/gray": ("--watermark gray --watermark-image samples/logo.png", 1),
    "watermark_photo/fast": ("", 1),
}
MARGINS = (0.05, 0.01, 0.0)  # above the best validation loss
PUBLISHED, OURS = "published", ("fast", "long")
# {script: label of its validation loss}, in the order of the figure
LOSSES = {
    "denoise_mnist": "binary cross-entropy",
    "denoise_fashion": "mean squared error",
    "vae_fashion": "−ELBO (nats)",
    "clean_documents": "mean squared error",
    "watermark_ae": "share of correct bits",
}
COMPARED = [script for script in LOSSES if script != "watermark_ae"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options shared with benchmarks/ablations.py."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """what to train; default: all"""
    data_dir: Path | None = None
    """folder with the datasets"""
    synthetic: bool = False
    """train on the synthetic stand-ins for the datasets"""
    limit: int | None = None
    """use only this many training images and test images"""
    seeds: int | None = None
    """number of seeds, from 0 up; default: as many as in the tables"""
    results: Path = RESULTS
    """file for the results"""
    images: Path = IMAGES
    """folder for the figures"""
    seed: cli.Hidden[int] = 0  # of synthetic data

    def check(self, known_names):
        """Raise UserError if a name is unknown or there is no dataset to train on."""
        for name in self.names:
            if name not in known_names:
                raise UserError(f"{name}: unknown; there are {', '.join(known_names)}")
        if not self.data_dir and not self.synthetic:
            raise UserError("give the folder with the datasets by --data-dir")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Options):
    epochs: int | None = None
    """number of epochs; None: the recipe's"""


def read_results(path):
    """Return what was measured so far, {"trainings": {script/name/seed: results}, ...}.

    Raises UserError if the file is damaged.
    """
    if not path.exists():
        return {"trainings": {}}
    try:
        return json.loads(files.read(path))
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); move it away to measure again") from None


def store(path, name, measured):
    """Add the results of another benchmark to the results file."""
    files.write_json(path, read_results(path) | {name: measured | circumstances()}, replace=True)
    print(f"Wrote {path}")


def circumstances():
    """Return the date, the commit and the machine of a measurement."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, cwd=ROOT
    )
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
        processor = names[0] if names else processor
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": f"{processor}, {os.cpu_count()} cores, {platform.system()}",
    }


def measure(name, seed, settings):
    """Train in a new process and a new folder in runs/, and return the results."""
    script, training_name = name.split("/")
    command = f"python {script}.py {TRAININGS[name][0]} --seed {seed}".split()
    for option in ("limit", "epochs"):
        if value := getattr(settings, option):
            command += [f"--{option}", str(value)]
    if settings.synthetic:
        command.append("--synthetic")
    elif script != "watermark_photo":  # it needs no dataset
        command += ["--data-dir", "DIR"]
    folder = files.output_folder(None, f"benchmark_{name.replace('/', '_')}_{seed}").absolute()
    paths = {"python": sys.executable, "DIR": str(Path(settings.data_dir or "").absolute())}
    arguments = [paths.get(word, word) for word in command]
    done = subprocess.run([*arguments, "--output-dir", str(folder)], cwd=ROOT)
    if done.returncode:
        raise UserError(f"{script}.py ended with exit code {done.returncode}")
    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    del results["settings"]  # the command has them, without paths of this machine
    bits = script == "watermark_ae" and training_name != "gray"
    column = "val_recovered_binary_accuracy" if bits else "val_loss"
    rows = training.read_history(folder)
    seconds, validation = [row["seconds"] for row in rows], [row[column] for row in rows]
    if script == "latent_spaces":  # it trains many networks, each without a history.csv
        networks = json.loads((folder / "networks.json").read_text(encoding="utf-8"))
        results["networks"] = networks
        seconds = list(itertools.accumulate(net["seconds"] for net in networks.values()))
        validation = [net["val_loss"] for net in networks.values()]
    return {
        "command": " ".join(command),
        **results,
        **circumstances(),
        "seconds": [round(value, 1) for value in seconds],
        "validation": [round(value, 6) for value in validation],
    }


def seconds_to(run, loss):
    """Return after how many seconds the validation loss was this low, or None if it never was."""
    before = None
    for seconds, value in zip(run["seconds"], run["validation"], strict=True):
        if value <= loss:
            if before is None:
                return seconds
            share = (before[1] - loss) / (before[1] - value)
            return before[0] + share * (seconds - before[0])
        before = seconds, value
    return None


def time_to_quality(published, ours, margin=0.0):
    """Return a loss, and the seconds `published` and our training took to reach it (None: never).

    The loss is the best validation loss of `published`, times 1 + `margin`. Raises UserError if the
    trainings were timed on different machines.
    """
    if published["machine"] != ours["machine"]:
        raise UserError("the published recipe and ours were timed on different machines")
    loss = min(published["validation"]) * (1 + margin)
    return loss, seconds_to(published, loss), seconds_to(ours, loss)


def plot(trainings, path):
    """Plot validation loss over time with seed 0, a panel for each script; replaces the file."""
    figure = Figure(figsize=(9, 8.7), layout="constrained")
    *axes, unused = figure.subplots(3, 2).flat
    unused.axis("off")
    for axis, (script, label) in zip(axes, LOSSES.items(), strict=True):
        axis.set(title=script, xscale="log", ylabel=label, xlabel="seconds of training")
        axis.grid(alpha=0.3)
        runs = {
            recipe: trainings[f"{script}/{recipe}/0"]
            for recipe in (PUBLISHED, *OURS)
            if f"{script}/{recipe}/0" in trainings
        }
        for recipe, run in runs.items():
            axis.plot(run["seconds"], run["validation"], marker=".", label=recipe)
        if script in COMPARED and PUBLISHED in runs:
            for run in runs.values():
                loss, _, reached = time_to_quality(runs[PUBLISHED], run)
                if reached:
                    axis.plot(reached, loss, "k*", ms=9, zorder=3)
            axis.axhline(loss, color="0.6", lw=1, ls="--")
            losses = [loss for run in runs.values() for loss in run["validation"]]
            low, high = np.quantile(losses, [0, 0.85])  # the first losses are far above the rest
            axis.set_ylim(low - 0.06 * (high - low), high + 0.3 * (high - low))
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
        if runs:
            axis.legend()
    names = dict.fromkeys(run["dataset"]["name"] for run in trainings.values())
    machines = dict.fromkeys(run["machine"] for run in trainings.values())
    path.unlink(missing_ok=True)
    plotting.save(
        figure,
        path,
        "Validation loss over time; of the watermark, the share of correct bits. The dashed line is"
        " the best loss of the published recipe; stars show when each recipe gets there. 'long' is"
        " 'fast' with more epochs and, for digits, larger batches. As published, the watermark's"
        " networks learn nothing: half of the bits are correct by chance."
        f" Data: {', '.join(names)}. Seed 0. {'; '.join(machines)}.",
    )


def main(argv=None):
    settings = tyro.cli(
        Settings, args=argv, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    scripts = dict.fromkeys(name.split("/")[0] for name in TRAININGS)
    settings.check([*TRAININGS, *scripts])
    chosen = [
        (seed, name)
        for name, (_, seeds) in TRAININGS.items()
        for seed in range(settings.seeds or seeds)
        if not settings.names or {name, name.split("/")[0]} & set(settings.names)
    ]
    for seed, name in sorted(chosen, key=lambda training: training[0]):  # seed 0 of all first
        results = read_results(settings.results)
        key = f"{name}/{seed}"
        if key in results["trainings"]:
            continue
        print(f"\n=== {key}", flush=True)
        results["trainings"][key] = measure(name, seed, settings)
        files.write_json(settings.results, results, replace=True)
    plot(read_results(settings.results)["trainings"], settings.images / "time_to_quality.png")


if __name__ == "__main__":
    cli.run(main)
