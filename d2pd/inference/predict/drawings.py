"""Pictures and videos with the detections drawn on them."""

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from d2pd.errors import UserError
from d2pd.inference.detections import Detections
from d2pd.inference.predict.pairing import Source
from d2pd.inference.predict.pipeline import Shot
from d2pd.output_files import write_file

CODEC = "mp4v"


class Drawings:
    """Draws each image into the file of its source.

    Args:
        targets: File of each source.
        stride: Every how many frames of a video there is one.

    Attributes:
        num_pictures: Written so far.
        videos: Written so far.
        troubles: What could not be drawn, and why.
    """

    def __init__(self, targets: Mapping[Source, Path], stride: int) -> None:
        self._targets = targets
        self._stride = stride
        self._video: _DrawnVideo | None = None
        self._source: Source | None = None
        self.num_pictures = 0
        self.videos: list[Path] = []
        self.troubles: list[str] = []

    def add(self, shot: Shot, found: Detections) -> None:
        """Draw an image.

        Raises:
            UserError: If its file cannot be written.
        """
        target = self._targets[shot.source]
        if shot.source is not self._source:
            self.end_video()
            self._source = shot.source
        picture = found.draw()
        if not shot.source.is_video:
            self._write_picture(target, picture)
            return
        if self._video is None:
            self._video = _DrawnVideo(target, shot.fps / self._stride, picture)
        self._video.add(picture)

    def _write_picture(self, target: Path, picture: np.ndarray) -> None:
        encoded = _encode(picture, target.suffix.lower())
        if encoded:
            write_file(target, encoded)
            self.num_pictures += 1
        else:
            self.troubles.append(_too_large(target, picture.shape[1], picture.shape[0]))

    def drop_video(self) -> None:
        """Leave nothing of the video that is being drawn."""
        video, self._video = self._video, None
        if video is not None:
            video.drop()

    def end_video(self) -> None:
        """Finish the video that is being drawn.

        Raises:
            UserError: If it cannot be written.
        """
        video, self._video = self._video, None
        if video is None:
            return
        if video.finish():
            self.videos.append(video.target)
        else:
            self.troubles.append(_too_large(video.target, *video.size))


def _too_large(target: Path, width: int, height: int) -> str:
    return (
        f"{target}: OpenCV writes no {target.suffix} of {width} x {height} px; the detections are "
        "written"
    )


def _encode(picture: np.ndarray, suffix: str) -> bytes:
    """Return the bytes of a file; none where its format takes no picture of this size."""
    # PNG is lossless at any level; the fastest makes files that are little larger.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if suffix == ".png" else []
    try:
        is_encoded, encoded = cv2.imencode(suffix, picture, options)
    except cv2.error:
        return b""
    return np.asarray(encoded).tobytes() if is_encoded else b""


class _DrawnVideo:
    """A video that takes its name once it is whole.

    Attributes:
        size: (width, height) px, both even as the codec needs them.
    """

    def __init__(self, target: Path, fps: float, first: np.ndarray) -> None:
        self.target = target
        height, width = first.shape[:2]
        self.size = width + width % 2, height + height % 2
        self._partial = target.with_name(f".{target.stem}.part{target.suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._partial.unlink(missing_ok=True)
        code = cv2.VideoWriter.fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(self._partial), code, fps, self.size)
        self._is_open = self._writer.isOpened()
        self._num_frames = 0

    def add(self, picture: np.ndarray) -> None:
        if not self._is_open:
            return
        width, height = self.size
        below, right = height - picture.shape[0], width - picture.shape[1]
        if {below, right} <= {0, 1}:
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)
        else:  # some videos change their size
            picture = cv2.resize(picture, self.size)
        self._writer.write(picture)
        self._num_frames += 1

    def drop(self) -> None:
        self._writer.release()
        self._partial.unlink(missing_ok=True)

    def finish(self) -> bool:
        """Give the file its name; return whether there is one."""
        if not self._is_open:
            self.drop()
            return False
        self._writer.release()
        self._check_whole()
        try:
            os.replace(self._partial, self.target)
        except OSError as error:
            raise UserError(
                f"cannot write {self.target} ({error.strerror}): make room there, or choose "
                "another folder"
            ) from error
        return True

    def _check_whole(self) -> None:
        """Count the frames, as OpenCV says nothing of those that a full disk has refused."""
        capture = cv2.VideoCapture(str(self._partial))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self._num_frames:
            self._partial.unlink(missing_ok=True)
            raise UserError(
                f"cannot write {self.target}: {found} of {self._num_frames} frames arrived; make "
                "room there, or choose another folder"
            )
