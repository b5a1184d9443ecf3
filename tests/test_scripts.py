"""What all scripts promise, tried on each of them."""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import keras
import numpy as np
import pytest
import tyro
from conftest import ROOT, code_in, contents, metrics_of, python
from PIL import Image

import clean_documents
from common import cli, metrics, noise, training
from synthetic import pages
from synthetic.digits import digits

# {script: arguments of a training that takes seconds}
SCRIPTS = {
    "denoise_mnist": "--limit 60",
    "denoise_fashion": "--limit 60 --architecture unet",
    "clean_documents": "--limit 12 --batch-size 4",
    "vae_fashion": "--limit 60 --architecture dense",
    "watermark_ae": "--limit 60 --noise 0.1",
    "watermark_photo": "--limit 20 --batch-size 8",
}
SHORT = "--synthetic --epochs 2 --steps-per-epoch 3"
ALL = [*SCRIPTS, "latent_spaces"]  # trains several models, so it cannot evaluate or resume one
APPLY_TO_IMAGES = ["denoise_mnist", "denoise_fashion", "vae_fashion", "latent_spaces"]
each_script = pytest.mark.parametrize("name", SCRIPTS)
all_scripts = pytest.mark.parametrize("name", ALL)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Let a training of clean_documents.py take seconds, too."""
    real = pages.make_pages

    def small(*arguments, height=208, width=272, **options):
        return real(*arguments, height=min(height, 208), width=min(width, 272), **options)

    monkeypatch.setattr(pages, "make_pages", small)
    monkeypatch.setattr(clean_documents, "OLD_SHEETS", 4)
    monkeypatch.setattr(clean_documents, "PATCH_SIDE", {"unet": 32, "autoencoder": 32})


def arguments_of(name, *more):
    return [*SHORT.split(), *SCRIPTS[name].split(), *more]


def main_of(name):
    return importlib.import_module(name).main


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a function that trains a script once and returns its run folder and its output."""
    runs = {}

    def run(name):
        if name not in runs:
            folder, output = tmp_path_factory.mktemp(name), io.StringIO()
            with contextlib.chdir(folder), contextlib.redirect_stdout(output):
                main_of(name)(arguments_of(name))
            [run_folder] = (folder / "runs").iterdir()
            runs[name] = run_folder, output.getvalue()
        return runs[name]

    return run


def test_every_script_is_in_the_list():
    assert {path.stem for path in ROOT.glob("*.py")} - {"app"} == set(ALL)


# ---------------------------------------------------------------- a run's results


@each_script
def test_a_run_leaves_model_history_metrics_and_figures(name, finished):
    folder, output = finished(name)
    files = {path.name for path in folder.iterdir()}
    assert {"model.keras", "history.csv", "arguments.json", "metrics.json", "loss.png"} <= files
    figures = list(folder.glob("*.png"))
    assert len(figures) >= 2
    for figure in figures:
        with Image.open(figure) as image:
            assert min(image.size) > 100, figure
            assert np.asarray(image.convert("L")).std() > 5, figure
    assert [row["epoch"] for row in training.read_history(folder)] == [0, 1]
    assert output.splitlines()[-1].endswith(f"Results are in runs/{folder.name}/")
    report = metrics_of(folder)
    assert report["dataset"]["source"] == "synthetic"
    assert (report["settings"]["epochs"], report["settings"]["seed"]) == (2, 0)
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    assert (report["model"], report["parameters"]) == (model.name, model.count_params())
    assert report["seconds_training"] > 0
    assert set(report["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    for results in (report["test"], *report["baselines"].values()):
        assert all(np.isfinite([value for value in results.values() if value is not None]))
    assert None not in report["test"].values()


@each_script
def test_a_model_that_is_given_measures_the_same_without_training(name, finished):
    folder, _ = finished(name)
    before = contents(folder)
    arguments = arguments_of(name, "--model", str(folder / "model.keras"))
    main_of(name)([*arguments, "--output-dir", "evaluation"])
    evaluation = metrics_of("evaluation")
    assert evaluation["test"] == pytest.approx(metrics_of(folder)["test"], rel=1e-5)
    assert evaluation["epochs"] is evaluation["seconds_training"] is None
    assert not Path("evaluation/history.csv").exists()
    assert contents(folder) == before


@each_script
def test_an_interrupted_training_resumes(name, finished, monkeypatch):
    real = keras.callbacks.BackupAndRestore.on_epoch_end

    def interrupt(callback, epoch, logs=None):
        real(callback, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.BackupAndRestore, "on_epoch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            main_of(name)(arguments_of(name, "--output-dir", "run"))
    assert not Path("run/metrics.json").exists()
    main_of(name)(["--resume", "run"])
    assert [row["epoch"] for row in training.read_history(Path("run"))] == [0, 1]
    uninterrupted, resumed = metrics_of(finished(name)[0]), metrics_of("run")
    assert resumed["epochs"] == 2
    assert list(resumed["test"]) == list(uninterrupted["test"])
    assert {path.name for path in Path("run").iterdir()} == {
        path.name for path in finished(name)[0].iterdir()
    }
    # also if it was interrupted after its figures
    Path("run/metrics.json").unlink()
    main_of(name)(["--resume", "run"])
    assert metrics_of("run")["test"] == pytest.approx(resumed["test"], rel=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to one process")
def test_ctrl_c_ends_in_a_line_that_says_how_to_continue(tmp_path):
    arguments = "--synthetic --limit 60 --epochs 100000 --steps-per-epoch 2".split()
    process = subprocess.Popen(
        [sys.executable, ROOT / "denoise_mnist.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell ignore SIGINT, and so would the processes they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    model = tmp_path / "runs/denoise_mnist/model.keras"
    while not model.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    output = None
    while output is None:  # C code of a library may drop an interrupt; a user would repeat it
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "Interrupted. If a --resume line was printed above, it continues the training." in error
    assert "To continue after an interruption: --resume runs/denoise_mnist" in output


@pytest.mark.parametrize("name", ["denoise_mnist", "denoise_fashion", "watermark_ae"])
def test_training_never_sees_the_noise_of_validation_or_test(name, monkeypatch):
    """By the seeds of all random numbers."""
    real, seeds = np.random.default_rng, []

    class StopError(Exception):
        pass

    def record(seed=None):
        seeds.append(seed)
        return real(seed)

    def fit(model, batches, **arguments):
        others = set(seeds)
        seeds.clear()
        list(batches.take(3))
        assert training.seed_for("validation") in others
        assert seeds
        assert not set(seeds) & (others | {training.seed_for("test")})
        raise StopError

    monkeypatch.setattr(np.random, "default_rng", record)
    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(StopError):
        main_of(name)(["--synthetic", "--limit", "60", "--seed", "1"])


@pytest.mark.parametrize("name", [name for name in ALL if name != "watermark_ae"])
def test_input_without_a_file_is_named(name, error_of, tmp_path):
    more = ["--extract"] if name == "watermark_photo" else []
    assert "--input needs at least one file" in error_of(main_of(name), *more, "--input")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- copying a model


def source_with_dependencies(name, builder):
    """Return the source of a builder and of all functions and classes of its script it uses."""
    own = {
        key: value
        for key, value in vars(importlib.import_module(name)).items()
        if getattr(value, "__module__", "") == name
    }
    needed, new = set(), {builder}
    while new:
        needed |= new
        trees = [ast.parse(inspect.getsource(own[each])) for each in new]
        used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
        new = (used & set(own)) - needed
    return "\n\n".join(inspect.getsource(value) for key, value in own.items() if key in needed)


# Heights and widths that a copied builder is tried at, beside its own.
OTHER_SIZES = {"denoise_fashion__build_autoencoder": (36, 60)}

TRAIN_AND_SAVE = """
import importlib, inspect, json, sys
import numpy as np
other_sizes = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    build = getattr(importlib.import_module(name), name.split("__")[1])
    parameters = inspect.signature(build).parameters
    height, width = other_sizes.get(name, (32, 64))
    open_sizes = {key: 64 for key in ("height", "width")
                  if key in parameters and parameters[key].default is None}
    for number, sizes in enumerate((open_sizes, dict(height=height, width=width, channels=3))):
        model = build(**{key: value for key, value in sizes.items() if key in parameters})
        def array(tensor):
            return np.random.random((2, *tensor.shape[1:])).astype("float32")
        first = getattr(model, "encoder", model)  # the VAE has no input of its own
        inputs = keras.tree.map_structure(array, first.input)
        targets = keras.tree.map_structure(np.asarray, model.predict(inputs, verbose=0))
        model.compile("sgd", keras.tree.map_structure(lambda output: "mse", targets))
        model.train_on_batch(inputs, targets)
        model.save(f"{name}_{number}.keras")
        np.savez(f"{name}_{number}_weights.npz", *model.get_weights())
        np.savez(f"{name}_{number}_inputs.npz", *keras.tree.flatten(inputs))
        if number == 0:
            print(model.count_params())
"""

LOAD_AND_PREDICT = """
import sys
import keras
import numpy as np
for name in sys.argv[1:]:
    if "class " in open(f"{name}.py").read():
        __import__(name)  # registers its layers
    for file in (f"{name}_0", f"{name}_1"):
        model = keras.saving.load_model(f"{file}.keras")
        with np.load(f"{file}_weights.npz") as arrays:
            for weight, key in zip(model.get_weights(), arrays.files, strict=True):
                np.testing.assert_array_equal(weight, arrays[key])
        with np.load(f"{file}_inputs.npz") as arrays:
            flat = [arrays[key] for key in arrays.files]
        first = getattr(model, "encoder", model)
        inputs = keras.tree.pack_sequence_as(first.input, flat)
        for output in keras.tree.flatten(model.predict(inputs, verbose=0)):
            assert len(output) == 2 and np.isfinite(output).all()
print("done")
"""


@all_scripts
def test_copied_builders_train_and_load_elsewhere(name, tmp_path):
    """Each builder in a file of its own, under README's import lines, in fresh processes."""
    script = importlib.import_module(name)
    builders = [key for key in vars(script) if key.startswith("build_")]
    assert builders
    for builder in builders:
        source = code_in("README.md", "imports") + "\n\n" + source_with_dependencies(name, builder)
        (tmp_path / f"{name}__{builder}.py").write_text(source, encoding="utf-8")
    files = [f"{name}__{builder}" for builder in builders]
    code = code_in("README.md", "imports") + TRAIN_AND_SAVE
    trained = python("-c", code, json.dumps(OTHER_SIZES), *files, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    counts = [str(getattr(script, builder)().count_params()) for builder in builders]
    assert trained.stdout.split() == counts
    loaded = python("-c", LOAD_AND_PREDICT, *files, cwd=tmp_path)
    assert loaded.stdout == "done\n", loaded.stderr


def own_training_code(title):
    """Return the code below a title of docs/own_training.md, with what it says it needs."""
    return f"""
import numpy as np
import tensorflow as tf
{code_in("README.md", "imports")}
if {title == "several gpus"}:
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_visible_devices([], "GPU")
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
{source_with_dependencies("denoise_mnist", "build_denoiser")}
with np.load("digits.npz") as arrays:
    clean, test = arrays["clean"], arrays["test"]
{code_in("docs/own_training.md", title)}
"""


@pytest.fixture
def few_digits(tmp_path):
    """Write images for `own_training_code`, and return those to test with."""
    images = (digits(1_200, seed=0)[0][..., np.newaxis] / 255).astype("float32")
    np.savez(tmp_path / "digits.npz", clean=images[:1_000], test=images[1_000:])
    return images[1_000:]


def test_the_fast_recipe_in_the_docs_denoises(tmp_path, few_digits):
    code = own_training_code("fast recipe").replace("12 * 140", "3 * 80")
    code = code.replace("epochs=12, steps_per_epoch=140", "epochs=3, steps_per_epoch=80, verbose=0")
    ended = python("-c", code, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    noisy = noise.gaussian(few_digits, 0.5, seed=0)
    denoised = keras.saving.load_model(tmp_path / "denoiser.keras").predict(noisy, verbose=0)
    assert metrics.psnr(few_digits, denoised) > metrics.psnr(few_digits, noisy) + 5


def test_a_copied_builder_trains_on_several_devices(tmp_path, few_digits):
    """On two logical CPUs instead of GPUs."""
    code = own_training_code("several gpus").replace("epochs=10", "epochs=1, verbose=0")
    ended = python("-c", f"{code}\nprint(strategy.num_replicas_in_sync)", cwd=tmp_path)
    assert ended.stdout == "2\n", ended.stderr
    model = keras.saving.load_model(tmp_path / "denoiser.keras")
    assert model.count_params() == 28_353
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


# ---------------------------------------------------------------- the command line


def flags_of(command):
    hints = typing.get_type_hints(command, include_extras=True)
    return [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(command)
        if tyro.conf.Suppress not in getattr(hints[field.name], "__metadata__", ())
    ]


def documented_commands():
    """Return the command lines of scripts in README, docs/results.md and --help."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md")]
    texts += [importlib.import_module(name).__doc__ for name in ALL]
    # Two spaces or a # begin a comment.
    commands = re.findall(r"python (\w+)\.py((?: [^\s#`]+)*)", "\n".join(texts))
    return sorted({command for command in commands if command[0] in ALL})


@pytest.mark.parametrize(("name", "words"), documented_commands())
def test_documented_commands_can_be_pasted(name, words):
    """Their flags exist, and so do the input files, but for those that a run of another makes."""
    script = importlib.import_module(name)
    others = ("Decode", "Generate", "Capacity")
    commands = [getattr(script, key, cli.Apply) for key in ("Train", "Apply")]
    commands += [getattr(script, key) for key in others if hasattr(script, key)]
    settings = cli.parse("", shlex.split(words), *commands)
    paths = [*getattr(settings, "input", []), *getattr(settings, "capacity", [])]
    paths += [getattr(settings, "watermark_image", None) or "README.md"]
    missing = [path for path in paths if not (ROOT / path).is_file() and "runs/" not in str(path)]
    assert not missing


@all_scripts
def test_help_names_every_flag(name, capsys):
    script = importlib.import_module(name)
    commands = {"": script.Train}
    if name != "watermark_ae":
        commands["--input"] = getattr(script, "Apply", cli.Apply)
    for chosen_by, command in commands.items():
        with pytest.raises(SystemExit) as exit_info:
            script.main([*chosen_by.split(), "--help"])
        assert exit_info.value.code in (0, None)
        text = capsys.readouterr().out
        assert f"python {name}.py" in text
        for flag in flags_of(command):
            positive = flag if flag in text else flag.replace("--", "--no-", 1)
            assert positive in text, flag


@all_scripts
def test_a_wrong_flag_is_named_with_the_right_one(name, usage_error):
    for arguments, right in (
        (["--epohcs", "3"], "--epochs"),
        (["--output_dirr", "a"], "--output-dir"),
        (["--epochs", "three"], "--epochs"),
        (["--epochs", "0"], "--epochs must be positive"),
        (["--limit", "3"], "--limit must be at least 10"),
        (["--seed", str(2**32)], "--seed must be between 0 and"),
    ):
        error = usage_error(main_of(name), *arguments)
        assert arguments[0].strip("-").split("_")[0] in error
        assert right in error
        assert "Traceback" not in error
    assert not Path("runs").exists()


@each_script
def test_bad_files_and_folders_end_in_one_line(name, error_of):
    main = main_of(name)
    Path("text.keras").write_text("no model")
    image = keras.Input((28, 28, 1))
    keras.Model(image, keras.layers.Conv2D(1, 3)(image), name="other").save("other.keras")
    Path("old.h5").write_bytes(b"")
    Path("file").write_text("mine")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    before = contents(".")
    for arguments, text in (
        (["--model", "none.keras"], "none.keras: no such file"),
        (["--model", "text.keras"], "text.keras: not a model that can be loaded"),
        (["--model", "other.keras"], "other.keras: holds a model named other, not "),
        (["--model", "old.h5"], "old.h5: not a .keras file"),
        (["--output-dir", "file/run"], "file/run: cannot be created"),
        (["--output-dir", "file"], "file: cannot be created (File exists); use another"),
        (["--output-dir", "full"], "full is not empty; use another --output-dir"),
    ):
        assert text in error_of(main, *arguments_of(name), *arguments)
    assert "nowhere holds no interrupted training" in error_of(main, "--resume", "nowhere")
    if name != "watermark_photo":
        assert "nowhere: no such folder" in error_of(main, "--data-dir", "nowhere")
    assert contents(".") == before
    assert not Path("runs").exists()


def test_a_finished_training_is_neither_resumed_nor_replaced(finished, error_of, monkeypatch):
    folder, _ = finished("denoise_mnist")
    before = contents(folder)
    monkeypatch.setattr("common.data.load_mnist", lambda settings: pytest.fail("data were loaded"))
    line = error_of(main_of("denoise_mnist"), "--resume", folder)
    assert "holds a finished training; leave --resume out" in line
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)
    line = error_of(
        main_of("denoise_mnist"), *arguments_of("denoise_mnist"), "--output-dir", folder
    )
    assert "is not empty; use another --output-dir" in line
    assert contents(folder) == before


# ---------------------------------------------------------------- the user's own files


@pytest.mark.parametrize("name", APPLY_TO_IMAGES)
def test_if_one_input_is_damaged_nothing_is_written(name, error_of):
    main = main_of(name)
    Image.new("L", (40, 30), 90).save("a.png")
    Path("b.png").write_bytes(Path("a.png").read_bytes()[:60])
    assert "b.png: " in error_of(main, "--input", "a.png", "b.png", "--output-dir", "out")
    assert "none.png: no such file" in error_of(main, "--input", "none.png", "--output-dir", "out")
    line = error_of(main, "--input", "a.png", "--model", "none.keras", "--output-dir", "out")
    assert "none.keras: no such file" in line
    assert {path.name for path in Path().iterdir()} <= {"a.png", "b.png"}


@pytest.mark.parametrize("name", ["denoise_mnist", "denoise_fashion", "watermark_photo"])
def test_no_file_of_the_users_is_replaced(name, error_of):
    Image.new("L", (300, 300), 90).save("a.png")
    before = contents(".")
    message = ["--message", "x"] if name == "watermark_photo" else []
    line = error_of(main_of(name), "--input", "a.png", *message, "--output-dir", ".")
    assert "a.png" in line
    assert "use another --output-dir" in line
    assert contents(".") == before


# ---------------------------------------------------------------- inside a host, such as a notebook


def test_importing_and_running_change_nothing_in_the_host(tmp_path):
    code = f"""
import importlib, signal, sys
import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plt

def state():
    handlers = {{number: signal.getsignal(number) for number in signal.valid_signals()}}
    return handlers, sys.stdout, sys.stderr, plt.get_backend(), plt.get_fignums()

before = state()
sys.path.insert(0, {str(ROOT)!r})
scripts = [importlib.import_module(name) for name in {ALL!r}]
assert state() == before
assert "imgaug" not in sys.modules  # slow, and needed by one script alone
scripts[0].main("--synthetic --limit 20 --epochs 1 --steps-per-epoch 1".split())
assert state() == before
print("unchanged")
"""
    ended = python("-c", code, cwd=tmp_path)
    assert ended.stdout.endswith("unchanged\n"), ended.stderr
