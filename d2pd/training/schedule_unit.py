"""Lengths and periods in epochs, turned into iterations once."""

from d2pd.d2 import CfgNode
from d2pd.errors import ConfigError

LENGTHS = (
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
    "VALIDATION.PERIOD",
    "EARLY_STOPPING.WARMUP_ITERS",
)
"""The keys that ``SOLVER.UNIT`` is the unit of. Values of 0 and below mean the same in any."""


def resolve_unit(cfg: CfgNode, num_images: int) -> list[str]:
    """Turn what ``SOLVER.UNIT`` epoch gives in epochs into iterations, in place.

    ``SOLVER.UNIT`` is then iter, so that the configuration that is dumped is exact and resolving
    it again changes nothing. Call ``check_config`` afterwards: it knows iterations.

    Args:
        cfg: Not frozen. Its batch is that of all processes together.
        num_images: Training images after cleaning, at least 1.

    Returns:
        Lines for the log: each length in both units.

    Raises:
        ConfigError: If the warm-up, which has a default of many iterations, is as long as the
            training once both are epochs.
    """
    batch = cfg.SOLVER.IMS_PER_BATCH
    of_images = f"of {batch} images" if batch > 1 else "of 1 image"
    if cfg.SOLVER.UNIT == "iter":
        epochs = cfg.SOLVER.MAX_ITER * batch / num_images
        return [
            f"SOLVER.MAX_ITER {_amount(cfg.SOLVER.MAX_ITER, 'iteration')} {of_images} = "
            f"{epochs:,.1f} epochs of {_amount(num_images, 'image')}"
        ]
    _check_warmup(cfg)
    lines = []
    for key in LENGTHS:
        section, name = key.split(".")
        value = cfg[section][name]
        epochs = list(value) if isinstance(value, list | tuple) else [value]
        lengths = [_iterations(epoch, num_images, batch) for epoch in epochs]
        cfg[section][name] = lengths[0] if isinstance(value, int) else type(value)(lengths)
        lines += [
            f"{key} {_amount(before, 'epoch')} = {_amount(after, 'iteration')} {of_images}"
            f"{', beyond the end' if after > cfg.SOLVER.MAX_ITER else ''}"
            for before, after in zip(epochs, lengths, strict=True)
            if before > 0 and not _is_unused(key, cfg)
        ]
    cfg.SOLVER.UNIT = "iter"
    return lines


def _iterations(epochs: int, num_images: int, batch: int) -> int:
    return max(1, round(epochs * num_images / batch)) if epochs > 0 else epochs


def _is_unused(key: str, cfg: CfgNode) -> bool:
    return key == "SOLVER.STEPS" and cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupCosineLR"


def _check_warmup(cfg: CfgNode) -> None:
    warmup, total = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER
    if warmup >= total:
        raise ConfigError(
            f"SOLVER.WARMUP_ITERS is {warmup}, which SOLVER.UNIT epoch makes epochs, of "
            f"SOLVER.MAX_ITER {total}: the rate would never reach SOLVER.BASE_LR; set "
            "SOLVER.WARMUP_ITERS 1 (or 0), and look at the other lengths: all are epochs"
        )


def _amount(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
