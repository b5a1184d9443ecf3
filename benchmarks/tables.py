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
    OURS,
    PUBLISHED,
    RESULTS,
    ROOT,
    TRAININGS,
    read_results,
    time_to_quality,
)
from common import cli, files, training

PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]
# {script: (label of its metric, metric, strongest classical method)}
SUMMARY = {
    "latent_spaces": ("MSE, 32 numbers", "mse", "PCA 32"),
    "denoise_mnist": ("PSNR, dB", "psnr", "Wiener filter"),
    "denoise_fashion": ("PSNR, dB", "psnr", "outlier median"),
    "vae_fashion": ("−ELBO, nats", "negative_elbo", None),
    "clean_documents": ("RMSE", "rmse", "background median"),
    "watermark_ae": ("correct bits", "bit_accuracy", "quantization"),
    "watermark_photo": ("correct bits", "bit_accuracy", None),
}
# {our training: (script's task, images)}
OVERVIEW = {
    "denoise_mnist/long": ("remove Gaussian noise", "digits"),
    "denoise_fashion/unet": ("remove salt-and-pepper noise", "clothes"),
    "clean_documents/unet": ("clean scanned pages", "pages"),
    "vae_fashion/fast": ("generate images", "clothes"),
    "watermark_ae/fast": ("hide a bit in each pixel", "digits"),
}
# {metric: (column, format)}
METRICS = {
    "mse": ("MSE", ".4f"),
    "rmse": ("RMSE", ".4f"),
    "psnr": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "binary_crossentropy": ("cross-entropy", ".4f"),
    "loss": ("training loss", ".4f"),
    "val_loss": ("validation loss", ".4f"),
    "knn_accuracy": ("10 nearest", ".1%"),
    # latent_spaces.py
    "angle_to_pca": ("angle to PCA", ".2f"),
    "active_units": ("units on", ".1%"),
    "dead_units": ("units never on", ".0%"),
    "jacobian": ("‖∂h/∂x‖", ".2f"),
    "jacobian_normalized": ("the same, normalized", ".2f"),
    "movement": ("codes move", ".3f"),
    "gaps": ("gaps", ".0%"),
    "in_prior": ("codes within the prior", ".0%"),
    # vae_fashion.py
    "negative_elbo": ("−ELBO", ".1f"),
    "reconstruction": ("reconstruction", ".1f"),
    "kl": ("KL", ".1f"),
    "active_dimensions": ("active", "d"),
    "negative_elbo_first": ("−ELBO of the first 1,000", ".1f"),
    "importance_weighted_first": ("importance-weighted, of the same", ".1f"),
    "spread": ("standard deviation of the codes", ".2f"),
    # clean_documents.py
    "rmse_coffee": ("coffee", ".3f"),
    "rmse_folds": ("folds", ".3f"),
    "rmse_footprints": ("footprints", ".3f"),
    "rmse_wrinkles": ("wrinkles", ".3f"),
    "rmse_300dpi": ("synthetic page, 300 dpi", ".3f"),
    "f_old_pages": ("synthetic old pages, F", ".3f"),
    # watermark_ae.py
    "bit_accuracy": ("bits, no noise", ".1%"),
    "bit_accuracy_noise_0.1": ("σ = 0.1", ".1%"),
    "bit_accuracy_noise_0.25": ("σ = 0.25", ".1%"),
    "bit_accuracy_noise_0.5": ("σ = 0.5", ".1%"),
    "bit_accuracy_black": ("black pixels", ".1%"),
    "bit_accuracy_stroke": ("strokes", ".1%"),
    "watermark_psnr": ("W, dB", ".2f"),
    "watermark_psnr_noise_0.1": ("σ = 0.1", ".2f"),
    "watermark_psnr_black": ("black pixels", ".2f"),
    "watermark_psnr_stroke": ("strokes", ".2f"),
    "logo_psnr": ("digit with logo, dB", ".2f"),
    "logo_watermark_psnr": ("logo, dB", ".2f"),
    "logo_bit_accuracy": ("its correct bits", ".1%"),
    "training": ("training", ""),
}
# {table: {metric: (column, format)}} where these differ
EXCEPTIONS = {
    "watermark_kinds": {"psnr": ("digit, dB", ".2f")},
    "ablation_watermark": {"bit_accuracy": ("correct bits", ".1%")},
    "ablation_beta": {"kl": ("KL, nats", ".2f")},
}
RECIPES = {"`--recipe published`": "published", "`--recipe fast`": "fast"}
# {table: (metrics, {row: name of a training in benchmarks/trainings.py, or of a network or baseline
# of latent_spaces.py})}
TABLES = {
    "latent_spaces": (
        "mse psnr angle_to_pca active_units dead_units jacobian jacobian_normalized movement",
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
        "gaps knn_accuracy in_prior mse",
        {"plain, 2": "plain_2", "variational, 2": "variational_2"},
    ),
    "denoise_mnist": (
        "binary_crossentropy mse psnr ssim",
        RECIPES | {"`--epochs 48 --batch-size 64`": "long"},
    ),
    "denoise_fashion": ("mse psnr ssim", RECIPES | {"`--architecture unet`": "unet"}),
    "vae_fashion": (
        "negative_elbo reconstruction kl mse knn_accuracy active_dimensions negative_elbo_first"
        " importance_weighted_first",
        RECIPES | {"`--architecture dense`": "dense", "`--epochs 56`": "long"},
    ),
    "clean_documents": (
        "rmse rmse_coffee rmse_folds rmse_footprints rmse_wrinkles rmse_300dpi f_old_pages",
        {
            "`--architecture autoencoder --recipe published`": "published",
            "`--architecture autoencoder`": "fast",
            "U-Net": "unet",
            "U-Net, `--recipe shipped`": "shipped",
        },
    ),
    "watermark_ae": (
        "psnr ssim bit_accuracy bit_accuracy_noise_0.1 bit_accuracy_noise_0.25"
        " bit_accuracy_noise_0.5 bit_accuracy_black bit_accuracy_stroke",
        RECIPES,
    ),
    "watermark_kinds": (
        "psnr watermark_psnr watermark_psnr_noise_0.1 watermark_psnr_black watermark_psnr_stroke"
        " logo_psnr logo_watermark_psnr logo_bit_accuracy",
        {"`bits`": "fast", "`gray`": "gray"},
    ),
}
# scripts of the tables that are not named after one
SCRIPTS = {"latent_planes": "latent_spaces", "watermark_kinds": "watermark_ae"}


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


def metrics_table(name, metrics, rows):
    """Return the table of {row: {metric: value, or its values for several seeds}}."""
    columns = METRICS | EXCEPTIONS.get(name, {})

    def cell(metric, value):
        form = columns[metric][1]
        return mean_and_range(value, form) if isinstance(value, list) else format(value, form)

    lines = [
        [label, *(cell(metric, row[metric]) if metric in row else "" for metric in metrics)]
        for label, row in rows.items()
    ]
    return markdown(["", *(columns[metric][0] for metric in metrics)], lines)


def training_table(name, trainings):
    """Return one of TABLES. Baselines have no training time."""
    metrics, keys = TABLES[name]
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
        for label, key in keys.items():
            if run := trainings.get(f"{script}/{key}/0"):
                rows[label] = run["test"] | {"training": f"{run['seconds'][-1]:,.0f} s"}
                baselines = run["baselines"]
        rows = baselines | rows
    return metrics_table(name, [*metrics.split(), "training"], rows)


def speed_up(pairs, margin):
    """Return how many times as fast as `published` our training is, over the seeds."""
    times = [time_to_quality(published, ours, margin)[1:] for published, ours in pairs]
    ratios = [published / ours for published, ours in times if ours is not None]
    if times and not ratios:
        return "not reached"
    text = mean_and_range(ratios, ".1f")
    return text if len(ratios) == len(times) else f"{text}; {len(ratios)} of {len(times)} seeds"


def command(key):
    """Return the command of a training, such as "denoise_mnist/long"."""
    return f"`{key.split('/')[0]}.py {TRAININGS[key][0]}".strip() + "`"


def summary_row(script, ours, trainings):
    """Return the cells of one of our trainings in the table of all scripts."""
    label, metric, classical = SUMMARY[script]
    form = METRICS[metric][1]
    published, runs = (
        [trainings[key] for key in sorted(trainings) if key.startswith(f"{script}/{recipe}/")]
        for recipe in (PUBLISHED, ours)
    )
    first = trainings[f"{script}/{ours}/0"]
    pairs = []
    if script in COMPARED and published:  # of the same seed, or where there is one seed, with that
        pairs = [(published[min(seed, len(published) - 1)], run) for seed, run in enumerate(runs)]
    return [
        command(f"{script}/{ours}"),
        f"{first['dataset']['name']}, {first['dataset']['train']:,}",
        f"{first['parameters']:,}",
        label,
        format(first["baselines"][classical][metric], form) if classical else "–",
        mean_and_range([run["test"][metric] for run in published], form),
        mean_and_range([run["test"][metric] for run in runs], form),
        mean_and_range([run["seconds"][-1] for run in published], ",.0f"),
        mean_and_range([run["seconds"][-1] for run in runs], ",.0f"),
        *(speed_up(pairs, margin) for margin in MARGINS),
    ]


def summary_table(trainings):
    """Return the table of all scripts, and the line about where they were measured."""
    header = ["script", "training images", "parameters", "test metric", "classical"]
    header += ["`published`", "ours", "`published`, s", "ours, s"]
    header += [f"ratio at {margin:.0%}" for margin in MARGINS]
    machines = dict.fromkeys(
        f"{run['machine']}, Python {run['versions']['python']}, TensorFlow"
        f" {run['versions']['tensorflow']}, Keras {run['versions']['keras']}"
        for run in trainings.values()
    )
    rows = [
        summary_row(script, ours, trainings)
        for script in SUMMARY
        for ours in OURS
        if f"{script}/{ours}/0" in trainings
    ]
    return f"{markdown(header, rows)}\n\nMeasured on {'; '.join(machines)}."


def overview_table(trainings):
    """Return the table of five tasks: strongest classical method, as published, ours; seed 0."""
    rows = []
    for key, (task, images) in OVERVIEW.items():
        script = key.split("/")[0]
        label, metric, classical = SUMMARY[script]
        ours, published = trainings[f"{key}/0"], trainings[f"{script}/published/0"]
        values = [ours["baselines"][classical] if classical else None]
        values += [published["test"], ours["test"]]
        rows.append(
            [
                task,
                images,
                label,
                *(format(value[metric], METRICS[metric][1]) if value else "–" for value in values),
                *(f"{run['seconds'][-1]:,.0f} s" for run in (published, ours)),
                command(key),
            ]
        )
    header = ["task", "images", "measured by", "best classical", "as published", "ours"]
    return markdown([*header, "training as published", "training ours", "our command"], rows)


def script_of(model_name):
    """Return the name of the script that trains a model."""
    [script] = [name for name in SUMMARY if model_name.startswith(name)]
    return script


def models_table():
    """Return the table of the models in models/."""
    rows = []
    for path in sorted(training.MODELS.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        label, metric, _ = SUMMARY[script_of(path.stem)]
        rows.append(
            [
                f"`{path.stem}.keras`",
                report["dataset"]["name"],
                f"{report['parameters']:,}",
                f"{path.with_suffix('.keras').stat().st_size / 1e6:.1f} MB",
                label.removesuffix(", 32 numbers"),
                format(report["test"][metric], METRICS[metric][1]),
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
        rows = results[name]["rows"]
        return metrics_table(name, next(iter(rows.values())), rows)
    if name == "results":
        return summary_table(results["trainings"])
    if name == "overview":
        return overview_table(results["trainings"])
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
