"""benchmarks/ocr.py: how errors are counted, and the line without Tesseract."""

import os

import pytest
from conftest import ROOT, python

from benchmarks import ocr


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("abc", "xabc", 1),
        ("sunday", "saturday", 3),
    ],
)
def test_edit_distance(one, other, distance):
    assert ocr.edit_distance(one, other) == distance
    assert ocr.edit_distance(other, one) == distance


def test_without_tesseract_one_line_tells(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = python("-m", "benchmarks.ocr", env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "apt install tesseract-ocr" in done.stdout
