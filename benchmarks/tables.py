"""Write the tables of README.md and docs/results.md from benchmarks/results.json and models/.

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->`.

Examples:
  python -m benchmarks.tables            write the tables
  python -m benchmarks.tables --check    only say which pages are out of date (exit code 1)
"""

import dataclasses
import json
import re

import tyro

from benchmarks.trainings import COMPARED, MARGINS, PAIR, ROOT, read_results, time_to_quality
from common import cli, files, training

PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]
NOTHING = "–"
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
# {table: ({column: (metric, format)}, {label of a row: training})}; the baselines come first.
TABLES = {
    "denoise_mnist": (
        {
            "cross-entropy": ("binary_crossentropy", ".4f"),
            "MSE": ("mse", ".4f"),
            "PSNR, dB": ("psnr", ".2f"),
            "SSIM": ("ssim", ".3f"),
        },
        {
            "`--recipe published`": "denoise_mnist/published/0",
            "`--recipe fast`": "denoise_mnist/fast/0",
        },
    ),
    "denoise_fashion": (
        {"MSE": ("mse", ".4f"), "PSNR, dB": ("psnr", ".2f"), "SSIM": ("ssim", ".3f")},
        {
            "`--recipe published`": "denoise_fashion/published/0",
            "`--recipe fast`": "denoise_fashion/fast/0",
            "`--architecture unet`": "denoise_fashion/unet/0",
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
            "`--recipe published`": "vae_fashion/published/0",
            "`--recipe fast`": "vae_fashion/fast/0",
            "`--architecture dense`": "vae_fashion/dense/0",
            "`--epochs 56`": "vae_fashion/long/0",
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
            "`--architecture autoencoder --recipe published`": "clean_documents/published/0",
            "`--architecture autoencoder`": "clean_documents/fast/0",
            "U-Net": "clean_documents/unet/0",
            "U-Net, `--recipe shipped`": "clean_documents/shipped/0",
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
            "`--recipe published`": "watermark_ae/published/0",
            "`--recipe fast`": "watermark_ae/fast/0",
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
            "its correct bits": ("logo_bit_accuracy", ".1%"),
        },
        {"`bits`": "watermark_ae/fast/0", "`gray`": "watermark_ae/gray/0"},
    ),
}
# {table of networks of latent_spaces.py: (columns as above, {label of a row: its name there})}
NETWORK_TABLES = {
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
}


def markdown(header, rows):
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def metrics_table(columns, results):
    """Return a table of {label: ({metric: value}, seconds of training or None)}."""
    rows = []
    for label, (test, seconds) in results.items():
        cells = [
            format(test[metric], form) if metric in test else ""
            for metric, form in columns.values()
        ]
        rows.append([label, *cells, "" if seconds is None else f"{seconds:,.0f} s"])
    return markdown(["", *columns, "training"], rows)


def training_table(trainings, columns, rows):
    """Return one of TABLES: the baselines of the last training, then the trainings measured."""
    runs = {label: trainings[key] for label, key in rows.items() if key in trainings}
    [*_, last] = runs.values()
    baselines = {name.replace("_", " "): (test, None) for name, test in last["baselines"].items()}
    trained = {label: (run["test"], run["seconds"][-1]) for label, run in runs.items()}
    return metrics_table(columns, baselines | trained)


def network_table(run, columns, rows):
    """Return one of NETWORK_TABLES."""
    baselines = {name: (test, None) for name, test in run["baselines"].items()}
    networks = {name: (net["test"], net["seconds"]) for name, net in run["networks"].items()}
    measured = baselines | networks
    return metrics_table(columns, {label: measured[name] for label, name in rows.items()})


def mean_and_range(values, form):
    """Return the mean of values, and their range where it shows: "19.25 (19.00 to 19.50)"."""
    numbers = sum(values) / len(values), min(values), max(values)
    mean, low, high = (format(number, form) for number in numbers)
    return mean if low == high else f"{mean} ({low} to {high})"


def summary_row(script, trainings):
    """Return the cells of a script in the table of all scripts."""
    label, metric, form, classical = SUMMARY[script]
    runs = {
        recipe: [
            run for key, run in sorted(trainings.items()) if key.startswith(f"{script}/{recipe}/")
        ]
        for recipe in PAIR
    }

    def over_seeds(recipe, value, form):
        values = [value(run) for run in runs[recipe]]
        return mean_and_range(values, form) if values else NOTHING

    first = runs["fast"][0]
    baseline = first["baselines"].get(classical)
    speed_ups = [NOTHING] * len(MARGINS)
    if script in COMPARED and runs["published"]:
        pairs = list(zip(runs["published"], runs["fast"], strict=False))  # of the seeds of both
        speed_ups = [speed_up(pairs, margin) for margin in MARGINS]
    tests = [over_seeds(recipe, lambda run: run["test"][metric], form) for recipe in PAIR]
    seconds = [over_seeds(recipe, lambda run: run["seconds"][-1], ",.0f") for recipe in PAIR]
    return [
        f"`{script}.py`",
        f"{first['dataset']['name']}, {first['dataset']['train']:,}",
        f"{first['parameters']:,}",
        label,
        format(baseline[metric], form) if baseline else NOTHING,
        *tests,
        *seconds,
        *speed_ups,
    ]


def speed_up(pairs, margin):
    """Return how many times faster `fast` is than `published`, over the seeds."""
    times = [time_to_quality(published, fast, margin)[1:] for published, fast in pairs]
    if any(fast is None for _, fast in times):
        return "not reached"
    return mean_and_range([published / fast for published, fast in times], ".1f")


def summary_table(results):
    """Return the table of all scripts, and what they were measured on."""
    trainings = results["trainings"]
    scripts = [script for script in SUMMARY if f"{script}/fast/0" in trainings]
    header = ["script", "training images", "parameters", "test metric", "classical"]
    header += ["`published`", "`fast`", "`published`, s", "`fast`, s"]
    header += [f"ratio at {margin:.0%}" for margin in MARGINS]
    machines = dict.fromkeys(
        f"{run['machine']}, Python {run['versions']['python']}, TensorFlow"
        f" {run['versions']['tensorflow']}, Keras {run['versions']['keras']}"
        for run in trainings.values()
    )
    table = markdown(header, [summary_row(script, trainings) for script in scripts])
    return f"{table}\n\nMeasured on {'; '.join(machines)}."


def script_of(model_name):
    """Return the name of the script that trains a model."""
    [script] = [name for name in SUMMARY if model_name.startswith(name)]
    return script


def models_table(folder=training.MODELS):
    """Return the table of the models in models/."""
    rows = []
    for path in sorted(folder.glob("*.json")):
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


def attacks_table(attacks):
    """Return the table of how many messages are read after each attack."""
    methods = attacks["methods"].values()
    rows = [
        ["pictures"] + [str(len(method["qualities"])) for method in methods],
        ["PSNR in dB: mean, min"] + [f"{m['psnr']:.1f}, {m['psnr_min']:.1f}" for m in methods],
    ]
    for attack, strengths in attacks["methods"]["watermark_photo"]["read"].items():
        for strength in strengths:
            counts = [method["read"][attack].get(strength) for method in methods]
            if None not in counts:  # the figure shows more strengths of watermark_photo alone
                label = attack if strength == "0" else f"{attack} {strength}"
                rows.append([label, *map(str, counts)])
    return markdown(["", *attacks["methods"]], rows)


def capacity_table(attacks):
    """Return the table of how many bytes pictures of some sizes hold."""
    return markdown(
        ["pixels", *attacks["capacity"]], [["bytes", *map(str, attacks["capacity"].values())]]
    )


def old_pages_table(old_pages):
    """Return the table of the F-measure on historical pages, by the contrast of their ink."""
    groups = {"all": old_pages["all"]} | old_pages["classes"]
    rows = {
        "Otsu on the page as it is": ("otsu", "f"),
        "Sauvola": ("sauvola", "f"),
        "divided by the median, 63x63": ("division", "f"),
        "cleaned": ("cleaned", "f"),
        "stroke cores lost by cleaning": ("cleaned", "lost"),
    }
    lines = [
        [label] + [f"{group[method][metric]:.1%}" for group in groups.values()]
        for label, (method, metric) in rows.items()
    ]
    lines.append(["pages"] + [str(group["pages"]) for group in groups.values()])
    header = ["contrast"] + [name.replace("-", " to ") for name in groups]
    return markdown(header, lines)


def ocr_table(ocr):
    """Return the table of Tesseract's character error rates."""
    rates = ocr["error_rate"]
    header = [name.replace("_", " ") for name in rates]
    return markdown(header, [[f"{rate:.2%}" for rate in rates.values()]])


# {metric of an ablation: (column, format)}
ABLATION_COLUMNS = {
    "bit_accuracy": ("correct bits", ".1%"),
    "psnr": ("PSNR, dB", ".2f"),
    "rmse": ("RMSE", ".4f"),
    "mse": ("MSE", ".4f"),
    "loss": ("training loss", ".4f"),
    "val_loss": ("validation loss", ".4f"),
    "kl": ("KL, nats", ".2f"),
    "spread": ("standard deviation of the codes", ".2f"),
}


def ablation_table(ablation):
    """Return the table of an ablation: the mean of each metric over the seeds, and its range."""
    rows = ablation["rows"]
    measured = next(iter(rows.values()))
    columns = [ABLATION_COLUMNS[metric] for metric in measured]
    lines = [
        [label, *(mean_and_range(row[metric], ABLATION_COLUMNS[metric][1]) for metric in measured)]
        for label, row in rows.items()
    ]
    return markdown(["", *(column for column, _ in columns)], lines)


def table(name, results):
    """Return the Markdown of the table of this name."""
    if name.startswith("ablation_"):
        return ablation_table(results[name])
    if name in TABLES:
        columns, rows = TABLES[name]
        return training_table(results["trainings"], columns, rows)
    if name in NETWORK_TABLES:
        columns, rows = NETWORK_TABLES[name]
        return network_table(results["trainings"]["latent_spaces/fast/0"], columns, rows)
    tables = {
        "results": lambda: summary_table(results),
        "models": models_table,
        "watermark_photo": lambda: attacks_table(results["attacks"]),
        "watermark_photo_capacity": lambda: capacity_table(results["attacks"]),
        "old_pages": lambda: old_pages_table(results["old_pages"]),
        "ocr": lambda: ocr_table(results["ocr"]),
    }
    return tables[name]()


def render(text, results):
    """Return the text of a page with its tables filled in."""
    return re.sub(
        r"(<!-- table (\w+) -->\n).*?(<!-- end \2 -->)",
        lambda match: f"{match[1]}{table(match[2], results)}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    check: bool = False
    """write nothing; exit with 1 if a page is out of date"""


def main(argv=None):
    settings = tyro.cli(
        Settings, args=argv, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    results = read_results()
    out_of_date = False
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        rendered = render(text, results)
        if rendered == text:
            continue
        out_of_date = True
        if settings.check:
            print(f"{page} is out of date")
        else:
            with files.write_whole(page, replace=True) as temporary:
                temporary.write_text(rendered, encoding="utf-8")
            print(f"Wrote {page}")
    return 1 if settings.check and out_of_date else 0


if __name__ == "__main__":
    cli.run(main)
