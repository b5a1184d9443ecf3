"""Cleaning with dask's workers gives the same as one process, whichever process ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, contents
from PIL import Image

import clean_documents
from common import files, training
from common.cli import UserError
from synthetic import pages
from tools.scans import batch
from tools.scans.document import Options

distributed = pytest.importorskip(
    "distributed", reason="needs dask: pip install -r requirements-cluster.txt"
)

import dask  # noqa: E402

from tools.scans import cluster  # noqa: E402

RECORD = Path("out", "cleaned.json")
MODEL = ROOT / "models" / "clean_documents_autoencoder.keras"  # the smaller one
ARGUMENTS = ["--input", "in", "--output-dir", "out", "--model", str(MODEL)]


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """A folder with `in`, six files, and `out`, what one process makes of them."""
    folder = tmp_path_factory.mktemp("cleaned")
    scans = [Image.fromarray(page[0][..., 0]) for page in pages.make_pages(7, 1, 120, 160)]
    for number, scan in enumerate(scans[:4]):
        path = folder / "in" / ("deep" if number % 3 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scan.save(path)
    scans[4].save(folder / "in" / "a.pdf", save_all=True, append_images=scans[5:6])
    scans[5].save(folder / "in" / "b.tif", save_all=True, append_images=scans[6:])
    with contextlib.chdir(folder):
        assert clean_documents.main(ARGUMENTS) == 0
    return folder


@pytest.fixture
def expected(cleaned, tmp_path):
    """Copy `in` to the test's folder and return the contents of `out` to expect."""
    shutil.copytree(cleaned / "in", tmp_path / "in")
    return outputs(cleaned)


def outputs(folder=Path()):
    """Return ({path: content} of `out`, entries of its record).

    Left out are the random /ID of a PDF, and so its hash, and the folder of the inputs.
    """
    made = {path.relative_to(folder): data for path, data in contents(folder / "out").items()}
    entries = json.loads(made.pop(RECORD))
    for entry in entries.values():
        entry["input"] = Path(entry["input"]).name
    for path in [path for path in made if path.suffix == ".pdf"]:
        made[path], count = re.subn(rb"/ID\[.*?\]", b"", made[path])
        assert count == 1
        hashed = entries[path.relative_to("out").as_posix()].pop("sha256")
        assert hashed == files.sha256(folder / path)
    return made, entries


# ---------------------------------------------------------------- workers that are threads


@pytest.fixture
def run():
    """Return a function that cleans with workers in this process, and returns the exit code."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as workers:
        network = training.load_model(MODEL, "clean_documents_autoencoder")

        def clean(*inputs, force=False, **options):
            return batch.clean_files(
                network, inputs, "out", Options(**options), force, workers.scheduler_address
            )

        yield clean


def test_outputs_and_record_are_those_of_one_process(expected, run, capsys):
    assert run("in") == 0
    assert outputs() == expected
    assert capsys.readouterr().out.count("Wrote out/") == 6
    times = {path: path.stat().st_mtime_ns for path in expected[0]}
    assert run("in") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert run("in", force=True, gray=True) == 0
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())


def test_files_that_cannot_be_cleaned(expected, run, capsys):
    Path("in/broken.png").write_text("text")
    with pytest.raises(UserError, match=r"in/broken.png: not an image"):
        run("in/broken.png")
    assert run("in") == 1
    output = capsys.readouterr()
    assert "in/broken.png: not an image" in output.err
    assert "Failed: in/broken.png" in output.out
    assert outputs() == expected


def test_workers_that_do_not_see_the_files(expected, run, monkeypatch):
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.suffix != ".tif" and exists(path))
    with pytest.raises(UserError, match=r"a worker cannot clean in/b.tif .* the same paths"):
        run("in/b.tif")


def test_errors_are_one_line(expected, error_of):
    arguments = [*ARGUMENTS, "--dask"]
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        line = error_of(clean_documents.main, *arguments, "tcp://127.0.0.1:9")
    assert "tcp://127.0.0.1:9: no scheduler answers" in line
    with distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp") as nobody:
        address = nobody.scheduler_address
        line = error_of(clean_documents.main, *arguments, address)
        assert f"{address}: has no workers; start some with: python -m dask worker" in line
    assert contents("out") == {}


@pytest.mark.parametrize(
    ("files", "memory", "workers"),
    [
        (100, 10**12, (8, 1)),
        (2, 10**12, (2, 4)),
        (5, 10**12, (4, 2)),
        (100, 4 * cluster.WORKER_BYTES, (4, 2)),
        (100, 1, (1, 8)),
    ],
)
def test_workers_times_threads_are_the_cores(monkeypatch, files, memory, workers):
    monkeypatch.setattr(cluster, "CPU_COUNT", 8)
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", memory)
    assert cluster.workers_here(files) == workers


# ---------------------------------------------------------------- processes, as they are started


@pytest.fixture
def start(monkeypatch):
    """Return a function that starts Python in a process group of its own; they end with the test.

    Workers preload cluster_hooks.py.
    """
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", str(ROOT / "tests/cluster_hooks.py"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    started = []

    def run(*arguments, **options):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Background jobs of a shell ignore SIGINT, and so would the processes they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path, process, ending=""):
    while not (path.exists() and path.read_text().endswith(ending)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_files_that_end_their_workers(expected, start, monkeypatch):
    """A worker that has died is replaced; a file that ends every worker fails alone."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    shutil.copy("in/0.png", "in/fatal.png")
    shutil.copy("in/0.png", "in/once.png")
    process = start(ROOT / "clean_documents.py", *ARGUMENTS, "--dask", "local")
    out, err = process.communicate()
    assert process.returncode == 1, err
    assert "in/fatal.png: crashed every worker that tried to clean it" in err
    assert "Traceback" not in err
    assert "7 of 8 files are in out" in out
    made, _ = outputs()
    assert made.pop(Path("out/once.png")) == made[Path("out/0.png")]
    assert made == expected[0]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_after_an_interruption_the_same_command_continues(expected, start, ending):
    shutil.copy("in/0.png", "in/slow.png")
    process = start(ROOT / "clean_documents.py", *ARGUMENTS, "--dask", "local")
    wait_for(Path("slow"), process)
    wait_for(RECORD, process)
    os.killpg(process.pid, ending)
    out, err = process.communicate()
    if ending == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "To continue, run the same command with --output-dir out." in out
        assert list(Path("out").rglob(".*")) == []
    Path("in/slow.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("[!.]*.png")}
    assert clean_documents.main(ARGUMENTS) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    made, entries = outputs()
    hidden = {path for path in made if path.name.startswith(".")}  # of the process that was killed
    assert ({path: made[path] for path in made.keys() - hidden}, entries) == expected


def test_a_scheduler_and_workers_of_other_processes(expected, start, tmp_path):
    ready = tmp_path / "scheduler.json"
    scheduler = start("-m", "dask", "scheduler", "--port", 0, "--scheduler-file", ready)
    wait_for(ready, scheduler, "}")
    address = json.loads(ready.read_text())["address"]
    start("-m", "dask", "worker", address, "--nthreads", 1, "--memory-limit", 0, "--no-nanny")
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1)
    process = start(ROOT / "clean_documents.py", *ARGUMENTS, "--dask", address)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"1 workers at {address}" in out
    assert outputs() == expected
    # The scheduler is killed.
    shutil.copy("in/0.png", "in/slow.png")
    process = start(ROOT / "clean_documents.py", *ARGUMENTS, "--dask", address)
    wait_for(Path("slow"), process)
    os.killpg(scheduler.pid, signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 2
    assert "lost the scheduler; run the same command again to continue" in err
    assert "Traceback" not in err
