import json
import math
import os
from pathlib import Path

import pytest

from common import files
from common.cli import UserError


def test_a_failed_write_leaves_nothing_and_never_replaces(tmp_path):
    path = tmp_path / "file.txt"

    def write_half():
        with files.write_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(UserError, match=r"file.txt exists"), files.write_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    with files.write_whole(path, replace=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    path.unlink()
    with pytest.raises(UserError, match=r"file.txt exists"), files.write_whole(path):
        path.write_text("the user's, meanwhile")
    assert path.read_text() == "the user's, meanwhile"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_null_for_what_it_cannot_say(tmp_path):
    content = {"psnr": math.inf, "mse": math.nan, "path": Path("a"), "n": 1}
    files.write_json(tmp_path / "a.json", content)
    written = json.loads((tmp_path / "a.json").read_text())
    assert written == {"psnr": None, "mse": None, "path": "a", "n": 1}


def test_csv(tmp_path):
    files.write_csv(tmp_path / "a.csv", ["name", "z_1"], [["a,b", 0.5], ["c", -1.0]])
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["name,z_1", '"a,b",0.5', "c,-1.0"]


def test_each_run_gets_a_folder_of_its_own():
    names = [files.output_folder(None, "name").name for _ in range(3)]
    assert names == ["name", "name_2", "name_3"]
    assert str(files.output_folder("mine", "name")) == "mine"
    assert str(files.output_folder("mine", "name")) == "mine"


def test_names_that_are_taken_or_meet_are_refused(tmp_path):
    (tmp_path / "taken.png").write_text("")
    files.ensure_not_taken(tmp_path, ["a.png", "b.png"])
    with pytest.raises(UserError, match=r"taken.png exists; use another --output-dir"):
        files.ensure_not_taken(tmp_path, ["a.png", "taken.png"])
    with pytest.raises(UserError, match=r"two outputs have this name; rename an input"):
        files.ensure_not_taken(tmp_path, ["a.png", "A.png"])


@pytest.mark.parametrize("kind", ["missing", "folder", "loop", "pipe"])
def test_what_is_not_a_file_is_refused(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    reason = "no such file" if kind == "missing" else "not a file"
    for function in (files.check_file, files.read, files.sha256):
        with pytest.raises(UserError, match=f"x: {reason}"):
            function(path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(UserError, match=r"a.json: cannot be written"):
            files.write_json(tmp_path / "a.json", list(range(9_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
