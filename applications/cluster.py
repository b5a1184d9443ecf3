"""Files cleaned by many processes, here or on other machines, with dask.distributed.

The process that was started plans, hands each worker one file at a time, gives what comes back its
name, and alone writes the record. A worker loads the model once, and writes under hidden names that
carry the run, the machine and the process. So whatever ends a worker, or this process, a page is
there whole or not at all, and nothing gets a name behind the back of a run that has ended.
"""

import contextlib
import functools
import itertools
import logging
import os
import secrets
import signal
import tempfile
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import distributed
import keras
import tensorflow
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

from applications import page_cleaning
from common import UserError, files, without_start_up_noise

BYTES_OF_A_WORKER = 2 * 10**9
SECONDS_TO_START = 600  # of the first worker: the machine may be a busy one

_one_file = threading.Lock()  # PDFium is not made for threads; TensorFlow's are those of a worker


class Cleaner(distributed.WorkerPlugin):
    """What each worker of a run gets, also one that joins later: the model."""

    def __init__(self, model):
        self.model = model  # the bytes of a .keras file

    def setup(self, worker):
        """Give TensorFlow as many threads as the worker was started with."""
        count, threads = worker.state.nthreads, tensorflow.config.threading
        with contextlib.suppress(RuntimeError):  # it has begun, for another run: so they are set
            threads.set_intra_op_parallelism_threads(count)
            threads.set_inter_op_parallelism_threads(count)
        with without_start_up_noise():
            tensorflow.zeros(1)  # it looks for GPUs

    @functools.cached_property
    def clean(self):
        """What `page_cleaning.cleaner` returns, made when the first page comes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            path.write_bytes(self.model)
            return page_cleaning.cleaner(keras.saving.load_model(path, compile=False))


def _clean_one(run, source, target, options):
    """Clean one file on a worker.

    Returns:
        One of ("cleaned", (path of the hidden file, what the record keeps of it)),
        ("failed", text of the UserError), ("unseen", path that is not there on this machine).
    """
    worker = distributed.get_worker()
    key = worker.get_current_task()

    def see_that_wanted():
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise UserError(f"{source}: its run has ended")

    def clean(page):
        see_that_wanted()
        return network(page)

    with _one_file:
        for path in (source, target.parent):
            if not path.exists():
                return "unseen", path
        network = worker.plugins[run].clean  # where it can't be loaded, the page is not to blame
        try:
            files.see_that_file(source)
            with files.write_beside(target, f"{run}-") as hidden:
                result = page_cleaning.write_cleaned(clean, source, hidden, options)
                see_that_wanted()
            return "cleaned", (hidden, result)
        except UserError as error:
            return "failed", str(error)


@contextlib.contextmanager
def workers(address, network, left, record, options):
    """Give an iterator over (name, what `page_cleaning.clean_file` returns, or its UserError).

    Args:
        address: of a scheduler; "local": processes on this machine, one for each core, or fewer
            with more threads where files or memory are few.
        network: of clean_documents.py.
        left: {name: file}.
        record: the `page_record.Record`.
        options: the `page_cleaning.Options`.

    Raises:
        UserError: nobody answers there, or the workers can't do this work.
    """
    for name in ("distributed", "distributed.client"):  # dask gives the second a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said here
    run = f"run-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as at_end:
        at_end.callback(_remove_unfinished, record.folder, run)
        cluster = at_end.enter_context(_processes(len(left))) if address == "local" else None
        client = at_end.enter_context(_client(address, cluster))
        _hand_out(client, address, network, run)
        at_end.callback(_take_back, client, run)
        cleaned = _cleaned(client, address, run, left, record, options)
        yield at_end.enter_context(contextlib.closing(cleaned))


def _remove_unfinished(folder, run):
    """Remove what workers had not finished when they, or the run, came to an end."""
    for path in folder.rglob(f".{run}-*"):
        with contextlib.suppress(OSError):
            path.unlink()


def workers_here(most):
    """Return (workers, threads of each) whose product is the cores of this machine, or just less.

    There are at most this many, and no more than its memory holds with large pages.
    """
    most = max(1, min(CPU_COUNT, most, int(MEMORY_LIMIT // BYTES_OF_A_WORKER)))
    threads = -(-CPU_COUNT // most)
    return CPU_COUNT // threads, threads


@contextlib.contextmanager
def _processes(most):
    """Give a cluster of processes on this machine."""
    count, threads = workers_here(most)
    print(f"Starting {count} workers; threads of each: {threads} ...", flush=True)
    # Ctrl-C in a terminal reaches every process there, but it is for this one to stop the others.
    # What is blocked here stays blocked in the threads and processes that are started meanwhile.
    resource_tracker.ensure_running()  # it would unblock them
    ends = {signal.SIGINT, signal.SIGHUP} if hasattr(signal, "pthread_sigmask") else set()
    before = ends and signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        cluster = distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=threads,
            memory_limit=0,  # no worker is stopped in mid-page
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    finally:
        ends and signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with cluster:
        cluster.scale(count)
        yield cluster


@contextlib.contextmanager
def _client(address, cluster):
    try:
        client = distributed.Client(cluster or address, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:
        way_out = "start one with: python -m dask scheduler"
        raise UserError(f"{address}: no scheduler answers ({error}); {way_out}") from None
    with client:
        if cluster:
            try:
                client.wait_for_workers(1, SECONDS_TO_START)
            except TimeoutError:
                raise UserError(f"{address}: no worker has started; leave --dask out") from None
        elif count := len(client.nthreads()):
            print(f"{count} workers at {address}", flush=True)
        else:
            way_out = f"start some with: python -m dask worker {address}"
            raise UserError(f"{address}: has no workers; {way_out}")
        yield client


def _hand_out(client, address, network, run):
    """Give the model to the workers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        network.save(path)
        plugin = Cleaner(path.read_bytes())
    try:
        client.register_plugin(plugin, run)
    except ImportError as error:
        way_out = "start all workers in the project's folder, with its requirements"
        raise UserError(f"{address}: a worker can't begin ({error}); {way_out}") from None


def _take_back(client, run):
    with contextlib.suppress(Exception):  # the scheduler may be gone
        client.unregister_worker_plugin(run)


def one_each(client, calls):
    """Yield (name, future) in the order in which workers are done: each has one call at a time.

    So where a file takes its worker down with it, no other is suspected.

    Args:
        client: of the scheduler.
        calls: gives (name, (function, *arguments)).
    """
    calls, names = iter(calls), {}
    running = distributed.as_completed(loop=client.loop)
    try:
        while True:
            free = max(1, len(client.nthreads())) - len(names)
            for name, call in itertools.islice(calls, max(0, free)):
                future = client.submit(*call, pure=False)
                names[future] = name
                running.add(future)
            if not names:
                return
            until = time.monotonic() + 1
            while not running.has_ready() and time.monotonic() < until:
                time.sleep(0.01)
            if running.has_ready():  # or else a worker may have joined
                future = next(running)
                yield names.pop(future), future
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.cancel(list(names))


def _cleaned(client, address, run, left, record, options):
    """Yield (name, what became of the file)."""

    def calls():
        for name, source in left.items():
            target = record.folder.absolute() / name
            with contextlib.suppress(OSError):  # said when the worker doesn't see it
                target.parent.mkdir(parents=True, exist_ok=True)
            yield name, (_clean_one, run, source.absolute(), target, options)

    try:
        with contextlib.closing(one_each(client, calls())) as done:
            for name, future in done:
                yield name, _result(future, address, left[name], name, record)
    except (distributed.CancelledError, OSError):
        way_out = "the same command with this --output-dir goes on"
        raise UserError(f"{address}: the scheduler is gone; {way_out}") from None


def _result(future, address, source, name, record):
    """Return what the record keeps of a file, or its UserError, and give the output its name.

    Raises:
        UserError: the worker can't do this work, so it makes no sense to go on.
    """
    everywhere = "every worker must see it, under the same path"
    try:
        kind, value = future.result()
    except distributed.KilledWorker:
        return UserError(f"{source}: ended each process that began to clean it")
    except Exception as error:
        if future.status != "error":  # it does not come from a worker
            raise
        raise UserError(f"{address}: a worker can't clean ({error!r})") from None
    if kind == "failed":
        return UserError(value.replace(str(source.absolute()), str(source)))
    if kind == "unseen":
        if value.exists():
            raise UserError(f"{address}: a worker doesn't see {value}; {everywhere}")
        return UserError(f"{value}: no such file")
    hidden, result = value
    if not hidden.exists():
        raise UserError(f"{address}: a worker writes to another {record.folder}; {everywhere}")
    try:
        target, replace = record.folder / name, record.may_replace(name)
        with files.write_whole(target, replace) as temporary:
            os.replace(hidden, temporary)
    except UserError as error:
        return error
    return result
