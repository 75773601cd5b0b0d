"""The notebooks: thin, stored without outputs, and running from top to bottom."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INFERENCE = ROOT / "notebooks" / "inference.ipynb"


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stored_without_outputs(path):
    assert [cell for cell in code_cells(path) if cell.outputs or cell.execution_count] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_define_nothing(path):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

    for cell in code_cells(path):
        assert not [
            node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, definitions)
        ]


def test_the_inference_notebook_has_ten_cells_and_is_about_the_demo():
    notebook = nbformat.read(INFERENCE, as_version=4)

    assert len(notebook.cells) == 10
    assert 'output_dir = Path("output/demo")' in notebook.cells[1].source


def test_the_inference_notebook_runs_on_a_run(tiny_run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(INFERENCE, as_version=4)
    first = notebook.cells[1]
    first.source = first.source.replace('"output/demo"', repr(str(tiny_run)))

    client = NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": INFERENCE.parent}}
    )
    client.execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    printed = "".join(output.get("text", "") for output in outputs)
    assert "4 images of tiny_test, classes: person" in printed
    assert "FPS (4 images, one at a time" in printed
    assert (tiny_run / "notebook_detections.png").is_file()
