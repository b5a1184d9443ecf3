import gzip
import hashlib
import re
import zipfile

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
        (damage_magic, "magic number 0x807, not 0x803"),
        (damage_length, "holds 46,940 values, not 47,040"),
        (damage_header, "broken or cut off"),
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
    with pytest.raises(UserError, match=r"mnist.npz: not Keras's mnist.npz, or damaged"):
        data.load_mnist(tmp_path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(UserError, match=r"not Keras's mnist.npz, or damaged .*x_train"):
        data.load_mnist(tmp_path)


def test_npz_with_pickled_objects_is_refused(tmp_path):
    arrays = small_mnist()
    arrays["x_train"] = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match=r"mnist.npz: not Keras.*allow_pickle"):
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
    checksum = f"sha256:{hashlib.sha256(server.content).hexdigest()}"
    monkeypatch.setitem(data._MNIST.checksums, "mnist.npz", checksum)
    monkeypatch.setattr(data, "KERAS_URL", server.url + "good/")
    return server


def test_download_fills_the_cache_and_the_cache_is_used(served, tmp_path, monkeypatch):
    images = data.load_mnist()
    check(images, served.arrays)
    assert images.source == "download"
    assert [path.name for path in (tmp_path / "keras_home/datasets").iterdir()] == ["mnist.npz"]
    monkeypatch.setattr(data, "KERAS_URL", served.url + "missing/")
    assert data.load_mnist().source == "cache"


def test_a_damaged_cache_is_named_and_left_alone(served, tmp_path):
    cached = tmp_path / "keras_home/datasets/mnist.npz"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(served.content[:3000])
    with pytest.raises(UserError, match=r"keras_home/datasets/mnist.npz: .*damaged"):
        data.load_mnist()
    assert cached.read_bytes() == served.content[:3000]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("missing", "404"),
        ("cut", "cached|hash|match|[Ii]ncomplete|broken"),
        ("hang", "no answer|timed out"),
        ("trickle", "not done after 2 seconds"),
    ],
)
def test_failed_download_says_so_and_uses_the_stand_in(
    served, tmp_path, monkeypatch, capsys, behaviour, words
):
    monkeypatch.setattr(data, "KERAS_URL", f"{served.url}{behaviour}/")
    monkeypatch.setattr(data, "SECONDS_PER_READ", 1 if behaviour == "hang" else 60)
    monkeypatch.setattr(data, "SECONDS_IN_ALL", 2 if behaviour == "trickle" else 300)
    images = data.load_mnist(limit=20)
    assert (images.name, images.source) == ("synthetic digits", "synthetic")
    loud = [line for line in capsys.readouterr().out.splitlines() if "***" in line]
    assert len(loud) == 1
    assert re.search(words, loud[0]), loud[0]
    assert "NOT MNIST" in loud[0]
    assert list((tmp_path / "keras_home/datasets").iterdir()) == []


def test_wrong_content_is_not_kept(served, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(data.DownloadError, match="hash"):
        data.download(served.url + "good/file", path, f"sha256:{'0' * 64}")
    assert not path.exists()


def test_a_silent_server_is_given_up_within_20_seconds():
    assert data.SECONDS_PER_READ < 20
    assert data.SECONDS_IN_ALL <= 300


def test_server_that_is_not_there(tmp_path):
    with pytest.raises(data.DownloadError, match="no answer"):
        data.download("http://127.0.0.1:1/file", tmp_path / "file")


def test_unwritable_cache_uses_the_stand_in(served, tmp_path, monkeypatch, capsys):
    (tmp_path / "keras_home").write_text("a file where the folder should be")
    assert data.load_mnist(limit=20).source == "synthetic"
    said = capsys.readouterr().out
    assert "keras_home/datasets: can't be written to" in said
    assert "let KERAS_HOME name another folder" in said
    assert "Downloading" not in said


def test_a_user_without_a_home_gets_the_stand_in(monkeypatch, capsys):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where there is none
    assert data.load_mnist(limit=20).source == "synthetic"
    assert "no home for Keras's cache; let KERAS_HOME name a folder" in capsys.readouterr().out


def test_the_checksums_are_the_published_ones():
    assert data._MNIST.checksums["mnist.npz"].startswith("sha256:731c5ac6")
    assert [c[:8] for c in data._FASHION_MNIST.checksums.values()] == [
        *("md5:8d4f", "md5:25c8", "md5:bef4", "md5:bb30")
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": np.full(60, 200, np.uint8)}, "labels 200 to 200, not 0 to 9"),
        ({"y_train": np.eye(10, dtype=np.uint8)[np.zeros(60, int)]}, "not whole numbers"),
        ({"y_train": np.array(["seven"] * 60)}, "not whole numbers"),
        ({"y_train": np.zeros(60, "timedelta64[s]")}, "not whole numbers"),
        ({"x_train": np.zeros((1, 28, 28), np.uint8), "y_train": np.zeros(1, int)}, "at least 10"),
        ({"x_train": np.zeros((60, 28, 27), np.uint8)}, r"uint8 \(60, 28, 27\), not"),
        ({"x_train": np.float32(3)}, "images of float32"),
        ({"x_train": np.zeros(0)}, "images of float64"),
    ],
)
def test_arrays_of_another_shape_are_named(tmp_path, changes, words):
    np.savez(tmp_path / "mnist.npz", **{**small_mnist(), **changes})
    with pytest.raises(UserError, match=words):
        data.load_mnist(tmp_path)


def test_files_that_are_something_else_are_named(tmp_path, monkeypatch):
    path = tmp_path / "mnist.npz"
    np.save(tmp_path / "a.npy", np.zeros(9))
    path.write_bytes((tmp_path / "a.npy").read_bytes())
    with pytest.raises(UserError, match=r"not Keras's mnist\.npz, or damaged"):
        data.load_mnist(tmp_path)
    header = np.lib.format.header_data_from_array_1_0(np.zeros((2, 28, 28), np.uint8))
    header["shape"] = (10**12, 28, 28)
    with zipfile.ZipFile(path, "w") as archive, archive.open("x_train.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(UserError, match=r"not Keras's mnist\.npz, or damaged"):
        data.load_mnist(tmp_path)
    monkeypatch.setattr(data, "MOST_BYTES", 10**6)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", bytes(data.MOST_BYTES + 1))
    with pytest.raises(UserError, match="unpacks to over"):
        data.load_mnist(tmp_path)


def test_a_gzip_bomb_is_read_no_further_than_it_may(tmp_path, monkeypatch):
    write_idx(tmp_path, small_mnist())
    monkeypatch.setattr(data, "MOST_BYTES", 100_000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**7)))
    with pytest.raises(UserError, match="holds 99,984 values, not 47,040"):
        data.load_mnist(tmp_path)


@pytest.mark.parametrize(("part", "name"), [("training", "x_train"), ("test", "x_test")])
def test_images_that_are_all_alike_are_refused(tmp_path, part, name):
    arrays = small_mnist()
    arrays[name][9:] = arrays[name][0]
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match=f"{part} part: 9 different images; at least 10 are"):
        data.load_mnist(tmp_path)


def test_examples_of_missing_classes_are_further_ones_of_the_others(tmp_path):
    arrays = small_mnist()
    arrays["y_test"][:] = 7
    arrays["y_test"][3] = 2
    np.savez(tmp_path / "mnist.npz", **arrays)
    examples = data.load_mnist(tmp_path).examples()
    assert list(examples.items())[:4] == [("2", 3), ("7", 0), ("7 (2)", 1), ("7 (3)", 2)]
    assert len(set(examples.values())) == 10


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


@pytest.mark.parametrize("place", [".", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_each_layout(tmp_path, place):
    arrays = small_mnist(seed=4)
    write_idx(tmp_path / place, arrays)
    clothes = data.load_fashion_mnist(tmp_path)
    np.testing.assert_array_equal(clothes.y_test, arrays["y_test"])
    np.testing.assert_array_equal(clothes.x_test[..., 0], arrays["x_test"] / np.float32(255))
    assert clothes.class_names[9] == "Ankle boot"
    assert (clothes.name, clothes.source) == ("Fashion-MNIST", "local")


def test_digits_in_the_folder_are_not_taken_for_clothes(tmp_path):
    write_idx(tmp_path / "MNIST/raw", small_mnist())
    with pytest.raises(UserError, match="no Fashion-MNIST in"):
        data.load_fashion_mnist(tmp_path)


def test_download_of_four_files(server, tmp_path, monkeypatch):
    arrays = small_mnist(seed=4)
    write_idx(tmp_path / "served", arrays)
    for path in (tmp_path / "served").iterdir():
        checksum = f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"
        monkeypatch.setitem(data._FASHION_MNIST.checksums, path.name, checksum)
    monkeypatch.setattr(data, "KERAS_URL", server.url + "files/")
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    assert data.load_fashion_mnist().source == "download"
    cached = tmp_path / "keras_home/datasets/fashion-mnist"
    assert sorted(path.name for path in cached.iterdir()) == sorted(server.files)
    server.files = {}
    again = data.load_fashion_mnist()
    assert again.source == "cache"
    np.testing.assert_array_equal(again.y_test, arrays["y_test"])


def test_a_half_finished_download_uses_the_stand_in(server, tmp_path, monkeypatch, capsys):
    write_idx(tmp_path / "served", small_mnist())
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    del server.files["t10k-labels-idx1-ubyte.gz"]
    monkeypatch.setattr(data, "KERAS_URL", server.url + "files/")
    clothes = data.load_fashion_mnist(limit=20)
    assert (clothes.name, clothes.source) == ("synthetic clothes", "synthetic")
    assert "Training on synthetic clothes instead" in capsys.readouterr().out
