"""tools/scans/ocrmypdf_plugin.py, where OCRmyPDF and the Tesseract that it needs are installed."""

import shutil

import pytest
from conftest import ROOT, python

from synthetic import pages
from tools.scans.files import Page, read_first_page, write_pages

pytest.importorskip("ocrmypdf")
if not shutil.which("tesseract"):
    pytest.skip("Tesseract is not installed", allow_module_level=True)


@pytest.mark.parametrize("bilevel", [False, True])
def test_ocrmypdf_cleans_pages(tmp_path, bilevel):
    [(dirty, clean, *_)] = pages.make_pages(1, seed=0)
    write_pages([Page(dirty, (150, 150), bilevel=bilevel)], tmp_path / "in.pdf", 10**6)
    done = python(
        "-m", "ocrmypdf", "--plugin", "tools.scans.ocrmypdf_plugin", "--force-ocr",
        "--ocr-engine", "none", "--output-type", "pdf", tmp_path / "in.pdf", tmp_path / "out.pdf",
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = (read_first_page(tmp_path / name) for name in ("in.pdf", "out.pdf"))
    assert after.pixels.shape[:2] == before.pixels.shape[:2]
    assert after.bilevel == bilevel
    paper, ink = after.pixels[..., :1][clean > 250], after.pixels[..., :1][clean < 30]
    assert ink.mean() < 100
    assert paper.mean() > 248
    if not bilevel:
        assert before.pixels[clean[..., 0] > 250].mean() < 220  # it was stained
