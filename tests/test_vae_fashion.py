import csv
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, contents, python, report_of
from PIL import Image

import vae_fashion
from applications import latent_walks
from common import UserError, batches, data, image_files, metrics, trained_models

QUICK = ["--synthetic", "--limit", "60", "--epochs", "2"]


def test_parameters_and_shapes_are_the_articles():
    encoder, decoder = vae_fashion.build_conv_encoder(), vae_fashion.build_conv_decoder()
    assert (encoder.count_params(), decoder.count_params()) == (494_244, 56_385)
    assert [output.shape for output in encoder.outputs] == [(None, 2)] * 3
    assert decoder.output_shape == (None, 28, 28, 1)
    assert encoder.layers[5].output.shape == (None, 12_544)


def test_dense_parameters_by_hand():
    encoder, decoder = vae_fashion.build_dense_encoder(), vae_fashion.build_dense_decoder()
    assert encoder.count_params() == 784 * 512 + 512 + 2 * (512 * 2 + 2)
    assert decoder.count_params() == 2 * 512 + 512 + 512 * 784 + 784
    assert len(encoder.outputs) == 3
    assert decoder.output_shape == (None, 28, 28, 1)


NAMES = vae_fashion.Settings.names


# ---------------------------------------------------------------- the bound


def test_kl_closed_form_against_monte_carlo():
    z_mean = np.array([[0.5, -1.0, 0.0], [2.0, 0.1, -0.3]])
    z_log_var = np.array([[0.3, -2.0, 0.0], [-1.0, 0.5, 1.0]])
    rng = np.random.default_rng(0)
    epsilon = rng.standard_normal((200_000, 1, 3))
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

    with tf.GradientTape() as tape:
        tape.watch([z_mean, z_log_var])
        result = value(z_mean, z_log_var)
    exact = tape.gradient(result, [z_mean, z_log_var])
    step = 1e-2
    for which in (0, 1):
        for position in (0, 1):
            shift = step * np.eye(2, dtype="float32")[[position]]
            ends = [
                value(z_mean + sign * shift * (which == 0), z_log_var + sign * shift * (which == 1))
                for sign in (1, -1)
            ]
            slope = float(ends[0] - ends[1]) / (2 * step)
            assert slope == pytest.approx(float(exact[which][0, position]), abs=1e-3)


def test_sampling_has_the_variance_it_is_told():
    z_mean, z_log_var = np.full((200_000, 1), 1.5), np.full((200_000, 1), math.log(0.25))
    z = np.asarray(vae_fashion.Sampling()([z_mean, z_log_var]))
    assert z.mean() == pytest.approx(1.5, abs=0.01)
    assert z.std() == pytest.approx(0.5, abs=0.01)


def test_reconstruction_is_summed_over_pixels():
    image = np.full((3, 28, 28, 1), 0.25, "float32")
    terms = np.asarray(vae_fashion.reconstruction(image, np.full_like(image, 0.5)))
    np.testing.assert_allclose(terms, [784 * math.log(2)] * 3, rtol=1e-5)


def test_the_loss_is_reconstruction_plus_beta_times_kl():
    x = np.random.default_rng(0).random((40, 28, 28, 1), dtype="float32")
    for beta in (1.0, 0.25):
        model = vae_fashion.build_vae("dense", 3, beta)
        model.compile(loss=vae_fashion.reconstruction, metrics=[vae_fashion.reconstruction])
        logs = model.evaluate(x, x, return_dict=True, verbose=0)
        assert logs["loss"] == pytest.approx(logs["reconstruction"] + beta * logs["kl"], rel=1e-5)
        z_mean, z_log_var, _ = model.encoder.predict(x, verbose=0)
        kl = np.mean(vae_fashion.kl_divergence(z_mean, z_log_var))
        assert logs["kl"] == pytest.approx(float(kl), rel=1e-4)


def constant_encoder(z_mean, z_log_var):
    return lambda x: [np.full((len(x), 2), z_mean), np.full((len(x), 2), z_log_var), None]


def constant_decoder(y):
    return lambda z: np.full((len(z), 5, 5, 1), y)


def test_importance_weighted_bound_where_the_likelihood_is_known():
    """A decoder that ignores z has p(x) = p(x|z), whatever the encoder says."""
    x = np.random.default_rng(0).random((4, 5, 5, 1))
    exact = 25 * metrics.binary_crossentropy(x, np.full_like(x, 0.3))
    decoder = constant_decoder(0.3)
    of_prior = vae_fashion.importance_weighted_bound(constant_encoder(0.0, 0.0), decoder, x)
    assert of_prior == pytest.approx(exact, rel=1e-6)  # q is the prior: all weights agree
    encoder = constant_encoder(0.5, -0.4)
    kl = float(vae_fashion.kl_divergence(*(np.full((1, 2), v) for v in (0.5, -0.4)))[0])
    one = vae_fashion.importance_weighted_bound(encoder, decoder, np.repeat(x, 500, 0), samples=1)
    assert one == pytest.approx(exact + kl, abs=0.1)  # one sample: the negative ELBO
    many = vae_fashion.importance_weighted_bound(encoder, decoder, x, samples=20_000)
    assert many == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("architecture", ["conv", "dense"])
def test_the_first_layer_bends_all_over_the_latent_space(architecture):
    decoder = vae_fashion.build_vae(architecture, 2).decoder
    vae_fashion.spread_first_layer(decoder, seed=0)
    kernel, bias = decoder.layers[1].get_weights()
    distance = np.abs(bias) / np.linalg.norm(kernel, axis=0)  # of the bend from the origin
    assert 0.4 < np.median(distance) < 1.5
    assert (distance < 2.5).mean() > 0.7


# ---------------------------------------------------------------- the other metrics


def test_knn_accuracy_by_hand():
    codes = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [5.3]])
    labels = np.array([1, 1, 0, 0, 0, 0, 1])
    assert metrics.knn_accuracy(codes, labels, [[0.05], [5.1]], np.array([1, 0]), k=3) == 1
    assert metrics.knn_accuracy(codes, labels, [[0.05], [5.1]], np.array([1, 1]), k=3) == 0.5


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run of the convolutional network."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    vae_fashion.main([*QUICK, "--output-dir", str(folder)])
    return folder


def test_metrics_json_and_history(finished):
    report = report_of(finished)
    test = report["test"]
    assert list(test) == [
        *("negative_elbo", "reconstruction", "kl", "negative_elbo_first"),
        *("importance_weighted_first", "active_dimensions", "knn_accuracy", "mse"),
    ]
    assert test["negative_elbo"] == pytest.approx(test["reconstruction"] + test["kl"])
    # The first ones are all of the 60 test images: both bounds are on the same.
    assert test["negative_elbo_first"] == pytest.approx(test["negative_elbo"])
    assert test["importance_weighted_first"] <= test["negative_elbo_first"] + 0.5
    assert report["parameters"] == 550_629
    assert list(report["baselines"]) == ["mean_image", "pca"]
    assert list(report["baselines"]["pca"]) == ["reconstruction", "mse"]
    header = (finished / "history.csv").read_text().splitlines()[0].split(",")
    terms = {"loss", "reconstruction", "kl", "val_loss", "val_reconstruction", "val_kl"}
    assert terms < set(header)


def test_models_reload_in_a_fresh_process(finished, tmp_path):
    folder = finished
    x = data.load_fashion_mnist(synthetic=True, limit=20).x_test
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, keras, numpy as np\n"
        "folder, root = sys.argv[1:]\n"
        "decoder = keras.saving.load_model(folder + '/decoder.keras')\n"
        "try:\n"
        "    keras.saving.load_model(folder + '/encoder.keras')\n"
        "except TypeError as error:\n"
        "    print('Sampling' in str(error))\n"
        "sys.path.insert(0, root)\n"
        "import vae_fashion\n"
        "encoder = keras.saving.load_model(folder + '/encoder.keras')\n"
        "model = keras.saving.load_model(folder + '/model.keras')\n"
        "x = np.load('x.npy')\n"
        "mean = encoder.predict(x, verbose=0)[0]\n"
        "same = model.encoder.predict(x, verbose=0)[0]\n"
        "print(np.array_equal(mean, same))\n"
        "np.save('out.npy', decoder.predict(mean, verbose=0))"
    )
    done = python("-c", code, folder, ROOT, cwd=tmp_path)
    assert done.stdout.split() == ["True", "True"], done.stderr
    model = trained_models.load_model(folder / "model.keras", NAMES)[0]
    ours = model.decoder.predict(model.encoder.predict(x, verbose=0)[0], verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), ours, atol=1e-6)


def test_more_dimensions_and_the_other_dataset(figures_left_out):
    words = [*QUICK, "--latent-dim", "5", "--dataset", "mnist", "--recipe", "published"]
    vae_fashion.main([*words, "--output-dir", "run"])
    assert report_of("run")["dataset"]["name"] == "synthetic digits"
    assert keras.saving.load_model("run/decoder.keras").input_shape == (None, 5)


def test_training_lowers_the_bound_below_the_mean_image(figures_left_out):
    words = "--synthetic --limit 2000 --epochs 10 --architecture dense --output-dir run"
    vae_fashion.main(words.split())
    report = report_of("run")
    assert report["test"]["negative_elbo"] < report["baselines"]["mean_image"]["reconstruction"]
    assert report["test"]["active_dimensions"] == 2


# ---------------------------------------------------------------- uses


@pytest.fixture
def trained(finished):
    return ["--model", str(finished / "model.keras"), "--output-dir", "out"]


def test_generate_writes_images_and_a_sheet(trained):
    vae_fashion.main(["--generate", "7", *trained])
    names = {path.name for path in Path("out").iterdir()}
    assert names == {f"new_{i:03}.png" for i in range(1, 8)} | {"sheet.png", "latent.csv"}
    assert Image.open("out/new_007.png").size == (28, 28)


def test_generate_says_its_seed_and_takes_a_new_one_each_time(finished, capsys):
    model = ["--model", str(finished / "model.keras")]
    for _ in range(2):
        vae_fashion.main(["--generate", "2", *model])
    one, two = (Path("runs", name, "latent.csv").read_text() for name in FOLDERS)
    assert one != two
    seeds = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "Seed" in line]
    vae_fashion.main(["--generate", "2", "--seed", seeds[0], *model])
    assert Path("runs/vae_fashion_generated_3/latent.csv").read_text() == one


FOLDERS = ["vae_fashion_generated", "vae_fashion_generated_2"]


def test_encode_vary_and_decode(trained, tmp_path):
    piece = data.load_fashion_mnist(synthetic=True, limit=10).x_test[0]
    image_files.write_image("a.png", piece)
    big = Image.fromarray(np.round(piece[..., 0] * 255).astype(np.uint8)).resize((90, 140))
    big.save("b.jpg")
    vae_fashion.main(["--input", "a.png", "b.jpg", "--vary", "3", *trained])
    written = {path.name for path in Path("out").iterdir()}
    for stem in ("a", "b"):
        expected = {f"{stem}_sheet.png"} | {f"{stem}_variation_{i:03}.png" for i in (1, 2, 3)}
        assert expected < written
    assert {"a.png", "b.jpg", "latent.csv"} < written
    rows = list(csv.DictReader(Path("out/latent.csv").open()))
    assert [row["name"] for row in rows] == ["a", "b"]
    assert list(rows[0]) == ["name", "z_1", "z_2"]
    vae_fashion.main(["--decode", "out/latent.csv", *trained[:2], "--output-dir", "back"])
    back = (tmp_path / "back/a.png").read_bytes()
    assert back == (tmp_path / "out/a.png").read_bytes()


def test_no_use_replaces_what_another_wrote(trained, error_of):
    """Nor the file that it reads."""
    main = vae_fashion.main
    main(["--generate", "3", *trained])
    before = contents("out")
    for words in (["--generate", "2"], ["--input", "out/new_001.png"]):
        assert "exists already; choose another --output-dir" in error_of(main, *words, *trained)
    assert contents("out") == before
    line = error_of(main, "--decode", "out/latent.csv", *trained)
    assert "new_001.png: exists already" in line
    assert contents("out") == before


def test_variations_stray_as_far_as_they_are_told(finished):
    model, _ = trained_models.load_model(finished / "model.keras", NAMES)
    image_files.write_image("a.png", np.full((28, 28, 1), 0.5))
    seen = []

    class Recorder:
        encoder, decoder = model.encoder, None

        def __call__(self, z):
            seen.append(z)
            return model.decoder(z)

    Recorder.decoder = recorder = Recorder()
    limits = {"missed_995": np.nan, "missed_995_noisy": 0, "thickest": np.inf}
    known = {"dataset": "", "ground": "dark", **limits}
    for spread in (0, 2.0):
        settings = {"vary": 400, "spread": spread}
        latent_walks.encode(recorder, ["a.png"], f"out_{spread}", known, **settings)
    z_mean, z_log_var, _ = model.encoder.predict(np.full((1, 28, 28, 1), 128 / 255), verbose=0)
    np.testing.assert_allclose(seen[1], np.repeat(z_mean, 400, 0), atol=1e-5)
    np.testing.assert_allclose(seen[3].std(0), 2 * np.exp(z_log_var[0] / 2), rtol=0.15)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name,z_1,z_2\na,1\n", "line 2: not a name and the 2 numbers"),
        (b"name,z_1,z_2\na,1,2\nb,1,x\n", "line 3: not a name and the 2 numbers"),
        (b"name,z_1,z_2\na,1,nan\n", "line 2"),
        (b"name,z_1,z_2\na,1,1e300\n", "line 2: a number above 1e+06"),
        (b"name,z_1,z_2\n../a,1,2\n", "line 2"),
        (b"name,z_1,z_2\na,1,2\na,3,4\n", "line 3: each line needs a name of its own"),
        (b"name,z_1,z_2\n,3,4\n", "line 2: each line needs a name"),
        (b"name,z_1,z_2\na\0b,1,2\n", "line 2: not a name"),
        (b"name,z_1,z_2\n\xff,1,2\n", "cannot be read"),
        (b"name,z_1,z_2\n", "no codes"),
        (b"", "no codes"),
    ],
)
def test_bad_latent_files_end_in_one_line(error_of, trained, content, words):
    Path("latent.csv").write_bytes(content)
    assert words in error_of(vae_fashion.main, "--decode", "latent.csv", *trained)
    assert not Path("out").exists()


@pytest.mark.parametrize("words", ["--seed 3", "--spread 2"])
def test_what_belongs_to_vary_is_refused_without_it(words, error_of):
    line = error_of(vae_fashion.main, "--input", "a.png", *words.split())
    assert f"{words.split()[0]} has no effect without --vary" in line


def test_latent_files_of_spreadsheets_are_read(trained):
    """With a byte-order mark, CRLF and a blank last line."""
    Path("latent.csv").write_bytes(b"\xef\xbb\xbfname,z_1,z_2\r\na,1,2\r\n\r\n")
    vae_fashion.main(["--decode", "latent.csv", *trained])
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


def test_shipped_model_is_small_and_as_good_as_the_readme_says(real_data):
    path = ROOT / "models/vae_fashion.keras"
    assert path.stat().st_size < 2_000_000
    model, _ = trained_models.load_model(path, NAMES)
    x = data.load_fashion_mnist(real_data).x_test
    z_mean, z_log_var, _ = model.encoder.predict(x, batch_size=500, verbose=0)
    rng = np.random.default_rng(batches.seed_for("test"))
    epsilon = rng.standard_normal(z_mean.shape, "float32")
    decoded = model.decoder.predict(z_mean + np.exp(z_log_var / 2) * epsilon, 500, verbose=0)
    distortion = 784 * metrics.binary_crossentropy(x, decoded)
    kl = float(np.mean(vae_fashion.kl_divergence(z_mean, z_log_var)))
    measured = json.loads((ROOT / "benchmarks" / "results.json").read_text())["trainings"]
    bound = measured["vae_fashion/long/0"]["test"]["negative_elbo"]
    assert distortion + kl == pytest.approx(bound, abs=0.1)


def test_generate_works_without_a_training():
    vae_fashion.main(["--generate", "2"])
    assert Path("runs/vae_fashion_generated/new_002.png").is_file()


def test_errors_end_in_one_line(error_of, trained, tmp_path):
    main = vae_fashion.main
    line = error_of(main, "--latent-dim", "1")
    assert "--latent-dim: '1' is not a whole number from 2 to 1000" in line
    assert "is not a whole number from 1 to 10000" in error_of(main, "--generate", 10**12)
    assert "none.csv: no such file" in error_of(main, "--decode", "none.csv", *trained)
    (tmp_path / "text.png").write_text("not an image")
    assert "text.png: not an image" in error_of(main, "--input", "text.png", *trained)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/text.png").write_text("")
    with pytest.raises(UserError, match="would both become"):
        latent_walks.encode(None, ["text.png", "a/text.png"], "out", None)


# ---------------------------------------------------------------- --compare-beta


def test_compare_beta_trains_three_and_says_what_beta_does(error_of):
    words = "--architecture dense --compare-beta --synthetic --limit 300 --epochs 4".split()
    vae_fashion.main([*words, "--output-dir", "three"])
    report = report_of("three")
    kl = [report["models"][f"beta_{beta}"]["test"]["kl"] for beta in (0, 1, 4)]
    assert kl[0] > kl[1] > kl[2]
    assert report["test"] == report["models"]["beta_1"]["test"]
    with Image.open("three/beta.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
    main = vae_fashion.main
    assert "is for --architecture dense" in error_of(main, "--compare-beta")
    beta = ("--architecture", "dense", "--compare-beta", "--beta", "2")
    assert "sets --beta itself" in error_of(main, *beta)
    for ignored in ({"tensorboard": True}, {"precision": "mixed_bfloat16"}):
        settings = vae_fashion.Settings(architecture="dense", **ignored)
        with pytest.raises(UserError, match=f"--{next(iter(ignored))} has no effect with --comp"):
            vae_fashion.compare_beta(settings)
