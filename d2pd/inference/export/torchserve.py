"""A folder for TorchServe: weights, configuration, classes, handler, and the archive of them."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from d2pd.errors import UserError
from d2pd.inference.export import handler
from d2pd.inference.export.handler import CONFIG, WEIGHTS
from d2pd.inference.trained_model import TrainedModel
from d2pd.output_files import write_file
from d2pd.training.checkpoints.checkpoint_file import write_checkpoint

HANDLER = "handler.py"
ARCHIVER = "model_archiver"


def write_torchserve(trained: TrainedModel, folder: Path, name: str) -> list[Path]:
    """Write what TorchServe needs.

    Args:
        trained: The model.
        folder: Is made if it is not there.
        name: Of the model on the server, and of its archive.

    Returns:
        What was written: weights, configuration as text, handler, and ``<name>.mar`` where
        torch-model-archiver is installed.

    Raises:
        UserError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / part for part in (WEIGHTS, CONFIG, HANDLER)]
    run = {"classes": list(trained.class_names)}
    write_checkpoint(paths[0], trained.weights.state, {"run": run})
    cfg = trained.cfg.clone()
    cfg.MODEL.WEIGHTS = WEIGHTS
    write_file(paths[1], cfg.dump())
    shutil.copyfile(Path(handler.__file__), paths[2])
    if importlib.util.find_spec(ARCHIVER) is None:
        return paths
    return [*paths, _archive(folder, name, paths)]


def _archive(folder: Path, name: str, paths: list[Path]) -> Path:
    weights, config, code = (str(path) for path in paths)
    # Its own command of that name may not be on the path.
    command = [sys.executable, "-m", f"{ARCHIVER}.model_packaging", "--model-name", name]
    command += ["--version", "1.0", "--serialized-file", weights, "--handler", code]
    command += ["--extra-files", config, "--export-path", str(folder), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = folder / f"{name}.mar"
    if done.returncode or not archive.is_file():
        told = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no word of why"]
        raise UserError(
            f"torch-model-archiver could not make {archive} ({told[0]}); {folder} holds all that "
            "it needs: weights, config.yaml and handler.py"
        )
    return archive


def archive_name(text: str) -> str:
    """Return a name that TorchServe takes: letters, digits, dots, dashes, underlines."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-") or "d2pd"
