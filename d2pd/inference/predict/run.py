"""One run of ``d2pd predict``: all sources through the model, into the files."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from d2pd.errors import RunInterrupted, UserError
from d2pd.inference.detector import Detector
from d2pd.inference.predict.drawings import Drawings
from d2pd.inference.predict.pairing import Chosen, Source
from d2pd.inference.predict.pipeline import Seen, look_at, read_shots
from d2pd.inference.predict.result_files import ResultFiles, result_files
from d2pd.inference.predict.stage_times import StageTimes
from d2pd.inference.predict.summary import Summary, list_skipped
from d2pd.inference.predict.video import count_frames
from d2pd.printable import printable
from d2pd.training.interruption import Interruption, StopRequest

WARM_UP = 3
"""Images that do not count for the times, or the first batch where that is larger."""


@dataclass(frozen=True)
class RunOptions:
    """How to look, and where to write.

    Attributes:
        folder: Of all results.
        threshold: Least score.
        stride: Every Nth frame of a video is looked at.
        batch: Images computed together.
    """

    folder: Path
    threshold: float
    stride: int
    batch: int


class Run:
    """Looks at all sources, once.

    Args:
        detector: What looks.
        chosen: The sources, and what was left out before.
        targets: File of each drawing; empty to draw nothing.
        options: How, and where to.

    Attributes:
        times: Of each stage.
    """

    def __init__(
        self,
        detector: Detector[Any, Any],
        chosen: Chosen,
        targets: Mapping[Source, Path],
        options: RunOptions,
    ) -> None:
        self._detector = detector
        self._chosen = chosen
        self._options = options
        self._skipped = [*chosen.skipped]
        self._drawings = Drawings(targets, options.stride) if targets else None
        self.times = StageTimes(max(WARM_UP, options.batch))
        self._total = self._count()

    def go(self) -> int:
        """Look at everything, write it, and print a summary.

        Returns:
            Exit code: 0 all was used, 1 something could not be used.

        Raises:
            UserError: If nothing could be used, or the results cannot be written.
            RunInterrupted: If a signal came.
        """
        why_no_lines = self._why_no_lines()
        with result_files(
            self._options.folder, self._detector.class_names, has_lines=not why_no_lines
        ) as files:
            ending = self._look(files)
            if not files.num_images:  # leaves what lies there as it is
                raise self._nothing(ending)
        print(self._summary(files, why_no_lines))
        self._raise(ending, files.num_images)
        return 1 if self._skipped else 0

    def _count(self) -> int | None:
        """Return how many images there will be; None where a video does not say."""
        sources = self._chosen.sources
        videos = [
            count_frames(source.paths, self._options.stride)
            for source in sources
            if source.is_video
        ]
        return None if 0 in videos else len(sources) - len(videos) + sum(videos)

    def _look(self, files: ResultFiles) -> StopRequest | Exception | None:
        """Return what ended it early, if anything did."""
        options = self._options
        shots = read_shots(self._chosen.sources, self._detector.channels.modality, options.stride)
        bar = tqdm(total=self._total, unit=self._noun()[:-1], leave=False, disable=None)
        try:
            with (
                Interruption(until="this image") as interruption,
                bar,
                look_at(
                    shots, self._detector, options.threshold, options.batch, self.times
                ) as seen,
            ):
                for each in seen:
                    self._take(each, files)
                    bar.update()
                    if stop := interruption.request():
                        return self._end(stop)
        except Exception as error:  # whatever it is, what was found so far is kept
            return self._end(error)
        except BaseException:  # a second Ctrl-C: at once, and nothing half-made stays
            if self._drawings is not None:
                self._drawings.drop_video()
            raise
        return self._end(None)

    def _take(self, seen: Seen, files: ResultFiles) -> None:
        if seen.found is None:
            trouble, path = seen.shot.trouble, seen.shot.source.paths[0]
            self._skipped.append(trouble if trouble.startswith(path) else f"{path}: {trouble}")
            return
        with self.times.measure("draw and write"):
            files.add(seen.shot, seen.found)
            if self._drawings is not None:
                self._drawings.add(seen.shot, seen.found)
        self.times.image_done()

    def _end(self, ending: StopRequest | Exception | None) -> StopRequest | Exception | None:
        """Finish the video that is being drawn; return the first thing that went wrong."""
        if self._drawings is None:
            return ending
        try:
            self._drawings.end_video()
        except UserError as error:
            return ending or error
        finally:
            self._skipped += self._drawings.troubles
        return ending

    def _raise(self, ending: StopRequest | Exception | None, num_done: int) -> None:
        of_all = f" of {self._total}" if self._total is not None else ""
        so_far = (
            f"after {num_done}{of_all} {self._noun()}; what was found so far is in "
            f"{self._options.folder}"
        )
        if isinstance(ending, StopRequest):
            raise RunInterrupted(f"interrupted {so_far}", ending.exit_code)
        if isinstance(ending, UserError):
            raise UserError(f"{ending}; ended {so_far}") from ending
        if ending is not None:
            print(printable(f"d2pd: a fault {so_far}"), file=sys.stderr)
            raise ending

    def _nothing(self, ending: StopRequest | Exception | None) -> Exception:
        if isinstance(ending, StopRequest):
            return RunInterrupted(
                "interrupted before the first result; nothing is written", ending.exit_code
            )
        reasons = list_skipped(self._skipped)
        return ending or UserError("\n".join(["nothing could be used:", *reasons[1:]]))

    def _noun(self) -> str:
        kinds = {source.is_video for source in self._chosen.sources}
        return "images" if False in kinds else "frames"

    def _why_no_lines(self) -> str:
        names = self._detector.class_names
        if len(names) > 1:
            return f"its form knows no classes, and the model has {len(names)}"
        ids = (source.image_id for source in self._chosen.sources)
        if not all(isinstance(each, int | None) for each in ids):
            return "its form takes numbers as ids, and the label file has others"
        return ""

    def _summary(self, files: ResultFiles, why_no_lines: str) -> Summary:
        drawn = self._drawings
        return Summary(
            num_images=files.num_images,
            num_detections=files.num_detections,
            threshold=self._options.threshold,
            noun=self._noun(),
            device=str(self._detector.device),
            batch=self._options.batch,
            times=self.times,
            folder=self._options.folder,
            why_no_lines=why_no_lines,
            num_pictures=drawn.num_pictures if drawn else 0,
            videos=drawn.videos if drawn else (),
            num_of_other_camera=self._chosen.num_of_other_camera,
            skipped=self._skipped,
        )
