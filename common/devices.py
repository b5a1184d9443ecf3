"""Training on several devices of one machine: each one computes a part of every batch.

The parts of a batch must be equal. A loss is the mean over a part, and the mean of those means is
the mean over the batch only where no part is larger than another.
"""

import contextlib
import functools

import keras
import tensorflow

from common import UserError

# How far apart the devices' random numbers start, in steps: further than a training goes.
APART = 2**24


def available():
    """Return the names of the devices that can train: the GPUs, or without one the CPU."""
    found = tensorflow.config.list_logical_devices("GPU")
    found = found or tensorflow.config.list_logical_devices("CPU")
    return [device.name.removeprefix("/device:") for device in found]


def choose(asked, batch_size=None):
    """Return how many devices train, and say which; `asked` is a number, or "all".

    Raises UserError if there are fewer, or if they can't share a batch of `batch_size`.
    """
    names = available()
    count = len(names) if asked == "all" else asked
    if count > len(names):
        remark = "" if names[0].startswith("GPU") else "; the CPU is one, whatever its cores"
        raise UserError(
            f"--devices {asked}: there {'is' if len(names) == 1 else 'are'} {len(names)} here, "
            f"{', '.join(names)}{remark}"
        )
    if batch_size:
        see_that_shared(batch_size, count)
    if count == 1:
        print(f"Training on one device, {names[0]}, as without --devices.", flush=True)
    else:
        print(f"Training on {count} devices: {', '.join(names[:count])}.", flush=True)
    return count


def see_that_shared(batch_size, count):
    """Raise UserError where a batch can't be cut into equal parts."""
    if batch_size % count:
        raise UserError(
            f"{batch_size} examples in a step can't be shared by {count} devices; give a "
            f"--batch-size that is a multiple of {count}, or another --devices"
        )


def whole_parts(examples, count):
    """Return how many examples to use so that the last batch can be shared: all but a few.

    Raises UserError if none would be left.
    """
    if examples < count:
        raise UserError(f"{examples} images can't be shared by {count} devices; use more images")
    return examples - examples % count


def scope(settings):
    """Return the context in which to build and compile the model that `fit` will train.

    With more than one device, each has a copy of the weights. Each computes the gradient of its
    part of the batch; the copies all take the same step, along the sum. So batch size and learning
    rate mean what they mean on one device.
    """
    if settings.devices == 1:
        return contextlib.nullcontext()
    return _strategy(settings.devices).scope()


@functools.cache
def _strategy(count):
    """Return the one strategy of this process: two would mistake each other's gradients.

    Each numbers its collective operations from the same start.
    """
    return tensorflow.distribute.MirroredStrategy(available()[:count])


def set_apart(model):
    """Give each device random numbers of its own, in all layers of a model.

    The state of a layer's random numbers is copied to each device, as all variables are, and would
    add the same noise to each part of a batch. It is a seed and a number of steps; here the steps
    of each device start elsewhere. The first one's, and so those of a single device, stay.
    """
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            seed, step = keras.ops.convert_to_numpy(variable)
            copies = model.distribute_strategy.experimental_local_results(variable.value)
            for number, copy in enumerate(copies):
                copy.assign([seed, step + number * APART])


def validation(settings, inputs, targets, batch_size=500):
    """Return the arguments of `fit` for validation: `validation_data` and its batch size.

    Inputs and targets are arrays, or dicts of arrays. The devices of `settings` share each batch,
    the last one too: its size is rounded up to what they can share.
    """
    count = settings.devices
    examples = whole_parts(len(tensorflow.nest.flatten(inputs)[0]), count)
    pair = tensorflow.nest.map_structure(lambda array: array[:examples], (inputs, targets))
    return {"validation_data": pair, "validation_batch_size": -(-batch_size // count) * count}
