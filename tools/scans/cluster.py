"""Files cleaned by many processes, on this machine or on others, with dask.distributed.

Workers read the files and return the cleaned ones; only the process that started them writes. So
every output is complete or absent, whichever process ends.
"""

import contextlib
import functools
import logging
import signal
import tempfile
import threading
from multiprocessing import resource_tracker
from pathlib import Path

import dask
import distributed
import keras
import tensorflow as tf
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

from common.cli import UserError
from tools.scans.document import clean_file
from tools.scans.page import cleaner

WORKER_BYTES = 25 * 10**8  # of memory, with large pages
_lock = threading.Lock()  # PDFium is not thread-safe


def clean(address, network, sources, options):
    """Yield (name, function that writes the cleaned file to a path), as workers finish files.

    `address` is that of a scheduler, or "local"; `network` is one of clean_documents.py, `sources`
    {name: file to read}, and `options` are `document.Options`.

    Raises UserError if no scheduler answers, or its workers cannot do this work.
    """
    for name in ("distributed", "distributed.client"):  # dask gives the second its own level
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported here
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        network.save(path)
        content = path.read_bytes()
    with _connect(address, len(sources)) as (client, threads):
        # As a task, so that dask sends it again to workers that replace others.
        model = client.submit(bytes, content, pure=False)
        futures = client.map(
            functools.partial(_clean_on_worker, options=options, threads=threads),
            [path.absolute() for path in sources.values()],
            [Path(name).suffix for name in sources],
            model=model,
            pure=False,
        )
        names = {future.key: name for future, name in zip(futures, sources, strict=True)}
        finished = distributed.as_completed(futures, loop=client.loop)
        del futures  # so that each result is released once it is written
        for future in finished:
            name = names[future.key]
            yield name, functools.partial(_write, _result_of(future, sources[name], address))


def _write(result, path):
    if isinstance(result, UserError):
        raise result
    content, entry = result
    path.write_bytes(content)
    return entry


def _result_of(future, source, address):
    """Return (content of the cleaned file, what the record keeps), or the file's UserError."""
    try:
        return future.result()
    except UserError as error:
        return error
    except distributed.KilledWorker:
        return UserError(f"{source}: crashed every worker that tried to clean it")
    except (distributed.CancelledError, OSError):
        raise UserError(
            f"{address}: lost the scheduler; run the same command again to continue"
        ) from None
    except Exception as error:
        raise UserError(
            f"{address}: a worker cannot clean {source} ({error!r}); each needs this project, its "
            "packages and the same paths"
        ) from None


def _clean_on_worker(source, suffix, *, options, threads, model):
    """Return (content of the cleaned file, what the record keeps)."""
    if not source.exists():
        raise LookupError(f"{source} does not exist there")
    with _lock, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"cleaned{suffix}")
        threads = threads or distributed.get_worker().state.nthreads
        entry = clean_file(_load_cleaner(model, threads), source, path, options)
        return path.read_bytes(), entry


@functools.lru_cache(maxsize=1)
def _load_cleaner(model, threads):
    """Return the `page.cleaner` of a model, the bytes of a .keras file."""
    with contextlib.suppress(RuntimeError):  # TensorFlow has started for another run
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        path.write_bytes(model)
        return cleaner(keras.saving.load_model(path, compile=False))


@contextlib.contextmanager
def _connect(address, file_count):
    """Yield (client, threads of TensorFlow in each worker; None: as many as the worker has)."""
    if address == "local":
        count, threads = workers_here(file_count)
        print(f"Starting {count} workers; threads of each: {threads} ...", flush=True)
        config = {
            # With one file at a time on a worker, no other is suspected when one ends the worker.
            "distributed.scheduler.worker-saturation": 1.0,
            # A worker that replaces another imports TensorFlow first, which can take a minute.
            "distributed.deploy.lost-worker-timeout": "10 minutes",
        }
        with dask.config.set(config):
            with _sigint_blocked():
                cluster = distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=0,  # no worker is stopped in the middle of a page
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            with cluster, distributed.Client(cluster, set_as_default=False) as client:
                yield client, threads
        return
    try:
        client = distributed.Client(address, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{address}: no scheduler answers ({error}); start one with: python -m dask scheduler"
        ) from None
    with client:
        count = len(client.nthreads())
        if not count:
            raise UserError(
                f"{address}: has no workers; start some with: python -m dask worker {address}"
            )
        print(f"{count} workers at {address}", flush=True)
        yield client, None


@contextlib.contextmanager
def _sigint_blocked():
    """Block Ctrl-C in the processes and threads that are started meanwhile; they inherit that.

    In a terminal it reaches all processes, but this one alone should end the others.
    """
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts
    signals = {signal.SIGINT} if hasattr(signal, "pthread_sigmask") else set()
    before = signals and signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        if signals:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def workers_here(file_count):
    """Return (workers, threads of each) for this machine; their product is at most its cores.

    There are no more workers than files, nor than fit into memory.
    """
    count = max(1, min(CPU_COUNT, file_count, int(MEMORY_LIMIT // WORKER_BYTES)))
    threads = -(-CPU_COUNT // count)
    return CPU_COUNT // threads, threads
