"""benchmarks/: times, speed-ups and tables by hand, and that the pages show what was measured."""

import functools
import importlib
import json
import re
import types
import typing
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, metrics_of

import latent_spaces
from benchmarks import ablations, ship, tables, trainings
from common import cli, training
from common.cli import UserError


def run_of(seconds, validation, **test):
    """Return a training as results.json holds it."""
    return {
        "seconds": seconds,
        "validation": validation,
        "test": test,
        "baselines": {"noisy": {"psnr": 9.0}, "Wiener filter": {"psnr": 17.0}},
        "dataset": {"name": "MNIST", "train": 9000},
        "parameters": 28353,
        "machine": "a machine, 2 cores",
    }


@pytest.mark.parametrize(
    ("margin", "published_s", "fast_s"),
    [
        (0.0, 30, 3 - 1 / 2),  # 0.2, half-way between 0.3 and 0.1
        (0.5, 20, 2),  # 0.3, at the very end of an epoch
        (1.0, 15, 1 + 2 / 3),  # 0.4
        (3.0, 10, 1),  # 0.8, better from the first epoch on
    ],
)
def test_time_to_quality_is_interpolated_between_epochs(margin, published_s, fast_s):
    published = run_of([10, 20, 30, 40], [0.5, 0.3, 0.2, 0.25])
    fast = run_of([1, 2, 3], [0.6, 0.3, 0.1])
    loss, *seconds = trainings.time_to_quality(published, fast, margin)
    assert loss == pytest.approx(0.2 * (1 + margin))
    assert seconds == pytest.approx([published_s, fast_s])


def test_quality_that_is_not_reached_has_no_speed_up():
    published, slow = run_of([10, 20], [0.5, 0.2]), run_of([1, 2], [0.4, 0.3])
    assert trainings.time_to_quality(published, slow) == (0.2, 20, None)
    assert tables.speed_up([(published, slow)], 0.0) == "not reached"


def test_recipes_timed_on_different_machines_are_not_compared():
    slower = {**run_of([20, 40], [0.5, 0.2]), "machine": "another"}
    with pytest.raises(UserError, match="different machines"):
        trainings.time_to_quality(run_of([10, 20], [0.5, 0.2]), slower)


def test_summary_row_shows_means_and_ranges_over_seeds():
    runs = {
        "denoise_mnist/published/0": run_of([100, 300], [0.2, 0.1], psnr=19.0),
        "denoise_mnist/published/1": run_of([100, 320], [0.2, 0.1], psnr=19.5),
        "denoise_mnist/fast/0": run_of([10, 20], [0.1, 0.05], psnr=20.0),
        "denoise_mnist/fast/1": run_of([10, 20], [0.2, 0.1], psnr=20.1),
    }
    cells = tables.summary_row("denoise_mnist", "fast", runs)
    assert cells[1:9] == [
        "MNIST, 9,000",
        "28,353",
        "PSNR, dB",
        "17.00",
        "19.25 (19.00 to 19.50)",
        "20.05 (20.00 to 20.10)",
        "310 (300 to 320)",
        "20",
    ]
    assert cells[-1] == "23.0 (16.0 to 30.0)"
    del runs["denoise_mnist/published/1"]
    assert tables.summary_row("denoise_mnist", "fast", runs)[-1] == "22.5 (15.0 to 30.0)"
    runs["denoise_mnist/fast/1"] = run_of([10, 20], [0.3, 0.2], psnr=20.1)
    assert tables.summary_row("denoise_mnist", "fast", runs)[-1] == "30.0; 1 of 2 seeds"


def test_table_has_baselines_and_the_trainings_that_were_measured():
    run = run_of([10, 20], [0.2, 0.1], psnr=19.0, ssim=0.5)
    table = tables.training_table("denoise_mnist", {"denoise_mnist/fast/0": run})
    assert table.splitlines()[2:] == [
        "| noisy |  |  | 9.00 |  |  |",
        "| Wiener filter |  |  | 17.00 |  |  |",
        "| `--recipe fast` |  |  | 19.00 | 0.500 | 20 s |",
    ]


def test_pages_show_what_was_measured(monkeypatch, tmp_path):
    assert tables.main(check=True) == 0
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table ocr -->\n<!-- end ocr -->\nb\n")
    monkeypatch.setattr(tables, "PAGES", [page])
    assert tables.main(check=True) == 1
    assert page.read_text() == "a\n<!-- table ocr -->\n<!-- end ocr -->\nb\n"
    assert tables.main() == 0
    table = r"a\n<!-- table ocr -->\n(\|.*\|\n){3}<!-- end ocr -->\nb\n"
    assert re.fullmatch(table, page.read_text())
    assert tables.main(check=True) == 0


def test_every_script_and_recipe_is_trained():
    trained = set()
    for name, (flags, _) in trainings.TRAININGS.items():
        script = importlib.import_module(name.split("/")[0])
        trained.add((script.__name__, cli.parse("", flags.split(), script.Train).recipe))
    for script in {path.stem for path in ROOT.glob("*.py")} - {"app"}:
        hints = typing.get_type_hints(importlib.import_module(script).Train)
        for recipe in typing.get_args(hints["recipe"]) or ["fast"]:
            assert (script, recipe) in trained
    measured = trainings.read_results(trainings.RESULTS)["trainings"]
    assert {key.rpartition("/")[0] for key in measured} <= set(trainings.TRAININGS)


@pytest.mark.parametrize(("script", "takes"), [("denoise_mnist", True), ("watermark_photo", False)])
def test_a_training_gets_the_data_folder_if_its_script_takes_one(script, takes, monkeypatch):
    def run(command, cwd):
        assert ("--data-dir" in command) == takes
        return types.SimpleNamespace(returncode=2)

    monkeypatch.setattr(trainings.subprocess, "run", run)
    with pytest.raises(UserError, match="exit code 2"):
        trainings.measure(f"{script}/fast", 0, trainings.Settings(data_dir=Path("data")))


def test_trains_stores_and_continues(tmp_path, monkeypatch, capfd):
    args = ["denoise_mnist/fast", "--synthetic", "--limit", "20", "--epochs", "1", "--seeds", "1"]
    args += ["--results", "r.json", "--images", "."]
    trainings.main(args)
    results = json.loads((tmp_path / "r.json").read_text())["trainings"]
    assert list(results) == ["denoise_mnist/fast/0"]
    run = results["denoise_mnist/fast/0"]
    assert run["command"] == "python denoise_mnist.py --seed 0 --limit 20 --epochs 1 --synthetic"
    assert run["test"] == metrics_of("runs/benchmark_denoise_mnist_fast_0")["test"]
    assert len(run["seconds"]) == len(run["validation"]) == run["epochs"] == 1
    measured = trainings.read_results(trainings.RESULTS)["trainings"]
    trainings.plot(measured, tmp_path / "all.png")
    sizes = [(tmp_path / name).stat().st_size for name in ("time_to_quality.png", "all.png")]
    assert 10_000 < sizes[0] < sizes[1]
    # The second time only the figure is left to do.
    monkeypatch.setattr(trainings, "measure", None)
    capfd.readouterr()
    trainings.main(args)
    assert capfd.readouterr().out == "Wrote time_to_quality.png\n"


def test_mistakes_end_in_one_line(error_of):
    main = trainings.main
    assert "vae: unknown; there are latent_spaces/fast" in error_of(main, "vae")
    assert "--data-dir" in error_of(main, "denoise_mnist")
    arguments = ["denoise_mnist/fast", "--data-dir", "missing", "--results", "r.json"]
    assert "denoise_mnist.py ended with exit code 2" in error_of(main, *arguments)


def test_ships_a_rounded_and_compressed_model(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "MODELS", tmp_path / "models")
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)], name="denoise_mnist")
    training.save_model(model, tmp_path / "run" / "model.keras")
    report = {"model": "denoise_mnist", "epochs": 2, "dataset": {"name": "MNIST"}}
    report["settings"] = {"seed": 0, "data_dir": "somewhere"}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(report))
    ship.main(tmp_path / "run", rounding="coarse")
    shipped = training.load_model(None, "denoise_mnist")
    weights, rounded = model.get_weights()[0], shipped.get_weights()[0]
    assert 0 < np.abs(weights - rounded).max() <= weights.std() / 64 * 1.001
    sizes = [path.stat().st_size for path in tmp_path.glob("*/*.keras")]
    assert min(sizes) < 0.7 * max(sizes)
    shipped_report = json.loads((tmp_path / "models" / "denoise_mnist.json").read_text())
    assert shipped_report["settings"] == {"seed": 0}
    assert shipped_report["license"].startswith("CC BY-SA 3.0")


def test_ships_each_network_of_latent_spaces(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "MODELS", tmp_path / "models")
    run, networks = tmp_path / "run", {}
    for number, (kind, name) in enumerate(latent_spaces.SAVED.items()):
        training.save_model(latent_spaces.EXPERIMENTS[name].build(), run / f"{kind}.keras")
        networks[name] = {"parameters": number, "seconds": 1.5, "test": {"mse": 0.01}}
    report = {"model": "latent_spaces_plain", "dataset": {"name": "MNIST"}, "settings": {}}
    (run / "metrics.json").write_text(json.dumps(report))
    (run / "networks.json").write_text(json.dumps(networks))
    ship.main(run)
    for number, kind in enumerate(latent_spaces.SAVED):
        training.load_model(None, f"latent_spaces_{kind}")
        shipped_report = json.loads(
            (tmp_path / "models" / f"latent_spaces_{kind}.json").read_text()
        )
        assert shipped_report["model"] == f"latent_spaces_{kind}"
        assert shipped_report["parameters"] == number


@pytest.mark.parametrize("name", ["watermark", "noise"])
def test_an_ablation_has_a_value_for_each_row_and_its_table(name, tmp_path, monkeypatch):
    quick = functools.partial(ablations.ABLATIONS[name], steps=2)
    monkeypatch.setitem(ablations.ABLATIONS, name, quick)
    flags = "--synthetic --limit 40 --seeds 1 --results results.json --images ."
    ablations.main([name, *flags.split()])
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results[f"ablation_{name}"]["rows"].values()
    assert len(rows) >= 2
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert len(tables.table(f"ablation_{name}", results).splitlines()) == 2 + len(rows)
