"""The configuration that a run has left, and the datasets that it names."""

from pathlib import Path

from d2pd.config import load_config
from d2pd.d2 import CfgNode
from d2pd.data.registration import register_from_config
from d2pd.errors import MissingFileError, UserError
from d2pd.evaluation.build import predictions_path

CONFIG = "config.yaml"


def read_run_config(output_dir: Path) -> CfgNode:
    """Read the configuration of the run that a folder holds.

    Args:
        output_dir: ``OUTPUT_DIR`` of the run.

    Raises:
        MissingFileError: If the folder holds no run.
        ConfigError: If its configuration cannot be used.
    """
    path = output_dir / CONFIG
    if not path.is_file():
        what = "no config.yaml in it" if output_dir.is_dir() else "no such folder"
        raise MissingFileError(
            f"{output_dir}: {what}, so it holds no run; give the OUTPUT_DIR of one that "
            "train_net.py has started"
        )
    return load_config(path)


def register_datasets(cfg: CfgNode) -> str:
    """Register the datasets of a run; return why that cannot be done, or nothing."""
    try:
        register_from_config(cfg)
    except UserError as error:
        return str(error)
    return ""


def tested_datasets(cfg: CfgNode, output_dir: Path) -> list[str]:
    """Return the datasets of the configuration's tests, then any others with detections."""
    found = sorted(path.parent.name for path in output_dir.glob(str(predictions_path("", "*"))))
    return list(dict.fromkeys([*cfg.DATASETS.TEST, *cfg.DATASETS.FINAL_TEST, *found]))
