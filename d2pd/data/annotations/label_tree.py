"""Labels in one file a frame: where the files lie, what frames are called, how they become records.

``annotations/set00/V000/I00000.txt`` is KAIST's first layout, with ``.xml`` its later one.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from d2pd.data.annotations.kaist import FRAME_SIZE, PUBLISHED_CATEGORIES
from d2pd.data.annotations.labels import (
    IGNORE_REGION,
    Annotation,
    Labels,
    Record,
    make_annotation,
)
from d2pd.errors import AnnotationError, MissingFileError

IGNORE_WORDS = ("ignore", "__ignore__")
"""Classes that stand for a region to ignore."""

PUBLISHED_ORDER = tuple(name for key, name in PUBLISHED_CATEGORIES.items() if key != 0)

_KAIST_FRAME = re.compile(r"set\d+/V\d+/I\d+")


@dataclass(frozen=True)
class FrameObject:
    """One object as its file says.

    Attributes:
        word: Its class.
        bbox_xyxy: Pixels, faults included.
        row: Line of a text from 1, position among the objects of an XML from 0.
        is_ignored: Whether the file marks it as a region to ignore.
        occlusion: 0 none, 1 partial, 2 heavy, None where the file does not say.
        extras: What else the file says of it, by name; only what differs from "nothing special".
    """

    word: str
    bbox_xyxy: list[float]
    row: int
    is_ignored: bool = False
    occlusion: int | None = None
    extras: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """The labels of one frame.

    Attributes:
        path: Of the file, for messages.
        name: Such as ``set00/V000/I00000``; what the file says, or its path, outside KAIST.
        size: Height and width in pixels, None where the file does not say.
        objects: In the order of the file.
    """

    path: Path
    name: str
    size: tuple[int, int] | None
    objects: Sequence[FrameObject]


def read_tree(
    root: Path,
    suffix: str,
    read_frame: Callable[[Path, str], Frame],
    class_names: Sequence[str] | None,
) -> Labels:
    """Read all label files under a folder, or one file.

    Args:
        root: The folder; links in it are followed, loops of them are not.
        suffix: Of the files, such as ``.txt``.
        read_frame: Reads a file; gets the name of the frame as its path gives it.
        class_names: Names of category 0, 1, ...; objects of other classes become regions to
            ignore. None takes all classes of the files, those of KAIST in its order first.

    Returns:
        Records in the order of the paths. Those of KAIST frames have ``im_name``, and KAIST's size
        where the file states none. An annotation has ``extras`` where its file says more.

    Raises:
        MissingFileError: If the folder or a file is not there, or may not be read.
        AnnotationError: If a file cannot be used, or a frame has two; the message names the place.
    """
    paths = [root] if root.is_file() else _find_files(root, suffix)
    frames: dict[str, Frame] = {}
    for path in tqdm(paths, "Reading", unit="file", disable=None):
        frame = read_frame(path, frame_name(path, root))
        first = frames.setdefault(frame.name, frame)
        if first is not frame:
            raise AnnotationError(
                f"{frame.name} is labelled in {first.path} and in {path}; name the folder of one "
                "set of labels"
            )
    words = Counter(each.word for frame in frames.values() for each in frame.objects)
    chosen = _choose_classes(words, class_names, root)
    return Labels(_records(frames.values(), chosen), chosen)


def frame_name(path: Path, root: Path) -> str:
    """Name a frame as KAIST does; where the path is not of that kind, relative to the folder.

    Args:
        path: The label file.
        root: The folder that was given, or the file itself.
    """
    name = "/".join(path.absolute().with_suffix("").parts[-3:])
    if _KAIST_FRAME.fullmatch(name):
        return name
    return path.relative_to(root if path != root else root.parent).with_suffix("").as_posix()


def is_kaist_frame(name: str) -> bool:
    """Tell whether a name is one of a KAIST frame, such as ``set00/V000/I00000``."""
    return _KAIST_FRAME.fullmatch(name) is not None


def list_files(root: Path) -> Iterable[Path]:
    """Yield the files under a folder, sorted, but for hidden ones.

    Args:
        root: Links in it are followed; a folder that was seen before is not entered again.

    Raises:
        MissingFileError: If there is no such folder, or one in it may not be listed.
    """
    if not root.is_dir():
        raise MissingFileError(f"{root}: no such folder of labels (looked from {Path.cwd()})")
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise MissingFileError(
            f"{error.filename}: cannot be listed ({error.strerror}); mend its permissions"
        ) from error

    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        is_new = real not in seen
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if is_new and name[0] != ".")
        yield from (Path(folder, name) for name in sorted(names) if is_new and name[0] != ".")


def _find_files(root: Path, suffix: str) -> list[Path]:
    paths = [path for path in list_files(root) if path.suffix.lower() == suffix]
    if not paths:
        raise AnnotationError(
            f"{root}: there is no {suffix} file in it; name the folder that holds set00, set01, ..."
        )
    return paths


def _choose_classes(
    words: Mapping[str, int], class_names: Sequence[str] | None, root: Path
) -> tuple[str, ...]:
    in_files = [word for word in words if word not in IGNORE_WORDS]
    known = [name for name in PUBLISHED_ORDER if name in in_files]
    found = (*known, *sorted(set(in_files) - set(known)))
    if class_names is None:
        return found
    for name in class_names:
        if name not in found and name not in PUBLISHED_ORDER:
            raise AnnotationError(
                f"{root}: class {name!r} is not a class of these labels ({', '.join(found)}); "
                "correct the classes"
            )
    return tuple(class_names)


def _records(frames: Iterable[Frame], chosen: Sequence[str]) -> list[Record]:
    records: list[Record] = []
    for index, frame in enumerate(frames):
        record: Record = {"file_name": frame.name, "image_id": index}
        if frame.size is not None:
            record["height"], record["width"] = frame.size
        if is_kaist_frame(frame.name):
            record = FRAME_SIZE | record | {"im_name": frame.name}
        record["annotations"] = [_annotation(each, chosen) for each in frame.objects]
        records.append(record)
    return records


def _annotation(each: FrameObject, chosen: Sequence[str]) -> Annotation:
    is_class = each.word in chosen
    category = chosen.index(each.word) if is_class else IGNORE_REGION
    is_region = each.is_ignored or not is_class
    annotation = make_annotation(each.bbox_xyxy, category, is_region, each.row, each.occlusion)
    extras = dict(each.extras)
    if not is_class and each.word not in IGNORE_WORDS:
        extras["class"] = each.word
    return annotation | ({"extras": extras} if extras else {})
