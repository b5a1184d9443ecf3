import csv
import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import metrics_of
from PIL import Image
from sklearn.decomposition import PCA

import evaluation.latent_spaces as judge
import latent_spaces
from common import data, images, metrics, training

QUICK = "--synthetic --limit 200 --epochs 1".split()
# What the figures need, each for a few steps.
FEW = {
    name: dataclasses.replace(experiment, steps_per_epoch=40, batch_size=16)
    for name, experiment in latent_spaces.EXPERIMENTS.items()
    if name.split("_")[-1] not in ("4", "8", "16", "64", "128")
}
each_kind = pytest.mark.parametrize("kind", latent_spaces.SAVED)


def build(kind, **sizes):
    return getattr(latent_spaces, f"build_{kind}")(**sizes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_spaces, "EXPERIMENTS", FEW)
        latent_spaces.main([*QUICK, "--output-dir", folder])
    return folder


def noise_images(count=20):
    return np.random.default_rng(0).random((count, 28, 28, 1), dtype="float32")


# ---------------------------------------------------------------- the networks


@each_kind
def test_a_model_is_its_encoder_and_decoder_also_when_loaded(kind, tmp_path):
    model, x = build(kind), noise_images()
    expected = np.asarray(model(x))
    training.save_model(model, tmp_path / "model.keras")
    loaded = training.load_model(tmp_path / "model.keras", f"latent_spaces_{kind}")
    encoder, decoder = latent_spaces.encoder_and_decoder(loaded)
    np.testing.assert_allclose(np.asarray(decoder(encoder(x))), expected, atol=1e-6)
    assert loaded.count_params() == model.count_params()


@each_kind
def test_other_sizes_and_channels(kind):
    model = build(kind, height=8, width=12, channels=3)
    assert model.output_shape == model.input_shape == (None, 8, 12, 3)


def test_experiments():
    """20 trainings; those that are compared differ in one thing alone."""
    assert len(latent_spaces.EXPERIMENTS) == 20
    assert set(latent_spaces.SAVED.values()) <= set(latent_spaces.EXPERIMENTS)
    for pair in (("sparse", "copying"), ("contractive", "uncontracted"), ("linear_2", "linear_4")):
        one, other = (latent_spaces.EXPERIMENTS[name] for name in pair)
        assert dataclasses.replace(one, build=None) == dataclasses.replace(other, build=None)


def test_the_contraction_is_the_squared_norm_of_the_jacobian_by_automatic_differentiation():
    model, x = latent_spaces.build_contractive(6, 0.7), tf.constant(noise_images(4))
    encoder, _ = latent_spaces.encoder_and_decoder(model)
    with tf.GradientTape() as tape:
        tape.watch(x)
        h = encoder(x)
    jacobians = tape.batch_jacobian(h, x).numpy().reshape(4, 6, 784)
    model(x)
    exact = (jacobians**2).sum((1, 2)).mean()
    assert float(model.losses[0]) == pytest.approx(0.7 * exact, rel=1e-4)
    kernel = model.get_layer("tied").get_weights()[0]
    singular, results = judge.measure_contraction(encoder, kernel, x.numpy())
    np.testing.assert_allclose(singular, np.linalg.svd(jacobians)[1].mean(0), rtol=1e-3, atol=1e-6)
    norm = np.linalg.norm(jacobians, axis=(1, 2)).mean()
    assert results["jacobian"] == pytest.approx(norm, rel=1e-4)
    assert not latent_spaces.build_contractive(6, 0.0).losses


def test_keep_largest_by_hand():
    code = np.array([[0.1, -3.0, 2.0, 0.5], [4.0, 3.0, 2.0, 1.0]], "float32")
    result = np.asarray(latent_spaces.KeepLargest(2)(code))
    assert result.tolist() == [[0, 0, 2.0, 0.5], [4.0, 3.0, 0, 0]]


def test_a_code_is_sampled_in_training_only_and_the_kl_joins_the_loss():
    layer = latent_spaces.Sampling()
    z_mean, z_log_var = np.full((50_000, 1), 1.5, "f"), np.full((50_000, 1), np.log(0.25), "f")
    assert np.asarray(layer(z_mean, z_log_var)).std() == 0
    z = np.asarray(layer(z_mean, z_log_var, training=True))
    assert z.mean() == pytest.approx(1.5, abs=0.02)
    assert z.std() == pytest.approx(0.5, abs=0.02)
    kl = 0.5 * (1.5**2 + 0.25 - 1 - np.log(0.25))
    assert float(layer.losses[0]) == pytest.approx(kl, rel=1e-4)


# ---------------------------------------------------------------- what is measured


def test_the_linear_autoencoder_finds_the_space_of_pca():
    """On images of six dimensions, each of less variance than the one before."""
    rng = np.random.default_rng(0)
    scales = np.array([8, 6, 4, 1, 0.7, 0.5])
    axes = np.linalg.qr(rng.normal(size=(784, 6)))[0].T
    x = (rng.normal(size=(500, 6)) * scales) @ axes + 0.3
    x = x.reshape(-1, 28, 28, 1).astype("float32")
    pca = PCA(svd_solver="covariance_eigh").fit(x.reshape(500, 784))
    model = latent_spaces.build_linear(3)
    assert judge.angle_to_pca(model, pca) > 60
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 2_000)
    model.compile(
        keras.optimizers.Adam(schedule), loss=latent_spaces.squared_error, steps_per_execution=50
    )
    batches = tf.data.Dataset.from_tensors((x, x)).repeat()
    model.fit(batches, steps_per_epoch=2_000, verbose=0, shuffle=False)
    assert judge.angle_to_pca(model, pca) < 2
    best = metrics.mse(x, judge.reconstruct(pca, x, 3))
    assert best == pytest.approx(np.square(scales[3:]).sum() / 784, rel=0.1)
    assert metrics.mse(x, np.asarray(model(x))) == pytest.approx(best, rel=1e-3)


def test_sparsity_counted_by_hand():
    encoder, _ = latent_spaces.encoder_and_decoder(latent_spaces.build_sparse(40, 5))
    x = noise_images(30)
    codes = np.asarray(encoder(x))
    assert ((codes != 0).sum(1) == 5).all()
    results = judge.sparsity(encoder, x)
    assert results["active_units"] == pytest.approx(5 / 40)
    never = sum(all(code[unit] == 0 for code in codes) for unit in range(40))
    assert results["dead_units"] == pytest.approx(never / 40)


def test_distance_to_nearest_against_all_pairs():
    rng = np.random.default_rng(0)
    one, others = rng.random((1_100, 3, 2, 1)), rng.random((30, 3, 2, 1))
    distances = np.square(one[:, None] - others[None]).mean((2, 3, 4)) ** 0.5
    np.testing.assert_allclose(judge.distance_to_nearest(one, others), distances.min(1), atol=1e-7)


def test_a_plane_without_gaps_and_one_with_a_hole():
    """The images differ in one gray value only, from 0 to 1, which is the first latent number."""

    def images_of(gray):
        x = np.tile(gray[:, None, None, None], (1, 28, 28, 1))
        return x, (gray > 0.5).astype(int)

    x, y = images_of(np.linspace(0, 1, 100, dtype="float32"))
    x_test, y_test = images_of(np.random.default_rng(1).random(400, dtype="float32"))
    digits = data.Images("gray", "local", ["0", "1"], x, y, x, y, x_test, y_test)
    wobble = np.random.default_rng(0).uniform(size=1_000)

    def in_hole(z):
        return (abs(z[:, 0] - 0.5) < 0.2) & (abs(z[:, 1] - 0.5) < 0.2)

    def encoder(x):
        gray = np.asarray(x)[:, 0, 0, 0]
        z = np.stack([gray, wobble[(gray * 999).astype(int)]], axis=1)
        z[in_hole(z), 1] -= 0.4  # no code lies in it
        return z

    def smooth(z):
        return np.tile(np.clip(np.asarray(z)[:, :1, None, None], 0, 1), (1, 28, 28, 1))

    def with_hole(z):
        image = smooth(z)
        image[in_hole(np.asarray(z)), ::2] += 0.5
        return image

    good, bad = (judge.measure_plane(encoder, decoder, digits) for decoder in (smooth, with_hole))
    assert good["gaps"] < 0.11
    assert bad["gaps"] > good["gaps"] + 0.07
    assert good["knn_accuracy"] > 0.9
    assert good["in_prior"] == 1
    far = judge.measure_plane(lambda x: encoder(x) + np.array([2, 0]), smooth, digits)
    x, y = encoder(x_test).T  # the circle that holds 95% of N(0, 1) has a radius of 2.4477
    assert far["in_prior"] == np.mean(np.hypot(x + 2, y) < 2.4477)


def test_root_of_a_covariance_also_of_codes_on_a_line():
    codes = np.random.default_rng(0).normal(size=(50, 2)) @ [[2, 0.3], [0, 1]]
    root = judge.covariance_root(codes)
    np.testing.assert_allclose(root @ root.T, np.cov(codes.T), atol=1e-9)
    line = np.stack([np.arange(9.0), np.zeros(9)], axis=1)
    assert np.isfinite(judge.covariance_root(line)).all()


# ---------------------------------------------------------------- a run


def test_a_run_leaves_models_figures_and_results(finished):
    figures = {"autoencoders", "components", "error", "jacobian", "planes"}
    assert {path.name for path in finished.iterdir()} == {
        *(f"{kind}.keras" for kind in latent_spaces.SAVED),
        *(f"{name}.png" for name in figures),
        "arguments.json",
        "metrics.json",
        "networks.json",
    }
    for figure in finished.glob("*.png"):
        with Image.open(figure) as image:
            assert np.asarray(image.convert("L")).std() > 5, figure
    networks = json.loads((finished / "networks.json").read_text())
    assert list(networks) == list(FEW)
    for entry in networks.values():
        assert list(entry) == ["parameters", "loss", "val_loss", "seconds", "test"]
        assert entry["seconds"] > 0
    report = metrics_of(finished)
    assert report["model"] == "latent_spaces_plain"
    assert report["test"] == networks["plain_32"]["test"]
    assert set(report["baselines"]) == {"PCA 2", "PCA 32", "PCA 51"}
    assert networks["sparse"]["test"]["active_units"] <= 0.05
    assert "angle_to_pca" in networks["linear_2"]["test"]
    assert {"gaps", "knn_accuracy"} < set(networks["variational_2"]["test"])


def test_models_are_saved_without_optimizer(finished):
    """It would triple the size of 4 bytes for each weight."""
    for kind in latent_spaces.SAVED:
        path = finished / f"{kind}.keras"
        model = keras.saving.load_model(path)
        assert path.stat().st_size < 4 * model.count_params() + 60_000, kind


@pytest.mark.parametrize("flag", ["--recipe", "--batch-size", "--learning-rate", "--resume"])
def test_flags_of_other_scripts_are_unknown(flag, usage_error):
    assert flag in usage_error(latent_spaces.main, flag, "1")


def test_the_same_seed_gives_the_same_model():
    digits = data.load_mnist(latent_spaces.Train(synthetic=True, limit=100))
    one, same, other = (
        latent_spaces.train(FEW["variational_2"], latent_spaces.Train(epochs=1, seed=seed), digits)
        for seed in (0, 0, 1)
    )
    assert one[1]["loss"] == same[1]["loss"] != other[1]["loss"]
    np.testing.assert_array_equal(one[0].get_weights()[0], same[0].get_weights()[0])


# ---------------------------------------------------------------- the user's pictures


def test_input_gives_codes_and_reconstructions_by_each(error_of):
    Image.fromarray((noise_images(1)[0, ..., 0] * 255).astype("uint8")).save("seven.png")
    arguments = ["--input", "seven.png", "--output-dir", "out"]
    latent_spaces.main(arguments)
    assert {path.name for path in Path("out").iterdir()} == {
        "seven_sheet.png",
        *(f"{kind}.csv" for kind in latent_spaces.SAVED),
    }
    with Path("out/plain.csv").open(newline="") as file:
        [row] = list(csv.DictReader(file))
    assert row.pop("name") == "seven"
    encoder, _ = latent_spaces.encoder_and_decoder(training.load_model(None, "latent_spaces_plain"))
    code = np.asarray(encoder(images.read_gray("seven.png")[np.newaxis]))[0]
    np.testing.assert_allclose([float(value) for value in row.values()], code, rtol=1e-4, atol=1e-4)
    assert "exists; use another --output-dir" in error_of(latent_spaces.main, *arguments)


def test_input_of_one_model(finished):
    Image.new("L", (60, 50), 90).save("a.bmp")
    model = finished / "sparse.keras"
    latent_spaces.main(["--input", "a.bmp", "--model", model, "--output-dir", "one"])
    assert {path.name for path in Path("one").iterdir()} == {"a_sheet.png", "sparse.csv"}


def test_the_models_are_as_good_as_their_reports_say(real_data):
    digits = data.load_mnist(latent_spaces.Train(data_dir=real_data))
    for kind in latent_spaces.SAVED:
        path = training.MODELS / f"latent_spaces_{kind}.keras"
        report = json.loads(path.with_suffix(".json").read_text())
        model = training.load_model(path, f"latent_spaces_{kind}")
        error = metrics.mse(digits.x_test, np.asarray(model(digits.x_test)))
        assert error == pytest.approx(report["test"]["mse"], rel=0.01)
