"""Writing files so that nothing of the reader's is lost, and nothing half-written is left."""

import collections
import contextlib
import csv
import hashlib
import itertools
import json
import os
import platform
import re
import secrets
import tempfile
from pathlib import Path

from common import UserError

MOST_BYTES = 2**30  # of a file that is read


def printable(text):
    """Return a path, or what a stranger wrote, as one line that can't command the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def _use_file(path, way, use):
    """Return use(file) of an opened file; UserError, with a way out, where it can't be read.

    A pipe that nobody writes to, or a device, would never end.
    """
    path = Path(path)
    try:
        if not path.is_file():
            reason = "not a file" if os.path.lexists(path) else "no such file"
        elif path.stat().st_size > MOST_BYTES:
            reason = f"larger than {MOST_BYTES:,} bytes"
        else:
            with path.open("rb") as file:
                return use(file)
    except (OSError, ValueError) as error:  # no rights, a disk that fails, an impossible name
        reason = f"cannot be read ({getattr(error, 'strerror', error)})"
    raise UserError(f"{path}: {reason}{way}")


def see_that_file(path, way=""):
    """Raise UserError, with a way out, unless `path` is a file that can be opened."""
    _use_file(path, way, lambda file: None)


def read(path, way=""):
    """Return the content of a file of the reader's; errors are those of `see_that_file`."""
    return _use_file(path, way, lambda file: file.read())


def sha256(path, way=""):
    """Return the SHA-256 of a file's content; errors are those of `see_that_file`."""
    return _use_file(path, way, lambda file: hashlib.file_digest(file, "sha256").hexdigest())


@contextlib.contextmanager
def write_beside(path, run=""):
    """Give a hidden name beside `path` to write to, which is left only if no error came up.

    It begins with `run`, which has made the folder; without one it is made where it is missing.
    Raises UserError if it can't be written to, or the disk is full.
    """
    path = Path(path)
    # Two machines may share a disk. A name may be as long as names can be, so it is left out.
    machine = re.sub("[^A-Za-z0-9]+", "-", platform.node())[:40]
    unique = f"{machine}-{os.getpid()}-{secrets.token_hex(8)}"
    temporary = path.with_name(f".{run}{unique}{path.suffix[-20:]}")
    try:
        if not run:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = f"{path}: can't be written ({error.strerror or error})"
            raise UserError(f"{reason}; choose another --output-dir") from None
        raise


@contextlib.contextmanager
def write_whole(path, replace=False):
    """Give a name to write to, as `write_beside` does, and move it to `path` in the end.

    What stands there may be replaced only with `replace`, being this run's own; else UserError.
    """
    with write_beside(path) as temporary:
        for written in (False, True):  # something may have come meanwhile
            if not replace and os.path.lexists(path):
                raise FileExistsError(0, "it exists")
            if not written:
                yield temporary
        os.replace(temporary, path)


def write_json(path, content, replace=False):
    """Write JSON whole or not at all; what JSON cannot say, such as an infinite PSNR, is null."""
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    with write_whole(path, replace) as temporary:
        temporary.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def write_csv(path, header, rows, replace=False):
    """Write rows of values as a CSV file, whole or not at all."""
    with (
        write_whole(path, replace) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([header, *rows])


def output_folder(output_dir, name):
    """Make and return the folder for outputs: --output-dir's, or None for a new one in runs/.

    That is called `name`, or where something is there, name_2, name_3 and so on. Raises UserError
    if it can't be made or written to.
    """
    for number in itertools.count(1):
        folder = Path(output_dir or Path("runs", name if number == 1 else f"{name}_{number}"))
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=output_dir is not None)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            taken = isinstance(error, FileExistsError) and os.path.lexists(folder)
            if output_dir is not None or not taken:
                reason = f"{folder}: can't be written to ({error.strerror})"
                raise UserError(f"{reason}; choose another --output-dir") from None


def see_that_writable(output_dir):
    """Raise UserError if --output-dir's folder, or else runs/, can't be made or written to.

    `output_folder` sees it for certain; this one makes nothing, so it can be asked before a dataset
    is downloaded.
    """
    folder = Path(output_dir or "runs")
    there = next(filter(os.path.exists, (folder, *folder.parents)), ".")
    if not os.access(there, os.W_OK):
        raise UserError(f"{folder}: can't be written to; choose another --output-dir")


def see_that_free(folder, names, way=""):
    """Raise UserError, with a further way out, if a name is taken already, or is too long.

    Nor may two of them be the same, on a disk that knows no capital letters.
    """
    for name, count in collections.Counter(map(str.casefold, names)).items():
        if count > 1:
            raise UserError(f"{folder / name}: two outputs would be called that; rename an input")
    for name in names:
        if len(os.fsencode(name)) > 255:
            raise UserError(f"{name}: too long for a file name; choose a shorter one")
        if os.path.lexists(folder / name):
            raise UserError(f"{folder / name}: exists already; {way}choose another --output-dir")


def lock(folder):
    """Return a descriptor that keeps other runs out until it is closed or the process ends.

    None where the system or the disk has no locks. Raises UserError if another process has it.
    """
    try:
        import fcntl  # not on Windows

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except OSError as error:
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            return None
        raise UserError(f"{folder}: in use by another run; choose another --output-dir") from None
