"""Training on two devices: two logical CPUs, in a process of its own."""

import json

import keras
import numpy as np
import pytest
import two_devices
from conftest import ROOT, python

import denoise_mnist
import latent_spaces
import watermark_ae
from common import UserError, command_line, devices
from common.batches import Batches

TWO = ["GPU:0", "GPU:1"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `two_devices.py` has found."""
    folder = tmp_path_factory.mktemp("devices")
    done = python(ROOT / "tests/two_devices.py", "found.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "found.json").read_text())
    return {**found, "folder": folder, "printed": done.stdout}


@pytest.mark.parametrize("name", [*two_devices.SCRIPTS, *two_devices.TRAININGS])
def test_two_devices_train_as_one_does(name, found):
    """The watermark's penalty is the logarithm of a mean, taken of each part."""
    one, two = np.array(found["one"][name]), np.array(found["two"][name])
    assert np.isfinite(one).all()
    np.testing.assert_allclose(two, one, rtol=1e-3 if name == "watermark_ae" else 1e-4)


def test_two_devices_leave_the_files_that_one_leaves(found):
    for name in two_devices.SCRIPTS:
        one, two = (
            {path.relative_to(folder) for path in folder.rglob("*")}
            for folder in (found["folder"] / f"{name}_{count}" for count in (1, 2))
        )
        assert one == two


def test_a_training_on_two_devices_resumes_as_if_nothing_had_happened(found):
    """Noise included: each device goes on with its own."""
    whole, stopped = found["resumed"]
    assert np.isfinite(whole).all()
    assert len(whole) == 2
    assert whole == stopped


def test_each_device_has_noise_of_its_own(found):
    noise = [{}, {}]
    for number, values in found["noise"]:
        noise[number].setdefault(tuple(values), len(noise[number]))
    assert len(noise[0]) == len(noise[1]) > 4  # steps, none of them the same
    assert not noise[0].keys() & noise[1].keys()
    before, after = found["layers"]  # Keras's own GaussianNoise
    assert before == 0
    assert after > 0.01


def test_what_is_printed_names_the_devices(found):
    assert "Training on one device, CPU:0, as without --devices.\n" in found["printed"]
    assert "Training on 2 devices: CPU:0, CPU:1.\n" in found["printed"]


def test_one_device_is_left_as_it_is():
    settings = command_line.parse(
        denoise_mnist.Settings, denoise_mnist.__doc__, {"autoencoder": denoise_mnist.RECIPES}, []
    )
    assert settings.devices == 1
    with devices.scope(settings):
        model = watermark_ae.build_watermark(noise=0.5)
    before = [keras.ops.convert_to_numpy(value) for value in model.variables]
    devices.set_apart(model)
    for value, was in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(value), was)


def test_more_devices_than_there_are_are_refused(error_of, monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ["CPU:0"])
    words = ["--synthetic", "--limit", "20", "--devices", "2"]
    for script in (denoise_mnist, latent_spaces):
        line = error_of(script.main, *words)
        assert "--devices 2: there is 1 here, CPU:0; the CPU is one, whatever its cores" in line
    monkeypatch.setattr(devices, "available", lambda: TWO)
    assert "--devices 3: there are 2 here, GPU:0, GPU:1\n" in error_of(
        denoise_mnist.main, "--devices", "3"
    )


@pytest.mark.parametrize("word", ["0", "-1", "two", "1.5", ""])
def test_devices_are_a_number_or_all(word, error_of):
    assert f"argument --devices: '{word}' is not a whole number" in error_of(
        denoise_mnist.main, "--devices", word
    )


def test_devices_are_for_training(error_of):
    line = error_of(denoise_mnist.main, "--devices", "all", "--input", "a.png")
    assert "--devices has no effect here; it is for training" in line


def test_a_batch_that_cannot_be_shared_is_refused(error_of, monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "available", lambda: [*TWO, "GPU:2"])
    assert (
        "32 examples in a step can't be shared by 3 devices; give a --batch-size that is a "
        "multiple of 3, or another --devices" in error_of(denoise_mnist.main, "--devices", "all")
    )
    assert "128 examples in a step can't be shared by 3 devices" in error_of(
        latent_spaces.main, "--devices", "3"
    )
    assert not (tmp_path / "runs").exists()


def test_the_last_batch_of_a_pass_can_be_shared_too():
    def batches(count, devices):
        settings = command_line.Settings(batch_size=4, seed=0, devices=devices)
        return Batches(settings, count, lambda chosen, seed: chosen)

    stream = batches(11, 2)
    passes = [[stream.batch(3 * number + step) for step in range(3)] for number in range(20)]
    assert [len(batch) for batch in passes[0]] == [4, 4, 2]
    assert all(len(np.unique(np.concatenate(each))) == 10 for each in passes)
    assert {i for each in passes for batch in each for i in batch} == set(
        range(11)
    )  # not always one
    assert batches(11, 1).batches_per_pass == 3
    with pytest.raises(UserError, match="7 images can't be shared by 8 devices"):
        batches(7, 8)


def test_validation_batches_can_be_shared_too():
    images = np.arange(13)
    for count, left, size in ((1, 13, 4), (2, 12, 4), (3, 12, 6), (8, 8, 8)):
        settings = command_line.Settings(devices=count)
        words = devices.validation(settings, {"image": images}, images, 4)
        inputs, targets = words["validation_data"]
        np.testing.assert_array_equal(inputs["image"], images[:left])
        np.testing.assert_array_equal(targets, images[:left])
        assert words["validation_batch_size"] == size
