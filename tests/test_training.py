import json

import keras
import numpy as np
import pytest
from conftest import python

from common import cli, data, training
from common.cli import UserError
from common.training import seed_for


def settings(**changes):
    return cli.Train(**{"epochs": 3, "batch_size": 4, "learning_rate": 0.1, **changes})


# ---------------------------------------------------------------- batches


def test_seeds_of_different_names_never_meet():
    names = [(seed,) for seed in range(50)] + [(seed, 0) for seed in range(50)]
    names += [(s, "train") for s in range(50)] + [("validation",), ("test",), ("1",), (1, "1")]
    assert len({seed_for(*name) for name in names}) == len(names)


def test_seeds_are_the_same_everywhere():
    """A test set must not change with the Python or the machine."""
    assert seed_for("test") % 10**9 == 561_741_404


def batches(number, **changes):
    """Return the first batches of ten examples: (indices, a number that depends on the seed)."""

    def make_batch(indices, seed):
        return indices, np.full(len(indices), seed % 997)

    dataset = training.batches(make_batch, 10, settings(**changes))
    return list(dataset.take(number).as_numpy_iterator())


def test_a_pass_has_every_example_once_and_the_next_another_order():
    stream = batches(6)
    assert [len(indices) for indices, _ in stream] == [4, 4, 2] * 2
    passes = [np.concatenate([indices for indices, _ in stream[i : i + 3]]) for i in (0, 3)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(10))
    assert passes[0].tolist() != passes[1].tolist()


def test_an_epoch_is_a_pass_or_as_many_steps_as_given():
    assert training.steps_per_epoch(settings(), 10) == 3
    assert training.steps_per_epoch(settings(steps_per_epoch=2), 10) == 2
    assert training.steps_per_epoch(settings(steps_per_epoch=50), 10) == 50
    assert training.steps_per_epoch(settings(steps_per_epoch=5_000), 10) == 60  # 20 passes


def test_a_batch_depends_on_seed_and_step_alone():
    one, two, other = batches(3, seed=3), batches(3, seed=3), batches(3, seed=4)
    np.testing.assert_equal(one, two)
    assert len({seeds[0] for _, seeds in one}) == 3
    assert any((one[i][0] != other[i][0]).any() for i in range(3))


def test_tensorflow_cannot_write_to_the_training_images():
    """It takes over the memory of an array that begins at a multiple of 64 bytes."""
    memory = np.ones(4 * 1024 + 16, "float32")
    images = memory[-memory.ctypes.data % 64 // 4 :][: 4 * 1024].reshape(4, 1024)
    dataset = training.batches(lambda indices, seed: ({"x": images}, images), 4, settings())
    inputs, target = next(iter(dataset))
    inputs, target = np.asarray(memoryview(inputs["x"])), np.asarray(memoryview(target))
    assert not np.shares_memory(inputs, images)
    assert not np.shares_memory(inputs, target)


def test_fit_sees_each_batch_once_also_after_resuming(tmp_path):
    x, seen = np.arange(10, dtype="float32")[:, np.newaxis], []

    def make_batch(indices, seed):
        return x[indices], np.full((len(indices), 1), seed % 997, "float32")

    class Recorder(keras.Model):
        def train_step(self, data):
            seen.append([part.numpy().ravel().tolist() for part in data])
            return super().train_step(data)

    short = settings(steps_per_epoch=2)  # of the three steps of a pass
    for epochs in (1, 3):
        inputs = keras.Input((1,))
        model = Recorder(inputs, keras.layers.Dense(1)(inputs))
        model.compile("adam", "mse", run_eagerly=True)
        model.fit(
            training.batches(make_batch, 10, short, tmp_path),
            epochs=epochs,
            steps_per_epoch=2,
            shuffle=False,
            validation_data=(x, x),
            callbacks=training.callbacks(tmp_path, short),
            verbose=0,
        )
    assert seen == [[part.tolist() for part in batch] for batch in batches(6)]
    rows = training.read_history(tmp_path)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[0]["seconds"] < rows[2]["seconds"]


# ---------------------------------------------------------------- schedule and bias


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    schedule = training.warmup_cosine(0.5, 1_000, warmup=0.2)
    rates = [float(schedule(step)) for step in (0, 100, 200, 600, 999, 1_000)]
    assert rates[:3] == pytest.approx([0.01, (0.01 + 0.5) / 2, 0.5])
    assert rates[3] == pytest.approx(0.25, abs=1e-3)
    assert rates[4] == pytest.approx(0, abs=1e-4)
    assert rates[5] == 0
    short = training.warmup_cosine(0.5, 6)
    assert max(float(short(step)) for step in range(6)) < 0.05


@pytest.mark.parametrize(("images", "mean"), [([[0.6, 0.0]], 0.3), ([[0.0, 0.0]], 0.01)])
def test_init_output_bias_predicts_the_mean_pixel(images, mean):
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, activation="sigmoid", kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, keras.layers.Reshape((2, 2))(x))
    training.init_output_bias(model, np.array(images))
    np.testing.assert_allclose(model(np.ones((5, 3))), np.full((5, 2, 2), mean), rtol=1e-5)


# ---------------------------------------------------------------- run folder


def small_model(name="toy"):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs), name=name)
    model.compile("adam", "mse")
    return model


def write_history(folder, *rows):
    """Write a history.csv of these rows."""
    (folder / "history.csv").write_text("\n".join(["epoch,loss,seconds,val_loss", *rows]))


def test_a_run_folder_keeps_the_command_line(tmp_path):
    folder = training.run_folder(settings(arguments=("--epochs", "3")), "toy")
    assert str(folder) == "runs/toy"
    assert json.loads((folder / "arguments.json").read_text()) == ["--epochs", "3"]
    assert str(training.run_folder(settings(), "toy")) == "runs/toy_2"
    assert training.run_folder(settings(resume=folder), "toy") == folder


def test_after_an_interruption_before_the_first_epoch_the_same_command_works(tmp_path):
    out = tmp_path / "out"
    training.run_folder(settings(output_dir=out), "toy")
    (out / "history.csv").write_text("")
    assert training.run_folder(settings(output_dir=out), "toy") == out
    write_history(out, "0,1,2,0.5")
    with pytest.raises(UserError, match="out is not empty"):
        training.run_folder(settings(output_dir=out), "toy")


def test_another_scripts_training_is_not_resumed(tmp_path):
    small_model("other").save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="a training of other, not of toy"):
        training.run_folder(settings(resume=tmp_path), "toy")
    (tmp_path / "model.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:-30])
    assert training.run_folder(settings(resume=tmp_path), "toy") == tmp_path


@pytest.mark.parametrize("content", ["epoch,loss\n0,1\n", "epoch,loss,seconds,val_loss\n0,1,2,\n"])
def test_a_damaged_history_is_named(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(UserError, match=r"history.csv: damaged"):
        training.read_history(tmp_path)


def test_an_epoch_that_was_repeated_counts_once(tmp_path):
    write_history(tmp_path, "0,1,2,0.5", "1,1,2,0.4", "1,1,2,0.3")
    assert [row["val_loss"] for row in training.read_history(tmp_path)] == [0.5, 0.3]
    assert training.read_history(tmp_path / "none") == []


def test_a_worse_epoch_never_replaces_the_best_model_even_after_resuming(tmp_path):
    """Losses are set by hand. Each epoch resumes the ones before."""
    x = np.zeros((4, 1), "float32")

    def best_after(epochs, val_loss):
        def set_loss(epoch, logs):
            logs["val_loss"] = val_loss

        set_by_hand = keras.callbacks.LambdaCallback(on_epoch_end=set_loss)
        callbacks = [set_by_hand, *training.callbacks(tmp_path, settings())]
        small_model().fit(
            x, x, epochs=epochs, validation_data=(x, x), callbacks=callbacks, verbose=0
        )
        return (tmp_path / "model.keras").read_bytes()

    best = best_after(1, 0.5)
    assert best_after(2, 0.7) == best
    assert best_after(3, 0.6) == best
    assert best_after(4, 0.4) != best
    # A crash cut the model short: any epoch is better than none.
    (tmp_path / "model.keras").write_bytes(best[:100])
    best_after(5, 0.8)
    assert training.best_model(tmp_path, "toy")
    losses = [row["val_loss"] for row in training.read_history(tmp_path)]
    assert losses == [0.5, 0.7, 0.6, 0.4, 0.8]


def test_a_training_that_diverged_ends_in_its_line(tmp_path):
    x = np.full((4, 1), np.nan, "float32")
    callbacks = training.callbacks(tmp_path, settings())
    small_model().fit(x, x, epochs=3, validation_data=(x, x), callbacks=callbacks, verbose=0)
    with pytest.raises(UserError, match="training diverged in its first epoch; try a lower"):
        training.best_model(tmp_path, "toy")


def test_patience_ends_a_training(tmp_path):
    x = np.zeros((4, 1), "float32")
    model = small_model()
    model.layers[-1].trainable = False
    model.compile("sgd", "mse")
    callbacks = training.callbacks(tmp_path, settings(), patience=2)
    model.fit(x, x, epochs=20, validation_data=(x, x), callbacks=callbacks, verbose=0)
    assert len(training.read_history(tmp_path)) == 3


# ---------------------------------------------------------------- models


def test_the_best_model_is_kept_without_its_optimizer(tmp_path):
    model = small_model()
    model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    before = (tmp_path / "model.keras").stat().st_size
    best = training.best_model(tmp_path, "toy")
    np.testing.assert_array_equal(best.get_weights()[0], model.get_weights()[0])
    assert (tmp_path / "model.keras").stat().st_size < before
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert getattr(loaded, "optimizer", None) is None


def test_a_model_of_another_script_is_named():
    """Also where it has layers that only its own script knows, in a process that knows none."""
    path = training.MODELS / "vae_fashion.keras"
    code = (
        f"import sys; sys.path.insert(0, {str(training.MODELS.parent)!r})\n"
        "from common import training\n"
        f"training.load_model({str(path)!r}, 'toy', 'toy_2')"
    )
    assert "holds a model named vae_fashion, not toy or toy_2" in python("-c", code).stderr


def test_code_in_a_model_is_not_run(tmp_path):
    inputs = keras.Input((1,))
    outputs = keras.layers.Lambda(lambda x: x + 1)(inputs)
    keras.Model(inputs, outputs, name="toy").save(tmp_path / "model.keras")
    with pytest.raises(UserError, match="not a model that can be loaded"):
        training.load_model(tmp_path / "model.keras", "toy")


def test_the_dataset_of_a_model_is_in_the_json_file_beside_it(tmp_path):
    assert training.trained_on(None, "denoise_mnist") == "MNIST"
    report = {"dataset": {"name": "synthetic digits"}}
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    assert training.trained_on(tmp_path / "model.keras", "toy") == "synthetic digits"
    (tmp_path / "model.json").write_text("[1]")
    (tmp_path / "metrics.json").unlink()
    assert training.trained_on(tmp_path / "model.keras", "toy") == ""


# ---------------------------------------------------------------- report


def test_the_report_has_metrics_and_an_aligned_table(tmp_path, capsys):
    write_history(tmp_path, "0,1,2,0.5")
    dataset = data.Images("toy data", "synthetic", [], *np.zeros((6, 2)))
    results = {
        "noisy": {"psnr": 9.5},
        "network": {"psnr": 20.0, "mse": float("inf")},
        "other network": {"psnr": 19.0},
    }
    networks = ["other network"]
    training.report(tmp_path, settings(), small_model(), dataset, results, "network", networks)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["test"] == {"psnr": 20.0, "mse": None}
    assert content["baselines"] == {"noisy": {"psnr": 9.5}}
    assert content["dataset"]["name"] == "toy data"
    assert (content["parameters"], content["epochs"]) == (2, 1)
    assert content["seconds_training"] == 2.0
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index(str(dataset)) + 1 :][:4]
    assert len({len(line) for line in table}) == 1
    assert table[1].split() == ["noisy", "9.5000", "-"]
    assert lines[-1] == f"Trained in 2 s. Results are in {tmp_path}/"
