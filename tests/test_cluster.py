"""Cleaning by dask's workers: all is as from one process, whatever comes to an end meanwhile."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import pytest
from cluster_hooks import outputs
from conftest import ROOT, contents, wait_for
from PIL import Image

import clean_documents as script
from applications import page_cleaning
from common import UserError, files
from synthetic import pages

WHY = "needs dask: pip install -r requirements-cluster.txt"
distributed = pytest.importorskip("distributed", reason=WHY)

import dask  # noqa: E402

from applications import cluster  # noqa: E402

RECORD = Path("out", "cleaned.json")
MODEL = ROOT / "models" / "clean_documents_autoencoder.keras"  # the smaller one
COMMAND = ["clean_documents.py", "--input", "in", "--output-dir", "out", "--model", str(MODEL)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A folder `in` of twelve files, and `out`, as one process makes it of them."""
    folder = tmp_path_factory.mktemp("scans")
    made = [Image.fromarray(page[0][..., 0]) for page in pages.pages(13, 1, 120, 160)]
    for number, page in enumerate(made[:10]):
        path = folder / "in" / ("deep" if number % 3 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path)
    made[10].save(folder / "in" / "a.pdf", save_all=True, append_images=made[11:12])
    made[11].save(folder / "in" / "b.tif", save_all=True, append_images=made[12:])
    with contextlib.chdir(folder):
        assert script.main(COMMAND[1:]) == 0
    return folder


@pytest.fixture
def here(scans, tmp_path):
    """A copy of that folder `in`, at the test's own place, and the contents of `out` to expect."""
    shutil.copytree(scans / "in", tmp_path / "in")
    expected = made(scans)
    before, after = (json.dumps(str(path))[1:-1].encode() for path in (scans, tmp_path))
    return expected | {RECORD: expected[RECORD].replace(before, after)}


def made(folder=None):
    """Return the contents of `out`, but for a PDF's /ID, which is random, and so its hash."""
    folder = folder or Path.cwd()
    found = {path.relative_to(folder): data for path, data in contents(folder / "out").items()}
    for path in [path for path in found if path.suffix == ".pdf"]:
        found[path], count = re.subn(rb"/ID\[.*?\]", b"", found[path])
        assert count == 1
        digest = files.sha256(folder / path).encode()
        found[RECORD] = found[RECORD].replace(digest, b"")
    return found


# ---------------------------------------------------------------- processes, as they are started


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that starts Python in a process group of its own; they end with the test.

    Workers are held in mid-page as tests/cluster_hooks.py says.
    """
    monkeypatch.setenv("HOOKS", str(tmp_path))
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", str(ROOT / "tests/cluster_hooks.py"))
    started = []

    def run(*words, **options):
        command = [sys.executable, *map(str, words)]
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, start_new_session=True, **options))
        return started[-1]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def clean_here(start, *words):
    return start(ROOT / COMMAND[0], *COMMAND[1:], "--dask", *words)


def hold(process, after, workers):
    """Let this many outputs be made, and return the workers that then stop in mid-page."""
    wait_for(lambda: len(held()) == workers and len(outputs(Path("out"))) >= after, process)
    return held()


def held():
    return [int(path.name.split()[1]) for path in Path().glob("holding *")]


def go_on():
    Path("hold").unlink()


def loads():
    """Return {process: threads} of the workers; each has loaded the model once."""
    lines = [tuple(map(int, line.split())) for line in Path("loads").read_text().splitlines()]
    assert len(dict(lines)) == len(lines)
    return dict(lines)


def times(names):
    return {name: name.stat().st_mtime_ns for name in names}


def test_a_worker_is_killed_in_mid_page(here, start):
    Path("hold").write_text("4")
    process = clean_here(start, "local")
    count, threads = cluster.workers_here(12)
    workers = hold(process, 4, count)
    assert len(list(Path("out").rglob(".run-*"))) == count
    os.kill(workers[0], signal.SIGKILL)
    go_on()
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "12 of 12 files are in out" in out
    assert "14 pages in 0:" in out
    assert made() == here
    assert set(workers) <= loads().keys()
    assert set(loads().values()) == {threads}


def test_all_is_killed_and_goes_on(here, start):
    Path("hold").write_text("5")
    process = clean_here(start, "local")
    hold(process, 5, cluster.workers_here(12)[0])
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    go_on()
    for path in Path("out").rglob(".*"):  # what a killed process leaves
        path.unlink()
    before, contents_before = times(outputs(Path("out"))), made()
    assert 5 <= len(before) < 12
    assert all(contents_before[path] == here[path] for path in before)
    process = clean_here(start, "local")
    out, _ = process.communicate()
    assert process.returncode == 0
    assert f"{len(before)} of 12 files are there already" in out
    assert times(before) == before
    after = made()
    assert after.keys() == here.keys()
    assert all(after[path] == here[path] for path in after.keys() - {RECORD})
    # Of a page that was there before the record said so, the number of pages is not known.
    entries, wanted = json.loads(after[RECORD]), json.loads(here[RECORD])
    assert all(wanted[name] | entries[name] == wanted[name] for name in wanted)
    assert entries.keys() == wanted.keys()


def test_ctrl_c_reaches_all_and_leaves_what_is_done(here, start):
    Path("hold").write_text("3")
    process = clean_here(start, "local")
    hold(process, 3, cluster.workers_here(12)[0])
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.startswith("\nInterrupted. ")
    assert err.count("\n") == 2
    assert "of 12 files are in out; the same command with this --output-dir goes on" in err
    done = outputs(Path("out"))
    assert list(Path("out").rglob(".*")) == []
    assert json.loads(Path("out/cleaned.json").read_text()).keys() == {
        path.relative_to("out").as_posix() for path in done
    }
    before = times(done)
    assert script.main(COMMAND[1:]) == 0
    assert times(before) == before
    assert made() == here


def test_broken_and_deadly_files_among_good_ones(here, start, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    Path("in/broken.png").write_text("text")
    shutil.copy("in/0.png", "in/fatal.png")
    process = clean_here(start, "local")
    out, err = process.communicate()
    assert process.returncode == 1
    broken, fatal = sorted(err.splitlines())
    assert broken.startswith("in/broken.png: not an image that can be read")
    assert fatal == "in/fatal.png: ended each process that began to clean it"
    assert out.count("Failed: in/") == 2
    assert "12 of 14 files are in out" in out
    assert made() == here


def test_separate_processes_as_on_several_machines(here, start, tmp_path):
    """A scheduler and two workers, started as README says; one worker's machine is gone."""
    Path("hold").write_text("4")
    ready = tmp_path / "scheduler.json"
    words = ("--port", 0, "--scheduler-file", ready)
    scheduler = start("-m", "dask", "scheduler", *words, cwd=ROOT)
    wait_for(lambda: ready.exists() and ready.read_text().endswith("}"), scheduler)
    address = json.loads(ready.read_text())["address"]
    words = ("--nthreads", 1, "--memory-limit", 0, "--no-nanny")
    for _ in range(2):
        start("-m", "dask", "worker", address, *words, cwd=ROOT)
    with distributed.Client(address) as client:
        client.wait_for_workers(2)
    process = clean_here(start, address)
    os.kill(hold(process, 4, 2)[0], signal.SIGKILL)
    go_on()
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert f"2 workers at {address}" in out
    assert made() == here
    assert sorted(loads().values()) == [1, 1]
    # The scheduler is gone while pages are cleaned.
    Path("hold").write_text("0")
    words = ["again" if word == "out" else word for word in COMMAND[1:]]
    process = start(ROOT / COMMAND[0], *words, "--dask", address)
    wait_for(lambda: list(Path("again").rglob(".run-*")), process)
    os.killpg(scheduler.pid, signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "the scheduler is gone" in err
    assert "the same command with this --output-dir goes on" in err


# ---------------------------------------------------------------- workers that are threads


@pytest.fixture
def run():
    """Return a function that cleans `in` on workers in this process, and gives the exit code."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as workers:
        network = script.build_autoencoder()
        network.load_weights(MODEL)

        def clean(*inputs, force=False, **options):
            words = network, inputs or ("in",), "out", page_cleaning.Options(**options), force
            return page_cleaning.clean_files(*words, workers.scheduler_address)

        yield clean


def test_outputs_and_record_are_those_of_one_process(here, run, capsys):
    assert run() == 0
    assert made() == here
    assert capsys.readouterr().out.count("Wrote out/") == 12
    before = times(outputs(Path("out")))
    assert run() == 0
    assert times(before) == before
    assert run(force=True, grey=True) == 0
    assert all(time != before[path] for path, time in times(before).items())


def test_each_worker_has_one_file_at_a_time(here, run, monkeypatch):
    """So no other file is suspected when one ends its worker."""
    real, most = distributed.Client.submit, []

    def submit(client, *words, **options):
        most.append(sum(map(len, client.processing().values())))
        return real(client, *words, **options)

    monkeypatch.setattr(distributed.Client, "submit", submit)
    assert run() == 0
    assert max(most) == 1  # beside the one that is submitted


def test_the_only_file_cannot_be_cleaned(run):
    Path("a.png").write_text("text")
    with pytest.raises(UserError, match=r"a.png: not an image"):
        run("a.png")
    assert not Path("out").exists()


def test_what_appears_meanwhile_is_not_replaced(here, run, monkeypatch, capsys):
    real = page_cleaning.write_cleaned

    def write_cleaned(clean, source, path, options):
        if source.name == "0.png":
            Path("out/0.png").write_text("mine")
        return real(clean, source, path, options)

    monkeypatch.setattr(page_cleaning, "write_cleaned", write_cleaned)
    assert run() == 1
    assert Path("out/0.png").read_text() == "mine"
    assert "out/0.png: can't be written (it exists)" in capsys.readouterr().err
    assert list(Path("out").rglob(".*")) == []
    assert len(json.loads(Path("out/cleaned.json").read_text())) == 12


@pytest.mark.parametrize("what", ["in", "out", "rights", "result", "model"])
def test_workers_that_cannot_do_this_work(here, run, monkeypatch, tmp_path, what):
    """Another machine, where paths lead elsewhere, or where the packages are others."""
    exists, write_cleaned = Path.exists, page_cleaning.write_cleaned

    def unseen(path):
        there = threading.current_thread() is threading.main_thread()
        if what == "rights" and not there:
            raise PermissionError(13, "Permission denied")
        return exists(path) and (there or tmp_path / what not in (path, *path.parents))

    def elsewhere(clean, source, path, options):
        result = write_cleaned(clean, source, path, options)
        path.rename(tmp_path / path.name)
        return result

    def load_model(path, **options):
        raise ValueError("of another Keras")

    if what == "result":
        monkeypatch.setattr(page_cleaning, "write_cleaned", elsewhere)
    elif what == "model":
        monkeypatch.setattr(keras.saving, "load_model", load_model)
    else:
        monkeypatch.setattr(Path, "exists", unseen)
    words = {
        "in": "a worker doesn't see .*/in/.*; every worker must see it, under the same path",
        "out": "a worker doesn't see .*/out",
        "rights": "a worker can't clean .*PermissionError",
        "result": "a worker writes to another out; every worker must see it",
        "model": "a worker can't clean .*of another Keras",
    }
    with pytest.raises(UserError, match=words[what]):
        run()
    assert not Path("out").exists()


def test_nothing_gets_a_name_when_its_run_has_ended(here, run, monkeypatch):
    """A worker sees at the next page that nobody waits for it any more."""
    real, asked, seen = page_cleaning.write_cleaned, [], []

    def interrupt_and_go_on(clean, source, path, options):
        worker = distributed.get_worker()
        key = worker.get_current_task()
        if not asked:
            os.kill(os.getpid(), signal.SIGINT)
        asked.append(key)
        while getattr(worker.state.tasks.get(key), "state", "") == "executing":
            time.sleep(0.01)
        try:
            return real(clean, source, path, options)
        except UserError as error:
            seen.append(str(error))
            raise

    monkeypatch.setattr(page_cleaning, "write_cleaned", interrupt_and_go_on)
    with pytest.raises(KeyboardInterrupt):
        run()
    while len(seen) < len(asked):
        time.sleep(0.01)
    assert all(text.endswith("its run has ended") for text in seen)
    assert outputs(Path("out")) == []


def test_no_worker_has_started_in_time(here, error_of, monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_START", 0.01)
    monkeypatch.setattr(distributed.LocalCluster, "scale", lambda cluster, count: None)
    words = ("--model", MODEL, "--input", "in", "--output-dir", "out", "--dask", "local")
    assert "no worker has started; leave --dask out" in error_of(script.main, *words)
    assert not Path("out").exists()


def test_no_worker_makes_the_folder_again_that_its_run_has_removed(here, run, monkeypatch):
    real, begun, ended, one = files.write_beside, [], [], threading.Lock()

    @contextlib.contextmanager
    def write_beside(path, run=""):
        if run:  # it is a worker's
            with one:
                begun.append(path)
                first = len(begun) == 1
            while Path("out").exists() and not (first and len(begun) == 2):
                time.sleep(0.01)
            if first:
                raise RuntimeError("so the run ends")
        try:
            with real(path, run) as hidden:
                yield hidden
        finally:
            if run:
                ended.append(path)

    monkeypatch.setattr(files, "write_beside", write_beside)
    monkeypatch.setattr(cluster, "_one_file", contextlib.nullcontext())
    with pytest.raises(UserError, match="so the run ends"):
        run()
    while not ended:
        time.sleep(0.01)
    assert not Path("out").exists()


def test_workers_times_threads_are_the_cores(monkeypatch):
    monkeypatch.setattr(cluster, "CPU_COUNT", 8)
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", 10**12)
    assert cluster.workers_here(100) == (8, 1)
    assert cluster.workers_here(2) == (2, 4)
    assert cluster.workers_here(5) == (4, 2)
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", 4 * cluster.BYTES_OF_A_WORKER)
    assert cluster.workers_here(100) == (4, 2)
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", 1)
    assert cluster.workers_here(100) == (1, 8)


# ---------------------------------------------------------------- errors


def test_errors_are_one_line(here, error_of):
    words = ["--input", "in", "--output-dir", "out", "--model", MODEL, "--dask"]
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        line = error_of(script.main, *words, "tcp://127.0.0.1:9")
    assert "tcp://127.0.0.1:9: no scheduler answers" in line
    line = error_of(script.main, *words, "tls://127.0.0.1:9")  # for which it has no certificate
    assert "tls://127.0.0.1:9: no scheduler answers" in line
    with distributed.LocalCluster(n_workers=0, processes=False, protocol="tcp") as nobody:
        address = nobody.scheduler_address
        line = error_of(script.main, *words, address)
        assert f"{address}: has no workers; start some with: python -m dask worker" in line
    assert outputs(Path("out")) == []
