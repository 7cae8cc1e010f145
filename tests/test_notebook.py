"""The notebook runs from its first cell to its last."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support import ROOT

NOTEBOOK = ROOT / "examples" / "first-steps.ipynb"


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "demo.py", tmp_path)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in outputs} == {"display_data", "execute_result"}
    assert sum("image/png" in output["data"] for output in outputs) == 4
    shown = [output["data"]["text/plain"] for output in outputs]
    assert sum(text.startswith("Run('first-steps/results'): 2 files (2 ok)") for text in shown) == 1


def test_notebook_is_kept_without_what_it_shows() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.id for cell in notebook.cells if cell.get("outputs")] == []
