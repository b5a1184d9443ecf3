"""benchmarks/: times, speed-ups and tables by hand, and that the pages show what was measured."""

import importlib
import json
import re
import typing

import keras
import numpy as np
import pytest
from conftest import ROOT, metrics_of

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
    cells = tables.summary_row("denoise_mnist", runs)
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
    assert tables.summary_row("denoise_mnist", runs)[-1] == "30.0"


def test_table_has_baselines_and_the_trainings_that_were_measured():
    run = run_of([10, 20], [0.2, 0.1], psnr=19.0, ssim=0.5)
    columns, rows = tables.TABLES["denoise_mnist"]
    table = tables.training_table({"denoise_mnist/fast/0": run}, columns, rows)
    assert table.splitlines()[2:] == [
        "| noisy |  |  | 9.00 |  |  |",
        "| Wiener filter |  |  | 17.00 |  |  |",
        "| `--recipe fast` |  |  | 19.00 | 0.500 | 20 s |",
    ]


def test_pages_show_what_was_measured(monkeypatch, tmp_path, capsys):
    assert tables.main(["--check"]) == 0
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table ocr -->\n<!-- end ocr -->\nb\n")
    monkeypatch.setattr(tables, "PAGES", [page])
    assert tables.main(["--check"]) == 1
    assert page.read_text() == "a\n<!-- table ocr -->\n<!-- end ocr -->\nb\n"
    assert not tables.main([])
    assert re.fullmatch(
        r"a\n<!-- table ocr -->\n(\|.*\|\n){3}<!-- end ocr -->\nb\n", page.read_text()
    )
    assert tables.main(["--check"]) == 0


def test_every_script_and_recipe_is_trained():
    listed = {name: flags for name, (flags, _) in trainings.TRAININGS.items()}
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"app"}
    assert {name.split("/")[0] for name in listed} == scripts
    trained = set()
    for name, flags in listed.items():
        script = importlib.import_module(name.split("/")[0])
        trained.add((script.__name__, cli.parse("", flags, script.Train).recipe))
    for script in scripts:
        hints = typing.get_type_hints(importlib.import_module(script).Train)
        for recipe in typing.get_args(hints["recipe"]) or ["fast"]:
            assert (script, recipe) in trained
    measured = {key.rpartition("/")[0] for key in trainings.read_results()["trainings"]}
    assert measured <= set(listed)


def test_trains_stores_and_continues(tmp_path, monkeypatch, capfd):
    args = ["denoise_mnist/fast", "--synthetic", "--limit", "20", "--epochs", "1", "--seeds", "1"]
    args += ["--results", "r.json", "--figure", "f.png"]
    trainings.main(args)
    results = json.loads((tmp_path / "r.json").read_text())["trainings"]
    assert list(results) == ["denoise_mnist/fast/0"]
    run = results["denoise_mnist/fast/0"]
    assert run["command"] == ("python denoise_mnist.py --seed 0 --limit 20 --epochs 1 --synthetic")
    assert run["test"] == metrics_of("runs/benchmark_denoise_mnist_fast_0")["test"]
    assert len(run["seconds"]) == len(run["validation"]) == run["epochs"] == 1
    trainings.plot(trainings.read_results()["trainings"], tmp_path / "all.png")
    sizes = [(tmp_path / name).stat().st_size for name in ("f.png", "all.png")]
    assert 10_000 < sizes[0] < sizes[1]
    # The second time only the figure is left to do.
    monkeypatch.setattr(trainings, "measure", None)
    capfd.readouterr()
    trainings.main(args)
    assert capfd.readouterr().out == "Wrote f.png\n"


def test_mistakes_end_in_one_line(error_of, tmp_path):
    main = trainings.main
    assert "vae: no such training; there are latent_spaces/fast" in error_of(main, "vae")
    assert "--data-dir" in error_of(main, "denoise_mnist")
    arguments = ["denoise_mnist/fast", "--data-dir", "missing", "--results", "r.json"]
    assert "denoise_mnist.py ended with exit code 2" in error_of(main, *arguments)
    (tmp_path / "r.json").write_text("{}")
    assert "damaged" in error_of(main, *arguments)


def test_ships_a_rounded_and_compressed_model(tmp_path):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)], name="denoise_mnist")
    training.save_model(model, tmp_path / "run" / "model.keras")
    report = {"model": "denoise_mnist", "epochs": 2, "dataset": {"name": "MNIST"}}
    report["settings"] = {"seed": 0, "data_dir": "somewhere"}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(report))
    ship.main(["run", "--rounding", "coarse", "--models", "models"])
    shipped = training.load_model("models/denoise_mnist.keras", "denoise_mnist")
    weights, rounded = model.get_weights()[0], shipped.get_weights()[0]
    assert 0 < np.abs(weights - rounded).max() <= weights.std() / 64 * 1.001
    sizes = [path.stat().st_size for path in tmp_path.glob("*/*.keras")]
    assert min(sizes) < 0.7 * max(sizes)
    shipped_report = json.loads((tmp_path / "models" / "denoise_mnist.json").read_text())
    assert shipped_report["settings"] == {"seed": 0}
    assert shipped_report["license"].startswith("CC BY-SA 3.0")


@pytest.mark.parametrize("name", ["watermark", "noise"])
def test_an_ablation_has_a_value_for_each_row_and_its_table(name, tmp_path):
    quick = "--synthetic --limit 40 --steps 2 --seeds 1 --results results.json --images ."
    ablations.main([name, *quick.split()])
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    rows = results[f"ablation_{name}"]["rows"]
    assert len(rows) >= 2
    assert all(np.isfinite(list(row.values())).all() for row in rows.values())
    table = tables.ablation_table({"rows": rows})
    assert len(table.splitlines()) == 2 + len(rows)
