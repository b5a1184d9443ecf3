"""Bad input ends in one clear line: a case of each class, and of what must stay refused."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, contents, python, small_mnist, wait_for, write_idx
from PIL import Image
from test_run_folder import row, run_of, small_model

import common
import denoise_fashion
import denoise_mnist
import latent_spaces
import vae_fashion
import watermark_ae
from applications import inputs, latent_walks, page_files
from common import UserError, command_line, data, files, image_files, noisy_office, plotting
from common import trained_models as models

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="no fifos, signals and rights")
QUICK = ["--synthetic", "--limit", "30", "--epochs", "1"]


def png(size=(40, 30)):
    file = io.BytesIO()
    Image.new("L", size, 90).save(file, "png")
    return file.getvalue()


def zipped(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def in_headers(content, offset, value):
    """Write two bytes into each header of a zip: at an offset of the local one, + 2 in the list."""
    content = bytearray(content)
    for mark, place in ((b"PK\3\4", offset), (b"PK\1\2", offset + 2)):
        for found in re.finditer(re.escape(mark), bytes(content)):
            content[found.start() + place : found.start() + place + 2] = struct.pack("<H", value)
    return bytes(content)


def encrypted(content):
    return in_headers(content, 6, 1)


def packed_in_a_way_unknown(content):
    return in_headers(content, 8, 77)


# ---------------------------------------------------------------- any file of the reader's


def sparse(path):
    with path.open("wb") as file:
        file.truncate(files.MOST_BYTES + 1)


@not_on_windows
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (os.mkfifo, "not a file"),
        (os.mkdir, "not a file"),
        (lambda path: path.symlink_to(path), "not a file"),
        (lambda path: path.symlink_to("nowhere"), "not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a file"),
        (sparse, "larger than 1,073,741,824 bytes"),
    ],
)
def test_what_is_no_file_is_refused_wherever_one_is_read(make, words, tmp_path, error_of):
    path = tmp_path / "x.png"
    make(path)
    (tmp_path / "x.keras").symlink_to(path)
    (tmp_path / "x.csv").symlink_to(path)
    for read in (files.read, image_files.read_grey, data._read_npz, data._read_idx):
        with pytest.raises(UserError, match=words):
            read(path)
    for words_given in (
        [denoise_mnist.main, "--input", path],
        [denoise_fashion.main, "--input", path],
        [latent_spaces.main, "--input", path],
        [vae_fashion.main, "--decode", tmp_path / "x.csv"],
        [vae_fashion.main, "--generate", "2", "--model", tmp_path / "x.keras"],
    ):
        assert re.search(f"{words}|not a file", error_of(*words_given))
    assert models.read_report(path) == {}


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3_000, "a\0b"])
def test_names_that_no_file_can_have(name, error_of):
    with pytest.raises(UserError, match=r"cannot be read|no such file"):
        files.read(name)
    for words in (["--input", name], [*QUICK, "--output-dir", name], [*QUICK, "--data-dir", name]):
        if "\0" not in name and words[-1] != "--synthetic":
            words = [word for word in words if word != "--synthetic" or "--data-dir" not in words]
            error_of(denoise_mnist.main, *words)
    assert "." in error_of(vae_fashion.main, "--generate", "1", "--model", ".")
    for flag in ("--model", "--input", "--output-dir", "--data-dir"):
        assert f"argument {flag}: is empty" in error_of(denoise_mnist.main, flag, "")


@not_on_windows
def test_files_and_folders_without_rights(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/a.png").write_bytes(png())
    (tmp_path / "closed").chmod(0)
    root = os.geteuid() == 0
    if root:  # may read all
        os.seteuid(65_534)
    try:
        with pytest.raises(UserError, match=r"a.png: cannot be read \(Permission denied\)"):
            files.read(tmp_path / "closed/a.png")
        with pytest.raises(UserError, match="can't be written to"):
            files.output_folder(tmp_path / "closed/out", "")
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o700)


@not_on_windows
def test_a_folder_without_rights_is_refused_before_data_are_looked_for(error_of, monkeypatch):
    monkeypatch.setattr(data, "load_mnist", lambda *words: pytest.fail("looked for data"))
    Path("closed").mkdir(mode=0o500)
    root = os.geteuid() == 0
    if root:  # may write all; os.access asks for the real user, not the effective one
        os.setreuid(65_534, 0)
    try:
        line = error_of(denoise_mnist.main, "--output-dir", "closed/out")
    finally:
        if root:
            os.setreuid(0, 0)
    assert "closed/out: can't be written to; choose another --output-dir" in line


def test_errors_that_nobody_foresaw_are_one_line_too(error_of):
    def raiser(error):
        def main(argv):
            raise error

        return main

    assert ": a.txt: Is a directory" in error_of(raiser(OSError(21, "Is a directory", "a.txt")))
    assert "not enough memory; use smaller" in error_of(raiser(MemoryError()))


def test_settings_of_keras_that_other_projects_need_are_not_ours(tmp_path):
    settings = {"image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    environment = {**os.environ, "KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    code = "import common, keras; print(keras.backend.backend(), keras.config.image_data_format())"
    code += "; print(keras.config.floatx(), keras.config.dtype_policy().name)"
    done = python("-c", code, cwd=ROOT, env=environment)
    assert (done.stdout, done.stderr) == ("tensorflow channels_last\nfloat32 float32\n", "")


def test_a_backend_of_matplotlib_that_is_none():
    environment = {**os.environ, "MPLBACKEND": "nonsense"}
    done = python(ROOT / "denoise_mnist.py", env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        "denoise_mnist.py: error: Matplotlib can't start \\(.*'nonsense' is not a valid value for "
        "backend\\); see to MPLBACKEND and matplotlibrc\n",
        done.stderr,
    )
    del environment["MPLBACKEND"]
    done = python(ROOT / "denoise_mnist.py", "--help", env=environment | {"MPLBACKEND": "TkAgg"})
    assert (done.returncode, done.stderr) == (0, "")


def test_where_nothing_can_be_written_start_up_noise_is_not_held_back(monkeypatch, capfd):
    def full(*words, **options):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with common.without_start_up_noise():
        os.write(2, b"I0000 noise\n")
    assert capfd.readouterr().err == "I0000 noise\n"


# ---------------------------------------------------------------- run folders


def state_with(change):
    """Store a state with something else in it, in a zip that is whole."""
    path = Path("out/checkpoint/state.npz")
    with np.load(path) as archive:
        text, *others = (archive[name] for name in archive.files)
    state = json.loads(text.item())
    others = change(state, others) or others
    np.savez(path, np.bytes_(json.dumps(state).encode()), *others)


@pytest.mark.parametrize(
    "change",
    [
        lambda state, _: state.update(history="abc"),
        lambda state, _: state.update(history=[]),
        lambda state, _: state.update(settings=[1]),
        lambda state, _: state["settings"].update(epochs="9"),
        lambda state, _: state["history"][0].update(val_loss=0.4),
        lambda state, _: state["history"][0].update(epoch="1"),
        lambda state, _: state["history"][0].pop("seconds") and None,
        lambda state, _: state["history"].append(state["history"][0]),
        lambda state, _: state.update(files=None),
        lambda state, others: others[:-1],
        lambda state, others: [*others, np.zeros(3)],
        lambda state, others: [*others[:-1], np.zeros((9, 9))],
        lambda state, others: [*others[:-1], np.array("text")],
    ],
)
def test_a_state_of_another_shape_or_value_is_known_by_its_checksum(change):
    with run_of() as run:
        run.keep(small_model(), row(1, 0.5))
    state_with(change)
    with pytest.raises(UserError, match=r"state.npz: damaged .*checksum.*leave --resume out"):
        run_of(resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: models.save_model(small_model(), path, replace=True),
        lambda path: models.save_model(small_model("other"), path, replace=True),
    ],
)
def test_a_best_model_that_is_not_the_one_kept_is_named(damage):
    with run_of() as run:
        run.keep(small_model(), row(1, 0.5))
        run.keep(small_model(), row(2, 0.6))
    damage(Path("out/model.keras"))
    with pytest.raises(UserError, match=r"out/model.keras: .*leave --resume out"):
        run_of(resume=True)
    with pytest.raises(UserError, match=r"out/model.keras: .*leave --resume out"):
        run.best_model()


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: shutil.copy("model.keras", path)])
def test_one_of_several_models_that_is_not_the_one_kept_is_named(damage):
    models.save_model(small_model(), "model.keras")
    with run_of() as run:
        run.trained("a", lambda: (small_model(), {"loss": 1.0, "val_loss": 1.0}))
    damage(Path("out/checkpoint/a.keras"))
    with run_of(resume=True) as run, pytest.raises(UserError, match=r"a.keras: .*leave --resume"):
        run.trained("a", None)


def test_a_kill_before_the_best_model_has_its_place_loses_nothing(monkeypatch):
    with run_of() as run:
        run.keep(small_model(), row(1, 0.5))
        first = Path("out/model.keras").read_bytes()
        monkeypatch.setattr(run, "_move_best", lambda: None)
        run.keep(small_model(), row(2, 0.4))
    assert Path("out/model.keras").read_bytes() == first
    with run_of(resume=True) as run:
        assert run.best_model()
    assert Path("out/model.keras").read_bytes() != first


def test_resuming_removes_its_own_figures_alone():
    with run_of() as run:
        run.keep(small_model(), row(1, 0.5))
        run.path("figure.png").write_text("ours")
    with run_of(resume=True):
        assert not Path("out/figure.png").exists()
    Path("out/loss.png").write_text("mine")
    with pytest.raises(UserError, match=r"loss.png: exists already"):
        run_of(resume=True)
    assert Path("out/loss.png").read_text() == "mine"


def test_what_stands_in_history_csv_does_not_matter():
    with run_of() as run:
        run.keep(small_model(), row(1, 0.5))
    for text in ("epoch,loss\n1,0.", "\ufeffepoch\nnan\n", "9" * 200_000, "\0"):
        Path("out/history.csv").write_text(text, encoding="utf-8")
        with run_of(resume=True) as run:
            assert run.history == [row(1, 0.5)]


# ---------------------------------------------------------------- images


def tiff(*entries, further=0):
    content = b"II*\0" + struct.pack("<IH", 8, len(entries))
    content += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return content + struct.pack("<I", further) + bytes(2_500)


SIDES = (256, 4, 1, 50), (257, 4, 1, 50)
REST = (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 200), (278, 4, 1, 50), (279, 4, 1, 2_500)


def chunks(*named):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + bytes(4) for name, content in named
    )


@pytest.mark.parametrize(
    "content",
    [
        tiff(*REST),
        tiff((256, 2, 4, 50), (257, 2, 4, 50), *REST),
        tiff((256, 4, 1, 0), (257, 4, 1, 0), *REST),
        tiff((256, 4, 1, 2**31), (257, 4, 1, 2**31), *REST),
        tiff(*SIDES, *REST[:2], (273, 4, 2**31, 8), (279, 4, 2**31, 8)),
        b"II*\0\xff\xff\xff\x7f",
        chunks((b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0))),
        png()[:60],
        b"%PDF-1.4\n",
        zipped({"a": b""}),
    ],
)
def test_damaged_pictures_are_refused_at_once(content):
    Path("a.png").write_bytes(content)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's would stand beside the line
        with pytest.raises(UserError, match=r"^a.png: "):
            image_files.read_grey("a.png")
    assert time.process_time() - start < 5


def test_pixels_that_can_not_be_unpacked_do_not_become_black():
    header = b"IHDR" + struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0)
    packed = zlib.compress(np.random.default_rng(0).bytes(31 * 40))
    for broken in (b"hello", packed[:200] + b"\xff" * 20 + packed[220:], packed[:-4] + b"abcd"):
        parts = header, b"IDAT" + broken, b"IEND"
        ends = [(struct.pack(">I", len(x) - 4), struct.pack(">I", zlib.crc32(x))) for x in parts]
        whole = [size + x + check for x, (size, check) in zip(parts, ends, strict=True)]
        Path("a.png").write_bytes(png()[:8] + b"".join(whole))
        for read in (image_files.read_grey, image_files.read_colour, page_files.read_first_page):
            with pytest.raises(UserError, match=r"a.png: cannot be read as an image"):
                read("a.png")


def test_of_several_pictures_none_is_worked_on_if_one_is_damaged(error_of):
    Path("a.png").write_bytes(png())
    Path("b.png").write_bytes(png()[:60])
    for main in (denoise_mnist.main, denoise_fashion.main, vae_fashion.main, latent_spaces.main):
        assert "b.png: " in error_of(main, "--input", "a.png", "b.png", "--output-dir", "out")
        assert not Path("out").exists()


def test_an_error_without_a_message_is_named(monkeypatch):
    def out_of_memory(*words, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", out_of_memory)
    Path("a.png").write_bytes(png())
    with pytest.raises(UserError, match=r"cannot be read as an image \(MemoryError\)"):
        image_files.read_grey("a.png")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -5])
def test_float_pictures_without_values_of_a_picture(value):
    pixels = np.linspace(0, 1, 25, dtype="float32").reshape(5, 5)
    pixels[2, 3] = value
    Image.fromarray(pixels if value != -5 else pixels - 5).save("a.tif")
    with pytest.raises(UserError, match=r"a.tif: holds values"):
        image_files.read_grey("a.tif")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "TIFF"])
def test_damaged_exif_is_no_reason_to_refuse_a_picture(kind):
    image = Image.new("L", (30, 20), 90)
    exif = {} if kind == "TIFF" else {"exif": b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff" + bytes(20)}
    image.save("a.png", kind, **exif)
    assert image_files.read_grey("a.png").shape == (20, 30, 1)


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("name", ["$\\frac{$ a^_.png", "a\n\x1b[31mb.png", "漢字 😀.png"])
def test_names_of_any_characters(name, capfd):
    with common.without_start_up_noise():
        keras.ops.zeros(1)
    Path(name).write_bytes(png())
    vae_fashion.main(["--input", name, "--output-dir", "out"])
    assert (Path("out") / f"{Path(name).stem}_sheet.png").is_file()
    assert capfd.readouterr().err == ""


# ---------------------------------------------------------------- datasets


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def claims(*shape):
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(1_000)


@pytest.mark.parametrize("x_train", [b"", b"text", claims(10**15, 28, 28), claims(-5, 28, 28)])
def test_members_of_an_npz_that_are_no_arrays(x_train):
    members = {f"{name}.npy": npy(array) for name, array in small_mnist().items()}
    Path("mnist.npz").write_bytes(zipped({**members, "x_train.npy": x_train}))
    with pytest.raises(UserError, match=r"mnist.npz.*: (not Keras's|images of)"):
        data.load_mnist(".")


@pytest.mark.parametrize("damage", [encrypted, packed_in_a_way_unknown])
def test_an_npz_that_is_encrypted_or_packed_in_a_way_unknown(damage):
    np.savez("mnist.npz", **small_mnist())
    Path("mnist.npz").write_bytes(damage(Path("mnist.npz").read_bytes()))
    with pytest.raises(UserError, match=r"mnist.npz: not Keras's"):
        data.load_mnist(".")


@not_on_windows
def test_a_fifo_among_idx_files_and_pages(tmp_path):
    write_idx(tmp_path, small_mnist())
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    os.mkfifo(tmp_path / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte.gz: not a file"):
        data.load_mnist(tmp_path)
    pages_in(tmp_path / "pages")
    (tmp_path / "pages/train/2.png").unlink()
    os.mkfifo(tmp_path / "pages/train/2.png")
    with pytest.raises(UserError, match=r"train/2.png: not a file"):
        noisy_office.load_noisy_office(tmp_path / "pages")


def pages_in(folder, size=(60, 50)):
    for name in PAGES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(size))


PAGES = [f"{part}/{number}.png" for part in ("train", "train_cleaned") for number in range(1, 7)]


@pytest.mark.parametrize("folders", [("train", "train_cleaned"), ("dirty", "clean")])
def test_pages_too_small_to_train_on(folders, tmp_path):
    pages_in(tmp_path, (300, 5))
    for name, folder in zip(("train", "train_cleaned"), folders, strict=True):
        (tmp_path / name).rename(tmp_path / folder)
    with pytest.raises(UserError, match="smaller than 32x32 pixels"):
        noisy_office.load_noisy_office(tmp_path)


def nested(depth):
    content = png()
    for _ in range(depth):
        content = zipped({"a.zip": content}, zipfile.ZIP_STORED)
    return content


@pytest.mark.parametrize(
    "make",
    [
        lambda pages: b"",
        lambda pages: b"text",
        lambda pages: zipped(pages)[:300],
        lambda pages: encrypted(zipped(pages)),
        lambda pages: zipped({"a.zip": encrypted(zipped(pages))}),
        lambda pages: packed_in_a_way_unknown(zipped(pages)),
        lambda pages: nested(1_200),
        lambda pages: zipped({"train/2.png": bytes(noisy_office.MOST_BYTES + 1)}),
        lambda pages: zipped({**pages, "train/2.png": b"no picture"}),
    ],
)
def test_archives_of_pages_that_are_damaged(make, monkeypatch):
    monkeypatch.setattr(noisy_office, "MOST_BYTES", 10**7)
    archive = data.keras_cache() / "noisyoffice.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(make(dict.fromkeys(PAGES, png((60, 50)))))
    with pytest.raises(UserError, match=r"noisyoffice.zip.*:"):
        noisy_office.load_noisy_office()


@not_on_windows
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_something_else_where_the_cache_is(make):
    for name, load in (
        ("noisyoffice.zip", noisy_office.load_noisy_office),
        ("mnist.npz", data.load_mnist),
    ):
        path = data.keras_cache() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        with pytest.raises(UserError, match=name):
            load()
        assert os.path.lexists(path)


def test_two_downloads_at_once(server, tmp_path):
    server.content = np.random.default_rng(0).bytes(10**6)
    errors = []

    def fetch():
        try:
            data.download(f"{server.url}good/file", tmp_path / "cache/file")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert contents(tmp_path / "cache") == {tmp_path / "cache/file": server.content}


# ---------------------------------------------------------------- models


def conv(name, channels=1, activation=None):
    image = keras.Input((28, 28, channels))
    layer = activation or keras.layers.Conv2D(1, 3, padding="same")
    return keras.Model(image, layer(image), name=name)


@pytest.mark.parametrize(
    ("script", "name", "words"),
    [
        (denoise_mnist, "denoise_mnist", ["--input", "a.png"]),
        (denoise_mnist, "denoise_mnist", ["--synthetic"]),
        (denoise_fashion, "denoise_fashion_unet", ["--input", "a.png"]),
        (denoise_fashion, "denoise_fashion", ["--synthetic"]),
        (vae_fashion, "vae_fashion", ["--generate", "2"]),
        (vae_fashion, "vae_fashion_dense", ["--synthetic"]),
        (latent_spaces, "latent_spaces_sparse", ["--input", "a.png"]),
        (watermark_ae, "watermark_ae", ["--synthetic"]),
    ],
)
def test_another_network_of_the_right_name(script, name, words, error_of):
    Path("a.png").write_bytes(png())
    for number, channels in enumerate((1, 3)):
        conv(name, channels).save(f"m{number}.keras")
        line = error_of(script.main, *words, "--model", f"m{number}.keras")
        assert f"holds another network than this script's {name!r}" in line
    assert not Path("runs").exists()


def test_a_network_of_other_sizes_is_another_one(error_of):
    denoise_mnist.build_denoiser(32, 32).save("m.keras")
    line = error_of(denoise_mnist.main, "--synthetic", "--model", "m.keras")
    assert "holds another network" in line


@pytest.mark.parametrize(
    ("script", "name"),
    [(denoise_mnist, "denoise_mnist"), (denoise_fashion, "denoise_fashion_unet")]
    + [(denoise_fashion, "denoise_fashion"), (vae_fashion, "vae_fashion")]
    + [(latent_spaces, name) for name in latent_spaces.Settings.names.values()],
)
def test_shipped_models_are_the_scripts_networks(script, name):
    names, like = script.Settings.names, script.Settings.build_like
    assert names[models.load_model(models.SHIPPED / f"{name}.keras", names, like)[1]] == name


def with_config(change, more=()):
    """Copy a shipped model with another config, and further members."""
    with zipfile.ZipFile(models.SHIPPED / "denoise_mnist.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = change(members["config.json"])
    Path("m.keras").write_bytes(zipped({**members, **dict(more)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"[]",
        lambda text: b"null",
        lambda text: b"[" * 200_000,
        lambda text: text.replace(b'"filters": 32', b'"filters": "a"'),
        lambda text: b'"' + b"x" * models.MOST_CONFIG + b'"',
        lambda text: text.replace(b'"activation": "relu"', b'"activation": {"module": "os", '
                                  b'"class_name": "function", "config": "system", '
                                  b'"registered_name": "system"}'),
        lambda text: text.replace(b"MaxPooling2D", b"Nothing"),
    ],
)  # fmt: skip
def test_models_whose_config_is_something_else(change, error_of):
    Path("a.png").write_bytes(png())
    with_config(change)
    line = error_of(denoise_mnist.main, "--input", "a.png", "--model", "m.keras")
    assert "m.keras: not a model that can be loaded" in line
    assert len(line) <= 301


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"filters": 32', b'"filters": 20001'),
        lambda text: text.replace(b'"filters": 32', b'"filters" :\n3200000'),
        lambda text: text.replace(b'"filters": 32', b'"\\u0066ilters": 3.2e6'),
        lambda text: text.replace(b"[3, 3]", b"[9999, 9999]"),
    ],
)
def test_weights_that_no_memory_holds_are_never_made(change, error_of):
    resource = pytest.importorskip("resource")
    Path("a.png").write_bytes(png())
    with_config(change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = error_of(denoise_mnist.main, "--input", "a.png", "--model", "m.keras")
    assert "units, more than 20,000" in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.5 * before


def test_models_that_unpack_to_more_than_the_memory_holds(monkeypatch, error_of):
    Path("a.png").write_bytes(png())
    monkeypatch.setattr(models, "MOST_BYTES", 10**6)
    with_config(lambda text: text, {"assets/a": bytes(10**6 + 1)}.items())
    line = error_of(denoise_mnist.main, "--input", "a.png", "--model", "m.keras")
    assert "m.keras: not a model that can be loaded (unpacks to over 1,000,000 bytes)" in line


def test_a_model_whose_weights_are_not_all_there_is_refused(monkeypatch, capfd):
    """Keras but warns, and what it then computes is random."""

    def load_model(*words, **options):
        warnings.warn(text, stacklevel=1)
        return real(*words, **options)

    real, text = keras.saving.load_model, "Skipping nested container at 'a': no matching group"
    monkeypatch.setattr(keras.saving, "load_model", load_model)
    path, names = models.SHIPPED / "denoise_mnist.keras", denoise_mnist.Settings.names
    with pytest.raises(UserError, match=r"not a model that can be loaded \(Skipping nested"):
        models.load_model(path, names)
    text = "an option of an older version"
    models.load_model(path, names)
    assert capfd.readouterr().err == ""


def test_models_with_a_lambda_layer_or_in_the_old_format_are_not_run(error_of):
    Path("a.png").write_bytes(png())
    layer = keras.layers.Lambda(lambda x: open("run.txt", "w") and x, output_shape=(28, 28, 1))
    for name in ("m.keras", "m.h5"):
        with contextlib.suppress(TypeError), warnings.catch_warnings(action="ignore"):
            conv("denoise_mnist", activation=layer).save(name)
        Path("run.txt").unlink(missing_ok=True)
        line = error_of(denoise_mnist.main, "--input", "a.png", "--model", name)
        assert re.search("not a model that can be loaded|not named .keras", line)
        assert not Path("run.txt").exists()


def test_models_that_are_pickles_or_would_write_elsewhere(error_of, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return open, ("run.txt", "w")

    Path("a.png").write_bytes(png())
    Path("p.keras").write_bytes(pickle.dumps(Evil()))
    line = error_of(denoise_mnist.main, "--input", "a.png", "--model", "p.keras")
    assert "not a model that can be loaded" in line
    inside = tmp_path / "in"
    inside.mkdir()
    os.chdir(inside)
    with_config(lambda text: text, {"../evil.txt": "x", "assets/../../evil.txt": "x"}.items())
    with contextlib.suppress(UserError):
        models.load_model("m.keras", denoise_mnist.Settings.names)
    assert not (tmp_path / "evil.txt").exists()
    assert not (tmp_path / "run.txt").exists()


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "3", "[" * 100_000, '{"dataset": "a"}', '{"dataset": {"train": "x"}}', "\0"),
        '{"dataset": {"name": "a", "train": 1}, "test": [5, 6]}',
        '{"dataset": {"name": "a", "train": 1}, "test": {"mse": %s}}' % ("9" * 400),
    ],
)
def test_a_report_of_another_shape_is_as_good_as_none(text, capsys):
    shutil.copy(models.SHIPPED / "vae_fashion.keras", "m.keras")
    Path("m.json").write_text(text)
    vae_fashion.main(["--generate", "1", "--model", "m.keras"])
    assert "is not known" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["9" * 400, "[]", '"x"'])
def test_limits_in_a_report_that_are_no_numbers_are_left_out(value):
    Path("m.json").write_text(f'{{"dataset": {{"name": "a"}}, "typical": {{"thickest": {value}}}}}')
    settings = denoise_mnist.Settings(model="m.keras")
    assert inputs.known_of(settings) == {"dataset": "", "ground": "dark", **inputs._LIMITS}


# ---------------------------------------------------------------- numbers and text


@pytest.mark.parametrize("flag", ["--epochs", "--output-dir", "--input"])
def test_two_dashes_are_no_value(flag, error_of):
    assert f"argument {flag}: expected" in error_of(denoise_mnist.main, f"{flag}=--")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        *("--seed 4294967296", "--seed -1", "--seed 1e3", f"--epochs {'9' * 40}", "--noise nan"),
        *(f"--epochs {'9' * 5_000}", "--learning-rate inf", "--batch-size 1.5", "--limit 1e9"),
    ],
)
def test_numbers_out_of_bounds(words, error_of):
    line = error_of(denoise_mnist.main, *words.split())
    assert f"argument {words.split()[0]}: " in line
    assert re.search(r"is not a (whole )?number from", line)
    assert len(line) <= 301


@not_on_windows
def test_words_that_are_no_utf_8(error_of):
    word = os.fsdecode(b"caf\xe9")
    for words in (["--input", word], ["--data-dir", word], [word]):
        assert "caf\\udce9': not UTF-8; rename the file" in error_of(denoise_mnist.main, *words)


def test_a_console_that_takes_ascii_only(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as info:
        command_line.start(lambda argv: print("β = 4, é"), [])
    out.flush()
    assert not info.value.code
    assert out.buffer.getvalue() == b"\\u03b2 = 4, \\xe9\n"


def test_of_a_long_message_the_middle_is_left_out(error_of):
    def main(argv):
        raise UserError(f"a\x1b[2J.png: {'x' * 9_000}; choose another --output-dir")

    line = error_of(main)
    assert line.startswith("test_bad_input.py: error: a [2J.png: xxx")
    assert line.endswith("xxx; choose another --output-dir\n")
    assert len(line) <= 301


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,1,2\nb,3,4\n", "line 1: not name, z_1, z_2"),
        ("name;z_1;z_2\na;1;2\n", "line 1: not name, z_1, z_2"),
        ("name,z_1,z_2\n" + "n,1,2\n" * 10_000, "more than 10,000 lines"),
        (f"name,z_1,z_2\nok,1,2\n{'é' * 126},1,2\n", "too long for a file name"),
        ("name,z_1,z_2\n" + "x" * 200_000 + ",1,2\n", "cannot be read"),
    ],
)
def test_codes_that_would_be_lost_or_take_for_ever(text, words):
    Path("l.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        latent_walks.decode_file(conv_decoder(), "l.csv", "out")
    assert not Path("out").exists() or not any(Path("out").iterdir())


def conv_decoder():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(784)])


# ---------------------------------------------------------------- streams, signals, a full disk


@not_on_windows
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_imports(sent):
    process = subprocess.Popen(
        [sys.executable, ROOT / "denoise_mnist.py", *QUICK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell's background jobs or nohup ignore, those they start would ignore too.
        preexec_fn=lambda: signal.signal(sent, signal.SIG_DFL),
    )
    maps = Path(f"/proc/{process.pid}/maps")
    if maps.exists():
        wait_for(lambda: "libtensorflow" in maps.read_text(), process)
    else:
        time.sleep(2)
    process.send_signal(sent)
    out, error = process.communicate()
    assert (process.returncode, out, error) == (130, "", "\nInterrupted.\n")


@not_on_windows
def test_a_second_ctrl_c_changes_nothing(capsys):
    def main(argv):
        with run_of() as run:
            run.keep(small_model(), row(1, 0.5))
            real = run._let_go

            def let_go():
                os.kill(os.getpid(), signal.SIGTERM)
                real()

            run._let_go = let_go
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    with pytest.raises(SystemExit) as info:
        command_line.start(main, [])
    os.kill(os.getpid(), signal.SIGTERM)  # a third, while Python ends
    assert info.value.code == 130
    error = capsys.readouterr().err
    assert error.startswith("\nInterrupted. The best model so far is out/model.keras. Go on with:")
    assert error.count("\n") == 2


@not_on_windows
def test_ctrl_c_during_evaluation_and_figures(monkeypatch, figures_left_out):
    def stop(*words, **options):
        raise KeyboardInterrupt

    words = [*QUICK, "--output-dir", "run"]
    for moment in ("plot", "finish"):
        with monkeypatch.context() as patch:
            patch.setattr(f"common.run_folder.RunFolder.{moment}", stop)
            with pytest.raises(KeyboardInterrupt) as info:
                denoise_mnist.main(words)
        assert "--resume" in info.value.__notes__[0]
        assert not Path("run/metrics.json").exists()
        words = [*QUICK, "--output-dir", "run", "--resume"]
    assert Path("run/digits.png").exists()
    denoise_mnist.main(words)
    assert Path("run/metrics.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_can_not_be_written_ends_nothing(monkeypatch):
    done = []

    def main(argv):
        print("x" * 100_000, flush=True)
        print("and on", flush=True)
        done.append(True)

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as info:
            command_line.start(main, [])
    assert done
    assert not info.value.code


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    resource = pytest.importorskip("resource")
    import matplotlib.pyplot as plt

    noise = np.random.default_rng(0).random((200, 200, 1))
    model = small_model()
    writers = [
        lambda path: image_files.write_image(path.with_suffix(".png"), noise),
        lambda path: files.write_json(path.with_suffix(".json"), list(range(9_000))),
        lambda path: files.write_csv(path.with_suffix(".csv"), ["a"], [[n] for n in range(9_000)]),
        lambda path: models.save_model(model, path.with_suffix(".keras")),
        lambda path: plotting.save(plt.figure(), path.with_suffix(".png"), "caption"),
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number, write in enumerate(writers):
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            with pytest.raises(UserError, match=r"can't be written .*choose another --output-dir"):
                write(tmp_path / f"out{number}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []
