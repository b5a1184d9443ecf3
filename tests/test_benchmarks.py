"""benchmarks/: what is computed from the trainings, and that README says what was measured."""

import json
import re

import numpy as np
import pytest
import readme
import scaling
import speed
import time_to_quality
from conftest import small_mnist, write_idx

from common import UserError


def run_of(seconds, validation, **test):
    """Return a training as results.json holds it."""
    baselines = {"noisy_input": {"psnr": 9.0}, "linear_filter": {"psnr": 17.0}}
    return {
        "seconds": seconds,
        "validation": validation,
        "test": test,
        "baselines": baselines,
        "dataset": {"name": "MNIST", "train": 9000},
        "parameters": 28353,
        "peak_memory_mb": 1234.0,
        "date": "2026-01-02",
        "commit": "abcdef1",
        "machine": "a machine, 2 cores",
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1"},
    }


@pytest.mark.parametrize(
    ("margin", "published_s", "fast_s"),
    [
        (0.0, 30, 3 - 1 / 2),  # 0.2, half-way between 0.3 and 0.1
        (0.5, 20, 2),  # 0.3, at the very end of an epoch
        (1.0, 15, 1 + 2 / 3),  # 0.4
    ],
)
def test_seconds_to_a_quality_lie_on_the_line_between_two_epochs(margin, published_s, fast_s):
    published = run_of([10, 20, 30, 40], [0.5, 0.3, 0.2, 0.25])
    fast = run_of([1, 2, 3], [0.6, 0.3, 0.1])
    quality, *seconds = time_to_quality.ratio(published, fast, margin)
    assert quality == pytest.approx(0.2 * (1 + margin))
    assert seconds == pytest.approx([published_s, fast_s])


def test_recipes_timed_on_different_machines_are_not_compared():
    slower = {**run_of([20, 40], [0.5, 0.2]), "machine": "another"}
    with pytest.raises(UserError, match="different machines"):
        time_to_quality.ratio(run_of([10, 20], [0.5, 0.2]), slower)


def test_a_quality_never_reached_has_no_ratio():
    published, slow = run_of([10, 20], [0.5, 0.2]), run_of([1, 2], [0.4, 0.3])
    assert time_to_quality.ratio(published, slow) == (0.2, 20, None)
    assert readme.ratio_cell([(published, slow)], 0.0) == "not reached"


def test_a_row_shows_means_and_spreads_over_seeds():
    trainings = {
        "denoise_mnist/published/0": run_of([100, 300], [0.2, 0.1], psnr=19.0),
        "denoise_mnist/published/1": run_of([100, 320], [0.2, 0.1], psnr=19.5),
        "denoise_mnist/fast/0": run_of([10, 20], [0.1, 0.05], psnr=20.0),
        "denoise_mnist/fast/1": run_of([10, 20], [0.2, 0.1], psnr=20.1),
    }
    cells = readme.summary_row("denoise_mnist", trainings)
    assert cells[2:10] == [
        "28,353",
        "PSNR, dB",
        "9.00",
        "17.00",
        "19.25 (19.00 to 19.50)",
        "20.05 (20.00 to 20.10)",
        "310 (300 to 320)",
        "20",
    ]
    assert cells[-2:] == ["23.0 (16.0 to 30.0)", "1.2 and 1.2"]
    del trainings["denoise_mnist/published/1"]
    assert readme.summary_row("denoise_mnist", trainings)[-2:] == ["30.0", "1.2 and 1.2"]


def test_pages_show_what_was_measured():
    results = time_to_quality.read_results(time_to_quality.RESULTS)
    for page in readme.PAGES:
        text = page.read_text(encoding="utf-8")
        assert readme.render(text, results) == text
    assert set(results["speed"]) == set(speed.SCRIPTS)
    assert {f"{name}/{recipe}/0" for name in speed.SCRIPTS for recipe in ("published", "fast")} <= (
        results["trainings"].keys()
    )
    assert all(re.fullmatch("[0-9a-f]{7,}", run["commit"]) for run in results["trainings"].values())


# What is no measurement: how much noise there is, what an option is set to, quantiles, time-outs.
SETTINGS = [
    *("at 10%", "to 30%", "at 40%", "10% noise", "σ = 0.1", "5 minutes", "15 seconds", "300 dpi"),
    *("50 MB", "in dB; 3 dB", "what is 1% and 5% worse", "95% of", ", at 1%", "pepper, 5%"),
    "1.44 bits",
]
VERSION = r"(?:Python|TensorFlow|NumPy|Matplotlib) \d+\.\d+"


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_no_measured_number_stands_without_its_source(page):
    text = page.read_text(encoding="utf-8")
    for pattern in (readme.TABLE.pattern, VERSION, r"^```.*?^```", r"`[^`\n]*`", r"\]\(\S+\)"):
        text = re.sub(pattern, "", text, flags=re.S | re.M)
    text = readme.NUMBER.sub("", text)
    for setting in SETTINGS:
        text = text.replace(setting, "")
    units = "dB|%|ms|s|seconds|minutes|hours|nats|MB|GB|times|points"
    bare = re.findall(rf"[^\n.]*?\d[\d.,]* ?(?:{units})(?!\w)", text)
    bare += re.findall(r"[^\n]*?\b\d[\d,]*\.\d{2,}", text)
    assert not bare


def test_numbers_and_tables_are_put_in_from_the_results():
    results = {"trainings": {"a/b/0": {"test": {"bits_0.1": 0.987}}}}
    place = "trainings.a/b/0.test.bits_0.1 .1%"
    assert readme.render(f"so 12%<!-- {place} --> it is", results) == (
        f"so 98.7%<!-- {place} --> it is"
    )
    with pytest.raises(UserError, match=r"bits_0.2: not in results.json"):
        readme.render("12%<!-- trainings.a/b/0.test.bits_0.2 .1% -->", results)
    run = run_of([10, 20], [0.2, 0.1], psnr=19.0, ssim=0.5)
    table = readme.table_of("denoise_mnist", {"denoise_mnist/fast/0": run})
    assert table.splitlines()[-1] == "| `--recipe fast` |  |  | 19.00 | 0.500 | 20 s |"


def test_measures_both_recipes_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "SECONDS", 0.05)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    write_idx(tmp_path / "data" / "mnist", small_mnist())
    words = ["denoise_mnist", "--data-dir", str(tmp_path / "data"), "--seeds", "1", "--epochs", "1"]
    words += ["--results", str(tmp_path / "r.json"), "--figure", str(tmp_path / "f.png")]

    real_train = time_to_quality.train

    def train_then_stop(*settings):
        real_train(*settings)
        raise KeyboardInterrupt

    # Stopped after the first training is done and before its result is stored.
    monkeypatch.setattr(time_to_quality, "train", train_then_stop)
    with pytest.raises(KeyboardInterrupt):
        time_to_quality.main(words)
    assert not (tmp_path / "r.json").exists()

    monkeypatch.setattr(time_to_quality, "train", real_train)
    time_to_quality.main(words)
    results = json.loads((tmp_path / "r.json").read_text())
    assert list(results["trainings"]) == ["denoise_mnist/published/0", "denoise_mnist/fast/0"]
    run = results["trainings"]["denoise_mnist/fast/0"]
    assert run["recipe"] == "fast"
    assert len(run["seconds"]) == len(run["validation"]) == run["epochs"] == 1
    measured = results["speed"]["denoise_mnist"]
    assert measured["image"] == [28, 28]
    assert 0 <= measured["input_share"] < 1
    assert measured["training_images_per_second"] == pytest.approx(1000 * 32 / measured["step_ms"])
    assert (tmp_path / "f.png").stat().st_size > 10_000

    # The second time there is nothing left to do but to draw.
    capsys.readouterr()
    monkeypatch.setattr(time_to_quality, "train", None)
    monkeypatch.setattr(speed, "measure", None)
    time_to_quality.main(words)
    assert capsys.readouterr().out == f"Wrote {tmp_path / 'f.png'}\n"


def point(seconds, **more):
    return {"seconds": seconds, "memory_mb": 1500.0, **more}


def test_what_a_million_pages_cost_follows_from_one_more_page(monkeypatch):
    """Whatever the start takes: here 20 s, and 3 s for each page on 4 cores."""
    monkeypatch.setattr(scaling.os, "cpu_count", lambda: 4)
    found = {
        "one_process": {"2": point(10 + 2 * 9), "10": point(10 + 10 * 9)},
        "dask_local": {"2": point(20 + 2 * 3, page_mb=5), "10": point(20 + 10 * 3)},
        "empty_calls_per_second": 50,
    }
    paper = scaling.on_paper(found)
    assert paper["seconds_per_page"] == {"one_process": 9, "dask_local": 3}
    assert paper["pages_per_hour_and_core"] == pytest.approx(3600 / 3 / 4)
    assert paper["core_hours_per_million"] == pytest.approx(1e6 * 3 * 4 / 3600)
    assert paper["seconds_to_start"] == pytest.approx(20)
    assert paper["cores_one_scheduler_feeds"] == pytest.approx(50 * 3 * 4)


@pytest.mark.parametrize("shape", [(3, 5), (25, 41), (12, 2)])
def test_a_picture_goes_on_as_in_mirrors(shape):
    picture = np.arange(70).reshape(7, 10)
    found = scaling.mirrored(picture, shape)
    assert found.shape == shape
    row, column = shape[0] - 1, shape[1] - 1
    rows, columns = [*range(7), *range(6, -1, -1)], [*range(10), *range(9, -1, -1)]
    assert found[row, column] == picture[rows[row % 14], columns[column % 20]]


def test_scaling_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    words = ["--results", str(tmp_path / "r.json"), "--figure", str(tmp_path / "f.png")]
    words += ["--work-dir", str(tmp_path / "work")]
    asked = []

    def measure(series, size, folder):
        asked.append((series, size))
        if size == 20:
            raise KeyboardInterrupt
        return point(size / 2)

    monkeypatch.setattr(scaling, "point", measure)
    with pytest.raises(KeyboardInterrupt):
        scaling.main(["pixels", *words])
    scaling.main(["pixels", "pages", "--most", "10", *words])
    assert asked.count(("page", 0.25)) == 1
    assert [size for series, size in asked if series == "pdf"] == [1, 10]
    stored = json.loads((tmp_path / "r.json").read_text())["scaling"]
    assert stored["pixels"]["page"]["9"] == point(4.5)
    assert stored["pages"]["commit"]
    assert (tmp_path / "f.png").stat().st_size > 10_000
    # Of one number of pages does not follow what one more takes.
    monkeypatch.setattr(scaling.page_cleaning, "dask_address", str)
    monkeypatch.setattr(scaling, "apart", lambda function: 50)
    monkeypatch.setattr(scaling, "point", lambda *words: point(words[1], page_mb=5))
    stored = tmp_path / "cluster.json"
    words[1] = str(stored)
    scaling.main(["cluster", "--most", "2", *words])
    assert "on_paper" not in json.loads(stored.read_text())["scaling"]["cluster"]
    scaling.main(["cluster", *words])
    paper = json.loads(stored.read_text())["scaling"]["cluster"]["on_paper"]
    assert paper["seconds_per_page"]["dask_local"] == 1
    with pytest.raises(UserError, match="page: no such part; there are training, pixels"):
        scaling.main(["page", *words])
    every = {
        part: {name: {"1": point(1.0), "4": point(2.5)} for name in series}
        for part, series in scaling.PARTS.items()
    }
    lines = readme.scaling_table(every).splitlines()
    assert lines[3] == "| cleaning a page | 1 to 4 megapixels | 1.0 to 2.5 | 500 | 1.5 to 1.5 |"


def test_points_are_measured(tmp_path):
    """The smallest of each kind but for trainings and the cluster, each in its own process."""
    found = scaling.point("page", 0.01, tmp_path)
    assert found["seconds"] > 0
    assert found["memory_mb"] > 100
    assert [path.name for path in tmp_path.iterdir()] == ["keras_home"]  # the test's own
    assert scaling.point("reading", 0.25, tmp_path)["seconds"] > 0
    assert scaling.point("pdf", 2, tmp_path)["memory_mb"] > 100


def test_what_is_wrong_is_said_in_one_line(error_of, tmp_path):
    main, data = time_to_quality.main, ["--data-dir", str(tmp_path)]
    results = ["--results", str(tmp_path / "r.json")]
    assert "vae: no such script; there are latent_spaces, denoise_mnist" in error_of(
        main, "vae", *data
    )
    line = error_of(main, "denoise_mnist", "--epochs", "1", *data, *results)
    assert "denoise_mnist.py ended with exit code 2" in line
    assert "log.txt" in line
    (tmp_path / "r.json").write_text("{}")
    assert "damaged" in error_of(main, *data, *results)
