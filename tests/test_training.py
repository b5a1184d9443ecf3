import argparse
import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from common import UserError, training


class Dataset:
    name, source = "toy", "synthetic"

    def summary(self):
        return {"name": "toy", "source": "synthetic", "train": 8, "validation": 1, "test": 2}


def small_model(name="toy"):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs), name=name)
    model.compile("adam", "mse")
    return model


def arguments(**changes):
    settings = {
        "names": {"tutorial": "toy"},
        "wanted": ["toy"],
        "architecture": "tutorial",
        "model": None,
        "resume": False,
        "seed": 0,
        "epochs": 9,
        "recipe": "fast",
    }
    settings |= {"batch_size": 4, "learning_rate": 0.1, "tensorboard": False, "output_dir": "out"}
    return SimpleNamespace(**(settings | {"command": "toy.py"} | changes))


def batches(count=10, batch_size=4, **options):
    return training.Batches(count, lambda chosen, seed: (chosen, seed), batch_size, **options)


def test_a_pass_shows_every_example_once_and_the_next_in_another_order():
    stream = batches()
    assert stream.steps_per_epoch == 3
    first, second = (
        [i for step in steps for i in stream.batch(step)[0]] for steps in ([0, 1, 2], [3, 4, 5])
    )
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_short_epochs_go_on_where_the_last_one_stopped():
    stream = batches(longest_epoch=2)
    assert stream.steps_per_epoch == 2
    seen = [i for step in (0, 1, 2) for i in stream.batch(step)[0]]
    assert sorted(seen) == list(range(10))


def test_a_batch_depends_on_seed_and_number_alone():
    one, two = batches(seed=3), batches(seed=3)
    for step in (7, 2, 5):
        two.batch(step)
    np.testing.assert_array_equal(one.batch(4)[0], two.batch(4)[0])
    assert one.batch(4)[1] == two.batch(4)[1] != one.batch(5)[1]
    assert any((one.batch(s)[0] != batches(seed=4).batch(s)[0]).any() for s in range(2))


def test_the_stream_starts_at_an_epoch_and_keeps_structure_and_shape():
    images = np.arange(20, dtype="float32").reshape(10, 2, 1)

    def make_batch(chosen, seed):
        return {"image": images[chosen], "seed": np.full(len(chosen), seed[-1])}, images[chosen]

    stream = training.Batches(10, make_batch, 4)
    dataset = stream.from_epoch(2)
    inputs, targets = next(iter(dataset))
    assert dataset.element_spec[0]["image"].shape == (None, 2, 1)
    assert inputs["seed"].numpy().tolist() == [6] * 4
    np.testing.assert_array_equal(inputs["image"], stream.batch(6)[1])
    np.testing.assert_array_equal(targets, stream.batch(6)[1])


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "many", ""])
def test_whole_number_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number from 1 up"):
        training.whole_number(1)(text)


def test_number_keeps_its_bounds():
    assert training.number(above=0)("0.5") == 0.5
    for text in ("0", "-1", "nan", "inf", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a number above 0"):
            training.number(above=0)(text)
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 up, at most 10"):
        training.number(at_least=0, at_most=10)("11")


def test_json_is_valid_whatever_the_values(tmp_path):
    content = {"psnr": math.inf, "list": [math.nan, 1.5], "n": None, "s": "é"}
    training.write_json(tmp_path / "m.json", content)

    def refuse(word):
        raise AssertionError(word)

    back = json.loads((tmp_path / "m.json").read_text(), parse_constant=refuse)
    assert back == {"psnr": None, "list": [None, 1.5], "n": None, "s": "é"}


def test_a_worse_epoch_never_replaces_the_best_model(tmp_path):
    run = training.Run(arguments(), Dataset())
    model = small_model()
    run.keep(model, {"epoch": 1, "seconds": 1.0, "loss": 1.0, "val_loss": 0.5})
    best = run.model_file.read_bytes()
    model.set_weights([weight + 1 for weight in model.get_weights()])
    run.keep(model, {"epoch": 2, "seconds": 2.0, "loss": 1.0, "val_loss": 0.7})
    assert run.model_file.read_bytes() == best

    resumed = training.Run(arguments(resume=True), Dataset())
    assert (resumed.first_epoch, resumed.seconds_before) == (2, 2.0)
    other = small_model()
    resumed.callbacks(other)
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])
    resumed.keep(other, {"epoch": 3, "seconds": 3.0, "loss": 1.0, "val_loss": 0.6})
    assert run.model_file.read_bytes() == best
    resumed.keep(other, {"epoch": 4, "seconds": 4.0, "loss": 1.0, "val_loss": 0.4})
    assert run.model_file.read_bytes() != best
    epochs = [line.split(",")[0] for line in (run.folder / "history.csv").read_text().split()]
    assert epochs == ["epoch", "1", "2", "3", "4"]


def test_resume_restores_the_optimizer(tmp_path):
    model = small_model()
    x, y = np.ones((8, 2)), np.ones((8, 1))
    model.fit(x, y, epochs=3, verbose=0)
    training.Run(arguments(), Dataset()).keep(
        model, {"epoch": 1, "seconds": 1.0, "loss": 1.0, "val_loss": 0.5}
    )
    other = small_model()
    training.Run(arguments(resume=True), Dataset()).callbacks(other)
    other.fit(x, y, verbose=0)
    model.fit(x, y, verbose=0)
    assert int(other.optimizer.iterations) == 4
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


def test_patience_counts_from_the_best_epoch():
    run = training.Run(arguments(patience=2), Dataset())
    stops = [
        run.keep(small_model(), {"epoch": n, "seconds": 1.0, "loss": 1.0, "val_loss": loss})
        for n, loss in enumerate([0.5, 0.4, 0.45, 0.39, 0.4, 0.41], start=1)
    ]
    assert stops == [False, False, False, False, False, True]


def test_patience_holds_on_resuming_and_where_nothing_is_finite():
    run = training.Run(arguments(patience=2), Dataset())
    rows = [
        {"epoch": n, "seconds": 1.0, "loss": 1.0, "val_loss": loss}
        for n, loss in enumerate([math.nan, 0.4, 0.5, 0.5], start=1)
    ]
    assert [run.keep(small_model(), row) for row in rows] == [False, False, False, True]
    assert training.Run(arguments(patience=2, resume=True), Dataset()).first_epoch == 9
    run = training.Run(arguments(patience=2), Dataset())
    lost = [dict(row, val_loss=math.nan) for row in rows]
    assert [run.keep(small_model(), row) for row in lost[:2]] == [False, True]


def test_a_kill_while_an_epoch_is_stored_loses_that_epoch_only(monkeypatch):
    """Whichever file the kill falls behind, what was stored before still fits together."""
    model = small_model()
    row = {"epoch": 1, "seconds": 1.0, "loss": 1.0, "val_loss": 0.5}
    training.Run(arguments(), Dataset()).keep(model, row)
    first = model.get_weights()[0]

    def killed(path, content):
        raise KeyboardInterrupt

    run = training.Run(arguments(resume=True), Dataset())
    model.set_weights([weight + 1 for weight in model.get_weights()])
    with monkeypatch.context() as patch:
        patch.setattr(training, "write_json", killed)  # config.json, the last one
        with pytest.raises(KeyboardInterrupt):
            run.keep(model, dict(row, epoch=2, val_loss=0.4))
    resumed = training.Run(arguments(resume=True), Dataset())
    assert resumed.first_epoch == 1
    resumed.callbacks(model)
    np.testing.assert_array_equal(model.get_weights()[0], first)


def test_a_diverged_training_is_named():
    run = training.Run(arguments(), Dataset())
    run.keep(small_model(), {"epoch": 1, "seconds": 1.0, "loss": 1.0, "val_loss": math.nan})
    with pytest.raises(UserError, match="lower --learning-rate"):
        run.best_model()


def test_resume_refuses_another_configuration_and_an_empty_folder():
    with pytest.raises(UserError, match="out: no interrupted training there"):
        training.Run(arguments(resume=True), Dataset())
    training.Run(arguments(), Dataset()).keep(
        small_model(), {"epoch": 1, "seconds": 1.0, "loss": 1.0, "val_loss": 0.5}
    )
    with pytest.raises(UserError, match="seed 0, this one has 4; give the same flags"):
        training.Run(arguments(resume=True, seed=4), Dataset())


def test_a_model_file_of_another_script_is_named(tmp_path):
    training.save_model(small_model("other"), tmp_path / "model.keras")
    with pytest.raises(UserError, match="holds a model named 'other'"):
        training.load_model(tmp_path / "model.keras", ["toy"])
    (tmp_path / "text.keras").write_text("not a model")
    with pytest.raises(UserError, match=r"text.keras: not a model that can be loaded"):
        training.load_model(tmp_path / "text.keras", ["toy"])
    with pytest.raises(UserError, match=r"none.keras: no such file"):
        training.load_model(tmp_path / "none.keras", ["toy"])


def test_the_newest_run_comes_before_the_shipped_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "SCRIPT", "toy")
    monkeypatch.setattr(training, "_ROOT", tmp_path / "project")
    training.save_model(small_model(), tmp_path / "project/models/toy.keras")
    training.find_model(arguments(), "tutorial")
    assert "project" in capsys.readouterr().out
    training.save_model(small_model(), tmp_path / "runs/toy/model.keras")
    training.find_model(arguments(), "tutorial")
    assert "runs/toy/model.keras" in capsys.readouterr().out


def test_table_is_aligned(capsys):
    training.print_table({"a": {"mse": 0.5, "psnr": 10.0}, "longer": {"mse": 0.25, "psnr": 9.5}})
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["longer", "0.2500", "9.5000"]


def test_missing_tensorboard_is_named(monkeypatch):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        training.Run(arguments(tensorboard=True), Dataset()).callbacks(small_model())


@pytest.mark.parametrize(("images", "answer"), [([[0.6, 0.0]], 0.3), ([[0.0, 0.0]], 0.01)])
def test_start_at_mean_answers_the_mean_grey_value(images, answer):
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, activation="sigmoid", kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, keras.layers.Reshape((2, 2))(x))
    training.start_at_mean(model, np.array(images))
    np.testing.assert_allclose(model(np.ones((5, 3))), np.full((5, 2, 2), answer), rtol=1e-5)
