import keras
import numpy as np
import pytest

from common import metrics
from common.batches import Batches, init_output_bias, seed_for, warm_up_and_cosine
from common.command_line import Settings


def test_streams_of_different_names_never_meet():
    names = [(seed,) for seed in range(50)] + [(seed, 0) for seed in range(50)]
    names += [(s, "train") for s in range(50)] + [("validation",), ("test",), ("1",), (1, "1")]
    assert len({seed_for(*name) for name in names}) == len(names)
    draws = {np.random.default_rng(seed_for(*name)).random() for name in names}
    assert len(draws) == len(names)
    # What would have met before.
    assert np.random.default_rng(7).random() == np.random.default_rng([7, 0]).random()
    assert seed_for(7) != seed_for(7, 0)


def test_streams_are_the_same_everywhere():
    """A test set must not change with the Python or the machine."""
    assert seed_for("test") % 10**9 == 561_741_404
    assert seed_for(3, "train", 5) == seed_for(3, "train", 5)


def batches(count=10, make_batch=lambda chosen, seed: (chosen, seed), **changes):
    return Batches(Settings(**{"batch_size": 4, "seed": 0, **changes}), count, make_batch)


def test_a_pass_shows_every_example_once_and_the_next_in_another_order():
    stream = batches()
    assert stream.steps_per_epoch == 3
    first, second = (
        [i for step in steps for i in stream.batch(step)[0]] for steps in ([0, 1, 2], [3, 4, 5])
    )
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_short_epochs_go_on_where_the_last_one_stopped():
    stream = batches(max_steps_per_epoch=2)
    assert stream.steps_per_epoch == 2
    seen = [i for step in (0, 1, 2) for i in stream.batch(step)[0]]
    assert sorted(seen) == list(range(10))


def test_a_batch_depends_on_seed_and_number_alone():
    one, two = batches(seed=3), batches(seed=3)
    for step in (7, 2, 5):
        two.batch(step)
    np.testing.assert_array_equal(one.batch(4)[0], two.batch(4)[0])
    assert one.batch(4)[1] == two.batch(4)[1] != one.batch(5)[1]
    assert any((one.batch(s)[0] != batches(seed=4).batch(s)[0]).any() for s in range(2))


def test_the_stream_starts_at_an_epoch_and_keeps_structure_and_shape():
    images = np.arange(20, dtype="float32").reshape(10, 2, 1)

    def make_batch(chosen, seed):
        return {"image": images[chosen], "seed": np.full(len(chosen), seed % 997)}, images[chosen]

    stream = batches(make_batch=make_batch)
    dataset = stream.dataset(2)
    inputs, targets = next(iter(dataset))
    assert dataset.element_spec[0]["image"].shape == (None, 2, 1)
    assert inputs["seed"].numpy().tolist() == [seed_for(0, "train", 6) % 997] * 4
    np.testing.assert_array_equal(inputs["image"], stream.batch(6)[1])
    np.testing.assert_array_equal(targets, stream.batch(6)[1])


def test_no_two_tensors_share_memory():
    """TensorFlow takes aligned memory over, and may write what it computes where it read it."""
    raw = np.ones(4096 + 64, "uint8")
    images = raw[-raw.ctypes.data % 64 :][:4096].reshape(4, 1024)
    stream = batches(4, lambda chosen, seed: {"image": images, "bits": images})
    found = [np.asarray(memoryview(value)) for value in next(iter(stream.dataset())).values()]
    assert not any(np.shares_memory(array, images) for array in found)
    assert not np.shares_memory(*found)


@pytest.mark.parametrize(("images", "answer"), [([[0.6, 0.0]], 0.3), ([[0.0, 0.0]], 0.01)])
def test_init_output_bias_answers_the_mean_grey_value(images, answer):
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, activation="sigmoid", kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, keras.layers.Reshape((2, 2))(x))
    init_output_bias(model, np.array(images))
    np.testing.assert_allclose(model(np.ones((5, 3))), np.full((5, 2, 2), answer), rtol=1e-5)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    schedule = warm_up_and_cosine(0.5, 1_000, warm_up=0.2)
    rates = [float(schedule(step)) for step in (0, 100, 200, 600, 999, 1_000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[1] == pytest.approx((0.01 + 0.5) / 2)
    assert rates[2] == pytest.approx(0.5)
    assert rates[3] == pytest.approx(0.25, abs=1e-3)
    assert rates[4] == pytest.approx(0, abs=1e-4)
    assert rates[5] == 0
    short = warm_up_and_cosine(0.5, 6)
    assert max(float(short(step)) for step in range(6)) < 0.05


def test_table_is_aligned(capsys):
    metrics.print_table({"a": {"mse": 0.5, "psnr": 10.0}, "longer": {"mse": 0.25, "psnr": 9.5}})
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["longer", "0.2500", "9.5000"]
