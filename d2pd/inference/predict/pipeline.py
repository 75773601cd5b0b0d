"""From sources to detections: reading, preparing and the model work at the same time."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from d2pd.errors import AnnotationError, ConfigError, DeviceError
from d2pd.inference.batches import in_batches
from d2pd.inference.detections import Detections
from d2pd.inference.detector import Detector, PreparedImage
from d2pd.inference.predict.overlap import Overlap
from d2pd.inference.predict.pairing import Source
from d2pd.inference.predict.picture import PictureReader
from d2pd.inference.predict.stage_times import StageTimes
from d2pd.inference.predict.video import VideoReader


@dataclass(frozen=True)
class Shot:
    """A picture, or a frame of a video, on its way through the stages.

    Attributes:
        source: Where it is from.
        image: (H, W, 3) uint8 BGR, (H, W, 6) of a pair; None where there is none.
        trouble: Why there is none, or what a video was short of at its end.
        frame: Of a video: number in the file, from 0.
        time_s: Of a video: seconds from the first frame.
        fps: Of a video: frames a second of the source.
    """

    source: Source
    image: np.ndarray | None = None
    trouble: str = ""
    frame: int | None = None
    time_s: float | None = None
    fps: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A shot, and what the model found in it; None where it has no image."""

    shot: Shot
    found: Detections | None


def read_shots(
    sources: Iterable[Source], modality: str, stride: int
) -> Generator[Shot, None, None]:
    """Yield the pictures and the frames of all sources; what cannot be read is told in a shot."""
    pictures = PictureReader(modality)
    for source in sources:
        try:
            if source.is_video:
                yield from _read_video(source, modality, stride)
            else:
                yield Shot(source, pictures.read(source.paths))
        except AnnotationError as error:
            yield Shot(source, trouble=str(error))


def _read_video(source: Source, modality: str, stride: int) -> Iterator[Shot]:
    reader = VideoReader(source.paths, modality, stride)
    with closing(reader):
        for frame in reader.frames():
            yield Shot(
                source,
                frame.image,
                frame=frame.number,
                time_s=frame.time_s,
                fps=reader.fps,
            )
    for trouble in reader.troubles:
        yield Shot(source, trouble=trouble)


@contextmanager
def look_at(
    shots: Generator[Shot, None, None],
    detector: Detector[Any, Any],
    threshold: float,
    batch: int,
    times: StageTimes,
) -> Iterator[Iterator[Seen]]:
    """Give what is seen in each shot, in order; leaving the context ends all stages.

    Args:
        shots: Are read in a thread, and closed there.
        detector: Prepares in a second one, and computes in a third.
        threshold: Least score.
        batch: Images that are computed together, at most.
        times: Where the time of each stage is noted.

    Raises:
        DeviceError: If the memory of a GPU does not suffice.
    """
    room = batch + 1
    with Overlap() as overlap:
        read = overlap.ahead(times.measure_each("read", shots), room)
        ready = overlap.ahead(_prepare(read, detector, times), room)
        model = _Model(detector, threshold, times)
        yield overlap.ahead(model.see(ready, batch), room)


_Ready = tuple[Shot, PreparedImage | None]


def _prepare(
    shots: Iterable[Shot], detector: Detector[Any, Any], times: StageTimes
) -> Generator[_Ready, None, None]:
    for shot in shots:
        if shot.image is None:
            yield shot, None
            continue
        try:
            with times.measure("prepare"):
                prepared = detector.prepare(shot.image)
        except ValueError as error:
            yield replace(shot, image=None, trouble=str(error)), None
        else:
            yield shot, prepared


def _batch_key(ready: _Ready) -> Any:
    prepared = ready[1]
    return None if prepared is None else prepared.batch_key


class _Model:
    def __init__(self, detector: Detector[Any, Any], threshold: float, times: StageTimes) -> None:
        self._detector = detector
        self._threshold = threshold
        self._times = times

    def see(self, ready: Iterable[_Ready], batch: int) -> Generator[Seen, None, None]:
        """Yield what the model finds in each shot."""
        for group in in_batches(ready, _batch_key, batch):
            shots = [shot for shot, _ in group]
            prepared = [each for _, each in group if each is not None]
            if not prepared:
                yield from (Seen(shot, None) for shot in shots)
                continue
            try:
                found = self._find(prepared)
            except ConfigError as error:  # too small; those of a batch have one size
                trouble = str(error)
                yield from (Seen(replace(s, image=None, trouble=trouble), None) for s in shots)
            else:
                yield from map(Seen, shots, found)

    def _find(self, prepared: Sequence[PreparedImage]) -> list[Detections]:
        try:
            with self._times.measure("model", len(prepared)):
                of_batch = self._detector.detect(prepared)
                if self._detector.device.type == "cuda":  # it has only been asked for until then
                    torch.cuda.synchronize(self._detector.device)
        except torch.OutOfMemoryError:
            raise DeviceError(
                f"the memory of {self._detector.device} does not suffice for {len(prepared)} "
                "images at a time: lower --batch, or add --half, or --device cpu"
            ) from None
        with self._times.measure("post-process", len(prepared)):
            return self._detector.finish(of_batch, prepared, self._threshold)
