"""``d2pd convert``: labels of one format in another, and a count of what gets lost."""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from d2pd.data.annotations.labels import Labels
from d2pd.data.convert.csv_target import to_csv
from d2pd.data.convert.json_targets import to_coco, to_kaist
from d2pd.data.convert.source import Source, read_source
from d2pd.data.convert.target import Converted, is_region
from d2pd.errors import AnnotationError, ConfigError
from d2pd.json_file import write_json
from d2pd.output_files import check_free, check_outputs, real_path, write_file
from d2pd.printable import printable

TARGETS: Mapping[str, Callable[[Labels], Converted]] = {
    "kaist": to_kaist,
    "coco": to_coco,
    "csv": to_csv,
}


def main(args: argparse.Namespace) -> int:
    """Read labels, write them in another format, and print what the target cannot say.

    Args:
        args: ``input``, ``format``, ``classes``, ``box_format``, ``columns``, ``to``, ``output``,
            ``force``.

    Returns:
        Exit code 0.

    Raises:
        UserError: If the labels cannot be read, or not be written there; nothing was written.
    """
    check_output(args.output, args.input, args.force)
    source = read_source(args.input, args.format, args.classes, args.box_format, args.columns)
    if not source.labels.records:
        raise AnnotationError(f"{args.input}: there is no image in it; nothing can be converted")
    converted = TARGETS[args.to](source.labels)
    _write(args.output, converted)
    print(_summary(source, converted, args))
    return 0


def check_output(output: Path, source: Path, force: bool) -> None:
    """Refuse to write over or into the labels that are read, or over another file unasked.

    Raises:
        ConfigError: If the output is no place for a file.
    """
    check_outputs([output], [source])
    if source.is_dir() and real_path(source) in real_path(output).parents:
        raise ConfigError(
            f"{output}: this is inside {source}, whose labels are read; write to another folder"
        )
    check_free([output], force=force)


def _write(output: Path, converted: Converted) -> None:
    if isinstance(converted.content, str):
        write_file(output, converted.content)
    else:
        write_json(output, converted.content)


def _summary(source: Source, converted: Converted, args: argparse.Namespace) -> str:
    labels = source.labels
    regions = sum(is_region(each) for record in labels.records for each in record["annotations"])
    lines = [
        f"read as {source.format}: {len(labels.records)} images, classes "
        f"{', '.join(labels.class_names) or 'none'}, {regions} regions to ignore",
        f"written as {args.to}: {args.output}, {converted.num_boxes} boxes",
    ]
    lost = source.lost + converted.lost + _new_class_ids(source, converted)
    lines.append(f"what {args.to} does not say:" if lost else "nothing is lost")
    lines += [f"{count:9d}  {what}" for what, count in lost.items()]
    return "\n".join(map(printable, lines))


def _new_class_ids(source: Source, converted: Converted) -> Counter[str]:
    if isinstance(converted.content, str):
        return Counter()
    new = {row["name"]: row["id"] for row in converted.content["categories"]}
    changed = [name for name, key in source.class_ids.items() if new[name] != key]
    what = "ids of classes: " + ", ".join(f"{name} is {new[name]} now" for name in changed)
    return +Counter({what: len(changed)})
