import hashlib

import numpy as np
import pytest
from conftest import small_mnist, write_idx

from common import UserError, data


def as_images(array):
    return array[..., None].astype("float32") / 255


def check(images, arrays):
    """Compare what was loaded with what was written."""
    x = np.concatenate([images.x_train, images.x_validation])
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, as_images(arrays["x_train"]))
    y = np.concatenate([images.y_train, images.y_validation])
    np.testing.assert_array_equal(y, arrays["y_train"])
    np.testing.assert_array_equal(images.x_test, as_images(arrays["x_test"]))
    np.testing.assert_array_equal(images.y_test, arrays["y_test"])


@pytest.mark.parametrize("place", [".", "MNIST/raw", "mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_from_each_layout(tmp_path, place, zipped):
    arrays = small_mnist()
    write_idx(tmp_path / place, arrays, zipped)
    images = data.load_mnist(tmp_path)
    check(images, arrays)
    assert images.summary() == {
        "name": "MNIST",
        "source": "local",
        "train": 54,
        "validation": 6,
        "test": 30,
    }


def test_npz_is_read_and_limit_counts_validation_in(tmp_path):
    arrays = small_mnist()
    np.savez(tmp_path / "mnist.npz", **arrays)
    check(data.load_mnist(tmp_path), arrays)
    images = data.load_mnist(tmp_path, limit=20)
    counts = len(images.x_train), len(images.x_validation), len(images.x_test)
    assert counts == (18, 2, 20)


def test_validation_is_held_out_up_to_5000(tmp_path):
    arrays = small_mnist(train=60_000)
    np.savez(tmp_path / "mnist.npz", **arrays)
    images = data.load_mnist(tmp_path)
    assert (len(images.x_train), len(images.x_validation)) == (55_000, 5_000)


def damage_magic(content):
    return b"\x00\x00\x08\x07" + content[4:]


def damage_length(content):
    return content[:-100]


def damage_header(content):
    return content[:7]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_magic, "magic number 0x807 instead of 0x803"),
        (damage_length, "holds 46,940 values, its header says 47,040"),
        (damage_header, "cut off in its header"),
    ],
)
def test_damaged_idx_is_named(tmp_path, damage, words):
    write_idx(tmp_path, small_mnist(), zipped=False)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=words) as info:
        data.load_mnist(tmp_path)
    assert str(path) in str(info.value)


def test_gzip_that_is_cut_off_is_named(tmp_path):
    write_idx(tmp_path, small_mnist())
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"t10k-images.*broken or cut off"):
        data.load_mnist(tmp_path)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(UserError, match=r"t10k-images.*broken or cut off"):
        data.load_mnist(tmp_path)


def test_counts_that_differ_are_named(tmp_path):
    arrays = small_mnist()
    write_idx(tmp_path, {**arrays, "y_train": arrays["y_train"][:-1]})
    with pytest.raises(UserError, match="60 images but 59 labels"):
        data.load_mnist(tmp_path)


def test_one_of_four_files_missing_is_named(tmp_path):
    write_idx(tmp_path, small_mnist())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\[.gz\]: missing"):
        data.load_mnist(tmp_path)


def test_damaged_npz_is_named(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **small_mnist())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"mnist.npz: broken or cut off"):
        data.load_mnist(tmp_path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(UserError, match=r"not Keras's mnist.npz"):
        data.load_mnist(tmp_path)


def test_npz_with_pickled_objects_is_refused(tmp_path):
    arrays = small_mnist()
    arrays["x_train"] = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match=r"mnist.npz: broken or cut off .*allow_pickle"):
        data.load_mnist(tmp_path)


def test_missing_folder_and_missing_files_name_the_paths(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        data.load_mnist(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"looked for .*mnist.npz, .*MNIST/raw/train-images"):
        data.load_mnist(tmp_path)


@pytest.fixture
def served(server, tmp_path, monkeypatch):
    """A server that holds a small mnist.npz, whose checksum is the expected one."""
    arrays = small_mnist(seed=3)
    np.savez(tmp_path / "served.npz", **arrays)
    server.content = (tmp_path / "served.npz").read_bytes()
    server.arrays = arrays
    monkeypatch.setitem(
        data._MNIST.downloads, "mnist.npz", hashlib.sha256(server.content).hexdigest()
    )
    monkeypatch.setattr(data, "KERAS_URL", server.url + "good/")
    return server


def test_download_fills_the_cache_and_the_cache_is_used(served, tmp_path, monkeypatch):
    images = data.load_mnist()
    check(images, served.arrays)
    assert images.source == "download"
    assert [path.name for path in (tmp_path / "keras_home/datasets").iterdir()] == ["mnist.npz"]
    monkeypatch.setattr(data, "KERAS_URL", served.url + "missing/")
    assert data.load_mnist().source == "cache"


def test_broken_cache_is_downloaded_again(served, tmp_path):
    (tmp_path / "keras_home/datasets").mkdir(parents=True)
    (tmp_path / "keras_home/datasets/mnist.npz").write_bytes(served.content[:3000])
    assert data.load_mnist().source == "download"
    assert data.load_mnist().source == "cache"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("missing", "the server answered 404 Not Found"),
        ("cut", "cut off after"),
        ("hang", "no data for 1 seconds"),
        ("trickle", "no data for 1 seconds"),
    ],
)
def test_failed_download_says_so_and_draws(served, tmp_path, monkeypatch, capsys, behaviour, words):
    monkeypatch.setattr(data, "KERAS_URL", f"{served.url}{behaviour}/")
    monkeypatch.setattr(data, "SECONDS_WITHOUT_DATA", 1)
    images = data.load_mnist(limit=20)
    assert (images.name, images.source) == ("synthetic digits", "synthetic")
    loud = [line for line in capsys.readouterr().out.splitlines() if "***" in line]
    assert len(loud) == 1
    assert words in loud[0]
    assert "NOT MNIST" in loud[0]
    assert list((tmp_path / "keras_home/datasets").iterdir()) == []


def test_wrong_content_is_not_kept(served, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(UserError, match="SHA-256"):
        data.download(served.url + "good/file", path, sha256="0" * 64)
    assert not path.exists()


def test_a_silent_server_is_given_up_within_20_seconds():
    assert data.SECONDS_WITHOUT_DATA < 20


def test_server_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="refused"):
        data.download("http://127.0.0.1:1/file", tmp_path / "file")


def test_unwritable_cache_draws_instead(served, tmp_path, monkeypatch, capsys):
    (tmp_path / "keras_home").write_text("a file where the folder should be")
    assert data.load_mnist(limit=20).source == "synthetic"
    assert "keras_home" in capsys.readouterr().out


def test_synthetic_is_repeatable_and_its_parts_differ():
    one = data.load_mnist(synthetic=True, limit=30, seed=5)
    two = data.load_mnist(synthetic=True, limit=30, seed=5)
    np.testing.assert_array_equal(one.x_train, two.x_train)
    np.testing.assert_array_equal(one.x_test, two.x_test)
    assert not np.array_equal(one.x_train[:3], one.x_test[:3])
    assert not np.array_equal(
        one.x_train, data.load_mnist(synthetic=True, limit=30, seed=6).x_train
    )


def test_real_mnist(real_data):
    images = data.load_mnist(real_data)
    assert images.x_test.shape == (10_000, 28, 28, 1)
    assert images.x_test.max() == 1
    assert np.bincount(images.y_test).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
