"""Random streams by name, batches that repeat, the learning-rate schedule, the output bias."""

import hashlib
import math

import keras
import numpy as np
import tensorflow

from common import devices

LEAST_WARM_UP = 100  # steps
MOST_PASSES = 20  # in an epoch, over few images


def seed_for(*names):
    """Return a seed for numpy.random.default_rng that belongs to these names alone.

    Such as ("validation",) or (7, "train", 12). Numbers would meet: the noise of training with
    seed 1 and that of a validation set with seed 1 are the same, and so are those of 7 and [7, 0].
    """
    return int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:16], "big")


class Batches:
    """An endless stream of shuffled batches, cut into epochs.

    A batch depends on the seed and on its number alone. So a run repeats exactly, and a resumed
    one sees what it would have seen without the interruption.
    """

    def __init__(self, settings, count, make_batch, few=False):
        """Describe the stream that a recipe and its flags ask for.

        Args:
            settings: `command_line.Settings`. An epoch ends after its `max_steps_per_epoch`, and
                the next one goes on from there. Its devices share each batch; for the last one of
                a pass, the examples that come last in its order may be left out.
            count: how many training examples there are.
            make_batch: called with an array of their chosen indices and a seed for random numbers;
                returns (inputs, targets), each an array or a dict or tuple of arrays.
            few: whether a short epoch keeps its length where there are few examples, but for
                MOST_PASSES over them: on a hundred pictures it would be over after a few steps.
        """
        self.count, self.make_batch = count, make_batch
        self.batch_size, self.seed = settings.batch_size, settings.seed
        self._shown = devices.whole_parts(count, settings.devices)
        self.batches_per_pass = math.ceil(self._shown / self.batch_size)
        most, passes = settings.max_steps_per_epoch, MOST_PASSES if few else 1
        self.steps_per_epoch = self.batches_per_pass
        if most:
            self.steps_per_epoch = min(most, passes * self.batches_per_pass)
        self._order = (None, None)

    def batch(self, step):
        """Return (inputs, targets) of a training step, counted from 0."""
        number, position = divmod(step, self.batches_per_pass)
        if self._order[0] != number:
            generator = np.random.default_rng(seed_for(self.seed, "order", number))
            self._order = number, generator.permutation(self.count)[: self._shown]
        chosen = self._order[1][position * self.batch_size :][: self.batch_size]
        return self.make_batch(chosen, seed=seed_for(self.seed, "train", step))

    def dataset(self, epoch=0):
        """Return the stream from an epoch on, as a tf.data.Dataset.

        The next batch is made while the network trains on this one.
        """
        flatten = tensorflow.nest.flatten
        sample = self.make_batch(np.arange(1), seed=0)
        flat = flatten(sample)

        def load(step):
            # Copied: TensorFlow takes an array's memory as it is and may write its results there,
            # which another tensor of the same array, or the training images, would show.
            arrays = tensorflow.numpy_function(
                lambda step: [array.copy() for array in flatten(self.batch(int(step)))],
                [step],
                [array.dtype for array in flat],
            )
            for tensor, array in zip(arrays, flat, strict=True):
                tensor.set_shape((None, *array.shape[1:]))
            return tensorflow.nest.pack_sequence_as(sample, arrays)

        steps = tensorflow.data.Dataset.range(epoch * self.steps_per_epoch, np.iinfo("int64").max)
        return steps.map(load).prefetch(2)


def denoising_batches(settings, clean, corrupt, few=False):
    """Return the stream of (noisy, clean) batches of a recipe.

    `published` adds the noise once, before training; `fast` adds it afresh to each batch.
    `corrupt` is called with images and a seed; `few` is that of `Batches`.
    """
    published = settings.recipe == "published"
    noisy = corrupt(clean, seed_for(settings.seed, "train")) if published else None

    def make_batch(chosen, seed):
        fresh = corrupt(clean[chosen], seed) if noisy is None else noisy[chosen]
        return fresh, clean[chosen]

    return Batches(settings, len(clean), make_batch, few)


def warm_up_and_cosine(peak, steps, warm_up=0.2):
    """Return a learning rate that rises to `peak`, then falls to zero along half a cosine.

    Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983. It rises over a share `warm_up` of
    the steps, but over LEAST_WARM_UP at least: a training of a few steps never gets to the peak,
    where the first of them would ruin the weights.
    """
    rising = max(int(warm_up * steps), LEAST_WARM_UP)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 50,
        warmup_target=peak,
        warmup_steps=rising,
        decay_steps=max(steps - rising, 1),
    )


def init_output_bias(model, images):
    """Set the bias of the sigmoid at a model's end so that, untrained, it answers the mean grey.

    Otherwise it answers 0.5, and the first steps are spent on making all pixels darker: Karpathy
    2019, "init well", https://karpathy.github.io/2019/04/25/recipe/

    The model's last layer with weights has a sigmoid and a bias; `images`, in [0, 1], are what it
    is to learn.
    """
    bias = [layer for layer in model.layers if layer.weights][-1].bias
    mean = float(np.clip(np.mean(images), 0.01, 0.99))
    bias.assign(np.full(bias.shape, np.log(mean / (1 - mean))))
