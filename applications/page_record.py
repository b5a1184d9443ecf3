"""Which file becomes which, and the record of it: cleaned.json in the output folder."""

import glob
import json
import os
import time
from pathlib import Path

from applications.page_files import KINDS
from common import UserError, files

NAME = "cleaned.json"
_ENDINGS = {*KINDS, ".gif", ".avif", ".jp2"}  # what is taken out of a folder


def find(inputs):
    """Return [(file, its name below the output folder)] of files, folders and patterns.

    Of a folder all PDFs and images are taken, also from its subfolders, but for hidden ones and
    those that hold a record: what lies there is cleaned already.

    Raises:
        UserError: something is missing, no file, or not to be looked into.
    """
    found = []
    for text in map(str, inputs):
        as_pattern = glob.has_magic(text) and not os.path.lexists(text)
        matches = sorted(glob.glob(text, recursive=True)) if as_pattern else [text]
        if not matches:
            raise UserError(f"{text}: no file matches")
        for path in map(Path, matches):
            if path.is_dir():
                below = _files_below(path)
                if not below:
                    raise UserError(f"{path}: holds no PDF and no image")
                found += [(file, file.relative_to(path)) for file in below]
            elif path.is_file():
                found.append((path, Path(path.name)))
            else:
                what = "not a file" if os.path.lexists(path) else "no such file"
                raise UserError(f"{path}: {what}")
    return found


def _files_below(folder):
    def refuse(error):
        raise UserError(f"{error.filename}: cannot be looked into ({error.strerror})")

    found = []
    for path, folders, names in os.walk(folder, onerror=refuse):
        if NAME in names and Path(path) != folder:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(path, name) for name in sorted(names)):
            if file.suffix.lower() in _ENDINGS and not file.name.startswith("."):
                found += [file] if file.is_file() else []
    return found


def plan(found, options, output_dir):
    """Return {name below the output folder: file to read}; `options` say the ending.

    Raises:
        UserError: two files would become one, or a file lies in the output folder.
    """
    planned, taken = {}, {}
    for source, name in found:
        # Not Path.resolve: of links that lead to each other it makes a RuntimeError.
        if output_dir and Path(os.path.realpath(output_dir)) in source.resolve().parents:
            raise UserError(f"{source}: lies in {output_dir}; choose another --output-dir")
        name = name.with_name(name.stem + options.ending(name)).as_posix()
        other = taken.setdefault(name.casefold(), source)
        if other.resolve() != source.resolve():
            raise UserError(f"{other} and {source} would both become {name}; rename one")
        planned.setdefault(name, source)
    return planned


class Record:
    """What stands in an output folder, and how it came about.

    {name: {"input", "input_sha256", "model", "options", "sha256", "pages", "notes"}}, where
    "model" and "sha256" are hashes too, of the weights and of the output. An entry is made before
    its file: without hashes it says that the file, if it is there, was written by a run that was
    killed at that moment.
    """

    def __init__(self, folder, model, options):
        self.folder, self.how = folder, {"model": model, "options": options}
        self._path, self._next = folder / NAME, 0
        self._found = os.path.lexists(self._path)
        try:
            text = files.read(self._path) if self._found else "{}"
            self.entries = json.loads(text)
            if not all(isinstance(entry["input"], str) for entry in self.entries.values()):
                raise TypeError
        except (UserError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            text = "not a record of cleaned pages; choose another --output-dir"
            raise UserError(f"{self._path}: {text}") from None

    def left_to_do(self, planned, force):
        """Return those of {name: file} that are not there yet, and enter what will be made.

        Raises:
            UserError: something else stands where an output belongs. With `force`, only what the
                record doesn't list, and what was changed since.
        """
        way_out = "choose another --output-dir"
        left = {}
        for name, source in planned.items():
            target, entry = self.folder / name, self.entries.get(name)
            if os.path.lexists(target):
                if entry is None:
                    raise UserError(f"{target}: exists already, and not by {NAME}; {way_out}")
                if "sha256" not in entry and (force or self._difference(entry, source)):
                    line = f"{target}: its run was killed before {NAME} had it; give the same words"
                    raise UserError(f"{line} again, without --force, or {way_out}")
                if force and entry.get("sha256") != files.sha256(target):
                    raise UserError(f"{target}: was changed after it was cleaned; {way_out}")
                if not force:
                    if reason := self._difference(entry, source):
                        line = f"{target}: is from {entry['input']}, {reason}; --force replaces it"
                        raise UserError(f"{line}, or {way_out}")
                    if "sha256" not in entry:  # its run was killed
                        entry |= {
                            "input_sha256": files.sha256(source),
                            "sha256": files.sha256(target),
                        }
                    continue
            left[name] = source
        for name, source in left.items():
            if not os.path.lexists(self.folder / name):
                self.entries[name] = self._entry(source)
        self._save()
        return left

    def _entry(self, source):
        return {"input": str(source.resolve()), **self.how}

    def _difference(self, entry, source):
        """Say in which way a file was not cleaned like this one would be; "" if it was."""
        wanted = self._entry(source)
        known = entry.get("input_sha256")
        if known != files.sha256(source) if known else entry["input"] != wanted["input"]:
            changed = entry["input"] == wanted["input"]
            return "which has changed since" if changed else f"not from {source}"
        if entry.get("model") != wanted["model"]:
            return f"cleaned by another model than {source} would be"
        if entry.get("options") != wanted["options"]:
            return f"cleaned with other options than {source} would be"
        return ""

    def may_replace(self, name):
        """Say whether what stands there may be replaced: `left_to_do` has compared the hash."""
        return "sha256" in self.entries[name]

    def add(self, name, source, result):
        """Enter a file that was written, with what `clean_file` returned."""
        self.entries[name] = self._entry(source) | result
        if time.monotonic() > self._next:  # so that no more than 2% of the time goes into it
            start = time.monotonic()
            self._save()
            self._next = time.monotonic() + 50 * (time.monotonic() - start)

    def close(self):
        """Write the record without the files that were not made after all; none, if none were."""
        for name in [name for name, entry in self.entries.items() if "sha256" not in entry]:
            if not os.path.lexists(self.folder / name):
                del self.entries[name]
        if self.entries or self._found:
            self._save()
        else:
            self._path.unlink(missing_ok=True)

    def _save(self):
        files.write_json(self._path, self.entries, replace=True)
