"""Reading and writing files: no file of the user's is lost, and none is left half-written."""

import collections
import contextlib
import csv
import hashlib
import itertools
import json
import os
import secrets
from pathlib import Path

from common.cli import UserError

MAX_BYTES = 2**30  # size limit of files to read


def printable(text):
    """Return a path or other text from outside as one line without control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def check_file(path):
    """Raise UserError unless `path` is a file of at most MAX_BYTES that can be opened."""
    path = Path(path)
    try:
        # is_file first: opening a pipe or a device could wait forever.
        if not path.is_file():
            reason = "not a file" if os.path.lexists(path) else "no such file"
        elif path.stat().st_size > MAX_BYTES:
            reason = f"larger than {MAX_BYTES:,} bytes"
        else:
            path.open("rb").close()
            return
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({getattr(error, 'strerror', error)})"
    raise UserError(f"{path}: {reason}")


def read(path):
    """Return the content of a file as bytes. Raises UserError if it cannot be read."""
    check_file(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal. Raises UserError if it cannot be read."""
    check_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def write_whole(path, replace=False):
    """Yield a temporary path, which is renamed to `path` on success.

    Raises UserError if the file cannot be written, or if it exists and `replace` is false.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix[-20:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not replace:
            ensure_not_taken(path.parent, [path.name])
        yield temporary
        if not replace:  # the file may have appeared meanwhile
            ensure_not_taken(path.parent, [path.name])
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); use another --output-dir") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_run_folder(folder):
    """Return whether a folder belongs to a training run, whose figures may be replaced."""
    return Path(folder, "arguments.json").is_file()


def write_json(path, content, replace=False):
    """Write JSON. Values that JSON cannot represent, such as infinity, become null."""
    plain = json.loads(json.dumps(content, default=str), parse_constant=lambda _: None)
    with write_whole(path, replace) as temporary:
        temporary.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def write_csv(path, header, rows):
    """Write rows of values as a CSV file."""
    with write_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def output_folder(output_dir, name):
    """Create and return the folder for results: `output_dir`, or runs/name, runs/name_2, ..."""
    try:
        if output_dir:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            return Path(output_dir)
        for number in itertools.count(1):
            folder = Path("runs", name if number == 1 else f"{name}_{number}")
            if not os.path.lexists(folder):
                folder.mkdir(parents=True)
                return folder
    except OSError as error:
        reason = f"{error.filename}: cannot be created ({error.strerror})"
        raise UserError(f"{reason}; use another --output-dir") from None


def ensure_not_taken(folder, names):
    """Raise UserError if one of these files exists, or if two names are equal.

    Some file systems ignore case, so names that differ only in case count as equal.
    """
    for name, count in collections.Counter(map(str.casefold, names)).items():
        if count > 1:
            raise UserError(f"{folder / name}: two outputs have this name; rename an input")
    for name in names:
        if os.path.lexists(folder / name):
            raise UserError(f"{folder / name} exists; use another --output-dir")
