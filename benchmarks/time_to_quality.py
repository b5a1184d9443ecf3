"""How much faster does `fast` get to the quality of `published`?

For each script both recipes are trained to their ends, one at a time: the same network, data,
validation images and seed. Q is the best validation value that `published` reaches; the ratio is
the time it took to get there over the time `fast` took. One point says little about two curves, so
the same is told for values 5% and 1% above Q. Between two epochs the curves are taken as straight.
No test data is looked at before a training has ended. The watermark has no ratio: as published it
learns nothing. Where a script has more to offer, that is trained as well.

It takes some five hours on 2 cores. What is finished stands in results.json, so an interrupted run
goes on where it stopped. Let nothing else run meanwhile.

Run it:
  python benchmarks/time_to_quality.py --data-dir DIR                  everything
  python benchmarks/time_to_quality.py denoise_mnist --data-dir DIR    one script
  python benchmarks/readme.py                                          results.json to README
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line, files, plotting, run_folder  # noqa: E402

import speed  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results.json"
FIGURE = ROOT / "docs" / "images" / "time_to_quality.png"
LOGO = str(ROOT / "benchmarks" / "logo.png")  # what watermark_ae.py hides in each digit
# What is trained: the flags of each, beside --recipe, and how many minutes it takes on 2 cores.
TRAININGS = {
    "latent_spaces": {"fast": ([], 4)},
    "denoise_mnist": {"published": ([], 5), "fast": ([], 1)},
    "denoise_fashion": {
        "published": ([], 11),
        "fast": ([], 2),
        "unet": (["--architecture", "unet"], 5),
        "long": (["--epochs", "60"], 11),
    },
    "vae_fashion": {
        "published": ([], 25),
        "fast": ([], 5),
        "long": (["--epochs", "56"], 25),
        "dense": (["--architecture", "dense"], 1),
        "latent_16": (["--latent-dim", "16"], 5),
        "latent_16_long": (["--latent-dim", "16", "--epochs", "30"], 12),
    },
    "clean_documents": {
        "published": (["--architecture", "autoencoder"], 30),
        "fast": (["--architecture", "autoencoder"], 3),
        "unet": (["--architecture", "unet"], 15),
        "shipped": (["--recipe", "shipped"], 40),
    },
    "watermark_ae": {
        "published": ([], 1),
        "fast": (["--watermark-image", LOGO], 4),
        **{
            kind: (["--watermark", kind, "--watermark-image", LOGO], 4)
            for kind in ("grey", "signed", "positive")
        },
        "noise": (["--noise", "0.12", "--psnr", "20.05", "--epochs", "80"], 12),
    },
}
MARGINS = [0.05, 0.01, 0.0]  # above the best validation value
PAIR = ("published", "fast")
SEEDS = 3  # of these two, where they take no more than five minutes; the others are trained once
# What is followed of a pair during training, from history.csv; val_loss elsewhere.
FOLLOWED = {"watermark_ae": "val_recovered_binary_accuracy"}
AXES = {
    "denoise_mnist": "binary cross-entropy",
    "denoise_fashion": "mean squared error",
    "vae_fashion": "−ELBO (nats)",
    "clean_documents": "mean squared error",
    "watermark_ae": "share of right bits",
}


def about():
    """Return when a result was taken, with which code, and on what the times depend."""
    return {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}


def machine():
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def read_results(path):
    """Return what was measured so far; raise UserError if it can't be read."""
    if not path.is_file():
        return {"trainings": {}, "speed": {}}
    try:
        results = json.loads(path.read_text())
        return {**results, **{key: results[key] for key in ("trainings", "speed")}}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error!r}); remove it to measure anew") from None


def store(path, name, measured):
    """Put what another benchmark measured into the results, with its date and commit."""
    files.write_json(path, {**read_results(path), name: {**measured, **about()}}, replace=True)
    print(f"Wrote {path}")


def seconds_to(training, quality):
    """Return after how many seconds a training's validation value was as low as `quality`.

    Between the ends of two epochs it is taken to fall along a straight line.

    Args:
        training: a dict with the lists `seconds` and `validation`.
        quality: the value.

    Returns:
        Seconds; None if it never was.
    """
    before = None
    for seconds, value in zip(training["seconds"], training["validation"], strict=True):
        if value <= quality:
            if before is None:
                return seconds
            share = (before[1] - quality) / (before[1] - value)
            return before[0] + share * (seconds - before[0])
        before = seconds, value
    return None


def ratio(published, fast, margin=0.0):
    """Return Q·(1 + margin), and the seconds both recipes took to get there (None: never).

    Raises:
        UserError: they were timed on different machines.
    """
    if published["machine"] != fast["machine"]:
        raise UserError("results.json: a published and a fast recipe from different machines")
    quality = min(published["validation"]) * (1 + margin)
    return quality, seconds_to(published, quality), seconds_to(fast, quality)


def commit():
    """Return the short hash of the commit at hand, with a + where files differ from it."""
    say = {"capture_output": True, "text": True, "cwd": ROOT}
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **say).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "*.py"], **say).stdout.strip()
    return head + ("+" if changed else "")


def train(script, words, folder, followed):
    """Run a script to its end, or on to its end, and return what it says about itself.

    Args:
        script: its name.
        words: its command line.
        folder: for what it writes, beside log.txt with what it prints.
        followed: the column of history.csv to keep.

    Raises:
        UserError: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / f"{script}.py"), *words, "--output-dir", str(folder)]
    if (folder / run_folder.STATE).is_file():
        command.append("--resume")
    log = folder / "log.txt"
    if not (folder / "metrics.json").is_file():
        with log.open("w") as file:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
        if code:
            last = (log.read_text().splitlines() or ["no message"])[-1]
            raise UserError(f"{log}: {script}.py ended with exit code {code} ({last})")
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        **metrics,
        **about(),
        "seconds": [round(float(row["seconds"]), 1) for row in rows],
        "validation": [round(float(row[followed]), 6) for row in rows],
    }


def plot(results, path):
    """Plot validation values over seconds, a panel for each script that was measured."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    trainings = results["trainings"]
    scripts = [name for name in AXES if f"{name}/fast/0" in trainings]
    rows = len(scripts) // 2 + 1
    figure, axes = plt.subplots(rows, 2, figsize=(9, 2.9 * rows), layout="constrained")
    plot_ratios(axes.flat[len(scripts)], trainings, scripts)
    for axis in axes.flat[len(scripts) + 1 :]:
        axis.axis("off")
    for axis, script in zip(axes.flat, scripts, strict=False):
        both = [trainings.get(f"{script}/{recipe}/0") for recipe in PAIR]
        for run, color, label in zip(both, ["C0", "C1"], PAIR, strict=True):
            if run:
                axis.plot(run["seconds"], run["validation"], color, marker=".", ms=4, label=label)
        title = script
        if all(both) and script not in FOLLOWED:
            quality, *times = ratio(*both)
            axis.axhline(quality, color="0.6", lw=1, ls="--")
            reached = [seconds for seconds in times if seconds is not None]
            axis.plot(reached, [quality] * len(reached), "k*", ms=9, zorder=3)
            if len(reached) == 2:
                title += f": {reached[1]:,.0f} s instead of {reached[0]:,.0f} s"
        values = [value for run in both if run for value in run["validation"]]
        if script not in FOLLOWED:
            low, high = min(values), sorted(values)[int(0.85 * (len(values) - 1))]
            span = (high - low) or 0.1 * low  # a quick try may have one value only
            axis.set_ylim(low - 0.06 * span, high + 0.3 * span)
        axis.set(xscale="log", title=title, ylabel=AXES[script], xlabel="seconds of training")
        axis.title.set_fontsize(10)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)
    data = ", ".join(dict.fromkeys(run["dataset"]["name"] for run in trainings.values()))
    machines = ", ".join(dict.fromkeys(run["machine"] for run in trainings.values()))
    caption = (
        "Validation values over time. The dashed line is the best that the published recipe "
        "reaches; stars show when either recipe gets there. As published the watermark learns "
        "nothing: half of its bits are right by chance.\n"
        f"{data}. Seed 0. {machines}."
    )
    plotting.save(figure, path, caption)


def plot_ratios(axis, trainings, scripts):
    """Plot the ratio of the times to each of the MARGINS, a group of bars for each script."""
    pairs = {
        script: [trainings[f"{script}/{recipe}/0"] for recipe in PAIR]
        for script in scripts
        if script not in FOLLOWED and f"{script}/published/0" in trainings
    }
    for number, margin in enumerate(MARGINS):
        for place, both in enumerate(pairs.values()):
            _, slow, quick = ratio(*both, margin)
            if slow and quick:
                at = place + 0.27 * (number - 1)
                axis.bar(at, slow / quick, 0.25, color=f"C{2 + number}")
                axis.text(at, slow / quick, f"{slow / quick:.0f}", ha="center", va="bottom", size=8)
        axis.bar(0, 0, color=f"C{2 + number}", label=f"at {margin:.0%}")
    axis.set(title="times faster, to within 5%, 1%, 0% of the best", ylabel="ratio of the times")
    axis.title.set_fontsize(10)
    names = [script.replace("_", "\n") for script in pairs]
    axis.set_xticks(range(len(pairs)), names, fontsize=8)
    axis.margins(y=0.12)
    axis.legend(fontsize=8)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("scripts", nargs="*", metavar="SCRIPT", help="what to measure (default: all)")
    add("--data-dir", required=True, metavar="DIR", help="with the datasets")
    add("--results", type=Path, default=RESULTS, help="(default: benchmarks/results.json)")
    add("--figure", type=Path, default=FIGURE, help="(default: docs/images/time_to_quality.png)")
    add("--work-dir", type=Path, default=Path("runs", "benchmark"), help="for the trainings")
    add("--seeds", type=command_line.whole(1), help="train each with seeds from 0 up to this")
    add("--limit", type=command_line.whole(10), metavar="N", help="of images, for a quick try")
    add("--epochs", type=command_line.whole(1), help="for a quick try")
    args = parser.parse_args(argv)
    plotting.set_up(show=False)
    scripts = speed.check_scripts(args.scripts, TRAININGS)
    results = read_results(args.results)
    quick = [word for name in ("limit", "epochs") if (value := getattr(args, name)) is not None
             for word in (f"--{name}", str(value))]  # fmt: skip
    data = ["--data-dir", args.data_dir]

    # One pair of everything comes first: that is what the table needs.
    every = [
        (name not in PAIR, seed, script, name)
        for script in scripts
        for name, (_, minutes) in TRAININGS[script].items()
        for seed in range((args.seeds or (SEEDS if minutes <= 5 else 1)) if name in PAIR else 1)
    ]
    every.sort(key=lambda training: training[:2])
    for number, (_, seed, script, name) in enumerate(every, start=1):
        key = f"{script}/{name}/{seed}"
        flags, minutes = TRAININGS[script][name]
        if key in results["trainings"]:
            continue
        print(f"[{number} of {len(every)}] {key}: about {minutes} minutes ...", flush=True)
        recipe = ["--recipe", "published"] if name == "published" else []
        words = [*recipe, "--seed", str(seed), *flags, *quick]
        folder = args.work_dir / key.replace("/", "_")
        followed = FOLLOWED.get(script, "val_loss") if name in PAIR else "val_loss"
        result = train(script, [*words, *data], folder, followed)
        command = " ".join(["python", f"{script}.py", *words, "--data-dir DIR"])
        command = command.replace(f"{ROOT}/", "")
        results["trainings"][key] = {"command": command, **result}
        files.write_json(args.results, results, replace=True)
        print(f"    took {result['seconds'][-1]:,.0f} s", flush=True)
    for script in scripts:
        if script in speed.SCRIPTS and script not in results["speed"]:
            print(f"Images per second of {script}: about 2 minutes ...", flush=True)
            results["speed"][script] = speed.measure(script, [*data, *quick])
            files.write_json(args.results, results, replace=True)
    args.figure.unlink(missing_ok=True)
    plot(results, args.figure)


if __name__ == "__main__":
    command_line.start(main)
