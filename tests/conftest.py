"""Fixtures for all tests."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported. Small models gain nothing by more, and lose much where cores are few.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# A busy machine is no fault of the code. A run does what the one before did; what is new is looked
# for by hand: pytest -m hypothesis --hypothesis-profile search
settings.register_profile("search", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _logs_reach_caplog() -> None:
    """Undo what a run of an earlier test has set up: loggers keep, choose, show messages."""
    for name in ("d2pd", "detectron2"):
        logger = logging.getLogger(name)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
        for handler in [*logger.handlers]:
            # The embedded engine's writes to what stdout is at the time: to that of this test.
            if type(handler).__module__ == "d2pd.embedded.logger":
                logger.removeHandler(handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real labels and pictures, which lie beside the project and never inside it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data are not here: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory) -> Path:
    """A dataset root with twelve drawn training pairs and four held out, in ``synthetic``."""
    from d2pd.data.drawn_on_first_use import DrawingSize, ensure_drawn

    root = tmp_path_factory.mktemp("datasets")
    ensure_drawn(root / "synthetic/train20.json", DrawingSize(12, 4, 0))
    return root


@pytest.fixture(scope="session")
def quick_opts(drawn_root) -> list[str]:
    """Overrides that let the quick config run in seconds, on small versions of those pictures."""
    return [
        *("DATASETS.ROOT", str(drawn_root)),
        *("DATASETS.SYNTHETIC.NUM_TRAIN", "12", "DATASETS.SYNTHETIC.NUM_TEST", "4"),
        *("INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MIN_SIZE_TEST", "128"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "2", "TEST.EVAL_PERIOD", "0"),
        *("DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"),
    ]


@pytest.fixture(scope="module")
def without_pictures() -> Iterator[None]:
    """Let whole runs draw nothing: it takes longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2pd.training.trainer.draw_found", lambda *_: {})
        patch.setattr("d2pd.training.run.write_pictures", lambda _: {})
        patch.setattr("d2pd.training.run.write_train_batch", lambda *_: None)
        patch.setattr("d2pd.training.hooks.pictures.draw_curves", lambda *_, **__: None)
        yield
