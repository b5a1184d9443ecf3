"""Write the tables of README.md and docs/results.md from benchmarks/results.json and models/.

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->`.

Examples:
  python -m benchmarks.tables            write the tables
  python -m benchmarks.tables --check    only say which pages are out of date (exit code 1)
"""

import json
import re

import tyro

from benchmarks.trainings import (
    COMPARED,
    MARGINS,
    PAIR,
    RESULTS,
    ROOT,
    read_results,
    time_to_quality,
)
from common import cli, files, training

PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]
# {script: (label of its metric, metric, format, strongest classical method)}
SUMMARY = {
    "latent_spaces": ("MSE, 32 numbers", "mse", ".4f", "PCA 32"),
    "denoise_mnist": ("PSNR, dB", "psnr", ".2f", "Wiener filter"),
    "denoise_fashion": ("PSNR, dB", "psnr", ".2f", "outlier median"),
    "vae_fashion": ("−ELBO, nats", "negative_elbo", ".1f", None),
    "clean_documents": ("RMSE", "rmse", ".4f", "background median"),
    "watermark_ae": ("correct bits", "bit_accuracy", ".1%", "quantization"),
    "watermark_photo": ("correct bits", "bit_accuracy", ".1%", None),
}
RECIPES = {"`--recipe published`": "published", "`--recipe fast`": "fast"}
# {table: ({column: (metric, format)}, {row: name of a training in benchmarks/trainings.py, or of a
# network or baseline of latent_spaces.py})}
TABLES = {
    "latent_spaces": (
        {
            "MSE": ("mse", ".4f"),
            "PSNR, dB": ("psnr", ".2f"),
            "angle to PCA": ("angle_to_pca", ".2f"),
            "units on": ("active_units", ".1%"),
            "units never on": ("dead_units", ".0%"),
            "‖∂h/∂x‖": ("jacobian", ".2f"),
            "the same, normalized": ("jacobian_normalized", ".2f"),
            "codes move": ("movement", ".3f"),
        },
        {
            "PCA, 32": "PCA 32",
            "linear, 32": "linear_32",
            "plain, 32": "plain_32",
            "PCA, 51": "PCA 51",
            "sparse, 51 of 1,024": "sparse",
            "all 1,024": "copying",
            "contractive, 128": "contractive",
            "not contracted, 128": "uncontracted",
            "variational, 32": "variational_32",
        },
    ),
    "latent_planes": (
        {
            "gaps": ("gaps", ".0%"),
            "10 nearest": ("knn_accuracy", ".1%"),
            "codes within the prior": ("in_prior", ".0%"),
            "MSE": ("mse", ".4f"),
        },
        {"plain, 2": "plain_2", "variational, 2": "variational_2"},
    ),
    "denoise_mnist": (
        {
            "cross-entropy": ("binary_crossentropy", ".4f"),
            "MSE": ("mse", ".4f"),
            "PSNR, dB": ("psnr", ".2f"),
            "SSIM": ("ssim", ".3f"),
        },
        RECIPES,
    ),
    "denoise_fashion": (
        {"MSE": ("mse", ".4f"), "PSNR, dB": ("psnr", ".2f"), "SSIM": ("ssim", ".3f")},
        RECIPES | {"`--architecture unet`": "unet"},
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
        RECIPES | {"`--architecture dense`": "dense", "`--epochs 56`": "long"},
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
            "`--architecture autoencoder --recipe published`": "published",
            "`--architecture autoencoder`": "fast",
            "U-Net": "unet",
            "U-Net, `--recipe shipped`": "shipped",
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
        RECIPES,
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
            "its correct bits": ("logo_bit_accuracy", ".1%"),
        },
        {"`bits`": "fast", "`gray`": "gray"},
    ),
}
# scripts of the tables that are not named after one
SCRIPTS = {"latent_planes": "latent_spaces", "watermark_kinds": "watermark_ae"}
# {column: (metric, format)} of all ablations; a table has those that were measured
ABLATION_COLUMNS = {
    "correct bits": ("bit_accuracy", ".1%"),
    "PSNR, dB": ("psnr", ".2f"),
    "RMSE": ("rmse", ".4f"),
    "MSE": ("mse", ".4f"),
    "training loss": ("loss", ".4f"),
    "validation loss": ("val_loss", ".4f"),
    "KL, nats": ("kl", ".2f"),
    "standard deviation of the codes": ("spread", ".2f"),
}


def markdown(header, rows):
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_range(values, form):
    """Return the mean of values, and their range if it is visible: "19.25 (19.00 to 19.50)"."""
    if not values:
        return "–"
    numbers = sum(values) / len(values), min(values), max(values)
    mean, low, high = (format(number, form) for number in numbers)
    return mean if low == high else f"{mean} ({low} to {high})"


def metrics_table(columns, rows):
    """Return the table of {row: {metric: value, or its values for several seeds}}."""

    def cell(value, form):
        return mean_and_range(value, form) if isinstance(value, list) else format(value, form)

    lines = [
        [label, *(cell(row[key], form) if key in row else "" for key, form in columns.values())]
        for label, row in rows.items()
    ]
    return markdown(["", *columns], lines)


def training_table(name, trainings):
    """Return one of TABLES. Baselines have no training time."""
    columns, keys = TABLES[name]
    script = SCRIPTS.get(name, name)
    rows = {}
    if script == "latent_spaces":
        run = trainings["latent_spaces/fast/0"]
        for label, key in keys.items():
            if key in run["baselines"]:
                rows[label] = run["baselines"][key]
            else:
                network = run["networks"][key]
                rows[label] = network["test"] | {"training": f"{network['seconds']:,.0f} s"}
    else:
        runs = {label: trainings.get(f"{script}/{key}/0") for label, key in keys.items()}
        for label, run in runs.items():
            if run:
                rows[label] = run["test"] | {"training": f"{run['seconds'][-1]:,.0f} s"}
                baselines = run["baselines"]
        rows = baselines | rows
    return metrics_table(columns | {"training": ("training", "")}, rows)


def ablation_table(ablation):
    """Return the table of an ablation."""
    rows = ablation["rows"]
    measured = next(iter(rows.values()))
    columns = {
        name: (key, form) for name, (key, form) in ABLATION_COLUMNS.items() if key in measured
    }
    return metrics_table(columns, rows)


def speed_up(pairs, margin):
    """Return how many times as fast `fast` is as `published`, over the seeds."""
    times = [time_to_quality(published, fast, margin)[1:] for published, fast in pairs]
    if any(fast is None for _, fast in times):
        return "not reached"
    return mean_and_range([published / fast for published, fast in times], ".1f")


def summary_row(script, trainings):
    """Return the cells of a script in the table of all scripts."""
    label, metric, form, classical = SUMMARY[script]
    keys = sorted(trainings)
    runs = [
        [trainings[key] for key in keys if key.startswith(f"{script}/{recipe}/")] for recipe in PAIR
    ]
    first = trainings[f"{script}/fast/0"]
    pairs = list(zip(*runs, strict=False)) if script in COMPARED else []  # of the seeds of both
    return [
        f"`{script}.py`",
        f"{first['dataset']['name']}, {first['dataset']['train']:,}",
        f"{first['parameters']:,}",
        label,
        format(first["baselines"][classical][metric], form) if classical else "–",
        *(mean_and_range([run["test"][metric] for run in seeds], form) for seeds in runs),
        *(mean_and_range([run["seconds"][-1] for run in seeds], ",.0f") for seeds in runs),
        *(speed_up(pairs, margin) for margin in MARGINS),
    ]


def summary_table(trainings):
    """Return the table of all scripts, and the line about where they were measured."""
    header = ["script", "training images", "parameters", "test metric", "classical"]
    header += ["`published`", "`fast`", "`published`, s", "`fast`, s"]
    header += [f"ratio at {margin:.0%}" for margin in MARGINS]
    machines = dict.fromkeys(
        f"{run['machine']}, Python {run['versions']['python']}, TensorFlow"
        f" {run['versions']['tensorflow']}, Keras {run['versions']['keras']}"
        for run in trainings.values()
    )
    rows = [summary_row(name, trainings) for name in SUMMARY if f"{name}/fast/0" in trainings]
    return f"{markdown(header, rows)}\n\nMeasured on {'; '.join(machines)}."


def script_of(model_name):
    """Return the name of the script that trains a model."""
    [script] = [name for name in SUMMARY if model_name.startswith(name)]
    return script


def models_table():
    """Return the table of the models in models/."""
    rows = []
    for path in sorted(training.MODELS.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        label, metric, form, _ = SUMMARY[script_of(path.stem)]
        rows.append(
            [
                f"`{path.stem}.keras`",
                report["dataset"]["name"],
                f"{report['parameters']:,}",
                f"{path.with_suffix('.keras').stat().st_size / 1e6:.1f} MB",
                label.removesuffix(", 32 numbers"),
                format(report["test"][metric], form),
                report["license"].split(",")[0],
            ]
        )
    header = ["model", "trained on", "parameters", "file", "test metric", "", "license"]
    return markdown(header, rows)


def attacks_table(methods):
    """Return the table of how many messages each method reads after each attack."""
    counts = methods.values()
    rows = [
        ["pictures", *(str(len(count["qualities"])) for count in counts)],
        ["PSNR in dB: mean, min", *(f"{c['psnr']:.1f}, {c['psnr_min']:.1f}" for c in counts)],
    ]
    for attack, strengths in methods["watermark_photo"]["read"].items():
        for strength in strengths:
            read = [count["read"][attack].get(strength) for count in counts]
            if None not in read:  # at some strengths only watermark_photo was measured
                rows.append([f"{attack} {strength}".removesuffix(" 0"), *map(str, read)])
    return markdown(["", *methods], rows)


def old_pages_table(old_pages):
    """Return the table of the F-measure on historical pages, by the contrast of their ink."""
    groups = {"all": old_pages["all"]} | old_pages["classes"]
    lines = [
        [label, *(f"{group[method][metric]:.1%}" for group in groups.values())]
        for label, method, metric in [
            ("Otsu on the page as it is", "otsu", "f"),
            ("Sauvola", "sauvola", "f"),
            ("divided by the median, 63x63", "division", "f"),
            ("cleaned", "cleaned", "f"),
            ("stroke cores lost by cleaning", "cleaned", "lost"),
        ]
    ]
    lines.append(["pages", *(str(group["pages"]) for group in groups.values())])
    return markdown(["contrast", *(name.replace("-", " to ") for name in groups)], lines)


def table(name, results):
    """Return the Markdown of the table of this name."""
    if name in TABLES:
        return training_table(name, results["trainings"])
    if name.startswith("ablation_"):
        return ablation_table(results[name])
    if name == "results":
        return summary_table(results["trainings"])
    if name == "models":
        return models_table()
    if name == "watermark_photo":
        return attacks_table(results["attacks"]["methods"])
    if name == "old_pages":
        return old_pages_table(results["old_pages"])
    if name == "watermark_photo_capacity":
        capacity = results["attacks"]["capacity"]
        return markdown(["pixels", *capacity], [["bytes", *map(str, capacity.values())]])
    if name == "ocr":
        rates = results["ocr"]["error_rate"]
        header = [method.replace("_", " ") for method in rates]
        return markdown(header, [[f"{rate:.2%}" for rate in rates.values()]])
    raise KeyError(name)


def render(text, results):
    """Return the text of a page with its tables filled in."""
    return re.sub(
        r"(<!-- table (\w+) -->\n).*?(<!-- end \2 -->)",
        lambda match: f"{match[1]}{table(match[2], results)}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


def main(check: tyro.conf.FlagCreatePairsOff[bool] = False):
    """Write the tables.

    Args:
        check: write nothing; exit with 1 if a page is out of date.
    """
    results = read_results(RESULTS)
    out_of_date = False
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        rendered = render(text, results)
        if rendered == text:
            continue
        out_of_date = True
        if check:
            print(f"{page} is out of date")
        else:
            with files.write_whole(page, replace=True) as temporary:
                temporary.write_text(rendered, encoding="utf-8")
            print(f"Wrote {page}")
    return int(check and out_of_date)


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main, description=__doc__))
