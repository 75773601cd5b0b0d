"""``d2pd predict``: a trained detector on pictures, videos and pairs of both cameras."""

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from d2pd.errors import ConfigError, UserError
from d2pd.inference.detector import Detector
from d2pd.inference.fuse_files import write_fused
from d2pd.inference.predict.labelled import choose_labelled, find_labelled
from d2pd.inference.predict.pairing import Chosen, Pairing, choose_sources
from d2pd.inference.predict.quiet import quiet_opencv
from d2pd.inference.predict.result_files import JSON_NAME, NAMES
from d2pd.inference.predict.run import Run, RunOptions
from d2pd.inference.predict.sources import find_inputs
from d2pd.inference.predict.summary import list_skipped
from d2pd.inference.predict.targets import check_no_input, choose_targets
from d2pd.inference.predictor import load
from d2pd.output_files import check_free, check_outputs
from d2pd.training.run_folder import held_run

SUFFIXES = (".pth", ".pt", ".pkl")
"""Of weights files, where several are named."""

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Find the inputs, load the detector, write what it finds, and print a summary.

    Args:
        args: ``inputs``, ``weights``, ``config_file``, ``output``, ``threshold``, ``stride``,
            ``batch``, ``device``, ``half``, ``flip``, ``scales``, ``pair``, ``annotations``,
            ``images``, ``fuse``, ``no_pictures``, ``force``, as ``d2pd.cli`` parses them.

    Returns:
        Exit code: 0 all was used, 1 some inputs could not be used, and the rest is done.

    Raises:
        UserError: If an option or an input is wrong, or no input could be used.
        RunInterrupted: If it was asked to stop; what was found by then is written.
    """
    if args.fuse:
        return _fuse(args)
    args.weights, behind = split_weights(args.weights)
    args.inputs = [*behind, *args.inputs]
    _check_options(args)
    choose = _find(args)
    inputs = [Path(file) for file in (args.annotations, args.config_file, *args.weights) if file]
    results = [args.output / name for name in NAMES]
    check_outputs(results, inputs)
    check_free(results, force=args.force)
    detector = load_detector(args)
    chosen = choose(detector.channels.modality)
    if not chosen.sources:
        raise UserError("\n".join(["nothing could be used:", *list_skipped(chosen.skipped)[1:]]))
    targets = {} if args.no_pictures else choose_targets(chosen.sources, args.output)
    check_no_input(targets, chosen.sources)
    check_free(list(targets.values()), force=args.force)
    if args.annotations:
        _warn_of_threshold(args.threshold, detector)
    options = RunOptions(args.output, args.threshold, args.stride, args.batch)
    with quiet_opencv():
        return Run(detector, chosen, targets, options).go()


def load_detector(args: argparse.Namespace) -> Detector[Any, Any]:
    """Load what ``--weights`` names.

    Raises:
        UserError: If it cannot be used.
    """
    return load(
        args.weights,
        flip=args.flip,
        scales=args.scales,
        config_file=args.config_file or "",
        device=args.device,
        half=args.half,
    )


def split_weights(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell weights from the inputs that stand behind them on a command line.

    Args:
        words: Behind ``--weights``; the first is one whatever it looks like.

    Returns:
        The weights: files that are called so, and folders that hold a run; and the rest.
    """
    is_weights = [
        number == 0 or Path(word).suffix in SUFFIXES or bool(held_run(word))
        for number, word in enumerate(words)
    ]
    split = is_weights.index(False) if False in is_weights else len(words)
    return list(words[:split]), list(words[split:])


def _fuse(args: argparse.Namespace) -> int:
    """Fuse files of detections, with no model and no picture."""
    if args.inputs or args.weights or args.annotations:
        raise ConfigError(
            "--fuse FILE FILE ... works on detections that are there: leave out INPUT, --weights "
            "and --annotations"
        )
    output = args.output / JSON_NAME
    check_free([output], force=args.force)
    write_fused(args.fuse, output)
    print(f"written: {output}, {len(args.fuse)} files fused")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    if not (math.isfinite(args.threshold) and 0 <= args.threshold <= 1):
        raise ConfigError(f"--threshold must be a score from 0 to 1, got {args.threshold:g}")
    if not args.weights:
        raise ConfigError(
            "name the detector, --weights FILE: a checkpoint, or the OUTPUT_DIR of a run"
        )
    for name in ("stride", "batch"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    if bool(args.inputs) == bool(args.annotations):
        raise ConfigError(
            "name what to look at: INPUT (pictures, folders, patterns, videos), or "
            "--annotations FILE" + ("; not both" if args.inputs else "")
        )
    if args.images and not args.annotations:
        raise ConfigError(
            "--images goes with --annotations FILE; name a folder of pictures as INPUT"
        )


def _find(args: argparse.Namespace) -> Callable[[str], Chosen]:
    """Find the inputs; return what chooses those that a model of some modality sees."""
    pairing = Pairing.parse(args.pair)
    if args.annotations:
        labelled = find_labelled(args.annotations, args.images)
        return lambda modality: choose_labelled(labelled, pairing, modality)
    inputs = find_inputs(args.inputs, args.output)

    def choose(modality: str) -> Chosen:
        chosen = choose_sources(inputs.files, pairing, modality)
        chosen.skipped[:0] = inputs.unreadable
        return chosen

    return choose


def _warn_of_threshold(threshold: float, detector: Detector[Any, Any]) -> None:
    if threshold > detector.score_floor:
        logger.warning(
            "--threshold %g leaves out detections that a miss rate needs: before d2pd evaluate, "
            "predict with --threshold 0",
            threshold,
        )
