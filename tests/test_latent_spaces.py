import csv
import json
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import report_of
from PIL import Image

import latent_spaces
from common import image_files, metrics, own_pictures, trained_models

QUICK = "--synthetic --limit 200 --epochs 1".split()
FEW = {
    name: latent_spaces.TRAININGS[name]
    for name in (
        *("linear_2", "linear_32", "plain_2", "plain_32", "sparse", "copying"),
        *("contractive", "uncontracted", "variational_2", "variational_32"),
    )
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Train only what every figure needs, for a few steps."""
    monkeypatch.setattr(latent_spaces, "SIZES", [2, 32])
    monkeypatch.setattr(
        latent_spaces,
        "TRAININGS",
        {name: (*row[:3], {**row[3], "steps": 40, "batch_size": 16}) for name, row in FEW.items()},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        small.__wrapped__(patch)
        latent_spaces.main([*QUICK, "--output-dir", str(folder)])
    return folder


def images(count=20, seed=0):
    return np.random.default_rng(seed).random((count, 28, 28, 1), dtype="float32")


BUILDERS = {
    "linear": lambda: latent_spaces.build_linear(3),
    "plain": lambda: latent_spaces.build_plain(3),
    "sparse": lambda: latent_spaces.build_sparse(40, 5),
    "contractive": lambda: latent_spaces.build_contractive(6),
    "variational": lambda: latent_spaces.build_variational(3),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_encoder_and_decoder_in_a_row_are_the_whole_also_after_a_reload(kind, tmp_path):
    model, x = BUILDERS[kind](), images()
    expected = trained_models.predict(model, x)
    trained_models.save_model(model, tmp_path / "m.keras")
    loaded = trained_models.load_model(tmp_path / "m.keras", latent_spaces.Settings.names)
    assert loaded[1] == kind
    encoder, decoder = latent_spaces.split(loaded[0])
    np.testing.assert_allclose(
        trained_models.predict(decoder, trained_models.predict(encoder, x)), expected, atol=1e-6
    )
    assert loaded[0].count_params() == model.count_params()


def test_the_contraction_is_the_squared_norm_of_the_jacobian_by_automatic_differentiation():
    model, x = latent_spaces.build_contractive(6, 0.7), tf.constant(images(4))
    encoder = latent_spaces.split(model)[0]
    with tf.GradientTape() as tape:
        tape.watch(x)
        h = encoder(x)
    jacobians = tape.batch_jacobian(h, x).numpy().reshape(4, 6, 784)
    model(x)
    exact = (jacobians**2).sum((1, 2)).mean()
    assert float(model.losses[0]) == pytest.approx(0.7 * exact, rel=1e-4)
    singular, found = latent_spaces.contraction(model, x.numpy())
    np.testing.assert_allclose(singular, np.linalg.svd(jacobians)[1].mean(0), rtol=1e-3, atol=1e-6)
    assert found["jacobian"] == pytest.approx(
        np.linalg.norm(jacobians, axis=(1, 2)).mean(), rel=1e-4
    )
    assert not latent_spaces.build_contractive(6, 0.0).losses


def test_the_linear_autoencoder_finds_the_space_of_pca():
    """On images of six dimensions, each of less variance than the one before."""
    rng = np.random.default_rng(0)
    scales = np.array([8, 6, 4, 1, 0.7, 0.5])
    axes = np.linalg.qr(rng.normal(size=(784, 6)))[0].T
    x = (rng.normal(size=(500, 6)) * scales) @ axes + 0.3
    x = x.reshape(-1, 28, 28, 1).astype("float32")
    components = metrics.principal_components(x)
    model = latent_spaces.build_linear(3)
    before = latent_spaces.compare_with_pca(model, components)["angle_to_pca"]
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 2_000)
    model.compile(
        keras.optimizers.Adam(schedule), loss=latent_spaces.squared_error, steps_per_execution=50
    )
    stream = tf.data.Dataset.from_tensors((x, x)).repeat()
    model.fit(stream, steps_per_epoch=2_000, verbose=0, shuffle=False)
    assert before > 60
    assert latent_spaces.compare_with_pca(model, components)["angle_to_pca"] < 2
    best = metrics.mse(x, metrics.rebuild(x, *components, 3))
    assert metrics.mse(x, trained_models.predict(model, x)) == pytest.approx(best, rel=1e-3)


def test_keep_largest_by_hand():
    code = np.array([[0.1, -3.0, 2.0, 0.5], [4.0, 3.0, 2.0, 1.0]], "float32")
    kept = np.asarray(latent_spaces.KeepLargest(2)(code))
    assert kept.tolist() == [[0, 0, 2.0, 0.5], [4.0, 3.0, 0, 0]]


def test_sparsity_counted_by_hand():
    model = latent_spaces.build_sparse(40, 5)
    x = images(30)
    codes = trained_models.predict(latent_spaces.split(model)[0], x)
    assert ((codes != 0).sum(1) == 5).all()
    found = latent_spaces.sparsity(model, x)
    assert found["active_units"] == pytest.approx(5 / 40)
    never = sum(all(code[unit] == 0 for code in codes) for unit in range(40))
    assert found["dead_units"] == pytest.approx(never / 40)


def test_a_code_is_sampled_in_training_only_and_the_kl_joins_the_loss():
    layer = latent_spaces.Sample()
    z_mean, z_log_var = np.full((50_000, 1), 1.5, "f"), np.full((50_000, 1), np.log(0.25), "f")
    assert np.asarray(layer(z_mean, z_log_var)).std() == 0
    z = np.asarray(layer(z_mean, z_log_var, training=True))
    assert z.mean() == pytest.approx(1.5, abs=0.02)
    assert z.std() == pytest.approx(0.5, abs=0.02)
    assert float(layer.losses[0]) == pytest.approx(
        0.5 * (1.5**2 + 0.25 - 1 - np.log(0.25)), rel=1e-4
    )


def test_frechet_distance_of_two_gaussians_by_hand():
    rng = np.random.default_rng(0)
    one = rng.normal(0, 1, (20_000, 2, 1, 1))
    components = np.zeros(2), np.eye(2)
    assert latent_spaces.frechet(one, one, components, 2) == pytest.approx(0, abs=1e-6)
    # Means 3 apart, standard deviations 1 and 2 in both directions: 9 + 2·(2 - 1)².
    assert latent_spaces.frechet(one, 2 * one + [[[3]], [[0]]], components, 2) == pytest.approx(
        11, rel=0.03
    )
    one[..., 0] = one[:, :1, ..., 0]  # of a singular covariance
    with warnings.catch_warnings(action="error"):
        assert latent_spaces.frechet(one, one, components, 2) == pytest.approx(0, abs=1e-6)


def test_distance_to_nearest_against_all_pairs():
    rng = np.random.default_rng(0)
    images, others = rng.random((1_100, 3, 2, 1)), rng.random((30, 3, 2, 1))
    gaps = np.square(images[:, None] - others[None]).mean((2, 3, 4)) ** 0.5
    np.testing.assert_allclose(
        latent_spaces.distance_to_nearest(images, others), gaps.min(1), atol=1e-7
    )
    assert latent_spaces.distance_to_nearest(others, others).max() < 1e-6


def digits_on_a_line():
    """Images that differ in one grey value only, from 0 to 1, as the data of a plane."""
    grey = np.linspace(0, 1, 400, dtype="float32")[:, None, None, None]
    x = np.tile(grey, (1, 28, 28, 1))
    labels = (grey.ravel() > 0.5).astype(int)

    class Digits:
        x_train, y_train, x_test, y_test = x, labels, x[::2], labels[::2]

    return Digits


def test_a_plane_without_faults_and_one_with_a_hole():
    digits = digits_on_a_line()
    components = metrics.principal_components(digits.x_train)
    wobble = np.random.default_rng(0).uniform(size=1_000)

    def in_hole(z):
        return (abs(z[:, 0] - 0.5) < 0.2) & (abs(z[:, 1] - 0.5) < 0.2)

    def encoder(x):
        grey = np.asarray(x)[:, 0, 0, 0]
        z = np.stack([grey, wobble[(grey * 999).astype(int)]], axis=1)
        z[in_hole(z), 1] -= 0.4  # no code lies in it
        return z

    def smooth(z):
        return np.tile(np.clip(np.asarray(z)[:, :1, None, None], 0, 1), (1, 28, 28, 1))

    def holed(z):
        picture = smooth(z)
        picture[in_hole(np.asarray(z)), ::2] += 0.5
        return picture

    good, bad = (
        latent_spaces.faults_of_plane(encoder, decoder, digits, components, True)
        for decoder in (smooth, holed)
    )
    assert good["gaps"] < 0.1 < bad["gaps"]
    assert good["knn_accuracy"] > 0.9
    assert bad["middle"] > good["middle"]


def test_a_run_leaves_a_model_each_and_says_all_about_them(finished):
    files = {path.name for path in finished.iterdir()}
    assert files == {
        *(*latent_spaces.MODELS, *latent_spaces.FIGURES),
        *("metrics.json", "history.csv", "checkpoint"),
    }
    report = report_of(finished)
    assert set(report["models"]) == set(FEW)
    for entry in report["models"].values():
        assert list(entry) == [
            *("parameters", "epochs", "batch_size", "learning_rate", "seed"),
            *("seconds_training", "test", "typical"),
        ]
        assert entry["seconds_training"] > 0
    assert report["test"] == report["models"]["plain_32"]["test"]
    assert {"pca_2", "pca_32", "pca_51", "images"} == set(report["baselines"])
    assert report["models"]["sparse"]["test"]["active_units"] <= 0.05
    assert "angle_to_pca" in report["models"]["linear_2"]["test"]
    for figure in finished.glob("*.png"):
        with Image.open(figure) as image:
            assert np.asarray(image.convert("L")).std() > 5, figure
    with (finished / "history.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == list(FEW)


def test_resume_goes_on_at_the_model_that_was_being_trained(
    finished, monkeypatch, figures_left_out
):
    words = [*QUICK, "--output-dir", "stopped"]
    real = latent_spaces.train
    names, trained = list(FEW), []

    def train(name, *more):
        """Train the first five; the others are those of the whole run."""
        trained.append(name)
        if len(trained) == 4:
            raise KeyboardInterrupt
        if name in names[:5]:
            return real(name, *more)
        model = keras.saving.load_model(finished / f"checkpoint/{name}.keras", compile=False)
        return model, {"loss": 0.0, "val_loss": 0.0}

    monkeypatch.setattr(latent_spaces, "train", train)
    with pytest.raises(KeyboardInterrupt) as info:
        latent_spaces.main(words)
    assert "--resume" in info.value.__notes__[0]
    latent_spaces.main([*words, "--resume"])
    assert trained == [*names[:4], *names[3:]]
    there, here = report_of(finished)["models"], report_of("stopped")["models"]
    for name in names:
        assert here[name]["test"] == pytest.approx(there[name]["test"], rel=1e-4)


def test_a_damaged_model_is_not_gone_on_from(error_of, monkeypatch):
    words = [*QUICK, "--output-dir", "stopped"]

    def stop(name, *more):
        if name == "linear_32":
            raise KeyboardInterrupt
        return real(name, *more)

    real = latent_spaces.train
    with monkeypatch.context() as patch:
        patch.setattr(latent_spaces, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            latent_spaces.main(words)
    Path("stopped/checkpoint/linear_2.keras").write_bytes(b"no model")
    assert "linear_2.keras: damaged, or of another training; leave --resume out" in error_of(
        latent_spaces.main, *words, "--resume"
    )


def test_input_gives_codes_and_reconstructions_by_each(
    finished, tmp_path, monkeypatch, capsys, error_of
):
    Image.fromarray((images(1)[0, ..., 0] * 255).astype("uint8")).save("seven.png")
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for kind in latent_spaces.KINDS:
        (shipped / f"latent_spaces_{kind}.keras").write_bytes(
            (finished / f"{kind}.keras").read_bytes()
        )
    monkeypatch.setattr("applications.inputs.SHIPPED", shipped)
    latent_spaces.main(["--input", "seven.png", "--output-dir", "out"])
    out = Path("out")
    assert {path.name for path in out.iterdir()} == {
        "seven.png",
        *(f"{kind}.csv" for kind in latent_spaces.KINDS),
    }
    [row] = list(csv.DictReader((out / "plain.csv").open()))
    model = keras.saving.load_model(finished / "plain.keras", compile=False)
    fitted = own_pictures.fit_square(image_files.read_grey("seven.png"), 28)
    code = trained_models.predict(latent_spaces.split(model)[0], fitted[None])[0]
    assert row["name"] == "seven.png"
    np.testing.assert_allclose(
        [float(row[f"z_{n}"]) for n in range(1, 33)], code, rtol=1e-4, atol=1e-4
    )

    Image.open("seven.png").save("seven.bmp")  # Matplotlib writes no BMP
    one = ["--input", "seven.bmp", "--model", str(finished / "sparse.keras")]
    capsys.readouterr()
    latent_spaces.main([*one, "--output-dir", "one"])
    test = json.loads((finished / "metrics.json").read_text())["models"]["sparse"]["test"]
    assert f"its test: mse {test['mse']:.4g}, " in capsys.readouterr().out
    assert {path.name for path in Path("one").iterdir()} == {"seven.png", "sparse.csv"}
    assert "exists already" in error_of(latent_spaces.main, *one, "--output-dir", "one")


def test_flags_without_effect_are_refused(error_of):
    main = latent_spaces.main
    assert "--model has no effect here; it is for --input" in error_of(main, "--model", "a.keras")
    for flag in ("--recipe", "--batch-size", "--learning-rate", "--architecture"):
        assert "unrecognized arguments" in error_of(main, flag, "1")


def test_shipped_models_are_as_good_as_their_reports_say(real_data):
    from common import data

    digits = data.load_mnist(real_data)
    for kind in latent_spaces.KINDS:
        path = trained_models.SHIPPED / f"latent_spaces_{kind}.keras"
        report = json.loads(path.with_suffix(".json").read_text())
        model = trained_models.load_model(path, latent_spaces.Settings.names)[0]
        rebuilt = trained_models.predict(model, digits.x_test)
        assert metrics.mse(digits.x_test, rebuilt) == pytest.approx(report["test"]["mse"], rel=0.01)


def test_root_of_a_covariance_also_of_codes_on_a_line():
    codes = np.random.default_rng(0).normal(size=(50, 2)) @ [[2, 0.3], [0, 1]]
    root = latent_spaces.root_of_covariance(codes)
    np.testing.assert_allclose(root @ root.T, np.cov(codes.T), atol=1e-9)
    line = np.stack([np.arange(9.0), np.zeros(9)], axis=1)
    assert np.isfinite(latent_spaces.root_of_covariance(line)).all()
