"""What every script promises, tried on each of them."""

import csv
import importlib
import inspect
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, contents, predict_elsewhere, python, report_of, stop_after_one_epoch
from PIL import Image

import clean_documents
from common import trained_models
from common.run_folder import RunFolder
from synthetic import pages

# {script: the words of a training that takes seconds}
SCRIPTS = {
    "denoise_mnist": "",
    "denoise_fashion": "--architecture unet",
    "clean_documents": "--batch-size 4 --limit 12",
    "vae_fashion": "--architecture dense",
    "watermark_ae": "--noise 0.1",
    "watermark_photo": "--batch-size 8 --limit 20",
}
SHORT = "--synthetic --limit 60 --epochs 2".split()
KEYS = [
    *("script", "dataset", "recipe", "architecture", "parameters", "epochs", "batch_size"),
    *("learning_rate", "seed", "seconds_training", "seconds_total", "peak_memory_mb", "versions"),
    *("test", "baselines"),
]
EVERY = [*SCRIPTS, "latent_spaces"]  # trains several models, so it has its own tests of the rest
PLOT = RunFolder.plot  # also where a test leaves figures out
each_script = pytest.mark.parametrize("name", SCRIPTS)


@pytest.fixture(autouse=True)
def small_documents(monkeypatch):
    """Make a training of clean_documents.py one of seconds."""
    monkeypatch.setattr(clean_documents, "SYNTHETIC_PAGES", 4)
    monkeypatch.setattr(clean_documents, "OLD_SHEETS", 4)
    monkeypatch.setattr(clean_documents, "PATCH", {"unet": 32, "autoencoder": 32})
    monkeypatch.setattr(clean_documents, "PATCHES_PER_PAGE", 4)
    real = pages.pages

    def small_pages(*words, height=208, width=272, **options):
        return real(*words, height=min(height, 208), width=min(width, 272), **options)

    monkeypatch.setattr(pages, "pages", small_pages)


def words_of(name, *more):
    return [*SHORT, *SCRIPTS[name].split(), *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run a script shortly, once for all tests, and return its folder and what it printed."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setattr(sys, "stdout", open("out.txt", "w"))
                patch.setattr(RunFolder, "plot", PLOT)
                importlib.import_module(name).main(words_of(name))
                sys.stdout.close()
            [run_folder] = (folder / "runs").iterdir()
            done[name] = run_folder, (folder / "out.txt").read_text()
        return done[name]

    return run


def readme_imports():
    """Return the import lines that README says a copied build function needs."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"<!-- imports -->\n```python\n(.*?)```", text, re.S)
    return block


def build_functions(name):
    """Return the functions of a script that build on nothing but layers, and its own layers."""
    script = importlib.import_module(name)
    own = {n: v for n, v in vars(script).items() if getattr(v, "__module__", "") == name}
    whole = ("build_and_compile", "build_vae", "build_watermark")
    builders = [v for n, v in own.items() if n.startswith("build_") and n not in whole]
    layer = [v for v in own.values() if inspect.isclass(v) and issubclass(v, keras.layers.Layer)]
    return builders, [v for v in layer if not issubclass(v, keras.Model)]


def test_build_functions_work_pasted_alone_under_readmes_imports(tmp_path):
    """All of them in one fresh process, each in a file of its own."""
    names, expected = [], []
    for name in EVERY:
        builders, own_layers = build_functions(name)
        assert builders
        for builder in builders:
            parts = [part for part in own_layers if part.__name__ in inspect.getsource(builder)]
            lines = [readme_imports(), *map(inspect.getsource, [*parts, builder])]
            (tmp_path / f"{name}_{builder.__name__}.py").write_text("\n".join(lines))
            names.append((f"{name}_{builder.__name__}", builder.__name__))
            expected.append(str(builder().count_params()))
    calls = "\n".join(
        f"import {file} as m; print(m.{name}().count_params())" for file, name in names
    )
    done = python("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{calls}", cwd=tmp_path)
    assert done.stdout.split() == expected, done.stderr


@each_script
def test_a_run_leaves_what_was_announced_and_nothing_else(name, finished):
    folder, printed = finished(name)
    script = importlib.import_module(name)
    announced = {*script.FIGURES, *getattr(script, "MODELS", [])}
    always = {"model.keras", "history.csv", "metrics.json", "loss.png", "checkpoint"}
    assert {path.name for path in folder.iterdir()} - {"encoder.png", "decoder.png"} == (
        announced | always
    )
    for figure in folder.glob("*.png"):
        with Image.open(figure) as image:
            assert min(image.size) > 200
            assert np.asarray(image.convert("L")).std() > 5, figure
    assert printed.splitlines()[-1].endswith(f"Results are in runs/{folder.name}/")
    with (folder / "history.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


@each_script
def test_metrics_json_has_the_schema(name, finished):
    report = report_of(finished(name)[0])
    assert list(report) == KEYS + ["typical"] * (name in ("denoise_mnist", "vae_fashion"))
    assert report["script"] == name
    assert report["dataset"]["source"] == "synthetic"
    assert list(report["dataset"]) == ["name", "source", "train", "validation", "test"]
    assert (report["epochs"], report["seed"], report["recipe"]) == (2, 0, "fast")
    assert list(report["versions"]) == ["python", "keras", "tensorflow", "numpy"]
    assert (
        report["parameters"]
        == trained_models.load_model(
            finished(name)[0] / "model.keras", importlib.import_module(name).Settings.names
        )[0].count_params()
    )
    assert 100 < report["peak_memory_mb"] < 100_000
    assert 0 < report["seconds_training"] < report["seconds_total"]
    assert all(np.isfinite(list(report["test"].values())))


@each_script
def test_a_given_model_is_evaluated_without_training_and_gives_the_same(name, finished):
    folder, _ = finished(name)
    before = contents(folder)
    words = [word for word in words_of(name) if word not in ("--epochs", "2")]
    for flag in ("--architecture", "--batch-size"):
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
    if name.startswith("watermark"):
        words = [word for word in words if word not in ("--noise", "0.1")]
    importlib.import_module(name).main([*words, "--model", str(folder / "model.keras")])
    [evaluation] = Path("runs").iterdir()
    assert evaluation.name == f"{folder.name}_evaluation"
    report = report_of(evaluation)
    assert report["test"] == pytest.approx(report_of(folder)["test"], rel=1e-5)
    assert report["recipe"] is report["epochs"] is report["seconds_training"] is None
    assert report["architecture"] == report_of(folder)["architecture"]
    assert not (evaluation / "history.csv").exists()
    assert contents(folder) == before


@each_script
def test_a_stopped_training_resumes_as_if_nothing_had_happened(name, finished, figures_left_out):
    main, whole = importlib.import_module(name).main, finished(name)[0]
    theirs = Path("runs", whole.name, "mine.txt")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    note = stop_after_one_epoch(main, words_of(name))
    stopped = Path("runs", f"{whole.name}_2")
    assert f"Go on with: python {name}.py" in note
    assert note.endswith(f"--output-dir {stopped} --resume")
    assert not (stopped / "metrics.json").exists()
    main(words_of(name, "--resume"))
    assert sorted(Path("runs").iterdir()) == [theirs.parent, stopped]
    assert list(theirs.parent.iterdir()) == [theirs]
    assert report_of(stopped)["test"] == pytest.approx(report_of(whole)["test"], rel=1e-5)
    losses = [
        [row["loss"] for row in csv.DictReader((folder / "history.csv").open())]
        for folder in (whole, stopped)
    ]
    assert losses[0] == losses[1]
    assert {path.name for path in stopped.iterdir()} == {path.name for path in whole.iterdir()}


def test_models_reload_in_a_fresh_process(finished, tmp_path):
    part = {"vae_fashion": "decoder", "watermark_ae": "extractor", "watermark_photo": "extractor"}
    paths = [finished(name)[0] / f"{part.get(name, 'model')}.keras" for name in SCRIPTS]
    models = [keras.saving.load_model(path, compile=False) for path in paths]
    rng = np.random.default_rng(0)
    shapes = [[side or 32 for side in model.input_shape[1:]] for model in models]
    inputs = [rng.uniform(size=(2, *shape)).astype("float32") for shape in shapes]
    for model, x, there in zip(
        models, inputs, predict_elsewhere(paths, inputs, tmp_path), strict=True
    ):
        np.testing.assert_allclose(model.predict(x, verbose=0), there, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_help_ends_with_examples_and_lists_the_flags(name, capsys):
    script = importlib.import_module(name)
    with pytest.raises(SystemExit) as info:
        script.main(["--help"])
    text = capsys.readouterr().out
    assert info.value.code == 0
    assert f"\nexamples:\n  python {name}.py" in text
    for flag in ("--epochs", "--limit", "--resume", "--seed", "--model", "--output-dir"):
        assert flag in text


@each_script
def test_wrong_words_and_files_end_in_one_line(name, error_of, tmp_path):
    main = importlib.import_module(name).main
    assert error_of(main, "--epochs", "0").startswith(f"{name}.py: error: argument --epochs: '0'")
    assert "is not a whole number from 1 to" in error_of(main, "--epochs", "9" * 40)
    assert "from 0 to 4.29497e+09" in error_of(main, "--seed", 2**32)
    assert "from 10 to" in error_of(main, "--limit", "3")
    assert "unrecognized arguments: --nosie" in error_of(main, "--nosie", "1")
    assert "none.keras: no such file" in error_of(main, "--synthetic", "--model", "none.keras")
    assert "--epochs has no effect here; it is for training" in error_of(
        main, "--model", "none.keras", "--epochs", "3"
    )
    if name != "watermark_photo":
        assert "--recipe tutorial is now --recipe published" in error_of(
            main, "--recipe", "tutorial"
        )
        assert "exclude each other" in error_of(main, "--synthetic", "--data-dir", ".")
    (tmp_path / "text.keras").write_text("no model")
    assert "not a model that can be loaded" in error_of(
        main, "--synthetic", "--model", "text.keras"
    )
    inputs = keras.Input((28, 28, 1))
    other = keras.Model(inputs, keras.layers.Conv2D(1, 3)(inputs), name="other")
    trained_models.save_model(other, tmp_path / "other.keras")
    assert "holds a model named 'other'" in error_of(main, "--synthetic", "--model", "other.keras")
    assert "no interrupted training there" in error_of(main, *words_of(name), "--resume")
    (tmp_path / "file").write_text("")
    assert "choose another --output-dir" in error_of(
        main, *words_of(name), "--output-dir", tmp_path / "file" / "run"
    )
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("recipe", ["fast", "published"])
@pytest.mark.parametrize("name", ["denoise_mnist", "denoise_fashion", "watermark_ae"])
def test_no_noise_of_training_is_that_of_validation_or_test(name, recipe, seed, monkeypatch):
    """By the seeds that each part's noise is made with."""
    script, seen = importlib.import_module(name), {"train": set(), "other": set()}
    real = np.random.default_rng

    class StopError(Exception):
        pass

    def note(seed=None):
        seen[phase].add(seed if isinstance(seed, int) else repr(seed))
        return real(seed)

    def fit(model, dataset, **settings):
        nonlocal phase
        phase = "train"
        next(iter(dataset))
        raise StopError

    real_batches = script.batches.denoising_batches

    def noted_batches(*words, **options):
        nonlocal phase
        phase = "train"
        made = real_batches(*words, **options)
        phase = "other"
        return made

    phase = "other"
    monkeypatch.setattr(np.random, "default_rng", note)
    monkeypatch.setattr(keras.Model, "fit", fit)
    monkeypatch.setattr(script.batches, "denoising_batches", noted_batches)
    words = f"--synthetic --limit 20 --epochs 1 --recipe {recipe} --seed {seed}".split()
    with pytest.raises(StopError):
        script.main(words)
    assert seen["train"]
    assert not seen["train"] & seen["other"]
    assert script.batches.seed_for("test") not in seen["train"]
    assert script.batches.seed_for("validation") in seen["other"]


@pytest.mark.parametrize("name", ["denoise_mnist", "vae_fashion"])
def test_a_model_trained_in_bfloat16_is_saved_in_float32(name, monkeypatch, figures_left_out):
    script = importlib.import_module(name)
    monkeypatch.setattr(script.command_line, "_refuse_bfloat16", lambda kind: None)
    words = "--synthetic --limit 20 --epochs 1 --precision mixed_bfloat16 --output-dir run"
    try:
        script.main([*words.split(), *SCRIPTS[name].split()])
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras.saving.load_model("run/model.keras", compile=False)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    again = ["--synthetic", "--limit", "20", "--model", "run/model.keras"]
    script.main([*again, "--output-dir", "evaluation"])
    metric = next(iter(report_of("run")["test"]))
    assert report_of("evaluation")["test"][metric] == pytest.approx(
        report_of("run")["test"][metric], rel=1e-4
    )


def test_every_script_stands_here():
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"app"}
    assert scripts == set(EVERY)


def test_no_script_imports_imgaug_before_it_is_needed():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "".join(f"import {name}\n" for name in EVERY)
    code += "print({'imgaug'} & set(sys.modules))"
    assert python("-c", code).stdout.strip() == "set()"


def test_main_functions_are_short_and_docstrings_too():
    for name in EVERY:
        script = importlib.import_module(name)
        assert len(inspect.getsource(script.main).splitlines()) <= 60, name
        assert len(script.__doc__.split()) <= 260, name
