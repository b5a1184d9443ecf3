"""Statistics of the noise, up to sampling errors."""

import math

import numpy as np
import pytest
from conftest import ROOT, python

from common import noise

GRAY = 100 / 255


def test_gaussian_statistics():
    images = np.full((100, 28, 28, 1), 0.5, "float32")
    added = noise.gaussian(images, 0.1, seed=3) - images  # 0.5 is five sigmas, so nothing clips
    count = images.size
    assert added.mean() == pytest.approx(0, abs=4 * 0.1 / math.sqrt(count))
    assert added.std() == pytest.approx(0.1, rel=4 / math.sqrt(2 * count))
    assert (abs(added) < 0.1).mean() == pytest.approx(0.6827, abs=0.008)
    left, right = added[:, :, :-1].ravel(), added[:, :, 1:].ravel()
    assert np.corrcoef(left, right)[0, 1] == pytest.approx(0, abs=4 / math.sqrt(count))


@pytest.mark.parametrize(
    ("add_noise", "amount", "unchanged"),
    [(noise.gaussian, 0.5, 0), (noise.salt_and_pepper, 0.2, 0.8)],
)
def test_noise_repeats_by_seed_is_clipped_and_leaves_its_input_alone(add_noise, amount, unchanged):
    images = np.random.default_rng(0).random((20, 30, 26, 1), dtype="float32")
    before = images.copy()
    noisy = add_noise(images, amount, seed=[1, 2])
    np.testing.assert_array_equal(images, before)
    assert noisy.dtype == np.float32
    assert (noisy.min(), noisy.max()) == (0, 1)
    assert abs((noisy == images).mean() - unchanged) < 0.02  # bit for bit
    np.testing.assert_array_equal(noisy, add_noise(images, amount, seed=[1, 2]))
    assert not np.array_equal(noisy, add_noise(images, amount, seed=[1, 3]))
    np.testing.assert_array_equal(add_noise(images, 0, seed=0), images)


def test_salt_and_pepper_statistics():
    """Share, distribution and independence of the pixels replaced in a constant image."""
    images = np.full((250, 28, 28, 1), GRAY, "float32")
    noisy = noise.salt_and_pepper(images, 0.1, seed=5)
    replaced = noisy != images
    assert abs(replaced.mean() - 0.1) < 4 * math.sqrt(0.09 / images.size) + 0.1 * 0.003
    values = noisy[replaced]
    # Beta(0.5, 0.5): P(b < t) = (2 / π)·asin(√t); mean 1/2, variance 1/8.
    error = 4 / math.sqrt(len(values))
    for t in (0.1, 0.25, 0.5, 0.75, 0.9):
        expected = 2 / math.pi * math.asin(math.sqrt(t))
        assert abs((values < t).mean() - expected) < error * 0.5 + 0.005
    assert values.mean() == pytest.approx(0.5, abs=error * 0.36)
    assert values.var() == pytest.approx(1 / 8, abs=error * 0.13)
    pure = ((values == 0) | (values == 1)).mean()
    assert pure == pytest.approx(4 / math.pi * math.asin(math.sqrt(0.5 / 255)), abs=0.01)
    neighbors = (replaced[:, :-1] & replaced[:, 1:]).mean()
    assert neighbors == pytest.approx(0.01, abs=0.001)
    per_image = replaced.sum((1, 2, 3))
    assert per_image.std() == pytest.approx(math.sqrt(784 * 0.09), rel=0.2)


def test_importing_imgaug_leaves_numpy_as_it_was():
    noise.salt_and_pepper(np.zeros((1, 4, 4, 1), "float32"), 0.1, seed=0)
    assert hasattr(np, "sctypes") == (np.__version__ < "2")


def test_a_missing_system_library_is_named_with_its_package(tmp_path):
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file')"
    )
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "import numpy as np\n"
        "from common import cli, noise\n"
        "cli.run(lambda: noise.salt_and_pepper(np.zeros((1, 4, 4, 1), 'float32'), 0.1, seed=0))"
    )
    ended = python("-c", code)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "libGL.so.1" in ended.stderr
    assert "apt install libgl1 libglib2.0-0" in ended.stderr
