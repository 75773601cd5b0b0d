"""A copy of a label file without the faults that can be mended, and the list of what was done."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from d2pd.data.annotations.csv_columns import BOX_FIELDS, parse_table
from d2pd.data.annotations.labels import read_label_file
from d2pd.data.audit.cleaning_plan import CleaningPlan, Mending, plan_cleaning
from d2pd.data.audit.csv_text import CsvLayout, CsvText
from d2pd.data.audit.findings import Finding
from d2pd.data.audit.json_text import JsonText
from d2pd.data.audit.stored_text import StoredText
from d2pd.data.label_table.table import LabelTable
from d2pd.errors import AnnotationError
from d2pd.output_files import check_free, check_outputs, write_file
from d2pd.printable import inert_cell


@dataclass(frozen=True)
class Change:
    """One row that the copy lacks or has otherwise.

    Attributes:
        row: As in findings.
        place: What ``row`` counts: ``image``, ``annotation`` or ``line``.
        image: The name as the file spells it, None where the row names none.
        rule: Why.
        action: ``removed`` or ``changed``.
        before: The row as it stands in the file.
        after: As it stands in the copy, empty where it was removed.
    """

    row: int
    place: str
    image: str | None
    rule: str
    action: str
    before: str
    after: str


@dataclass(frozen=True)
class CleanCopy:
    """What was written.

    Attributes:
        path: The copy.
        changes: In the order of the file, images before boxes.
    """

    path: Path
    changes: list[Change]

    @property
    def changes_path(self) -> Path:
        """The list of changes, beside the copy."""
        return changes_path(self.path)

    def summary(self) -> str:
        """Tell on one line what was written and how much was changed."""
        counts = Counter((change.action, change.place) for change in self.changes)
        told = ", ".join(
            f"{number:,} {place}{'' if number == 1 else 's'} {action}"
            for (action, place), number in sorted(counts.items())
        )
        return f"written: {self.path} ({told or 'nothing to change'}), {self.changes_path}"


def changes_path(target: Path) -> Path:
    """Return where the changes of a copy are listed."""
    return target.with_name(f"{target.name}.changes.csv")


def check_target(annotations: Path, target: Path, *, force: bool) -> None:
    """Refuse a place for the copy, before anything is read.

    Args:
        annotations: The label file, which stays as it is.
        target: Where the copy is to lie.
        force: Whether files there may be replaced.

    Raises:
        ConfigError: If the copy, or its list of changes, would lie over the label file, by whatever
            path or link, over a folder, or over a file without ``force``.
    """
    check_outputs([target], [annotations])  # first: only a file has a name to add to
    check_outputs([changes_path(target)], [annotations])
    check_free([target, changes_path(target)], force=force)


def write_clean_copy(
    table: LabelTable,
    findings: Sequence[Finding],
    target: Path,
    *,
    force: bool,
    min_box_size: float,
) -> CleanCopy:
    """Write a copy without what the cleaned rules have found, in the same format and encoding.

    Every row that stays keeps its text and place, every number that stays its digits. A box that
    reaches beyond its image is cut to it. An image that loses its last box stays, as one without
    objects. An image that goes takes its boxes along.

    Args:
        table: The labels. ``heights`` and ``widths`` are what boxes are cut to: where the file
            states none, those of the pictures, if they were looked at.
        findings: Of all rules, on this table; see ``RULES`` for those that are mended.
        target: Where the copy is to lie; folders are made. The changes are listed beside it, see
            ``changes_path``.
        force: Whether files there may be replaced.
        min_box_size: Least side in pixels of a box after it was cut.

    Raises:
        ConfigError: See ``check_target``.
        AnnotationError: If no image would be left, or its columns could not be told any more.
        UserError: If the copy cannot be written.
    """
    check_target(table.path, target, force=force)
    stored = StoredText.decode(read_label_file(table.path))
    document = _document(table, stored)
    plan = plan_cleaning(table, findings, document, min_box_size)
    if len(plan.removed_images) == table.num_images:
        raise AnnotationError(f"{table.path}: no image is sound; a clean copy would be empty")
    changes = _changes(plan, document)
    text = document.edited({place: mending.text for place, mending in plan.mendings.items()})
    copy = stored.with_text(text)
    if isinstance(document, CsvText) and ("line", document.rows[0]) in plan.mendings:
        _check_first_line(table, document, copy)
    write_file(changes_path(target), _as_csv(changes))
    write_file(target, copy.encode())  # last: a copy never lies without its list
    return CleanCopy(target, changes)


def _document(table: LabelTable, stored: StoredText) -> JsonText | CsvText:
    if table.format != "csv":
        return JsonText(stored.text)
    return CsvText(stored.text, _layout(table, stored))


def _layout(table: LabelTable, stored: StoredText) -> CsvLayout:
    cells = parse_table(
        stored.encode(), table.path, table.box_format, table.columns, needs_class=False
    )
    return CsvLayout(cells.separator, cells.columns, cells.has_header, table.box_format)


def _check_first_line(table: LabelTable, document: CsvText, copy: StoredText) -> None:
    """Refuse a copy without a header whose columns its new first line would tell otherwise.

    Raises:
        AnnotationError: If so.
    """
    try:
        is_told = _layout(table, copy) == document.layout
    except AnnotationError:  # none can be told at all
        is_told = False
    if not is_told:
        raise AnnotationError(
            f"{table.path}: without its first line the columns could not be told any more; put a "
            f"header before it, such as filename,{','.join(BOX_FIELDS[table.box_format])},class"
        )


def _changes(plan: CleaningPlan, document: JsonText | CsvText) -> list[Change]:
    return [
        Change(
            row,
            place,
            mending.image,
            mending.rule,
            "removed" if mending.text is None else "changed",
            document.row_text(place, row),
            mending.text or "",
        )
        for (place, row), mending in sorted(plan.mendings.items(), key=_in_file_order)
    ]


def _in_file_order(item: tuple[tuple[str, int], Mending]) -> tuple[bool, int]:
    (place, row), _ = item
    return place != "image", row


def _as_csv(changes: Iterable[Change]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(field.name for field in fields(Change))
    writer.writerows(map(inert_cell, astuple(change)) for change in changes)
    return lines.getvalue()
