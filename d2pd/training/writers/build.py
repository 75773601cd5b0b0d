"""Builds what a run writes, from its configuration."""

from pathlib import Path

from d2pd.config_words import flatten
from d2pd.d2 import CfgNode, EventWriter
from d2pd.data.modality import CAMERAS
from d2pd.errors import UserError
from d2pd.reporting.run_metrics import best_points, read_metrics
from d2pd.training.deciding.decisions import validation_dataset, validation_period
from d2pd.training.writers.metrics_file import STOPPED, MetricsFile
from d2pd.training.writers.run_log import RunLog
from d2pd.training.writers.tensorboard import TensorboardEvents
from d2pd.training.writers.wandb import WandbWriter

METRICS = "metrics.json"
RUN_LOG = "run.log"


class RunWriters(EventWriter):
    """All writers of a run, in their order, and the end that two of them tell of.

    Args:
        run_log: First: it puts the time left.
        metrics: The numbers.
        others: Told of nothing but numbers and pictures.
    """

    def __init__(self, run_log: RunLog, metrics: MetricsFile, others: list[EventWriter]) -> None:
        self.run_log = run_log
        self.metrics = metrics
        self.others = others

    def write(self) -> None:
        """Write what is new, everywhere.

        Raises:
            UserError: If the disk is full.
        """
        for writer in (self.run_log, self.metrics, *self.others):
            writer.write()

    def note_stop(self, iteration: int, reason: str) -> None:
        """Say in ``metrics.json``, and so in the curves, why a run stops by itself.

        Args:
            iteration: Last one, whose row is written.
            reason: For a person.

        Raises:
            UserError: If the disk is full.
        """
        self.metrics.append(iteration, **{STOPPED: reason})

    def finish(self, reason: str) -> None:
        """Say in ``run.log`` why the run ends.

        Raises:
            UserError: If the disk is full.
        """
        self.run_log.finish(reason)

    def close(self) -> None:
        """Close the files."""
        for writer in (self.run_log, self.metrics, *self.others):
            writer.close()


def build_writers(
    cfg: CfgNode, *, start_iter: int, max_iter: int, num_images: int, is_pending: bool = False
) -> RunWriters:
    """Open ``run.log``, ``metrics.json``, TensorBoard and, where it is wanted, Weights & Biases.

    To be called on the main process when training starts, with the scalars of a resume back in the
    storage: rows of what a resume does again are cut here.

    Args:
        cfg: Of the run, in iterations.
        start_iter: First iteration to come.
        max_iter: Number of iterations of the whole run.
        num_images: Training images after cleaning.
        is_pending: The evaluation of the iteration before ``start_iter`` is still to be done: its
            row, where an error has left half of it, is written again.

    Raises:
        ConfigError: If ``WANDB.ENABLED`` asks for a package that is not there.
        UserError: If a file cannot be written.
    """
    folder = Path(cfg.OUTPUT_DIR)
    keep_through = start_iter - 1 - is_pending if start_iter else None
    metrics = MetricsFile(folder / METRICS, keep_through=keep_through)
    written = metrics.last_iteration if start_iter else None
    run_log = RunLog(
        folder / RUN_LOG,
        max_iter=max_iter,
        iters_per_epoch=num_images / cfg.SOLVER.IMS_PER_BATCH,
        best=_known_best(folder / METRICS),
    )
    run_log.start(run_facts(cfg, num_images, start_iter), start_iter)
    others: list[EventWriter] = [TensorboardEvents(folder, keep_through=written)]
    if cfg.WANDB.ENABLED:
        # Before TensorBoard's, which clears the pictures.
        others.insert(0, _build_wandb(cfg, written))
    return RunWriters(run_log, metrics, others)


def run_facts(cfg: CfgNode, num_images: int, start_iter: int = 0) -> list[str]:
    """Return what a run is, in a few lines.

    Args:
        cfg: Of the run, in iterations.
        num_images: Training images after cleaning.
        start_iter: First iteration to come; above 0 the weights are those of a checkpoint.
    """
    origin = "its checkpoint" if start_iter else cfg.MODEL.WEIGHTS or "random weights"
    solver = cfg.SOLVER
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / num_images
    parts = f" in {solver.ACCUMULATE} parts" if solver.ACCUMULATE > 1 else ""
    precision = solver.AMP.PRECISION if solver.AMP.ENABLED else "fp32"
    return [
        f"{cfg.MODEL.META_ARCHITECTURE} with {cfg.MODEL.BACKBONE.NAME} from {origin}",
        f"{num_images:,} images ({_cameras(cfg)}) of {', '.join(cfg.DATASETS.TRAIN)}",
        f"{solver.MAX_ITER:,} iterations of {solver.IMS_PER_BATCH} images{parts} = {epochs:,.1f} "
        f"epochs; {solver.OPTIMIZER}, rate {solver.BASE_LR:g}, {precision} on {cfg.MODEL.DEVICE}",
        _evaluations(cfg),
    ]


def _cameras(cfg: CfgNode) -> str:
    """Return the cameras; where there is a thermal one, with the number of channels."""
    names, total = CAMERAS[cfg.INPUT.MODALITY], len(cfg.MODEL.PIXEL_MEAN)
    channels = f", {total} channel{'s' * (total > 1)}" if "lwir" in names else ""
    return " and ".join(names) + channels


def _evaluations(cfg: CfgNode) -> str:
    tests, validation = ", ".join(cfg.DATASETS.TEST), validation_dataset(cfg)
    parts = [f"evaluation {_when(cfg.TEST.EVAL_PERIOD)} on {tests}" if tests else "no evaluation"]
    if validation:
        parts.append(f"validation loss {_when(validation_period(cfg))} on {validation}")
    metric = cfg.EARLY_STOPPING.METRIC
    parts.append(f"stops early by {metric}" if metric else "never stops early")
    return "; ".join(parts)


def _when(period: int) -> str:
    return f"every {period:,} iterations" if period > 0 else "after the last iteration"


def _known_best(metrics_json: Path) -> dict[str, tuple[int, float]]:
    try:
        return best_points(read_metrics(metrics_json))
    except UserError:  # no file yet, or no row
        return {}


def _build_wandb(cfg: CfgNode, keep_through: int | None) -> WandbWriter:
    return WandbWriter(
        cfg.OUTPUT_DIR,
        project=cfg.WANDB.PROJECT,
        name=cfg.WANDB.NAME,
        config=dict(flatten(cfg)),
        keep_through=keep_through,
    )
