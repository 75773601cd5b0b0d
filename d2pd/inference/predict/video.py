"""Reads videos frame by frame: which frame it is, when it is shown, and what is missing."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import cv2
import numpy as np

from d2pd.data.modality import CAMERAS
from d2pd.errors import AnnotationError
from d2pd.inference.predict.picture import as_camera, stack_cameras

ASSUMED_FPS = 25.0
"""Of a file that states none that could be."""

MOST_FPS = 1000.0
GRID_TOLERANCE = 0.1
"""Of a frame: how far a frame's time may lie from its place in a video of constant rate."""

RATE_TOLERANCE = 0.01
MOST_BROKEN = 1000
"""Frames in a row that cannot be read, after which a video counts as ended."""


@dataclass(frozen=True)
class VideoFrame:
    """A frame that could be decoded.

    Attributes:
        image: (H, W, 3) uint8 BGR; (H, W, 6) of a pair.
        number: In the file, from 0.
        time_s: When it is shown, seconds from the first frame.
    """

    image: np.ndarray
    number: int
    time_s: float


class FrameClock:
    """Tells number and time of each frame from the times that a file states.

    A decoder may leave out broken frames without a word. In a video of constant rate the times
    tell how many; as soon as they show another rate, frames are counted instead. Files without
    times are of constant rate.

    Args:
        fps: Frames a second, as the file states them.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._previous = 0.0
        self._next = 0
        self._is_constant = True

    def tell(self, stated_s: float, num_failed: int = 0) -> tuple[int, float]:
        """Return number and time of the next frame.

        Args:
            stated_s: When it is shown, as the file states it.
            num_failed: Attempts to read a frame before it that failed.
        """
        time_s = max(0.0, stated_s)
        if self._next and not time_s > self._previous:
            time_s = self._previous + (1 + num_failed) / self._fps
        place = time_s * self._fps
        number = round(place)
        self._is_constant &= abs(place - number) <= GRID_TOLERANCE and number >= self._next
        number = number if self._is_constant else self._next + num_failed
        self._next, self._previous = number + 1, time_s
        return number, time_s


class VideoFile:
    """A video that is open.

    Args:
        path: The file.

    Attributes:
        fps: Frames a second.
        num_stated: Frames that the file states to have; 0 where it states none.
        num_failed: Broken frames that the last ``skip`` went over.

    Raises:
        AnnotationError: If it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._capture = _open(path)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= MOST_FPS else ASSUMED_FPS
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_stated = int(stated) if 0 < stated < 2**31 else 0
        self.num_failed = 0

    def skip(self) -> float | None:
        """Go to the next frame; return when it is shown as the file states it, None at the end."""
        for self.num_failed in range(MOST_BROKEN):  # at the end all fail, at once
            if self._capture.grab():
                return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        return None

    def decode(self) -> np.ndarray | None:
        """Return the frame that ``skip`` went to, (H, W, 3) uint8 BGR; None if it is broken."""
        is_decoded, image = self._capture.retrieve()
        return image if is_decoded and image is not None and image.size else None

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


class VideoReader:
    """Reads every Nth frame of a video, or of the two of a pair in step.

    Args:
        paths: One for each camera, visible first.
        modality: ``visible``, ``lwir`` or ``both``.
        stride: N.

    Attributes:
        fps: Frames a second of the source.
        troubles: What was missing, known once all frames were read.

    Raises:
        AnnotationError: If a file cannot be opened, or the two of a pair differ in rate.
    """

    def __init__(self, paths: Sequence[str], modality: str, stride: int) -> None:
        self._cameras = CAMERAS[modality]
        self._stride = stride
        self.troubles: list[str] = []
        with ExitStack() as stack:
            self._files = [stack.enter_context(closing(VideoFile(path))) for path in paths]
            self.close = stack.pop_all().close
        self.fps = self._files[0].fps
        if any(abs(file.fps - self.fps) > RATE_TOLERANCE * self.fps for file in self._files):
            self.close()
            rates = " and ".join(f"{file.fps:g}" for file in self._files)
            raise AnnotationError(f"a pair has one frame rate, these are {rates} frames a second")

    @property
    def num_expected(self) -> int:
        """Frames that there will be, by what the files state; 0 where they do not."""
        return -(-min(file.num_stated for file in self._files) // self._stride)

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames.

        Raises:
            AnnotationError: If the two of a pair differ in size.
        """
        clock, num_read, num_broken, number = FrameClock(self.fps), 0, 0, -1
        try:
            while (shown := self._skip()) is not None:
                before = number
                number, time_s = clock.tell(shown, self._files[0].num_failed)
                num_broken += number - before - 1
                if number % self._stride:
                    num_read += 1
                    continue
                image = self._decode()
                if image is None:
                    num_broken += 1
                    continue
                num_read += 1
                yield VideoFrame(image, number, time_s)
            self._judge(num_read, num_broken, number + 1)
        finally:
            self.close()

    def _skip(self) -> float | None:
        """Go to the next frame of each file; where one lacks some, the other skips them too."""
        times = [file.skip() for file in self._files]
        while None not in times:
            known = [time for time in times if time is not None]
            if max(known) - min(known) < 0.5 / self.fps:
                return known[0]
            behind = known.index(min(known))
            times[behind] = self._files[behind].skip()
        return None

    def _decode(self) -> np.ndarray | None:
        pictures = []
        for file, camera in zip(self._files, self._cameras, strict=True):
            picture = file.decode()
            if picture is None:
                return None
            pictures.append(as_camera(picture, camera))
        return stack_cameras(pictures)

    def _judge(self, num_read: int, num_broken: int, end: int) -> None:
        stated = [file.num_stated for file in self._files]
        if not num_read:
            self.troubles.append("there is no frame in it that could be read")
            return
        if num_broken:
            self.troubles.append(f"{num_broken} broken frames were skipped")
        if max(stated) > min(stated) > 0:
            self.troubles.append(
                f"its visible and its thermal video have {stated[0]} and {stated[1]} frames; the "
                "first ones were taken for pairs"
            )
        # Some containers state a duration only, and OpenCV may be one frame off.
        if min(stated) - end > 1:
            self.troubles.append(
                f"ended after {end} of the {min(stated)} frames its file states; it may be cut off"
            )


def count_frames(paths: Sequence[str], stride: int) -> int:
    """Return how many frames a video will give, by what its files state; 0 where nothing does."""
    try:
        reader = VideoReader(paths, "both" if len(paths) > 1 else "visible", stride)
    except AnnotationError:  # which reading will tell
        return 0
    reader.close()
    return reader.num_expected


def _open(path: str) -> "cv2.VideoCapture":
    try:
        path.encode()  # OpenCV 5 crashes at names that are no text
        size = os.path.getsize(path) if os.path.isfile(path) else None
    except UnicodeEncodeError:
        raise AnnotationError("OpenCV opens no file whose name is not UTF-8; rename it") from None
    if size is None:
        what = "not a file" if os.path.exists(path) else "a link that leads to no file"
        raise AnnotationError(f"{what if os.path.lexists(path) else 'no such file'}")
    if not os.access(path, os.R_OK):
        raise AnnotationError("cannot be read: Permission denied")
    capture = cv2.VideoCapture(path)
    if not capture.isOpened():
        capture.release()
        raise AnnotationError(f"not a video that OpenCV can read ({size} bytes)")
    return capture
