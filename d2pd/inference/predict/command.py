"""``d2pd predict``: a trained detector on pictures, videos and pairs of both cameras."""

import argparse
import logging
import math
from collections.abc import Callable
from pathlib import Path

from d2pd.errors import ConfigError, UserError
from d2pd.inference.predict.detector import Detector
from d2pd.inference.predict.labelled import choose_labelled, find_labelled
from d2pd.inference.predict.pairing import Chosen, Pairing, choose_sources
from d2pd.inference.predict.quiet import quiet_opencv
from d2pd.inference.predict.result_files import NAMES
from d2pd.inference.predict.run import Run, RunOptions
from d2pd.inference.predict.sources import find_inputs
from d2pd.inference.predict.summary import list_skipped
from d2pd.inference.predict.targets import check_no_input, choose_targets
from d2pd.inference.predictor import load
from d2pd.output_files import check_free, check_outputs

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Find the inputs, load the detector, write what it finds, and print a summary.

    Args:
        args: ``inputs``, ``weights``, ``config_file``, ``output``, ``threshold``, ``stride``,
            ``batch``, ``device``, ``half``, ``pair``, ``annotations``, ``images``,
            ``no_pictures``, ``force``, as ``d2pd.cli`` parses them.

    Returns:
        Exit code: 0 all was used, 1 some inputs could not be used, and the rest is done.

    Raises:
        UserError: If an option or an input is wrong, or no input could be used.
        RunInterrupted: If it was asked to stop; what was found by then is written.
    """
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


def load_detector(args: argparse.Namespace) -> Detector:
    """Load what ``--weights`` names.

    Raises:
        UserError: If it cannot be used.
    """
    if len(args.weights) > 1:
        raise ConfigError("several weights: not yet")
    return load(
        args.weights[0], config_file=args.config_file or "", device=args.device, half=args.half
    )


def _check_options(args: argparse.Namespace) -> None:
    if not (math.isfinite(args.threshold) and 0 <= args.threshold <= 1):
        raise ConfigError(f"--threshold must be a score from 0 to 1, got {args.threshold:g}")
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


def _warn_of_threshold(threshold: float, detector: Detector) -> None:
    if threshold > detector.score_floor:
        logger.warning(
            "--threshold %g leaves out detections that a miss rate needs: before d2pd evaluate, "
            "predict with --threshold 0",
            threshold,
        )
