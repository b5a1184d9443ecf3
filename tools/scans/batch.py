"""Files, folders and whole archives, cleaned into a folder that keeps a record of them."""

import contextlib
import dataclasses
import datetime
import functools
import glob
import hashlib
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from common import files
from common.cli import UserError
from common.files import printable
from tools.scans import record
from tools.scans.document import clean_file
from tools.scans.files import KINDS
from tools.scans.page import cleaner

SUFFIXES = {*KINDS, ".gif", ".avif", ".jp2"}  # of the files in a folder that are cleaned


def clean_files(network, inputs, output_dir, options, force=False, dask=None):
    """Clean files, folders and patterns into a folder, and keep a record there.

    `network` is one of clean_documents.py, `output_dir` None a new folder in runs/, and `options`
    are `document.Options`. With `force`, outputs that are in the record may be replaced. `dask` is
    "local", or the address of a scheduler, to clean with dask's workers.

    Returns the exit code: 1 if some of several files could not be cleaned. Raises UserError if an
    input is missing, an output would replace something, or the only file could not be cleaned.
    """
    planned = plan_outputs(find_files(inputs), options, output_dir)
    if dask:
        try:
            from tools.scans import cluster
        except ImportError as error:
            raise UserError(
                f"--dask needs further packages ({error}): pip install -r requirements-cluster.txt"
            ) from None
    folder = files.output_folder(output_dir, f"{network.name}_cleaned")
    weights = hashlib.sha256(b"".join(weight.tobytes() for weight in network.get_weights()))
    log = record.Record(folder, weights.hexdigest(), dataclasses.asdict(options))
    remaining = log.remaining(planned, force)
    done = len(planned) - len(remaining)
    if done:
        print(f"{done} of {len(planned)} files are there already", flush=True)
    # Pairs of a name and a function that writes the cleaned file to a path. It returns what the
    # record keeps, and raises UserError if the file cannot be cleaned.
    if dask and remaining:
        results = cluster.clean(dask, network, remaining, options)
    else:
        clean = cleaner(network)
        results = (
            (name, functools.partial(clean_file, clean, source, options=options))
            for name, source in remaining.items()
        )
    failed = []
    pages = 0
    start = time.monotonic()
    try:
        with contextlib.closing(results):
            for name, write in _show_progress(results, len(remaining)):
                source = remaining[name]
                target = folder / name
                try:
                    with files.write_whole(target, replace=force and name in log.entries) as path:
                        result = write(path)
                except UserError as error:
                    if len(planned) == 1:
                        raise
                    failed.append(source)
                    print(printable(error), file=sys.stderr, flush=True)
                    continue
                log.add(name, source, result)
                done += 1
                pages += result["pages"]
                count = f"{result['pages']} pages" if result["pages"] > 1 else "1 page"
                line = "; ".join([f"Wrote {target} ({count})", *result["notes"]])
                print(printable(line), flush=True)
    except KeyboardInterrupt:
        print(
            f"To continue, run the same command with --output-dir {printable(folder)}.", flush=True
        )
        raise
    finally:
        if not output_dir and not log.entries:
            with contextlib.suppress(OSError):  # it holds empty folders
                folder.rmdir()
    if pages > 1:
        seconds = time.monotonic() - start
        duration = datetime.timedelta(seconds=round(seconds))
        print(f"{pages} pages in {duration}, {pages / seconds:,.2f} pages/s", flush=True)
    for source in failed:
        print(f"Failed: {printable(source)}", flush=True)
    print(f"{done} of {len(planned)} files are in {printable(folder)}", flush=True)
    return 1 if failed else 0


def _show_progress(results, total):
    """Yield the results, with a progress bar on a terminal."""
    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # otherwise what goes to a file would not reach it
        disable=not console.is_terminal,
    ) as progress:
        yield from progress.track(results, total)


# ---------------------------------------------------------------- which file becomes which


def find_files(inputs):
    """Return [(file, its name below the output folder)] of files, folders and patterns.

    Of a folder all PDFs and images are taken, also in its subfolders, but not in hidden ones, nor
    in those that hold a record: what is there is cleaned already.

    Raises UserError if something is missing, not a file, or cannot be read.
    """
    sources = []
    for text in map(str, inputs):
        is_pattern = glob.has_magic(text) and not os.path.lexists(text)
        matches = sorted(glob.glob(text, recursive=True)) if is_pattern else [text]
        if not matches:
            raise UserError(f"{text}: no file matches")
        for path in map(Path, matches):
            if path.is_dir():
                below = _files_below(path)
                if not below:
                    raise UserError(f"{path}: holds no PDF and no image")
                sources += [(file, file.relative_to(path)) for file in below]
            else:
                files.check_file(path)
                sources.append((path, Path(path.name)))
    return sources


def _files_below(folder):
    def refuse(error):
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

    sources = []
    for path, folders, names in os.walk(folder, onerror=refuse):
        if record.NAME in names and Path(path) != folder:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(path, name) for name in sorted(names) if not name.startswith(".")):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                sources.append(file)
    return sources


def plan_outputs(sources, options, output_dir):
    """Return {name below the output folder: file to read}.

    Raises UserError if two files would become one, or a file is in the output folder.
    """
    planned, taken = {}, {}
    for source, name in sources:
        # realpath, because Path.resolve raises RuntimeError for a link to itself.
        if output_dir and Path(os.path.realpath(output_dir)) in source.resolve().parents:
            raise UserError(f"{source}: is in {output_dir}; use another --output-dir")
        name = name.with_name(name.stem + options.suffix(name)).as_posix()
        other = taken.setdefault(name.casefold(), source)
        if other.resolve() != source.resolve():
            raise UserError(f"{other} and {source} would both become {name}; rename one")
        planned.setdefault(name, source)
    return planned
