"""docs/tour.ipynb, where the packages that notebooks need are installed."""

from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

DOCS = Path(__file__).resolve().parent.parent / "docs"


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_is_that_of_its_script():
    notebook = jupytext.read(DOCS / "tour.ipynb")
    assert code_of(notebook) == code_of(jupytext.read(DOCS / "tour.py"))
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_the_notebook_runs(tmp_path):
    notebook = jupytext.read(DOCS / "tour.py")
    for cell in notebook.cells:
        cell.source = cell.source.replace("Train(seed=0)", "Train(synthetic=True, limit=300)")
        cell.source = cell.source.replace("12 * 140", "12 * 2")
        cell.source = cell.source.replace("runs/tour", str(tmp_path / "tour"))
    nbclient.NotebookClient(notebook, timeout=None).execute(cwd=str(DOCS))
    assert (tmp_path / "tour" / "scan.jpg").is_file()
