"""cleaned.json: what is in an output folder, and how it was made."""

import json
import os

from common import files
from common.cli import UserError

NAME = "cleaned.json"


class Record:
    """The record of an output folder. An entry is written after its file.

    {name: {"input", "input_sha256", "model", "options", "sha256", "pages", "notes"}}, where
    "model" and "sha256" are hashes too, of the weights and of the output.
    """

    def __init__(self, folder, model_hash, options):
        self.folder, self.path = folder, folder / NAME
        self.how = {"model": model_hash, "options": options}
        self.entries = self._read()

    def _read(self):
        if not os.path.lexists(self.path):
            return {}
        try:
            entries = json.loads(files.read(self.path))
            for entry in entries.values():
                entry["input"], entry["input_sha256"], entry["sha256"]
        except (ValueError, TypeError, LookupError, AttributeError):
            raise UserError(
                f"{self.path}: not a record of cleaned pages; use another --output-dir"
            ) from None
        return entries

    def remaining(self, planned, force):
        """Return those of {name: source} that are not there yet; with `force`, all of them.

        Raises UserError if another file is where an output belongs. With `force` that is only a
        file that is not in the record, or was changed since.
        """
        remaining = {}
        for name, source in planned.items():
            target = self.folder / name
            entry = self.entries.get(name)
            if not os.path.lexists(target):
                remaining[name] = source
            elif entry is None:
                raise UserError(
                    f"{target} exists, and {NAME} does not list it; use another --output-dir"
                )
            elif force:
                if entry["sha256"] != files.sha256(target):
                    raise UserError(f"{target} was changed since; use another --output-dir")
                remaining[name] = source
            elif difference := self._difference(entry, source):
                raise UserError(
                    f"{target} was made {difference}; replace it by --force, or use another "
                    "--output-dir"
                )
        return remaining

    def _difference(self, entry, source):
        """Return in what way a file was made differently, "" if it was made as it would be now."""
        if entry["input_sha256"] != files.sha256(source):
            if entry["input"] == str(source.resolve()):
                return f"from {source}, which has changed since"
            return f"from {entry['input']}, not from {source}"
        if entry.get("model") != self.how["model"]:
            return "with another model"
        return "" if entry.get("options") == self.how["options"] else "with other options"

    def add(self, name, source, result):
        """Enter a file that was written, with what `document.clean_file` returned."""
        entry = {"input": str(source.resolve()), **self.how, **result}
        self.entries = self._read() | {name: entry}  # another run may have added to it
        # One line for each entry: json.dumps is ten times slower with its `indent`.
        lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in self.entries.items())
        with files.write_whole(self.path, replace=True) as temporary:
            temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")
