"""tools/scans/batch.py and record.py: names, the record, errors. The network is a stand-in."""

import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, contents
from PIL import Image

import clean_documents
from common import files
from common.cli import UserError
from tools.scans import batch, record
from tools.scans.document import Options


@pytest.fixture
def run(monkeypatch):
    """Return a function that cleans files as the script does, and returns the exit code."""
    monkeypatch.setattr(batch, "cleaner", lambda network: lambda page, _: np.round(page))

    def clean(*inputs, force=False, weights=0, out="out", **options):
        network = types.SimpleNamespace(
            name="clean_documents", get_weights=lambda: [np.full(3, weights)]
        )
        return batch.clean_files(network, inputs, out, Options(**options), force)

    return clean


def write_scans(*names):
    for number, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        page = np.full((120, 90), 200, np.uint8)
        page[10:-10:12, 12:-12] = number
        Image.fromarray(page).save(name)


def written(folder="out"):
    return sorted(str(path.relative_to(folder)) for path in contents(folder))


def read_record():
    return json.loads(Path("out/cleaned.json").read_text())


def test_two_runs_into_one_folder_keep_each_others_entries(tmp_path):
    write_scans("a.png", "b.png")
    one, other = (record.Record(tmp_path, "hash", {}) for _ in range(2))
    for log, name in ((one, "a.png"), (other, "b.png")):
        log.add(name, Path(name), {"input_sha256": "0", "sha256": "0"})
    assert list(json.loads((tmp_path / "cleaned.json").read_text())) == ["a.png", "b.png"]


# ---------------------------------------------------------------- names


def test_outputs_keep_names_and_subfolders(run, capsys):
    write_scans("in/a.png", "in/deep/b.JPG", "in/deep/c.gif", "in/.hidden/d.png", "in/._a.png")
    Path("in/notes.txt").write_text("no scan")
    assert run("in") == 0
    assert written() == ["a.png", "cleaned.json", "deep/b.JPG", "deep/c.png"]
    assert "3 of 3 files are in out" in capsys.readouterr().out
    run("in", out="pdf", format="pdf")
    assert written("pdf") == ["a.pdf", "cleaned.json", "deep/b.pdf", "deep/c.pdf"]
    run("in", out="bits", bilevel=True)
    assert written("bits") == ["a.png", "cleaned.json", "deep/b.tif", "deep/c.png"]


def test_patterns_that_the_shell_left(run):
    write_scans("a1.png", "a2.png", "b[1].png")
    assert run("a?.png", "b[1].png") == 0
    assert written() == ["a1.png", "a2.png", "b[1].png", "cleaned.json"]
    with pytest.raises(UserError, match=r"c\*.png: no file matches"):
        run("c*.png")


def test_cleaned_files_in_a_folder_are_skipped(run):
    write_scans("in/a.png")
    run("in", out="elsewhere")
    Path("elsewhere").rename("in/cleaned")
    run("in")
    assert written() == ["a.png", "cleaned.json"]


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        (["a.png", "none.png"], "out", "none.png: no such file"),
        (["a.png", "empty"], "out", "empty: holds no PDF and no image"),
        (["a.png", "x/a.png"], "out", "a.png and x/a.png would both become a.png"),
        (["a.png"], ".", "a.png: is in .; use another --output-dir"),
        (["x"], "x", "x/a.png: is in x; use another --output-dir"),
    ],
)
def test_inputs_are_checked_before_the_first_is_cleaned(run, inputs, out, message):
    write_scans("a.png", "x/a.png")
    Path("empty").mkdir()
    before = contents(".")
    with pytest.raises(UserError, match=message):
        run(*inputs, out=out)
    assert contents(".") == before
    assert not Path("out").exists()


def test_non_utf8_file_names(run, capsys):
    name = os.fsdecode(b"a\xff\x1b[b].png")
    try:
        write_scans(name)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    assert run(name) == 0
    assert r"a\udcff\x1b[b].png" in capsys.readouterr().out
    assert run(name) == 0


# ---------------------------------------------------------------- record


def test_the_record_describes_inputs_and_outputs_and_the_same_again_is_skipped(run, capsys):
    write_scans("a.png", "b.png")
    run("a.png", gray=True)
    entry = read_record()["a.png"]
    assert entry["input"] == str(Path("a.png").resolve())
    assert entry["input_sha256"] == files.sha256("a.png")
    assert entry["sha256"] == files.sha256("out/a.png")
    assert entry["options"] == {"format": "same", "bilevel": False, "gray": True}
    assert len(entry["model"]) == 64
    assert (entry["pages"], entry["notes"]) == (1, [])
    time = os.stat("out/a.png").st_mtime_ns
    assert run("a.png", "b.png", gray=True) == 0
    assert os.stat("out/a.png").st_mtime_ns == time
    assert "1 of 2 files are there already" in capsys.readouterr().out
    assert written() == ["a.png", "b.png", "cleaned.json"]


MADE = "out/a.png was made "


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("other input", {}, f"{MADE}from .*/a.png, not from other/a.png; replace"),
        ("new content", {}, f"{MADE}from a.png, which has changed since; replace"),
        ("", {"weights": 1}, f"{MADE}with another model; replace"),
        ("", {"gray": True}, f"{MADE}with other options; replace"),
        ("unlisted", {}, "out/a.png exists, and cleaned.json does not list it"),
        ("output", {"gray": True}, "out/a.png was changed since"),
    ],
)
def test_something_else_of_that_name_is_refused_and_forced(run, change, options, message):
    write_scans("a.png", "other/a.png", "b.png")
    run("a.png")
    inputs = ["b.png", "other/a.png" if change == "other input" else "a.png"]
    if change == "new content":
        Image.new("L", (90, 120), 99).save("a.png")
    elif change == "unlisted":
        Path("out/cleaned.json").write_text("{}")
    elif change == "output":
        Path("out/a.png").write_text("mine now")
    before = contents("out")
    with pytest.raises(UserError, match="with other options" if change == "output" else message):
        run(*inputs, **options)
    assert contents("out") == before
    if change in ("unlisted", "output"):
        with pytest.raises(UserError, match=message):
            run(*inputs, force=True, **options)
        assert contents("out") == before
    else:
        assert run(*inputs, force=True, **options) == 0
        assert run(*inputs, **options) == 0


@pytest.mark.parametrize("text", ["[1]", '{"a.png": 1}', '{"a.png": {}}', "{", "\xff"])
def test_a_damaged_record_is_refused(run, text):
    write_scans("a.png")
    Path("out").mkdir()
    Path("out/cleaned.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"cleaned.json: not a record of cleaned pages"):
        run("a.png")
    assert written() == ["cleaned.json"]


# ---------------------------------------------------------------- files that fail, interruptions


def test_one_bad_file_does_not_stop_the_others(run, capsys):
    write_scans("in/a.png", "in/c.png")
    Path("in/b.png").write_text("text")
    assert run("in") == 1
    output = capsys.readouterr()
    assert output.err.startswith("in/b.png: not an image")
    assert "Failed: in/b.png" in output.out
    assert "2 of 3 files are in out" in output.out
    assert written() == ["a.png", "c.png", "cleaned.json"]
    assert set(read_record()) == {"a.png", "c.png"}
    with pytest.raises(UserError, match=r"in/b.png: not an image"):
        run("in/b.png", out=None)
    assert list(Path("runs").iterdir()) == []  # no folder is left if nothing was cleaned


@pytest.fixture
def disturb(monkeypatch):
    """Return a function that calls another, with the path to write, before a file is cleaned."""
    real = batch.clean_file

    def set_up(name, action):
        def clean_file(clean, source, path, options):
            if source.name == name:
                action(path)
            return real(clean, source, path, options)

        monkeypatch.setattr(batch, "clean_file", clean_file)

    return set_up


def test_a_file_that_appears_meanwhile_is_not_replaced(run, disturb, capsys):
    write_scans("in/a.png", "in/b.png")
    disturb("a.png", lambda path: Path("out/a.png").write_text("mine"))
    assert run("in") == 1
    assert "out/a.png exists" in capsys.readouterr().err
    assert Path("out/a.png").read_text() == "mine"
    assert written() == ["a.png", "b.png", "cleaned.json"]


def test_after_ctrl_c_the_same_command_continues(run, disturb, capsys):
    write_scans("in/a.png", "in/b.png", "in/c.png")

    def interrupt(path):
        path.write_text("half a page")
        raise KeyboardInterrupt

    disturb("b.png", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("in")
    assert "To continue, run the same command with --output-dir out." in capsys.readouterr().out
    assert written() == ["a.png", "cleaned.json"]
    time = os.stat("out/a.png").st_mtime_ns
    disturb("b.png", lambda path: None)
    assert run("in") == 0
    assert os.stat("out/a.png").st_mtime_ns == time
    assert written() == ["a.png", "b.png", "c.png", "cleaned.json"]


def test_errors_go_to_standard_error_beside_a_progress_bar(run, monkeypatch, capsys):
    write_scans("in/a.png", "in/b.png")
    Path("in/c.png").write_text("text")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich draws its bar
    assert run("in") == 1
    output = capsys.readouterr()
    assert "━" in output.err
    assert "in/c.png: not an image" in output.err
    assert "━" not in output.out
    assert "Wrote out/a.png (1 page)" in output.out


# ---------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--force --input a.png", "--force needs --output-dir"),
        ("--input a.png --bilevel --gray", "--bilevel cannot be combined with --gray or"),
        ("--input a.png --bilevel --format jpeg", "--bilevel cannot be combined"),
        ("--input a.png --dask host", "--dask must be local or"),
        ("--dask local", "--dask"),
    ],
)
def test_flags_that_exclude_each_other(arguments, message, usage_error):
    assert message in usage_error(clean_documents.main, *arguments.split())


def test_dask_that_is_not_installed(error_of, monkeypatch):
    write_scans("a.png")
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.delitem(sys.modules, "tools.scans.cluster", raising=False)
    line = error_of(clean_documents.main, "--input", "a.png", "--dask", "local")
    assert "--dask needs further packages" in line
    assert "pip install -r requirements-cluster.txt" in line
    assert (ROOT / "requirements-cluster.txt").is_file()
