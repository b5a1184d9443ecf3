"""Small datasets and a small server, so that tests need neither network nor data."""

import contextlib
import gzip
import http.server
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
if "PYTEST_XDIST_WORKER" in os.environ:  # one for each core: more threads would only wait
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import common  # noqa: E402, F401  before keras: keeps the output clean
from common import command_line, plotting, run_folder  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from browser import browser, requests_of  # noqa: E402, F401  fixtures

plotting.set_up(show=False)
with contextlib.suppress(ValueError):  # where a shell ignores it in the background; children would
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The files that take longest, to begin with: workers then end at about the same time.
LONGEST = (
    *("scripts", "devices", "watermark_photo", "benchmarks", "latent_spaces", "vae_fashion"),
    *("denoise_fashion", "own_pictures", "run_folder", "command_line", "denoise_mnist"),
    *("watermark_ae", "bad_input"),
)


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Each test writes its runs/ into an empty folder and finds an empty Keras cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras_home"))
    monkeypatch.setenv("no_proxy", "*")  # the server is on this machine


@contextlib.contextmanager
def signals_kept():
    """A script that ends ignores all signals, but the tests go on."""
    names = {"SIGINT", "SIGTERM", "SIGHUP"} & set(dir(signal))
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@pytest.fixture(autouse=True)
def signals_as_before():
    with signals_kept():
        yield


@pytest.fixture(autouse=True, scope="session")
def few_samples():
    """Take the importance-weighted bound, 100 samples of each, on few of the test images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae_fashion.FIRST", 60)
        yield


@contextlib.contextmanager
def without_figures():
    """Have runs leave empty files for their figures, which are a third of a short one's work.

    For tests of something else: each figure is made in full by another test.
    """

    def plot(run, function, content, name, *words, **options):
        run.path(name).touch(exist_ok=False)  # what is there already is never replaced

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder.RunFolder, "plot", plot)
        yield


@pytest.fixture
def figures_left_out():
    with without_figures():
        yield


@pytest.fixture(scope="session")
def real_data():
    """The folder with the real datasets, if there is one."""
    if "AUTOENCODER_DATA" not in os.environ:
        pytest.skip("AUTOENCODER_DATA names no folder with real datasets")
    return os.path.abspath(os.environ["AUTOENCODER_DATA"])


@pytest.fixture
def error_of(capsys):
    """Run a script's main and return the one line it ends in, with exit code 2."""

    def run(main, *words):
        with pytest.raises(SystemExit) as exit_info:
            command_line.start(main, [str(word) for word in words])
        line = capsys.readouterr().err
        assert exit_info.value.code == 2, line
        assert line.count("\n") == 1, line
        return line

    return run


def python(*words, **options):
    """Run Python in a process of its own and return it when it has ended."""
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, **options
    )


def report_of(folder):
    """Return the metrics.json of a run."""
    return json.loads((Path(folder) / "metrics.json").read_text())


def contents(folder):
    """Return {path: bytes} of all files below a folder."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def small_mnist(train=60, test=30, seed=0):
    """Return arrays named and typed as in mnist.npz."""
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, train, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, test, dtype=np.uint8),
    }


def write_idx(folder, arrays, zipped=True):
    """Write arrays as the four IDX files of MNIST and Fashion-MNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "x_train": "train-images-idx3-ubyte",
        "y_train": "train-labels-idx1-ubyte",
        "x_test": "t10k-images-idx3-ubyte",
        "y_test": "t10k-labels-idx1-ubyte",
    }
    for key, name in names.items():
        array = arrays[key]
        content = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
        content += array.tobytes()
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.fixture
def server():
    """A server on localhost whose answers depend on the first part of the path.

    good serves `server.content`, files serves `server.files` by name, cut stops half-way, hang
    says nothing, trickle sends a byte now and then, anything else is 404.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            behaviour = self.path.split("/")[1]
            content = self.server.content
            if behaviour == "hang":
                self.server.over.wait(60)
                return
            if behaviour == "files":
                content = self.server.files.get(self.path.split("/")[-1])
            if behaviour not in ("good", "cut", "trickle", "files") or content is None:
                self.send_error(404, "Not Found")
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if behaviour == "trickle":
                for byte in content[:600]:
                    if self.server.over.wait(0.1):
                        return
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
            else:
                self.wfile.write(content[: len(content) // 2] if behaviour == "cut" else content)

        def log_message(self, *words):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *words):
            pass  # the client hung up, as it should

    with Server(("127.0.0.1", 0), Handler) as answering:
        answering.content, answering.files = b"", {}
        answering.over = threading.Event()
        answering.url = f"http://127.0.0.1:{answering.server_port}/"
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield answering
        answering.over.set()
        answering.shutdown()


def wait_for(condition, process):
    """Wait until a condition holds while a process runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def predict_elsewhere(model_files, inputs, folder):
    """Return what saved models predict in a process that imports keras and nothing of ours."""
    np.savez(folder / "in.npz", *inputs)
    code = (
        "import sys, keras, numpy as np\n"
        "inputs = np.load('in.npz')\n"
        "models = map(keras.saving.load_model, sys.argv[1:])\n"
        "pairs = zip(models, (inputs[name] for name in inputs.files))\n"
        "np.savez('out.npz', *[model.predict(x, verbose=0) for model, x in pairs])"
    )
    done = python("-c", code, *(Path(file).resolve() for file in model_files), cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as out:
        return [out[name] for name in out.files]


def stop_after_one_epoch(main, words):
    """Run a script's main and interrupt it when it has stored its first epoch."""
    real_keep = run_folder.RunFolder.keep

    def keep_then_stop(run, model, row):
        real_keep(run, model, row)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder.RunFolder, "keep", keep_then_stop)
        with pytest.raises(KeyboardInterrupt) as info:
            main(words)
    return " ".join(info.value.__notes__)
