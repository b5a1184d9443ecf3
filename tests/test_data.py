import gzip
import hashlib
import os
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import small_mnist, write_idx
from PIL import Image, ImageDraw

from common import cli, data, plotting
from common.cli import UserError


def load_mnist(**settings):
    return data.load_mnist(cli.Train(**settings))


def load_fashion_mnist(**settings):
    return data.load_fashion_mnist(cli.Train(**settings))


def as_images(array):
    return array[..., None].astype("float32") / 255


def check_equal(images, arrays):
    """Compare what was loaded with what was written."""
    x = np.concatenate([images.x_train, images.x_val])
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, as_images(arrays["x_train"]))
    y = np.concatenate([images.y_train, images.y_val])
    np.testing.assert_array_equal(y, arrays["y_train"])
    np.testing.assert_array_equal(images.x_test, as_images(arrays["x_test"]))
    np.testing.assert_array_equal(images.y_test, arrays["y_test"])


@pytest.mark.parametrize("place", [".", "MNIST/raw", "mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_from_each_layout(tmp_path, place, zipped):
    arrays = small_mnist()
    write_idx(tmp_path / place, arrays, zipped)
    images = load_mnist(data_dir=tmp_path)
    check_equal(images, arrays)
    counts = {"train": 54, "val": 6, "test": 30}
    assert images.summary() == {"name": "MNIST", "source": "local", **counts}


def test_npz_is_read_and_limit_counts_validation_in(tmp_path):
    arrays = small_mnist()
    np.savez(tmp_path / "mnist.npz", **arrays)
    check_equal(load_mnist(data_dir=tmp_path), arrays)
    images = load_mnist(data_dir=tmp_path, limit=20)
    counts = len(images.x_train), len(images.x_val), len(images.x_test)
    assert counts == (18, 2, 20)


def test_validation_is_held_out_up_to_5000(tmp_path):
    arrays = small_mnist(train=60_000)
    np.savez(tmp_path / "mnist.npz", **arrays)
    images = load_mnist(data_dir=tmp_path)
    assert (len(images.x_train), len(images.x_val)) == (55_000, 5_000)


@pytest.mark.parametrize(
    ("suffix", "damage", "words"),
    [
        ("", lambda content: b"\x00\x00\x08\x07" + content[4:], "damaged .magic number 0x807"),
        ("", lambda content: content[:-100], "damaged .cannot reshape"),
        ("", lambda content: content[:7], "damaged"),
        (".gz", lambda content: content[:-200], "damaged"),
        (".gz", lambda content: b"no gzip at all", "damaged"),
    ],
)
def test_damaged_idx_is_named(tmp_path, suffix, damage, words):
    write_idx(tmp_path, small_mnist(), zipped=suffix == ".gz")
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path}: {words}"):
        load_mnist(data_dir=tmp_path)


def test_one_of_four_files_missing_is_named(tmp_path):
    write_idx(tmp_path, small_mnist())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\[.gz\]: missing"):
        load_mnist(data_dir=tmp_path)


@pytest.fixture
def served(server, tmp_path, monkeypatch):
    """A server that holds a small mnist.npz, whose known_hash is the expected one."""
    arrays = small_mnist(seed=3)
    np.savez(tmp_path / "served.npz", **arrays)
    server.content = (tmp_path / "served.npz").read_bytes()
    server.arrays = arrays
    known_hash = f"sha256:{hashlib.sha256(server.content).hexdigest()}"
    monkeypatch.setitem(data._MNIST.hashes, "mnist.npz", known_hash)
    monkeypatch.setattr(data, "URL", server.url + "good/")
    return server


def test_download_fills_the_cache_and_the_cache_is_used(served, tmp_path, monkeypatch):
    images = load_mnist()
    check_equal(images, served.arrays)
    assert images.source == "download"
    assert [path.name for path in (tmp_path / "keras_home/datasets").iterdir()] == ["mnist.npz"]
    monkeypatch.setattr(data, "URL", served.url + "missing/")
    assert load_mnist().source == "cache"


@pytest.mark.parametrize(
    ("behavior", "words"),
    [
        ("missing", "missing/mnist.npz: 404"),
        ("cut", "cached|hash|match|[Ii]ncomplete|broken"),
        ("hang", "no answer|timed out"),
    ],
)
def test_failed_download_says_so_and_uses_the_stand_in(
    served, tmp_path, monkeypatch, capsys, behavior, words
):
    monkeypatch.setattr(data, "URL", f"{served.url}{behavior}/")
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT", 1 if behavior == "hang" else 60)
    images = load_mnist(limit=20)
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
    assert data.DOWNLOAD_TIMEOUT < 20


def test_unwritable_cache_uses_the_stand_in(served, tmp_path, capsys):
    (tmp_path / "keras_home").write_text("a file where the folder should be")
    assert load_mnist(limit=20).source == "synthetic"
    assert "NOT MNIST" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"half a file", None])
def test_a_damaged_file_in_the_cache_is_to_be_deleted(tmp_path, content):
    cached = tmp_path / "keras_home/datasets/mnist.npz"
    cached.parent.mkdir(parents=True)
    if content:
        cached.write_bytes(content)
    else:
        cached.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"datasets/mnist.npz: .*; delete it, and it will be"):
        load_mnist()
    assert cached.is_symlink() or cached.read_bytes() == content


def test_the_hashes_are_the_published_ones():
    assert data._MNIST.hashes["mnist.npz"].startswith("sha256:731c5ac6")
    assert [c[:8] for c in data._FASHION_MNIST.hashes.values()] == [
        *("md5:8d4f", "md5:25c8", "md5:bef4", "md5:bb30")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"y_train": np.full(60, 200, np.uint8)},
        {"y_train": np.full(60, -1)},
        {"y_train": np.zeros(59, int)},
        {"y_train": np.eye(10, dtype=np.uint8)[np.zeros(60, int)]},
        {"y_train": np.array(["seven"] * 60)},
        {"x_train": np.zeros((1, 28, 28), np.uint8), "y_train": np.zeros(1, int)},
        {"x_train": np.zeros((60, 28, 27), np.uint8)},
        {"x_train": np.zeros((60, 28, 28), np.float32)},
        {"x_train": np.float32(3)},
        {"y_test": np.zeros(0, int)},
    ],
)
def test_arrays_of_another_shape_are_named(tmp_path, changes):
    np.savez(tmp_path / "mnist.npz", **{**small_mnist(), **changes})
    with pytest.raises(UserError, match=r"mnist.npz: not 28x28 images with one label from"):
        load_mnist(data_dir=tmp_path)


def npz_that_is_cut_off(file):
    np.savez(file, **small_mnist())
    file.truncate(5000)


def npz_that_claims_a_trillion_images(file):
    header = np.lib.format.header_data_from_array_1_0(np.zeros((2, 28, 28), np.uint8))
    header["shape"] = (10**12, 28, 28)
    with zipfile.ZipFile(file, "w") as archive, archive.open("x_train.npy", "w") as array:
        np.lib.format.write_array_header_1_0(array, header)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (npz_that_is_cut_off, ""),
        (npz_that_claims_a_trillion_images, ""),
        (lambda file: np.save(file, np.zeros(9)), "not a zip archive"),
        (lambda file: np.savez(file, images=np.zeros(3)), "x_train"),
        (lambda file: np.savez(file, x_train=np.array([{}], object)), "allow_pickle"),
        (lambda file: np.savez_compressed(file, x_train=np.zeros(10**6)), "unpacks to over"),
    ],
)
def test_files_that_are_no_mnist_npz_are_named(tmp_path, monkeypatch, write, words):
    monkeypatch.setattr(data, "MAX_BYTES", 10**6)
    with (tmp_path / "mnist.npz").open("wb") as file:
        write(file)
    message = rf"mnist\.npz: not Keras's mnist\.npz, or damaged .*{words}"
    with pytest.raises(UserError, match=message):
        load_mnist(data_dir=tmp_path)


def test_a_gzip_bomb_is_read_no_further_than_it_may(tmp_path, monkeypatch):
    write_idx(tmp_path, small_mnist())
    monkeypatch.setattr(data, "MAX_BYTES", 100_000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**7)))
    with pytest.raises(UserError, match="damaged"):
        load_mnist(data_dir=tmp_path)


def test_examples_of_missing_classes_are_further_ones_of_the_others(tmp_path):
    arrays = small_mnist()
    arrays["y_test"][:] = 7
    arrays["y_test"][3] = 2
    np.savez(tmp_path / "mnist.npz", **arrays)
    examples = load_mnist(data_dir=tmp_path).examples()
    assert list(examples.items())[:4] == [("2", 3), ("7", 0), ("7 (2)", 1), ("7 (3)", 2)]
    assert len(set(examples.values())) == 10


def test_synthetic_is_repeatable_and_its_parts_differ():
    one = load_mnist(synthetic=True, limit=30, seed=5)
    two = load_mnist(synthetic=True, limit=30, seed=5)
    np.testing.assert_array_equal(one.x_train, two.x_train)
    np.testing.assert_array_equal(one.x_test, two.x_test)
    assert not np.array_equal(one.x_train[:3], one.x_test[:3])
    assert not np.array_equal(one.x_train, load_mnist(synthetic=True, limit=30, seed=6).x_train)


def test_real_mnist(real_data):
    images = load_mnist(data_dir=real_data)
    assert images.x_test.shape == (10_000, 28, 28, 1)
    assert images.x_test.max() == 1
    assert np.bincount(images.y_test).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


@pytest.mark.parametrize("place", [".", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_from_each_layout(tmp_path, place):
    arrays = small_mnist(seed=4)
    write_idx(tmp_path / place, arrays)
    clothes = load_fashion_mnist(data_dir=tmp_path)
    np.testing.assert_array_equal(clothes.y_test, arrays["y_test"])
    np.testing.assert_array_equal(clothes.x_test[..., 0], arrays["x_test"] / np.float32(255))
    assert clothes.class_names[9] == "Ankle boot"
    assert (clothes.name, clothes.source) == ("Fashion-MNIST", "local")


def test_digits_in_the_folder_are_not_taken_for_clothes(tmp_path):
    write_idx(tmp_path / "MNIST/raw", small_mnist())
    with pytest.raises(UserError, match="holds neither Fashion-MNIST nor pictures"):
        load_fashion_mnist(data_dir=tmp_path)
    np.savez(tmp_path / "mnist.npz", **small_mnist())
    with pytest.raises(UserError, match=r"mnist.npz: MNIST, not Fashion-MNIST.* --dataset mnist"):
        load_fashion_mnist(data_dir=tmp_path)


def test_a_download_of_four_files_is_completed_later(server, tmp_path, monkeypatch, capsys):
    arrays = small_mnist(seed=4)
    write_idx(tmp_path / "served", arrays)
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    hashes = data._FASHION_MNIST.hashes
    for name, content in server.files.items():
        monkeypatch.setitem(hashes, name, f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setattr(data, "URL", server.url + "files/")
    labels = server.files.pop("t10k-labels-idx1-ubyte.gz")
    clothes = load_fashion_mnist(limit=20)
    assert (clothes.name, clothes.source) == ("synthetic clothes", "synthetic")
    assert "Training on synthetic clothes instead" in capsys.readouterr().out
    server.files = {"t10k-labels-idx1-ubyte.gz": labels}
    assert load_fashion_mnist().source == "download"
    cached = tmp_path / "keras_home/datasets/fashion-mnist"
    assert sorted(path.name for path in cached.iterdir()) == sorted(hashes)
    server.files = {}
    again = load_fashion_mnist()
    assert again.source == "cache"
    np.testing.assert_array_equal(again.y_test, arrays["y_test"])


# ---------------------------------------------------------------- the user's own pictures


def picture(number, size=(60, 40)):
    """Return a picture unlike any other: something light on a dark background."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", size, (number % 40, 20, 20))
    corners = [*rng.integers(6, 16, 2), *rng.integers(24, 34, 2)]
    ImageDraw.Draw(image).rectangle([int(c) for c in corners], fill=(200, 200, number % 256))
    return image


def write_pictures(folder, count=40, classes=("cats", "dogs")):
    """Write pictures, the classes by turns, and return the folder."""
    for number in range(count):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return folder


def parts_of(images):
    """Return the different images of each part as three sets of bytes."""
    return [{x.tobytes() for x in part} for part in (images.x_train, images.x_val, images.x_test)]


def test_subfolders_are_classes_and_every_picture_is_in_one_part(tmp_path):
    write_pictures(tmp_path / "mine", 60)
    picture(99).save(tmp_path / "mine" / "beside.png")
    (tmp_path / "mine/cats/.hidden.png").write_bytes(b"")
    (tmp_path / "mine/notes").mkdir()
    (tmp_path / "mine/notes/text.txt").write_text("none")
    images = load_mnist(data_dir=tmp_path / "mine")
    assert images.class_names == ["cats", "dogs"]
    assert (images.name, images.source, images.own) == ("own pictures: mine", "local", True)
    assert list(images.summary().values())[2:] == [45, 6, 9]
    assert images.x_train.shape[1:] == (28, 28, 1)
    assert images.x_train.dtype == np.float32
    assert set(images.y_train) == {0, 1}
    parts = parts_of(images)
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60


def test_no_subfolders_are_one_class(tmp_path):
    images = load_fashion_mnist(data_dir=write_pictures(tmp_path / "all", 30, ["."]))
    assert images.class_names == ["all"]
    examples = images.examples()
    assert list(examples)[:2] == ["all", "all (2)"]
    assert len(set(examples.values())) == len(examples)


def test_the_split_depends_on_the_seed_alone(tmp_path):
    write_pictures(tmp_path / "mine", 60)
    one, same, other = (load_mnist(data_dir=tmp_path / "mine", seed=seed) for seed in (1, 1, 2))
    assert parts_of(one) == parts_of(same) != parts_of(other)


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8")
def test_non_utf8_file_names(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"\xe9")
    write_pictures(folder, 40, [os.fsdecode(b"caf\xe9"), "a\nb", "\x1b[2J"])
    (folder / "a\nb/\x1b[2J.png").write_text("text")
    images = load_mnist(data_dir=folder)
    assert sorted(images.class_names) == [r"\x1b[2J", r"a\nb", r"caf\udce9"]
    assert images.name == r"own pictures: \udce9"
    assert "\x1b" not in capsys.readouterr().out
    rows = {name: images.x_test[:2] for name in images.class_names}
    plotting.image_grid(rows, tmp_path / "a.png", title=images.name, caption=images.name)


def test_equal_pictures_count_once(tmp_path):
    write_pictures(tmp_path / "mine", 60)
    for number in range(60):
        path = tmp_path / "mine" / ("dogs", "cats")[number % 2] / f"copy{number}.bmp"
        picture(number).save(path)
    images = load_mnist(data_dir=tmp_path / "mine")
    assert sum(list(images.summary().values())[2:]) == 60


def test_limit_of_own_pictures_counts_validation_in(tmp_path):
    images = load_mnist(data_dir=write_pictures(tmp_path / "mine", 100), limit=10)
    assert list(images.summary().values())[2:] == [9, 1, 10]


def test_a_dataset_in_the_folder_wins(tmp_path):
    write_pictures(tmp_path, 40)
    np.savez(tmp_path / "mnist.npz", **small_mnist())
    assert load_mnist(data_dir=tmp_path).name == "MNIST"


def test_what_cannot_be_read_is_named_and_left_out(tmp_path, capsys):
    write_pictures(tmp_path / "mine", 40)
    (tmp_path / "mine/cats/broken.jpg").write_bytes(b"nothing")
    content = (tmp_path / "mine/cats/0.png").read_bytes()
    (tmp_path / "mine/dogs/cut.png").write_bytes(content[: len(content) // 2])
    images = load_mnist(data_dir=tmp_path / "mine")
    assert sum(list(images.summary().values())[2:]) == 40
    printed = capsys.readouterr().out
    assert "2 left out" in printed
    assert "broken.jpg: not an image" in printed
    assert "cut.png: cannot be read" in printed


def test_too_few_pictures_are_refused(tmp_path):
    for number in range(40):
        picture(number % 29).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="29 different pictures can be read; 30 are needed"):
        load_mnist(data_dir=tmp_path)


def test_a_class_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_pictures(tmp_path)
    list_folder = Path.iterdir

    def refuse(path):
        if path.name == "cats":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"cats: cannot be read \(Permission denied\)"):
        load_mnist(data_dir=tmp_path)


def test_patches_are_pieces_of_their_picture_and_stay_in_one_part(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MAX_PATCHES", 200)
    for number in range(40):  # the gray level says which picture a patch is of
        Image.new("L", (90, 70), 5 * number + 5).save(tmp_path / f"{number}.png")
    Image.new("L", (90, 20), 255).save(tmp_path / "small.png")
    images = data.load_pictures(cli.Train(data_dir=tmp_path), patches=True)
    levels = [set(x[:, 0, 0, 0]) for x in (images.x_train, images.x_val, images.x_test)]
    assert len(set.union(*levels)) == sum(map(len, levels)) == 40
    assert len(images.x_train) == 5 * len(levels[0])  # 200 // 41 + 1
    assert (images.x_train == images.x_train[:, :1, :1]).all()
