"""benchmarks/ocr.py: how errors are counted, and the line without Tesseract."""

import functools
import os
import random

import pytest
from conftest import ROOT, python

from benchmarks import ocr


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "xabc", 1)],
)
def test_edit_distance(one, other, distance):
    assert ocr.edit_distance(one, other) == distance
    assert ocr.edit_distance(other, one) == distance


def test_edit_distance_against_the_plain_recursion():
    random.seed(1)
    for _ in range(20):
        one, other = ("".join(random.choices("abc", k=random.randint(0, 9))) for _ in range(2))

        @functools.cache
        def plain(i, j, one=one, other=other):
            if not i or not j:
                return i + j
            replaced = plain(i - 1, j - 1) + (one[i - 1] != other[j - 1])
            return min(replaced, plain(i - 1, j) + 1, plain(i, j - 1) + 1)

        assert ocr.edit_distance(one, other) == plain(len(one), len(other))


def test_without_tesseract_one_line_tells(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = python("-m", "benchmarks.ocr", env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "apt install tesseract-ocr" in done.stdout
