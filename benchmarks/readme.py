"""Put what was measured into README.md and docs/results.md: tables, and numbers in the text.

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->`. A number in the text is
followed by a comment that says where it comes from, which readers of the page do not see:
`20.00<!-- trainings.denoise_mnist/fast/0.test.psnr .2f -->`.

Run it:
  python benchmarks/readme.py            results.json to both pages
  python benchmarks/readme.py --check    say what would change, and change nothing
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line  # noqa: E402
from common.files import write_whole  # noqa: E402

import time_to_quality  # noqa: E402
from scaling import LABELS, PARTS, per_unit  # noqa: E402

PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]
NUMBER = re.compile(r"([^\s|()]+)<!-- (\S+) (\S+) -->")
TABLE = re.compile(r"<!-- table (\w+) -->\n.*?<!-- end \1 -->", re.S)
NONE = "–"
# The test metric of each script, how it is written, and the rows of its baselines that stand for
# the input as it is and for the best classical method.
MEASURE = {
    "latent_spaces": ("MSE, 32 numbers", "mse", ".4f", None, "pca_32"),
    "denoise_mnist": ("PSNR, dB", "psnr", ".2f", "noisy_input", "linear_filter"),
    "denoise_fashion": ("PSNR, dB", "psnr", ".2f", "noisy_input", "outlier_median"),
    "clean_documents": ("RMSE", "rmse", ".4f", "noisy_input", "background_median"),
    "vae_fashion": ("−ELBO, nats", "negative_elbo", ".1f", None, None),
    "watermark_ae": ("right bits, no noise", "bit_accuracy", ".1%", None, "quantisation"),
}
# {table: ({heading: (metric, format)}, {row: training, training#baseline or training.model})}
TABLES = {
    "latent_spaces": (
        {
            "MSE": ("mse", ".4f"),
            "PSNR, dB": ("psnr", ".2f"),
            "angle to PCA": ("angle_to_pca", ".2f"),
            "units on": ("active_units", ".1%"),
            "units never on": ("dead_units", ".0%"),
            "‖∂h/∂x‖": ("jacobian", ".2f"),
            "the same, normalised": ("jacobian_normalised", ".2f"),
            "codes move": ("movement", ".3f"),
        },
        {
            "PCA, 32": "latent_spaces/fast/0#pca_32",
            "linear, 32": "latent_spaces/fast/0.linear_32",
            "plain, 32": "latent_spaces/fast/0.plain_32",
            "PCA, 51": "latent_spaces/fast/0#pca_51",
            "sparse, 51 of 1,024": "latent_spaces/fast/0.sparse",
            "all of 1,024": "latent_spaces/fast/0.copying",
            "contractive, 128": "latent_spaces/fast/0.contractive",
            "its twin without the penalty": "latent_spaces/fast/0.uncontracted",
            "variational, 32": "latent_spaces/fast/0.variational_32",
        },
    ),
    "latent_planes": (
        {
            "gaps": ("gaps", ".0%"),
            "10 nearest": ("knn_accuracy", ".1%"),
            "middle": ("middle", ".2f"),
            "Fréchet": ("frechet", ".1f"),
            "MSE": ("mse", ".4f"),
        },
        {
            "plain, 2": "latent_spaces/fast/0.plain_2",
            "variational, 2": "latent_spaces/fast/0.variational_2",
            "training images themselves": "latent_spaces/fast/0#images",
        },
    ),
    "denoise_mnist": (
        {
            "cross-entropy": ("binary_crossentropy", ".4f"),
            "MSE": ("mse", ".4f"),
            "PSNR, dB": ("psnr", ".2f"),
            "SSIM": ("ssim", ".3f"),
        },
        {
            "noisy input": "denoise_mnist/fast/0#noisy_input",
            "median filter 3x3": "denoise_mnist/fast/0#median_3x3",
            "best linear filter": "denoise_mnist/fast/0#linear_filter",
            "`--recipe published`": "denoise_mnist/published/0",
            "`--recipe fast`": "denoise_mnist/fast/0",
        },
    ),
    "denoise_fashion": (
        {"MSE": ("mse", ".4f"), "PSNR, dB": ("psnr", ".2f"), "SSIM": ("ssim", ".3f")},
        {
            "noisy input": "denoise_fashion/fast/0#noisy_input",
            "median filter 3x3": "denoise_fashion/fast/0#median_3x3",
            "median filter, outliers only": "denoise_fashion/fast/0#outlier_median",
            "`--recipe published`": "denoise_fashion/published/0",
            "`--recipe fast`": "denoise_fashion/fast/0",
            "`--epochs 60`, six times `fast`": "denoise_fashion/long/0",
            "`--architecture unet`": "denoise_fashion/unet/0",
        },
    ),
    "clean_documents": (
        {
            "RMSE": ("rmse", ".4f"),
            "coffee": ("rmse_coffee", ".3f"),
            "folds": ("rmse_folds", ".3f"),
            "footprints": ("rmse_footprints", ".3f"),
            "wrinkles": ("rmse_wrinkles", ".3f"),
            "synthetic page, 300 dpi": ("rmse_300dpi", ".3f"),
            "synthetic old pages, F": ("f_old_pages", ".3f"),
        },
        {
            "dirty": "clean_documents/shipped/0#noisy_input",
            "divided by the median": "clean_documents/shipped/0#background_median",
            "`--architecture autoencoder --recipe published`": "clean_documents/published/0",
            "`--architecture autoencoder`": "clean_documents/fast/0",
            "U-Net": "clean_documents/unet/0",
            "U-Net, `--recipe shipped`": "clean_documents/shipped/0",
        },
    ),
    "vae_fashion": (
        {
            "−ELBO": ("negative_elbo", ".1f"),
            "reconstruction": ("reconstruction", ".1f"),
            "KL": ("kl", ".1f"),
            "MSE": ("mse", ".4f"),
            "10 nearest": ("knn_accuracy", ".1%"),
            "active": ("active_dimensions", "d"),
            "−ELBO of the first 1,000": ("negative_elbo_first", ".1f"),
            "importance-weighted, of the same": ("importance_weighted_first", ".1f"),
        },
        {
            "mean image": "vae_fashion/fast/0#mean_image",
            "PCA, 2 components": "vae_fashion/fast/0#pca",
            "`--recipe published`": "vae_fashion/published/0",
            "`--recipe fast`": "vae_fashion/fast/0",
            "`--architecture dense`": "vae_fashion/dense/0",
            "`--epochs 56`": "vae_fashion/long/0",
            "PCA, 16 components": "vae_fashion/latent_16/0#pca",
            "`--latent-dim 16`": "vae_fashion/latent_16/0",
            "`--latent-dim 16 --epochs 30`": "vae_fashion/latent_16_long/0",
        },
    ),
    "watermark_ae": (
        {
            "PSNR, dB": ("psnr", ".2f"),
            "SSIM": ("ssim", ".3f"),
            "bits, no noise": ("bit_accuracy", ".1%"),
            "σ = 0.1": ("bit_accuracy_noise_0.1", ".1%"),
            "σ = 0.25": ("bit_accuracy_noise_0.25", ".1%"),
            "σ = 0.5": ("bit_accuracy_noise_0.5", ".1%"),
            "black pixels": ("bit_accuracy_black", ".1%"),
            "strokes": ("bit_accuracy_stroke", ".1%"),
        },
        {
            "least significant bit": "watermark_ae/fast/0#least_significant_bit",
            "quantisation, at the PSNR of `fast` or better": "watermark_ae/fast/0#quantisation",
            "`--recipe published`": "watermark_ae/published/0",
            "`--recipe fast`": "watermark_ae/fast/0",
            "`--noise 0.12 --psnr 20.05 --epochs 80`": "watermark_ae/noise/0",
        },
    ),
    "watermark_kinds": (
        {
            "digit, dB": ("psnr", ".2f"),
            "W, dB": ("watermark_psnr", ".2f"),
            "σ = 0.1": ("watermark_psnr_noise_0.1", ".2f"),
            "black pixels": ("watermark_psnr_black", ".2f"),
            "strokes": ("watermark_psnr_stroke", ".2f"),
            "digit with logo, dB": ("logo_psnr", ".2f"),
            "logo, dB": ("logo_watermark_psnr", ".2f"),
            "its right bits": ("logo_bit_accuracy", ".1%"),
        },
        {
            "the mean of W": "watermark_ae/grey/0#mean_of_w",
            "four last bits": "watermark_ae/grey/0#four_last_bits",
            "`bits`": "watermark_ae/fast/0",
            "`grey`": "watermark_ae/grey/0",
            "`signed`": "watermark_ae/signed/0",
            "`positive`": "watermark_ae/positive/0",
        },
    ),
}


def spread(values, form):
    """Return the mean of one or more values, and how far they spread where that shows."""
    mean, low, high = (
        format(value, form) for value in (sum(values) / len(values), min(values), max(values))
    )
    return mean if low == high else f"{mean} ({low} to {high})"


def rows_of(heads, rows):
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])


def table_of(name, trainings):
    """Return one of TABLES in Markdown; rows that were not measured yet are left out."""
    columns, rows = TABLES[name]
    lines = []
    for label, place in rows.items():
        key, kind, part = re.fullmatch("([^#.]*)([#.]?)(.*)", place).groups()
        if key not in trainings:
            continue
        training = trainings[key]
        found, seconds = training["test"], f"{training['seconds'][-1]:,.0f} s"
        if kind == "#":
            found, seconds = training["baselines"].get(part, {}), ""
        elif kind == ".":
            found = training["models"][part]["test"]
            seconds = f"{training['models'][part]['seconds_training']:.0f} s"
        cells = [format(found[m], form) if m in found else "" for m, form in columns.values()]
        lines.append([label, *cells, seconds])
    return rows_of(["", *columns, "training"], lines)


def summary_row(script, trainings):
    """Return the cells of one script in the table of all."""
    label, metric, form, before, classical = MEASURE[script]

    def runs(name):
        return [v for k, v in sorted(trainings.items()) if k.startswith(f"{script}/{name}/")]

    def over_seeds(name, value, form):
        return spread([value(run) for run in runs(name)], form) if runs(name) else NONE

    def tested(name):
        return over_seeds(name, lambda run: run["test"][metric], form)

    def baseline(name):
        found = first["baselines"].get(name, {})
        return format(found[metric], form) if metric in found else NONE

    first = runs("fast")[0]
    ratios = [NONE] * len(time_to_quality.MARGINS)
    if runs("published") and script not in time_to_quality.FOLLOWED:
        pairs = list(zip(runs("published"), runs("fast"), strict=False))  # some seeds have one only
        ratios = [ratio_cell(pairs, margin) for margin in time_to_quality.MARGINS]
    recipes = time_to_quality.PAIR
    seconds = [over_seeds(name, lambda run: run["seconds"][-1], ",.0f") for name in recipes]
    peaks = [max(run["peak_memory_mb"] for run in runs(name)) for name in recipes if runs(name)]
    data = first["dataset"]
    return [
        f"`{script}.py`",
        f"{data['name']}, {data['train']:,}",
        f"{first['parameters']:,}",
        label,
        *(baseline(before), baseline(classical), tested("published"), tested("fast")),
        *seconds,
        *ratios,
        " and ".join(f"{peak / 1000:.1f}" for peak in peaks),
    ]


def ratio_cell(pairs, margin):
    """Return how many times as fast `fast` is, over the seeds."""
    times = [time_to_quality.ratio(*pair, margin)[1:] for pair in pairs]
    if any(fast is None for _, fast in times):
        return "not reached"
    return spread([published / fast for published, fast in times], ".1f")


def summary(results):
    """Return the table of all scripts, that of their speeds, and what they were taken on."""
    trainings = results["trainings"]
    scripts = [name for name in MEASURE if f"{name}/fast/0" in trainings]
    heads = [
        *("script", "training images", "parameters", "test metric", "input", "classical"),
        *("`published`", "`fast`", "`published`, s", "`fast`, s"),
        *(f"ratio at {margin:.0%}" for margin in time_to_quality.MARGINS),
        "memory, GB",
    ]
    table = rows_of(heads, [summary_row(script, trainings) for script in scripts])
    lines = [
        [
            f"`{script}.py`",
            f"{measured['training_images_per_second']:,.0f}",
            f"{measured['step_ms']:.0f} ms",
            f"{measured['input_share']:.0%}",
            f"{measured['predict_images_per_second']:,.0f}, of "
            f"{measured['image'][0]}x{measured['image'][1]} pixels",
        ]
        for script, measured in results["speed"].items()
    ]
    heads = ["script", "training, images/s", "step", "waiting for batches", "`predict`, images/s"]
    taken = {}
    for run in trainings.values():
        versions = run["versions"]
        with_what = (
            f"{run['machine']}, with Python {versions['python']}, TensorFlow "
            f"{versions['tensorflow']} and Keras {versions['keras']}, {run['date']}, at commit"
        )
        taken.setdefault(with_what, {})[run["commit"]] = None
    taken = "; ".join(f"{where} {', '.join(commits)}" for where, commits in taken.items())
    taken = f"Measured on {taken}."
    return "\n".join([table, "", rows_of(heads, lines), "", taken])


def attacks_table(attacks):
    """Return the table of how many messages are read after what was done to marked pictures."""
    methods = attacks["methods"]
    quality = [f"{found['psnr']:.1f}, {found['psnr_least']:.1f}" for found in methods.values()]
    counts = [str(len(found["qualities"])) for found in methods.values()]
    lines = [["pictures", *counts], ["PSNR in dB: mean, least", *quality]]
    for attack in next(iter(methods.values()))["read"]:
        counts = [found["read"][attack] for found in methods.values()]
        for strength in counts[0]:
            if all(strength in count for count in counts):  # the figure shows more of ours
                label = attack if strength == "0" else f"{attack} {strength}"
                lines.append([label, *(str(count[strength]) for count in counts)])
    return rows_of(["", *methods], lines)


def capacity_table(attacks):
    """Return the table of how many bytes of a message pictures of some sizes hold."""
    rooms = attacks["capacity"]
    return rows_of(["pixels", *rooms], [["bytes", *map(str, rooms.values())]])


def scaling_table(scaling):
    """Return the table of how cost grows, from the least to the greatest size of each series."""
    lines = []
    for part, series_of in PARTS.items():
        for series, (counted, _) in series_of.items():
            points = scaling[part][series]
            least, greatest = (pick(points, key=float) for pick in (min, max))
            seconds, memory = (
                [points[size][key] for size in (least, greatest)]
                for key in ("seconds", "memory_mb")
            )
            lines.append(
                [
                    LABELS[series],
                    f"{float(least):,g} to {float(greatest):,g} {counted}",
                    f"{seconds[0]:,.1f} to {seconds[1]:,.1f}",
                    f"{1000 * per_unit(points):,.3g}",
                    f"{memory[0] / 1000:.1f} to {memory[1] / 1000:.1f}",
                ]
            )
    return rows_of(["", "of", "seconds", "ms for one more", "memory, GB"], lines)


OF_ATTACKS = {"watermark_photo": attacks_table, "watermark_photo_capacity": capacity_table}


def with_comparisons(results):
    """Return the results with what follows from pairs of them, under `compared`.

    For each script with both recipes, at seed 0: `best`, the best validation value of each; for
    each margin, such as 1%, `quality_1%`, so much above the best one of `published`; `published_1%`
    and `fast_1%`, the seconds each took to it (None: never), and their `ratio_1%`; and `gain`, by
    how much each training is better on the test set than the best classical method.
    """
    compared, trainings = {}, results["trainings"]
    for script, (_, metric, _, _, classical) in MEASURE.items():
        pair = [trainings.get(f"{script}/{recipe}/0") for recipe in time_to_quality.PAIR]
        facts = compared[script] = {}
        if all(pair) and script not in time_to_quality.FOLLOWED:
            facts["best"] = {
                name: min(run["validation"])
                for name, run in zip(time_to_quality.PAIR, pair, strict=True)
            }
            for margin in time_to_quality.MARGINS:
                quality, published, fast = time_to_quality.ratio(*pair, margin)
                facts[f"quality_{margin:.0%}"] = quality
                facts[f"published_{margin:.0%}"] = published
                facts[f"fast_{margin:.0%}"] = fast
                facts[f"ratio_{margin:.0%}"] = fast and published / fast
        facts["gain"] = {
            key.split("/")[1]: abs(run["test"][metric] - run["baselines"][classical][metric])
            for key, run in trainings.items()
            if key.startswith(f"{script}/") and key.endswith("/0") and classical in run["baselines"]
        }
    return {**results, "compared": compared}


def value_of(results, place):
    """Return what stands in the results at a place such as `trainings.a/b/0.test.psnr`.

    Raises:
        UserError: nothing does.
    """
    found, names = results, place.split(".")
    try:
        while names:
            # A name may have dots of its own, as bit_accuracy_noise_0.1 has.
            taken = next(n for n in range(len(names), 0, -1) if ".".join(names[:n]) in found)
            found, names = found[".".join(names[:taken])], names[taken:]
    except (StopIteration, TypeError, KeyError):
        raise UserError(f"{place}: not in results.json") from None
    if found is None:
        raise UserError(f"{place}: never reached")
    return found


def render(text, results):
    """Return the text of a page with all that was measured put in.

    Raises:
        UserError: it asks for something that was not measured.
    """

    def table(match):
        name = match[1]
        if name == "results":
            made = summary(results)
        elif name == "scaling":
            made = scaling_table(results["scaling"])
        elif name in OF_ATTACKS:
            made = OF_ATTACKS[name](results["attacks"])
        else:
            made = table_of(name, results["trainings"])
        return f"<!-- table {name} -->\n{made}\n<!-- end {name} -->"

    def number(match):
        _, place, form = match.groups()
        return f"{format(value_of(compared, place), form)}<!-- {place} {form} -->"

    compared = with_comparisons(results)
    return NUMBER.sub(number, TABLE.sub(table, text))


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    results = time_to_quality.read_results(time_to_quality.RESULTS)
    if not results["trainings"]:
        raise UserError(f"{time_to_quality.RESULTS}: nothing was measured yet")
    changes = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = render(before, results)
        lines = zip(before.split("\n"), after.split("\n"), strict=False)
        changes += sum(old != new for old, new in lines)
        if not args.check:
            with write_whole(page, replace=True) as temporary:
                temporary.write_text(after, encoding="utf-8")
            print(f"Wrote {page}")
    if args.check:
        print(f"{changes} lines would change")
        return 1 if changes else 0


if __name__ == "__main__":
    command_line.start(main)
