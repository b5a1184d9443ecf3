"""Trains on one and on two devices, and writes what came out as JSON; run by test_devices.py.

A process of its own: a CPU can be split into logical devices only before TensorFlow is used.
"""

import contextlib
import importlib
import json
import sys
from pathlib import Path

import conftest  # before the project's own: it finds them
import keras
import numpy as np
import pytest
import tensorflow

import clean_documents
import latent_spaces
import vae_fashion
import watermark_ae
from common import batches, command_line, data, devices, run_folder

SCRIPTS = {  # the layers' noise set to zero: it is another one on each device
    "denoise_mnist": "--limit 100 --recipe published",
    "denoise_fashion": "--limit 100 --batch-size 32",
    "clean_documents": "--limit 12 --batch-size 4 --architecture autoencoder",
    "vae_fashion": "--limit 100 --architecture dense --batch-size 32",
    "watermark_ae": "--limit 100 --noise 0",
    "watermark_photo": "--limit 20 --batch-size 8 --noise 0",
}
TRAININGS = ["plain_2", "sparse", "contractive", "variational_2"]
NOISY = "--synthetic --limit 101 --architecture dense --batch-size 32 --epochs 2".split()


class StopError(Exception):
    """Training is done, and what follows needs one device."""


def stop(run):
    raise StopError


def history_of(main, words, folder):
    """Train, skip the evaluation, and return the losses of all epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder.RunFolder, "best_model", stop)
        with contextlib.suppress(StopError):
            main([*words, "--output-dir", folder])
    rows = run_folder.read_state(Path(folder, run_folder.STATE))[1]
    return [[row["loss"], row["val_loss"]] for row in rows]


def losses_on(count):
    """Return {script: losses} of trainings on so many devices, without noise in the layers."""
    found = {}
    for name, words in SCRIPTS.items():
        words = [*f"--synthetic --epochs 2 --devices {count} {words}".split()]
        found[name] = history_of(importlib.import_module(name).main, words, f"{name}_{count}")
    words = f"--synthetic --limit 100 --epochs 2 --devices {count}".split()
    settings = command_line.parse(
        latent_spaces.Settings, latent_spaces.__doc__, {"five": latent_spaces.RECIPES}, words
    )
    digits = data.load_mnist(None, True, 100, 0)
    for name in TRAININGS:
        _, losses = latent_spaces.train(name, settings, digits)
        found[name] = [[losses["loss"], losses["val_loss"]]]
    return found


def small(patch):
    """Make the trainings ones of seconds."""
    patch.setattr(batches, "MOST_PASSES", 1)
    patch.setattr(clean_documents, "SYNTHETIC_PAGES", 4)
    patch.setattr(clean_documents, "PATCH", {"autoencoder": 32})
    patch.setattr(clean_documents, "PATCHES_PER_PAGE", 4)
    few = {name: latent_spaces.TRAININGS[name] for name in TRAININGS}
    few = {name: (*row, {**recipe, "steps": 20}) for name, (*row, recipe) in few.items()}
    patch.setattr(latent_spaces, "TRAININGS", few)


def noise_of_layers():
    """Return how different the outputs of two devices are for the same input, before and after."""
    settings = command_line.Settings(devices=2)
    image = np.zeros((2, 28, 28, 1), "float32")
    with devices.scope(settings):
        model = watermark_ae.build_watermark(noise=0.5)
    strategy = model.distribute_strategy

    @tensorflow.function
    def recovered():
        inputs = {"image": image, "watermark": image}
        return strategy.run(lambda: model(inputs, training=True)["recovered"])

    def difference():
        first, second = strategy.experimental_local_results(recovered())
        return float(np.abs(first - second).max())

    before = difference()
    devices.set_apart(model)
    return before, difference()


def noisy_trainings(patch):
    """Return the losses of a VAE's training, whole and resumed, and the noise of each step."""
    noise, normal = [], keras.random.normal

    def noted(shape, seed):
        values = normal(shape, seed=seed)
        context = tensorflow.distribute.get_replica_context()
        if context and context.num_replicas_in_sync == 2:
            number = context.replica_id_in_sync_group
            tensorflow.py_function(
                lambda number, x: noise.append([int(number), x.numpy()[:2].ravel().tolist()]),
                [number, values],
                [],
            )
        return values

    patch.setattr(keras.random, "normal", noted)
    words = [*NOISY, "--devices", "2"]
    history_of(vae_fashion.main, words, "whole")
    steps = len(noise)
    with conftest.signals_kept():  # so that this process can be ended afterwards
        conftest.stop_after_one_epoch(vae_fashion.main, [*words, "--output-dir", "stopped"])
    history_of(vae_fashion.main, [*words, "--resume"], "stopped")
    histories = [
        run_folder.read_state(Path(folder, run_folder.STATE))[1] for folder in ("whole", "stopped")
    ]
    return [[[r["loss"], r["val_loss"]] for r in rows] for rows in histories], noise[:steps]


def main():
    [cpu] = tensorflow.config.list_physical_devices("CPU")
    halves = [tensorflow.config.LogicalDeviceConfiguration() for _ in range(2)]
    tensorflow.config.set_logical_device_configuration(cpu, halves)
    # Of trainings this short, to optimise the graph is most of the work.
    tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "available", lambda: ["CPU:0", "CPU:1"])  # also beside a GPU
        found = {"layers": noise_of_layers()}
        found["resumed"], found["noise"] = noisy_trainings(patch)
        small(patch)
        patch.setattr(keras.random, "normal", lambda shape, seed: keras.ops.zeros(shape))
        # On one device without a graph, which takes longer to make than these few steps.
        tensorflow.config.run_functions_eagerly(True)
        found["one"] = losses_on(1)
        tensorflow.config.run_functions_eagerly(False)
        found["two"] = losses_on(2)
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
