"""What ``d2pd predict`` says at its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from d2pd.inference.predict.result_files import CSV_NAME, JSON_NAME, LINES_NAME
from d2pd.inference.predict.stage_times import STAGES, StageTimes
from d2pd.printable import printable

MOST_LISTED = 10


@dataclass(frozen=True)
class Summary:
    """What came out of a run.

    Attributes:
        num_images: Pictures and frames that the model has seen.
        num_detections: In all of them.
        threshold: Least score.
        noun: What was seen: images, frames, or both.
        device: Where.
        batch: Images computed together.
        times: How long it took.
        folder: Where all was written.
        why_no_lines: Why there is no ``detections.txt``; "" where there is one.
        num_pictures: That were drawn.
        videos: That were drawn.
        num_of_other_camera: Pictures passed over.
        skipped: What could not be used, and why.
    """

    num_images: int
    num_detections: int
    threshold: float
    noun: str
    device: str
    batch: int
    times: StageTimes
    folder: Path
    why_no_lines: str
    num_pictures: int
    videos: Sequence[Path]
    num_of_other_camera: int
    skipped: Sequence[str]

    def __str__(self) -> str:
        lines = [
            f"{self.num_images} {self.noun}, {self.num_detections} detections of score "
            f"{self.threshold:g} or more",
            *self._time_lines(),
            f"written: {self.folder / JSON_NAME}, {CSV_NAME}"
            + (f" (no {LINES_NAME}: {self.why_no_lines})" if self.why_no_lines else "")
            + ("" if self.why_no_lines else f", {LINES_NAME}"),
        ]
        if self.num_pictures:
            lines.append(f"drawn: {self.num_pictures} pictures in {self.folder / 'pictures'}")
        lines += [f"drawn: {path}" for path in self.videos]
        if self.num_of_other_camera:
            lines.append(f"{self.num_of_other_camera} pictures of the other camera passed over")
        return "\n".join(map(printable, [*lines, *list_skipped(self.skipped)]))

    def _time_lines(self) -> list[str]:
        seconds = self.times.seconds_an_image
        if not seconds:  # the first image could not be drawn
            return []
        stages = ", ".join(f"{name} {1000 * self.times.of_stage(name):.1f}" for name in STAGES)
        warm = "the first ones left out" if self.times.is_warm else "warm-up included: few images"
        return [
            f"{1000 * seconds:.1f} ms an image, {1 / seconds:.1f} FPS on {self.device}, "
            f"{self.batch} at a time ({warm})",
            f"ms an image by stage, which work at the same time: {stages}",
        ]


def list_skipped(skipped: Sequence[str]) -> list[str]:
    """Return lines on what could not be used: a heading, the first ones, how many more."""
    if not skipped:
        return []
    lines = [f"not used, or not wholly ({len(skipped)}):"]
    lines += [f"  {reason}" for reason in skipped[:MOST_LISTED]]
    if len(skipped) > MOST_LISTED:
        lines.append(f"  ... and {len(skipped) - MOST_LISTED} more")
    return lines
