"""``d2pd predict`` on a video against the bare model: what reading, drawing and writing cost.

A drawn video goes through the whole command, without loading the model; the same frames, prepared
and in memory, go through the model alone. The weights are random, and the threshold is chosen so
that as many boxes are drawn as are wanted.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from drawn import ROOT  # makes d2pd importable
from measuring import CLOCKS, Samples, compare, time_in_turn, wait_for
from report import OtherWork, report

from d2pd.config import load_config
from d2pd.data.synthetic import draw_frame, frames_of_split
from d2pd.inference.predict.pairing import Chosen, Source
from d2pd.inference.predict.pipeline import look_at, read_shots
from d2pd.inference.predict.run import Run, RunOptions
from d2pd.inference.predict.stage_times import STAGES, StageTimes
from d2pd.inference.predict.targets import choose_targets
from d2pd.inference.predictor import Predictor

CONFIGS = ("ssd_seg_synthetic", "faster_rcnn_synthetic")
SIZE = (640, 512)  # px, width and height
FPS = 30.0
NUM_SCENES = 12


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        video = write_video(Path(name) / "street.mp4", args.images)
        other_work = OtherWork()
        samples: Samples = {}
        pairs: list[tuple[str, str]] = []
        for config in CONFIGS:
            cfg = load_config(ROOT / f"configs/quick/{config}.yaml", args.opts)
            torch.manual_seed(args.seed)
            detector = Predictor(cfg, class_names=["person"])
            measured = measure(args, detector, video, Path(name))
            samples |= {f"{config}: {variant}": each for variant, each in measured.items()}
            model = f"{config}: the model alone"
            pairs += [(f"{config}: {variant}", model) for variant in list(measured)[1:]]
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.SEED = str(detector.device), args.seed
    report(
        args,
        cfg,
        data=f"a drawn video of {args.images} frames of {SIZE[0]} x {SIZE[1]} px, {args.boxes:g} "
        f"boxes drawn on a frame, {args.batch} frames at a time",
        rows=compare(samples, pairs, "s"),
        samples={"seconds": samples},
        other_work=other_work,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--images", type=int, default=300, help="frames of the video")
    parser.add_argument("--batch", type=int, default=4, help="frames computed together")
    parser.add_argument("--boxes", type=float, default=5, help="drawn on a frame, in the mean")
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes")
    parser.add_argument("--json", help="also write everything measured to this file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... over the configs")
    return parser.parse_args()


def write_video(path: Path, count: int) -> Path:
    """Draw scenes that move sideways."""
    scenes = [
        cv2.resize(draw_frame(frame)[0], SIZE) for frame in frames_of_split("test", NUM_SCENES, 0)
    ]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, SIZE)
    for number in range(count):
        scene = scenes[number * NUM_SCENES // count]
        writer.write(np.roll(scene, 2 * number, axis=1))
    writer.release()
    return path


def measure(args: argparse.Namespace, detector: Predictor, video: Path, folder: Path) -> Samples:
    """Return seconds of a whole video by variant, those of the stages too."""
    source = Source((str(video),), "street")
    shots = [*read_shots([source], detector.channels.modality, 1)]
    images = [shot.image for shot in shots if shot.image is not None]
    prepared = [detector.prepare(image) for image in images]
    groups = [prepared[at : at + args.batch] for at in range(0, len(prepared), args.batch)]
    threshold = choose_threshold(detector, images[:: max(1, len(images) // 10)], args.boxes)
    options = RunOptions(folder / "found", threshold, 1, args.batch)
    stages: Samples = {f"stage {stage}": [] for stage in STAGES}
    seconds = time_in_turn(
        {
            "the model alone": lambda _: [detector.detect(group) for group in groups],
            "d2pd predict": run_command(detector, source, options, stages, len(images)),
            "d2pd predict, nothing drawn": run_command(detector, source, options, {}, len(images)),
            "reading, preparing, model": run_pipeline(detector, source, options),
        },
        args.repetitions,
        warmup=1,
        clock=args.clock,
        finish=wait_for(str(detector.device)),
    )
    # The first one was for warming up.
    return seconds | {stage: each[1:] for stage, each in stages.items()}


def choose_threshold(
    detector: Predictor, images: Sequence[np.ndarray], boxes_per_image: float
) -> float:
    """Return the score that so many boxes of an image reach, in the mean."""
    found = detector.predict(images, threshold=0)
    scores = np.sort(np.concatenate([each.scores for each in found]))[::-1]
    return float(scores[min(len(scores) - 1, round(boxes_per_image * len(images)))])


def run_command(
    detector: Predictor, source: Source, options: RunOptions, stages: Samples, num_images: int
) -> Callable[[int], Any]:
    """Return what does all that the command does once the model is loaded.

    Args:
        detector: The model.
        source: The video.
        options: Of the command.
        stages: Take the seconds of each; without any, nothing is drawn.
        num_images: Frames of the video.
    """
    targets = choose_targets([source], options.folder) if stages else {}

    def run(_: int) -> None:
        command = Run(detector, Chosen([source], []), targets, options)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if command.go():
                raise RuntimeError("the video was not wholly used")
        for stage in STAGES if stages else ():
            stages[f"stage {stage}"].append(command.times.of_stage(stage) * num_images)

    return run


def run_pipeline(detector: Predictor, source: Source, options: RunOptions) -> Callable[[int], Any]:
    """Return what sees the video and writes nothing."""

    def run(_: int) -> None:
        shots = read_shots([source], detector.channels.modality, 1)
        times = StageTimes(options.batch)
        with look_at(shots, detector, options.threshold, options.batch, times) as seen:
            for _seen in seen:
                pass

    return run


if __name__ == "__main__":
    main()
