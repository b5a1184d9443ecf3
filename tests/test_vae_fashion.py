import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, metrics_of, python

import vae_fashion
from common import data, images, metrics, training
from evaluation.vae_fashion import importance_weighted_bound

QUICK = ["--synthetic", "--limit", "60", "--epochs", "2", "--steps-per-epoch", "3"]


# ---------------------------------------------------------------- the networks


def test_parameters_and_shapes_are_the_articles():
    encoder, decoder = vae_fashion.build_encoder(), vae_fashion.build_decoder()
    assert (encoder.count_params(), decoder.count_params()) == (494_244, 56_385)
    assert [output.shape for output in encoder.outputs] == [(None, 2)] * 3
    assert encoder.layers[5].output.shape == (None, 12_544)
    assert decoder.output_shape == (None, 28, 28, 1)


def test_dense_parameters_by_hand():
    encoder, decoder = vae_fashion.build_encoder("dense"), vae_fashion.build_decoder("dense")
    assert encoder.count_params() == 784 * 512 + 512 + 2 * (512 * 2 + 2)
    assert decoder.count_params() == 2 * 512 + 512 + 512 * 784 + 784


@pytest.mark.parametrize("architecture", ["conv", "dense"])
def test_other_sizes_and_channels(architecture):
    model = vae_fashion.build_vae(architecture, latent_dim=3, height=12, width=20, channels=3)
    x = np.random.default_rng(0).random((4, 12, 20, 3), dtype="float32")
    assert model.predict(x, verbose=0).shape == x.shape
    assert model.decoder.input_shape == (None, 3)


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="height and width must be even, not 27 and 28"):
        vae_fashion.build_vae(height=27)


# ---------------------------------------------------------------- the bound


def test_kl_closed_form_against_monte_carlo():
    z_mean = np.array([[0.5, -1.0, 0.0], [2.0, 0.1, -0.3]])
    z_log_var = np.array([[0.3, -2.0, 0.0], [-1.0, 0.5, 1.0]])
    epsilon = np.random.default_rng(0).standard_normal((200_000, 1, 3))
    z = z_mean + np.exp(z_log_var / 2) * epsilon
    log_q = -0.5 * (epsilon**2 + z_log_var + math.log(2 * math.pi))
    log_p = -0.5 * (z**2 + math.log(2 * math.pi))
    samples = (log_q - log_p).sum(-1)
    error = 5 * samples.std(0) / math.sqrt(len(samples))
    closed = np.asarray(vae_fashion.kl_divergence(z_mean, z_log_var))
    assert (np.abs(samples.mean(0) - closed) < error).all()
    assert float(vae_fashion.kl_divergence(np.zeros((1, 2)), np.zeros((1, 2)))[0]) == 0


def test_gradient_through_the_sampling_against_a_finite_difference():
    z_mean, z_log_var = tf.constant([[0.3, -0.7]]), tf.constant([[-0.5, 0.8]])

    def value(z_mean, z_log_var):
        z = vae_fashion.Sampling(seed=4)([z_mean, z_log_var])  # the same ε each time
        return tf.reduce_sum(tf.sin(z))

    exact, numerical = tf.test.compute_gradient(value, [z_mean, z_log_var], delta=1e-2)
    np.testing.assert_allclose(exact, numerical, rtol=0, atol=1e-3)


def test_samples_have_the_given_mean_and_variance():
    z_mean, z_log_var = np.full((200_000, 1), 1.5), np.full((200_000, 1), math.log(0.25))
    z = np.asarray(vae_fashion.Sampling()([z_mean, z_log_var]))
    assert z.mean() == pytest.approx(1.5, abs=0.01)
    assert z.std() == pytest.approx(0.5, abs=0.01)


def test_reconstruction_is_summed_over_pixels():
    image = np.full((3, 28, 28, 1), 0.25, "float32")
    terms = np.asarray(vae_fashion.reconstruction(image, np.full_like(image, 0.5)))
    np.testing.assert_allclose(terms, [784 * math.log(2)] * 3, rtol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_the_loss_is_reconstruction_plus_beta_times_kl(beta):
    x = np.random.default_rng(0).random((40, 28, 28, 1), dtype="float32")
    model = vae_fashion.build_vae("dense", 3, beta=beta)
    model.compile(loss=vae_fashion.reconstruction, metrics=[vae_fashion.reconstruction])
    logs = model.evaluate(x, x, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(logs["reconstruction"] + beta * logs["kl"], rel=1e-5)
    z_mean, z_log_var, _ = model.encoder.predict(x, verbose=0)
    kl = np.mean(vae_fashion.kl_divergence(z_mean, z_log_var))
    assert logs["kl"] == pytest.approx(float(kl), rel=1e-4)


def test_importance_weighted_bound_where_the_likelihood_is_known():
    """A decoder that ignores z has p(x) = p(x|z), whatever the encoder does."""

    def encoder_of(z_mean, z_log_var):
        return lambda x: [np.full((len(x), 2), z_mean), np.full((len(x), 2), z_log_var), None]

    def decoder(z):
        return np.full((len(z), 5, 5, 1), 0.3)

    x = np.random.default_rng(0).random((4, 5, 5, 1))
    exact = 25 * metrics.binary_crossentropy(x, np.full_like(x, 0.3))
    prior = encoder_of(0.0, 0.0)  # all weights are equal
    assert importance_weighted_bound(prior, decoder, x) == pytest.approx(exact, rel=1e-6)
    encoder = encoder_of(0.5, -0.4)
    kl = float(vae_fashion.kl_divergence(np.full((1, 2), 0.5), np.full((1, 2), -0.4))[0])
    one = importance_weighted_bound(encoder, decoder, np.repeat(x, 500, axis=0), samples=1)
    assert one == pytest.approx(exact + kl, abs=0.1)  # of one sample: the negative ELBO
    many = importance_weighted_bound(encoder, decoder, x, samples=20_000)
    assert many == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("architecture", ["conv", "dense"])
def test_the_first_layer_bends_all_over_the_latent_space(architecture):
    decoder = vae_fashion.build_decoder(architecture)
    vae_fashion.init_first_layer(decoder, seed=0)
    kernel, bias = decoder.layers[1].get_weights()
    distance = np.abs(bias) / np.linalg.norm(kernel, axis=0)  # of the bend from the origin
    assert 0.4 < np.median(distance) < 1.5
    assert (distance < 2.5).mean() > 0.7


# ---------------------------------------------------------------- trainings


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short training of the convolutional network."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    vae_fashion.main([*QUICK, "--output-dir", folder])
    return folder


def test_metrics_and_history(finished):
    report = metrics_of(finished)
    test = report["test"]
    assert list(test) == [
        "negative_elbo",
        "reconstruction",
        "kl",
        "negative_elbo_first",
        "importance_weighted_first",
        "active_dimensions",
        "mse",
        "knn_accuracy",
    ]
    assert test["negative_elbo"] == pytest.approx(test["reconstruction"] + test["kl"])
    # The first ones are all of the 60 test images: both bounds are on the same.
    assert test["negative_elbo_first"] == pytest.approx(test["negative_elbo"])
    assert test["importance_weighted_first"] <= test["negative_elbo_first"] + 0.5
    assert report["parameters"] == 550_629
    assert list(report["baselines"]) == ["mean image", "PCA"]
    terms = {"loss", "reconstruction", "kl", "val_loss", "val_reconstruction", "val_kl"}
    assert terms < set(training.read_history(finished)[0])
    figures = {"latent", "loss", "manifold", "new", "reconstructions", "walk"}
    assert figures <= {path.stem for path in finished.glob("*.png")}


def test_encoder_and_decoder_load_on_their_own(finished, tmp_path):
    """In a fresh process; only the encoder needs this script's layer."""
    x = data.load_fashion_mnist(vae_fashion.Train(synthetic=True, limit=20)).x_test
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, keras, numpy as np\n"
        "folder, root = sys.argv[1:]\n"
        "decoder = keras.saving.load_model(folder + '/decoder.keras')\n"
        "sys.path.insert(0, root)\n"
        "import vae_fashion\n"
        "encoder = keras.saving.load_model(folder + '/encoder.keras')\n"
        "z_mean = encoder.predict(np.load('x.npy'), verbose=0)[0]\n"
        "np.save('out.npy', decoder.predict(z_mean, verbose=0))"
    )
    ended = python("-c", code, finished, ROOT, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    model = training.load_model(finished / "model.keras", "vae_fashion")
    expected = model.decoder.predict(model.encoder.predict(x, verbose=0)[0], verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)


def test_a_compiled_model_loads_with_its_loss(tmp_path):
    model = vae_fashion.build_vae("dense", beta=0.5)
    model.compile("adam", loss=vae_fashion.reconstruction, metrics=[vae_fashion.reconstruction])
    x = np.random.default_rng(0).random((20, 28, 28, 1), dtype="float32")
    model.fit(x, x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.beta == 0.5
    assert loaded.loss is vae_fashion.reconstruction
    loaded.fit(x, x, verbose=0)


def test_one_class_of_own_pictures_has_no_nearest_neighbor_score():
    digits = data.load_mnist(vae_fashion.Train(synthetic=True, limit=60))
    for number, image in enumerate(digits.x_train):
        images.write_image(Path("digits", f"{number}.png"), image)
    vae_fashion.main([*QUICK[1:], "--data-dir", "digits", "--output-dir", "run"])
    test = metrics_of("run")["test"]
    assert "knn_accuracy" not in test
    assert test["negative_elbo"] > 0


def test_more_dimensions_and_the_other_dataset():
    flags = ["--latent-dim", "5", "--dataset", "mnist", "--recipe", "published"]
    vae_fashion.main([*QUICK, *flags, "--output-dir", "run"])
    assert metrics_of("run")["dataset"]["name"] == "synthetic digits"
    assert keras.saving.load_model("run/decoder.keras").input_shape == (None, 5)


def test_training_lowers_the_bound_below_the_mean_image():
    flags = "--synthetic --limit 1000 --epochs 2 --architecture dense --output-dir run"
    vae_fashion.main(flags.split())
    report = metrics_of("run")
    assert report["model"] == "vae_fashion_dense"
    assert report["test"]["negative_elbo"] < report["baselines"]["mean image"]["reconstruction"]
    assert report["test"]["active_dimensions"] == 2


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--latent-dim 1", "--latent-dim must be between 2 and 1000"),
        ("--beta -1", "--beta must be finite and not negative"),
        ("--generate 0", "--generate must be between 1 and 10000"),
        ("--generate 3 --seed -1", "--seed must not be negative"),
        ("--input a.png --vary 2 --seed -1", "--seed must not be negative"),
        ("--input a.png --vary 2 --spread nan", "--spread must be between 0 and 1000"),
        ("--input a.png --seed 3", "--spread and --seed need --vary"),
        ("--input a.png --spread 2", "--spread and --seed need --vary"),
        ("--generate 3 --beta 2", "--beta"),
        ("--vary 3", "--vary"),
    ],
)
def test_flags_that_are_refused(flags, text, usage_error):
    assert text in usage_error(vae_fashion.main, *flags.split())


# ---------------------------------------------------------------- the model in models/


def test_the_model_is_small_and_reconstructs():
    assert (training.MODELS / "vae_fashion.keras").stat().st_size < 2_000_000
    model = training.load_model(None, "vae_fashion")
    assert (model.encoder.count_params(), model.decoder.count_params()) == (494_244, 56_385)
    x = data.load_fashion_mnist(vae_fashion.Train(synthetic=True, limit=200)).x_test
    decoded = model.decoder.predict(model.encoder.predict(x, verbose=0)[0], verbose=0)
    assert metrics.mse(x, decoded) < 0.8 * metrics.mse(x, np.mean(x, axis=0))


def test_the_model_is_as_good_as_the_readme_says(real_data):
    model = training.load_model(None, "vae_fashion")
    x = data.load_fashion_mnist(vae_fashion.Train(data_dir=real_data)).x_test
    model.compile(loss=vae_fashion.reconstruction)
    loss = model.evaluate(x, x, batch_size=500, return_dict=True, verbose=0)["loss"]
    assert loss < 259.5
    rng = np.random.default_rng(0)
    new = model.decoder.predict(rng.standard_normal((500, 2), "float32"), verbose=0)
    assert new.std(axis=0).mean() > 0.15  # not one image again and again
