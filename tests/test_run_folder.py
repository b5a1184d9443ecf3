"""Nothing of the reader's is lost, and a kill at any moment leaves a run that resumes right."""

import csv
import dataclasses
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import (
    ROOT,
    contents,
    report_of,
    stop_after_one_epoch,
    wait_for,
    without_figures,
)

import denoise_mnist
from common import UserError, command_line, files, run_folder, trained_models
from common.run_folder import RunFolder

QUICK = ["--synthetic", "--limit", "30", "--epochs", "1"]
FOUR_EPOCHS = "--synthetic --limit 60 --batch-size 8 --recipe published --epochs 4".split()
# Trains with these words, and waits in the third epoch for the kill.
TRAIN_AND_WAIT = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import denoise_mnist
batch = denoise_mnist.batches.Batches.batch
def wait_in_the_third(stream, step):
    if step == 3 * stream.steps_per_epoch - 1:
        time.sleep(600)
    return batch(stream, step)
denoise_mnist.batches.Batches.batch = wait_in_the_third
denoise_mnist.main(sys.argv[1:])
"""


class Dataset:
    def summary(self):
        return {"name": "toy", "source": "synthetic", "train": 8, "validation": 1, "test": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    script = "toy"
    names = {"autoencoder": "toy"}


def settings(**changes):
    default = {"output_dir": "out", "epochs": 9, "batch_size": 4, "learning_rate": 0.1, "seed": 0}
    return Settings(**{**default, **changes})


def run_of(**changes):
    return RunFolder(settings(**changes), Dataset(), ["figure.png"])


def small_model(name="toy"):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs), name=name)
    model.compile("adam", "mse")
    return model


def row(epoch, val_loss):
    return {"epoch": epoch, "seconds": float(epoch), "loss": 1.0, "val_loss": val_loss}


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """The runs/ of one short training, for tests to copy."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with without_figures():
            denoise_mnist.main(QUICK)
    return folder / "runs"


# ---------------------------------------------------------------- history and resuming


def test_a_worse_epoch_never_replaces_the_best_model():
    model = small_model()
    with run_of() as run:
        run.keep(model, row(1, 0.5))
        best = run.path("model.keras").read_bytes()
        model.set_weights([weight + 1 for weight in model.get_weights()])
        run.keep(model, row(2, 0.7))
        assert run.path("model.keras").read_bytes() == best
    with run_of(resume=True) as resumed:
        assert (resumed.first_epoch, resumed.seconds_before) == (2, 2.0)
        other = small_model()
        resumed.callbacks(other)
        np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])
        resumed.keep(other, row(3, 0.6))
        assert run.path("model.keras").read_bytes() == best
        resumed.keep(other, row(4, 0.4))
        assert run.path("model.keras").read_bytes() != best
    rows = list(csv.DictReader(Path("out/history.csv").open()))
    assert [line["epoch"] for line in rows] == ["1", "2", "3", "4"]
    assert [float(line["val_loss"]) for line in rows] == [0.5, 0.7, 0.6, 0.4]


def test_resume_restores_the_optimizer():
    model = small_model()
    x, y = np.ones((8, 2)), np.ones((8, 1))
    model.fit(x, y, epochs=3, verbose=0)
    with run_of() as run:
        run.keep(model, row(1, 0.5))
    other = small_model()
    with run_of(resume=True) as run:
        run.callbacks(other)
    other.fit(x, y, verbose=0)
    model.fit(x, y, verbose=0)
    assert int(other.optimizer.iterations) == 4
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


def test_patience_counts_from_the_best_epoch():
    with run_of(patience=2) as run:
        losses = [0.5, 0.4, 0.45, 0.39, 0.4, 0.41]
        stops = [run.keep(small_model(), row(n, loss)) for n, loss in enumerate(losses, start=1)]
    assert stops == [False, False, False, False, False, True]


def test_patience_holds_on_resuming_and_where_nothing_is_finite():
    with run_of(patience=2) as run:
        losses = [math.nan, 0.4, 0.5, 0.5]
        stops = [run.keep(small_model(), row(n, loss)) for n, loss in enumerate(losses, start=1)]
    assert stops == [False, False, False, True]
    with run_of(patience=2, resume=True) as run:
        assert run.first_epoch == 9
    with run_of(patience=2, output_dir="other") as run:
        assert [run.keep(small_model(), row(n, math.nan)) for n in (1, 2)] == [False, True]
        with pytest.raises(UserError, match="lower --learning-rate"):
            run.best_model()


@pytest.mark.parametrize("killed_in", ["save_model", "np.savez", "files.write_csv"])
@pytest.mark.parametrize("ctrl_c", [False, True])
def test_a_kill_while_an_epoch_is_stored_loses_that_epoch_at_most(monkeypatch, killed_in, ctrl_c):
    """Whichever file the kill falls before, what was stored still fits together."""
    model = small_model()
    with run_of() as run:
        run.keep(model, row(1, 0.5))
    first = model.get_weights()[0]

    def killed(*words, **options):
        raise KeyboardInterrupt

    model.set_weights([weight + 1 for weight in model.get_weights()])
    with monkeypatch.context() as patch:
        patch.setattr(f"common.run_folder.{killed_in}", killed)
        if not ctrl_c:  # a kill: nothing is done after it
            patch.setattr(RunFolder, "__exit__", lambda run, *words: run._let_go())
        with pytest.raises(KeyboardInterrupt), run_of(resume=True) as run:
            run.keep(model, row(2, 0.4))
    stored = 2 if killed_in == "files.write_csv" else 1
    with run_of(resume=True) as run:
        assert run.first_epoch == stored
        other = small_model()
        run.callbacks(other)
        best = run.best_model().get_weights()[0]
    for found in (other.get_weights()[0], best):
        np.testing.assert_allclose(found, first + (stored - 1), rtol=1e-6)


def test_ctrl_c_just_before_the_best_model_gets_its_place(monkeypatch):
    def interrupted(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("common.run_folder.files.write_csv", interrupted)
    with pytest.raises(KeyboardInterrupt) as info, run_of() as run:
        run.keep(small_model(), row(1, 0.5))
    assert Path("out", "model.keras").is_file()
    assert "The best model so far is out/model.keras. Go on" in info.value.__notes__[0]


def test_a_killed_training_resumes_as_if_nothing_had_happened(tmp_path, figures_left_out):
    denoise_mnist.main([*FOUR_EPOCHS, "--output-dir", "whole"])
    words = [sys.executable, "-c", TRAIN_AND_WAIT, *FOUR_EPOCHS, "--output-dir", "killed"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    history = tmp_path / "killed/history.csv"
    wait_for(lambda: history.exists() and len(history.read_text().splitlines()) == 3, process)
    process.kill()
    process.communicate()
    denoise_mnist.main([*FOUR_EPOCHS, "--output-dir", "killed", "--resume"])
    rows = [
        list(csv.DictReader((tmp_path / f / "history.csv").open())) for f in ("whole", "killed")
    ]
    assert [r["epoch"] for r in rows[1]] == ["1", "2", "3", "4"]
    assert len({r["val_loss"] for r in rows[0]}) == 4
    assert [r["val_loss"] for r in rows[0]] == [r["val_loss"] for r in rows[1]]
    assert report_of("killed")["test"] == report_of("whole")["test"]


def test_resume_takes_the_newest_unfinished_run_and_the_same_settings():
    for number in (1, 2, 3):
        with run_of(output_dir=None) as run:
            run.keep(small_model(), row(1, 0.5))
            if number != 2:
                files.write_json(run.path("metrics.json"), {})
    with run_of(output_dir=None, resume=True) as run:
        assert run.folder == Path("runs/toy_2")
    with pytest.raises(UserError, match="seed 0, this one has 4; give the same flags"):
        run_of(output_dir=None, resume=True, seed=4)
    with pytest.raises(UserError, match=r"toy_3: holds a finished training; leave --resume out"):
        run_of(output_dir="runs/toy_3", resume=True)
    with pytest.raises(UserError, match="nowhere: no interrupted training there"):
        run_of(output_dir="nowhere", resume=True)


@pytest.mark.parametrize("name", ["config.json", "state.json"])
def test_a_run_of_an_earlier_version_is_named(name):
    Path("runs/toy/checkpoint").mkdir(parents=True)
    Path("runs/toy/checkpoint", name).write_text("{}")
    with pytest.raises(UserError, match="only a training of an earlier version"):
        run_of(output_dir=None, resume=True)


def flip_a_bit_of_the_weights(content):
    place = content.index(np.float32(1.5).tobytes())
    return content[:place] + b"\xff" + content[place + 1 :]


def state_of(text):
    """What the file would hold with another text in it."""
    file = io.BytesIO()
    np.savez(file, np.bytes_(text))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-30],
        lambda content: content.replace(b"0.5", b"0.6"),
        flip_a_bit_of_the_weights,
        lambda content: state_of(b"[" * 100_000),
        lambda content: state_of(b"[]"),
        lambda content: state_of(b'{"format": 1}'),
        lambda content: b"[]",
        lambda content: b"",
    ],
)
def test_a_damaged_state_is_named(damage):
    model = small_model()
    model.set_weights([np.full_like(weight, 1.5) for weight in model.get_weights()])
    with run_of() as run:
        run.keep(model, row(1, 0.5))
    state = Path("out/checkpoint/state.npz")
    damaged = damage(state.read_bytes())
    assert damaged != state.read_bytes()
    state.write_bytes(damaged)
    with pytest.raises(UserError, match=r"state.npz: damaged .*leave --resume out"):
        run_of(resume=True)


def test_one_of_several_models_is_kept_and_a_damaged_one_is_named():
    with run_of() as run:
        run.trained("a", lambda: (small_model(), {"loss": 1.0, "val_loss": 1.0}))
    with run_of(resume=True) as run:
        assert run.trained("a", None).name == "toy"
        path = run.path("checkpoint") / "a.keras"
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with run_of(resume=True) as run, pytest.raises(UserError, match=r"a.keras: damaged"):
        run.trained("a", None)


def test_weights_of_another_network_are_named():
    with run_of() as run:
        run.keep(small_model(), row(1, 0.5))
    inputs = keras.Input((3,))
    other = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    other.compile("adam", "mse")
    with run_of(resume=True) as run, pytest.raises(UserError, match=r"state.npz: does not fit"):
        run.callbacks(other)


# ---------------------------------------------------------------- what is the reader's


def test_files_of_the_readers_stay_in_the_output_folder(tmp_path, figures_left_out):
    (tmp_path / "out/checkpoints").mkdir(parents=True)
    for name in ("holiday.png", "writable", "notes.txt", "checkpoints/epoch_1.weights.h5"):
        (tmp_path / "out" / name).write_text(name)
    (tmp_path / "out/x.png").mkdir()
    before = contents("out")
    denoise_mnist.main([*QUICK, "--output-dir", "out"])
    after = contents("out")
    assert all(after[path] == content for path, content in before.items())
    assert (tmp_path / "out/x.png").is_dir()
    assert (tmp_path / "out/metrics.json").is_file()


@pytest.mark.parametrize("name", ["model.keras", "history.csv", "digits.png", "checkpoint"])
def test_a_name_that_the_reader_has_taken_is_refused_before_any_work(name, tmp_path, error_of):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    line = error_of(denoise_mnist.main, *QUICK, "--output-dir", "out")
    assert f"out/{name}: exists already; choose another --output-dir" in line
    assert contents("out") == {Path("out", name): b"mine"}


def test_a_finished_training_is_never_written_over(trained_once, error_of, figures_left_out):
    shutil.copytree(trained_once, "runs")
    before = contents("runs")
    denoise_mnist.main([*QUICK, "--seed", "1"])
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "denoise_mnist",
        "denoise_mnist_2",
    ]
    line = error_of(denoise_mnist.main, *QUICK, "--output-dir", "runs/denoise_mnist")
    assert "holds a finished training; choose another --output-dir" in line
    assert "lower --learning-rate" in error_of(
        denoise_mnist.main, *QUICK, "--learning-rate", "1e38"
    )
    assert all(Path(path).read_bytes() == content for path, content in before.items())


def test_an_unfinished_training_is_not_begun_anew_over_itself(error_of):
    stop_after_one_epoch(denoise_mnist.main, [*QUICK, "--output-dir", "out"])
    line = error_of(denoise_mnist.main, *QUICK, "--output-dir", "out")
    assert "exists already; add --resume, or choose another --output-dir" in line
    words = "--synthetic --limit 30 --model out/model.keras --output-dir out".split()
    line = error_of(denoise_mnist.main, *words)
    assert "holds an unfinished training; choose another --output-dir" in line


def test_a_quick_try_does_not_become_the_model_of_input(trained_once, capsys):
    shutil.copytree(trained_once, "runs")
    files.write_json(Path("not_an_image.png"), {})
    with pytest.raises(UserError, match="not an image"):
        denoise_mnist.main(["--input", "not_an_image.png"])
    assert f"Using {ROOT / 'models' / 'denoise_mnist.keras'}" in capsys.readouterr().out


def test_a_model_that_measured_worse_than_nothing_comes_with_a_warning(capsys, figures_left_out):
    from PIL import Image

    denoise_mnist.main([*QUICK, "--recipe", "published"])
    report = report_of("runs/denoise_mnist")
    assert report["test"]["mse"] > report["baselines"]["noisy_input"]["mse"]
    Image.new("L", (28, 28)).save("a.png")
    capsys.readouterr()
    denoise_mnist.main(["--input", "a.png", "--model", "runs/denoise_mnist/model.keras"])
    out = capsys.readouterr().out
    assert "trained on 27 images of synthetic digits" in out
    assert "worse than doing nothing" in out


def test_two_trainings_in_one_folder_at_once(tmp_path):
    if os.name == "nt":
        pytest.skip("no locks on Windows")
    with run_of() as run:
        run.keep(small_model(), row(1, 0.5))
        with pytest.raises(UserError, match="out: in use by another run"):
            run_of(resume=True)
    with run_of(resume=True):
        pass


def test_a_run_that_writes_nothing_leaves_no_folder(tmp_path):
    with run_of(output_dir=None):
        assert Path("runs/toy").is_dir()
    assert list(Path("runs").iterdir()) == []
    Path("empty").mkdir()
    with run_of(output_dir="empty"):
        pass
    assert Path("empty").is_dir()


def test_only_announced_names_are_written():
    with run_of() as run:
        assert run.path("figure.png") == Path("out/figure.png")
        with pytest.raises(ValueError, match="not announced"):
            run.path("other.png")


def test_peak_memory_is_in_megabytes():
    """Against the same figure of the kernel, in kB of 1,024 bytes."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert run_folder.peak_memory_mb() == pytest.approx(peak * 1024 / 1e6, rel=0.02)


def test_json_is_valid_whatever_the_values(tmp_path):
    content = {"psnr": math.inf, "list": [math.nan, 1.5], "n": None, "s": "é"}
    files.write_json(tmp_path / "m.json", content)

    def refuse(word):
        raise AssertionError(word)

    back = json.loads((tmp_path / "m.json").read_text(), parse_constant=refuse)
    assert back == {"psnr": None, "list": [None, 1.5], "n": None, "s": "é"}


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = small_model()
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    trained_models.save_model(model, tmp_path / "nan.keras")
    with pytest.raises(UserError, match="not finite"):
        trained_models.load_model(tmp_path / "nan.keras", {"autoencoder": "toy"})


def test_a_model_of_the_first_version_is_known_by_its_old_name(tmp_path):
    names = {"unet": "clean_documents", "autoencoder": "clean_documents_autoencoder"}
    trained_models.save_model(small_model("clean_documents_tutorial"), tmp_path / "old.keras")
    assert trained_models.load_model(tmp_path / "old.keras", names)[1] == "autoencoder"


def test_a_caption_names_the_test_images_or_what_is_shown_instead():
    said = []

    def plotter(content, path, title, caption, show):
        said.append(caption)

    def caption(run, **words):
        run.plot(plotter, None, "figure.png", "title", "What to see.", **words)
        return said.pop()

    with run_of() as run:
        data = run.dataset.summary()
        of = f"{data['name']} ({data['source']})"
        tests = f"{data['test']} test images."
        assert caption(run) == f"What to see.\nData: {of}, {tests}"
        assert caption(run, shown="a page") == "What to see.\nData: a page."
        run.history = [row(1, 1.0)]
        trained = f"{of}, {data['train']} training images"
        assert caption(run) == f"What to see.\nData: {trained}, {tests}"
        shown = f"What to see.\nData: a page; trained on {trained}."
        assert caption(run, shown="a page") == shown
