"""Put what benchmarks/results.json holds into README.md, between its two marker comments.

Run it:
  python benchmarks/table.py
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line  # noqa: E402
from common.files import write_whole  # noqa: E402

import time_to_quality  # noqa: E402

START, END = "<!-- results -->", "<!-- end of results -->"
# The test metric of each script, how it is written, and the rows of its baselines that stand for
# the input as it is and for a classical method.
SHOWN = {
    "denoise_mnist": ("PSNR, dB", "psnr", "{:.2f}", "noisy_input", "median_3x3"),
    "denoise_fashion": ("PSNR, dB", "psnr", "{:.2f}", "noisy_input", "median_3x3"),
    "clean_documents": ("RMSE", "rmse", "{:.4f}", "noisy_input", "background_median"),
    "vae_fashion": ("−ELBO, nats", "negative_elbo", "{:.1f}", None, None),
    "watermark_ae": (
        "right bits, no noise",
        "bit_accuracy",
        "{:.1%}",
        None,
        "least_significant_bit",
    ),
}
MORE = {"denoise_fashion": "U-Net", "clean_documents": "U-Net", "vae_fashion": "56 epochs"}


def spread(values, form):
    """Return the mean of one or more values, and how far they spread where that shows."""
    mean, low, high = map(form.format, (sum(values) / len(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def row(script, trainings):
    """Return the cells of one script.

    Args:
        script: its name.
        trainings: of results.json.
    """
    label, metric, form, before, classical = SHOWN[script]

    def runs(name):
        seeds = range(sum(key.startswith(f"{script}/{name}/") for key in trainings))
        return [trainings[f"{script}/{name}/{seed}"] for seed in seeds]

    def tested(name):
        return spread([run["test"][metric] for run in runs(name)], form) if runs(name) else "–"

    def seconds(name):
        return spread([run["seconds"][-1] for run in runs(name)], "{:,.0f}")

    def baseline(name):
        return form.format(first["baselines"][name][metric]) if name else "–"

    first = runs("fast")[0]
    ratio = "–"
    if script not in time_to_quality.FOLLOWED:
        pairs = zip(runs("published"), runs("fast"), strict=True)
        times = [time_to_quality.ratio(*pair)[1:] for pair in pairs]
        reached = [published / fast for published, fast in times if fast is not None]
        ratio = spread(reached, "{:.1f}") if len(reached) == len(times) else "not reached"
    more = f"{MORE[script]}: {tested('more')}" if runs("more") else "–"
    data = first["dataset"]
    peaks = [max(run["peak_memory_mb"] for run in runs(name)) for name in ("published", "fast")]
    return [
        f"`{script}.py`",
        f"{data['name']}, {data['train']:,} training images",
        f"{first['parameters']:,}",
        label,
        baseline(before),
        baseline(classical),
        tested("published"),
        tested("fast"),
        more,
        seconds("published"),
        seconds("fast"),
        ratio,
        " and ".join(f"{peak / 1000:.1f}" for peak in peaks),
    ]


def render(results):
    """Return the lines between the markers: the table, the speeds, and what they were taken on."""
    heads = [
        "script", "data", "parameters", "test metric", "input", "classical", "`published`",
        "`fast`", "more", "`published`, s", "`fast`, s", "ratio", "memory, GB",
    ]  # fmt: skip
    trainings = results["trainings"]
    scripts = [name for name in SHOWN if f"{name}/fast/0" in trainings]
    rows = [heads, ["---"] * len(heads), *(row(script, trainings) for script in scripts)]
    table = [f"| {' | '.join(cells)} |" for cells in rows]

    heads = ["script", "training, images/s", "step", "waiting for batches", "`predict`, images/s"]
    rows = [heads, ["---"] * len(heads)]
    for script in filter(results["speed"].get, SHOWN):
        measured = results["speed"][script]
        rows.append(
            [
                f"`{script}.py`",
                f"{measured['training_images_per_second']:,.0f}",
                f"{measured['step_ms']:.0f} ms",
                f"{measured['input_share']:.0%}",
                f"{measured['predict_images_per_second']:,.0f}, of "
                f"{measured['image'][0]}x{measured['image'][1]} pixels",
            ]
        )
    speeds = [f"| {' | '.join(cells)} |" for cells in rows]
    dates = sorted(run["date"] for run in trainings.values())
    about, versions = results["machine"], next(iter(trainings.values()))["versions"]
    taken = (
        f"Measured on {about['processor']}, {about['cores']} cores, {about['system']}, with Python "
        f"{versions['python']}, TensorFlow {versions['tensorflow']} and Keras {versions['keras']}, "
        f"{dates[0]}" + (f" to {dates[-1]}." if dates[-1] != dates[0] else ".")
    )
    return "\n".join([*table, "", *speeds, "", taken])


def between_markers(text):
    """Split README into what stands before, between and after the markers."""
    if text.count(START) != 1 or text.count(END) != 1:
        raise UserError(f"README.md: {START} and {END} must each stand there once")
    before, rest = text.split(START)
    inside, after = rest.split(END)
    return before, inside.strip(), after


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    results = time_to_quality.read_results(time_to_quality.RESULTS)
    if not results["trainings"]:
        raise UserError(f"{time_to_quality.RESULTS}: nothing was measured yet")
    readme = ROOT / "README.md"
    before, _, after = between_markers(readme.read_text(encoding="utf-8"))
    text = f"{before}{START}\n{render(results)}\n{END}{after}"
    with write_whole(readme, replace=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"Wrote {readme}")


if __name__ == "__main__":
    command_line.start(main)
