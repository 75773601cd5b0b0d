"""The notebooks: thin, stored without outputs, and running from top to bottom."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INFERENCE = ROOT / "notebooks" / "inference.ipynb"
COLAB = ROOT / "notebooks" / "train_colab.ipynb"

TINY = """
_BASE_: {base}
INPUT: {{FIXED_SIZE: [128, 160]}}
DATASETS: {{SYNTHETIC: {{NUM_TRAIN: 12, NUM_TEST: 4}}}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_ITER: 10, WARMUP_ITERS: 2, CHECKPOINT_PERIOD: 4}}
TEST: {{EVAL_PERIOD: 0}}
"""
PARAMETERS = """
from easydict import EasyDict

config_file = {config_file!r}
data_zip = ""
use_detectron2 = False
options = EasyDict(output={output!r}, mirror={mirror!r}, datasets={datasets!r}, gpu=False)
"""
DISCONNECT = """
import os
from d2pd.training.step import Step

whole_step = Step.run_step
Step.run_step = lambda step: os._exit(1) if step.iter == 6 else whole_step(step)
"""


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def cell_of(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == name)


def execute(notebook: nbformat.NotebookNode) -> None:
    resources = {"metadata": {"path": ROOT / "notebooks"}}
    NotebookClient(notebook, timeout=170, resources=resources).execute()


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def pictures(*cells: nbformat.NotebookNode) -> int:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(autouse=True)
def _kernels_know_this_source(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


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


# inference.ipynb


def test_the_inference_notebook_is_about_the_demo():
    run = cell_of(nbformat.read(INFERENCE, as_version=4), "run")

    assert 'output_dir = Path("output/demo")' in run.source


def test_the_inference_notebook_runs_on_a_run(tiny_run):
    notebook = nbformat.read(INFERENCE, as_version=4)
    run = cell_of(notebook, "run")
    run.source = run.source.replace('"output/demo"', repr(str(tiny_run)))

    execute(notebook)

    assert "4 images of tiny_test, classes: person" in printed(cell_of(notebook, "data"))
    thresholds = cell_of(notebook, "thresholds")
    assert "person, 4 labels in 4 images" in printed(thresholds)
    assert "precision" in thresholds.outputs[1]["data"]["text/plain"]
    errors = cell_of(notebook, "errors")
    assert "miss: " in printed(errors)
    assert pictures(errors) >= 1
    assert pictures(*notebook.cells) - pictures(errors) == 3
    assert "FPS (4 images, one at a time" in printed(cell_of(notebook, "speed"))
    assert (tiny_run / "notebook_detections.png").is_file()


# train_colab.ipynb


@pytest.fixture
def colab(tmp_path, drawn_root):
    """Return the notebook, ready for a minute of training, with a Drive of a folder."""
    (tmp_path / "drive" / "My Drive").mkdir(parents=True)
    config_file = tmp_path / "tiny.yaml"
    config_file.write_text(TINY.format(base=ROOT / "configs/quick/ssd_seg_synthetic.yaml"))
    notebook = nbformat.read(COLAB, as_version=4)
    cell_of(notebook, "parameters").source = PARAMETERS.format(
        config_file=str(config_file),
        output=str(tmp_path / "run"),
        mirror=str(tmp_path / "drive" / "My Drive" / "run 1"),
        datasets=str(drawn_root),
    )
    return notebook


def iterations(folder: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in (folder / "metrics.json").open()]


def test_the_colab_notebook_has_one_cell_of_parameters_and_installs_requirements_alone():
    notebook = nbformat.read(COLAB, as_version=4)

    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("EasyDict(" in source for source in sources) == 1
    assert not [source for source in sources if "pip" in source or "\n!" in source]
    assert 'config_file = "configs/quick/ssd_seg_synthetic.yaml"' in "".join(sources)


def test_the_colab_notebook_runs_to_pictures_of_what_it_has_learnt(colab, tmp_path):
    execute(colab)

    assert "Not Colab" in printed(cell_of(colab, "runtime"))
    assert "is there already" in printed(cell_of(colab, "install"))
    for name in ("batch", "curves", "detections"):
        assert pictures(cell_of(colab, name)) == 1, name
    assert iterations(tmp_path / "run") == [9]
    on_drive = {path.name for path in (tmp_path / "drive/My Drive/run 1").iterdir()}
    assert {"model_final.pth", "model_best.pth", "report.html", "curves.png"} <= on_drive


@pytest.mark.slow  # three kernels, one after the other
def test_after_a_disconnect_running_all_cells_again_goes_on_and_after_the_end_shows(
    colab, tmp_path
):
    mirror = tmp_path / "drive/My Drive/run 1"
    with_disconnect = nbformat.from_dict(json.loads(json.dumps(colab)))
    train = with_disconnect.cells.index(cell_of(with_disconnect, "train"))
    with_disconnect.cells.insert(train, nbformat.v4.new_code_cell(DISCONNECT))
    with pytest.raises(DeadKernelError):
        execute(with_disconnect)
    assert (mirror / "model_0000003.pth").is_file()
    shutil.rmtree(tmp_path / "run")  # the machine is gone

    execute(colab)
    log = printed(cell_of(colab, "train"))
    assert "going on from model_0000003.pth in the mirror" in log
    assert "Starting training from iteration 4" in log
    assert iterations(tmp_path / "run") == [9]

    before = {path: path.stat().st_mtime_ns for path in mirror.glob("model_*.pth")}
    shutil.rmtree(tmp_path / "run")
    execute(colab)
    assert "Starting training" not in printed(cell_of(colab, "train"))
    for name in ("batch", "curves", "detections"):
        assert pictures(cell_of(colab, name)) == 1, name
    assert {path: path.stat().st_mtime_ns for path in mirror.glob("model_*.pth")} == before


@pytest.mark.slow
def test_a_mistake_in_the_parameters_is_one_line_in_the_notebook(colab):
    cell_of(colab, "parameters").source += "options.learning_rte = 0.1\n"

    with pytest.raises(CellExecutionError):
        execute(colab)

    [error] = [o for o in cell_of(colab, "train").outputs if o.output_type == "error"]
    assert len(error.traceback) == 1
    assert error.traceback[0].startswith("d2pd: unknown option learning_rte; known: batch_size")


def bootstrap(folder: Path, repository: str) -> subprocess.CompletedProcess[str]:
    """Run the first cell in a Python that knows no d2pd."""
    source = next(cell.source for cell in code_cells(COLAB))
    source = source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    command = [sys.executable, "-S", "-c", source]
    env = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def repository(tmp_path):
    """A folder of a repository, without its history."""
    (tmp_path / "my copy/d2pd").mkdir(parents=True)
    (tmp_path / "my copy/d2pd/__init__.py").write_text("__version__ = '7'\n")
    return tmp_path / "my copy"


def test_where_d2pd_is_not_there_a_copy_is_taken_once(tmp_path, repository):
    place = tmp_path / "content"
    place.mkdir()
    for _ in range(2):
        done = bootstrap(place, str(repository))
        assert done.stdout.endswith(f"d2pd 7 in {place / 'd2pd'}\n"), done.stderr
    assert "The clone of an earlier run is used" in done.stdout


def test_where_d2pd_is_not_there_the_repository_is_cloned(tmp_path, repository):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    origin = tmp_path / "origin.git"
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
        ["clone", "-q", "--bare", ".", str(origin)],
    ):
        subprocess.run(["git", *words], cwd=repository, check=True)
    place = tmp_path / "content"
    place.mkdir()
    done = bootstrap(place, origin.as_uri())
    assert done.stdout == f"d2pd 7 in {place / 'd2pd'}\n", done.stderr


def test_without_a_repository_the_first_cell_says_so(tmp_path):
    done = bootstrap(tmp_path, "")
    assert done.stderr.endswith("d2pd is not on this machine: set REPOSITORY in this cell\n")
