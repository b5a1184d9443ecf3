"""Small datasets and a small server, so that tests need neither network nor data."""

import gzip
import http.server
import json
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if "PYTEST_XDIST_WORKER" in os.environ:  # one for each core: more threads would only wait
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from browser import browser, requests_of  # noqa: E402, F401  fixtures

from common import cli  # noqa: E402

# The files that take longest, to begin with: workers then end at about the same time.
LONGEST = "scripts watermark_photo latent_spaces vae_fashion denoise_fashion watermark_ae".split()


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path, monkeypatch):
    """Each test writes its runs/ into an empty folder and finds an empty Keras cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras_home"))
    monkeypatch.setenv("no_proxy", "*")  # the server is on this machine


@pytest.fixture(scope="session")
def real_data():
    """The folder with the real datasets, if there is one."""
    if "AUTOENCODER_DATA" not in os.environ:
        pytest.skip("AUTOENCODER_DATA names no folder with real datasets")
    return Path(os.environ["AUTOENCODER_DATA"]).absolute()


@pytest.fixture
def error_of(capsys):
    """Run a script's main and return the one line that it ends in, with exit code 2."""

    def run(main, *arguments):
        with pytest.raises(SystemExit) as exit_info:
            cli.run(lambda: main([str(argument) for argument in arguments]))
        line = capsys.readouterr().err
        assert exit_info.value.code == 2, line
        assert line.count("\n") == 1, line
        return line

    return run


@pytest.fixture
def usage_error(capsys):
    """Run a script's main with flags that its parser refuses; return what it says, in one line."""

    def run(main, *arguments):
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        assert exit_info.value.code == 2
        return " ".join(capsys.readouterr().err.replace("│", " ").split())  # tyro's frame

    return run


def python(*arguments, **options):
    """Run Python in a process of its own and return it when it has ended."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, **options
    )


def code_in(page, title):
    """Return the Python code below the marker `<!-- title -->` of a page such as README.md."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(f"<!-- {title} -->\n```python\n(.*?)```", text, re.DOTALL)[1]


def metrics_of(folder):
    """Return the metrics.json of a run."""
    return json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))


def contents(folder):
    """Return {path: bytes} of all files below a folder."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def whiten(gray, by_paper):
    """Clean a page as a stand-in for the network: turn light gray white."""
    return np.where(gray > 0.55, np.float32(1), gray)


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
    never answers, anything else is 404.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            behavior = self.path.split("/")[1]
            content = self.server.content
            if behavior == "hang":
                self.server.over.wait(60)
                return
            if behavior == "files":
                content = self.server.files.get(self.path.split("/")[-1])
            if behavior not in ("good", "cut", "files") or content is None:
                self.send_error(404, "Not Found")
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if behavior == "cut" else content)

        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *arguments):
            pass  # the client hung up, as it should

    with Server(("127.0.0.1", 0), Handler) as answering:
        answering.content, answering.files = b"", {}
        answering.over = threading.Event()
        answering.url = f"http://127.0.0.1:{answering.server_port}/"
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        yield answering
        answering.over.set()
        answering.shutdown()
