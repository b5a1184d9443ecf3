"""How many images a second does each script train on and predict, and who keeps whom waiting?

Each script runs as it is up to its own call of `fit`. There its own training steps are timed twice,
in turn: fed from the script's stream of batches, and fed with one batch over and over, which costs
nothing to make. What the first takes longer is the input pipeline's share of a step.

Run it:
  python benchmarks/speed.py --data-dir DIR                  all scripts
  python benchmarks/speed.py denoise_mnist --data-dir DIR    one of them
"""

import argparse
import contextlib
import importlib
import io
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line, metrics  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow  # noqa: E402

SCRIPTS = ["denoise_mnist", "denoise_fashion", "clean_documents", "vae_fashion", "watermark_ae"]
ROUNDS = 5
SECONDS = 3  # about as long is trained in each half of a round


class _Measured(Exception):  # noqa: N818
    """Leaves a script's main with what was measured in place of its `fit`."""


class _Clock(keras.callbacks.Callback):
    """Takes the mean time of the steps after the first three, which fill the queues."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            self.started, self.first = time.perf_counter(), batch
        elif batch > 2:
            self.seconds = (time.perf_counter() - self.started) / (batch - self.first)


def _seconds_per_step(fit, model, batches, steps):
    clock = _Clock()
    fit(model, batches, steps_per_epoch=steps + 3, callbacks=[clock], shuffle=False, verbose=0)
    return clock.seconds


def measure(script, words):
    """Return what one script's training step and prediction cost.

    Args:
        script: one of `SCRIPTS`.
        words: its command line.

    Returns:
        A dict: `step_ms`, from the script's stream; `training_images_per_second`;
        `input_share`, the part of a step's time spent waiting for batches;
        `predict_images_per_second`; and `image`, the height and width of what was predicted.
    """
    fit = keras.Model.fit

    def measured_fit(model, batches, **settings):
        batch = next(iter(batches))
        same = tensorflow.data.Dataset.from_tensors(batch).repeat()
        steps = int(np.clip(SECONDS / _seconds_per_step(fit, model, same, 5), 10, 200))
        rounds = [
            [_seconds_per_step(fit, model, source, steps) for source in (batches, same)]
            for _ in range(ROUNDS)
        ]
        streamed, repeated = np.median(rounds, axis=0)

        inputs = settings["validation_data"][0]
        size = settings.get("validation_batch_size", 500)
        predicting = []
        for _ in range(1 + ROUNDS):  # the first time it compiles
            started = time.perf_counter()
            model.predict(inputs, batch_size=size, verbose=0)
            predicting.append(time.perf_counter() - started)
        images = tensorflow.nest.flatten(inputs)[0]
        raise _Measured(
            {
                "step_ms": 1000 * streamed,
                "training_images_per_second": len(tensorflow.nest.flatten(batch)[0]) / streamed,
                "input_share": max(0.0, 1 - repeated / streamed),
                "predict_images_per_second": len(images) / np.median(predicting[1:]),
                "image": list(images.shape[1:3]),
            }
        )

    keras.Model.fit = measured_fit
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(script).main([*words, "--output-dir", f"{folder}/run"])
    except _Measured as measured:
        return measured.args[0]
    finally:
        keras.Model.fit = fit


def check_scripts(names, known=SCRIPTS):
    """Return the scripts to run: the named ones, or all; raise UserError for an unknown name."""
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no such script; there are {', '.join(known)}")
    return names or list(known)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="(default: all)")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="with the datasets")
    args = parser.parse_args(argv)
    speeds = {}
    for script in check_scripts(args.scripts):
        speeds[script] = measure(script, ["--data-dir", args.data_dir])
        del speeds[script]["image"]
    metrics.print_table(speeds)


if __name__ == "__main__":
    command_line.start(main)
