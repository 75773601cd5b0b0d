"""What stands on the page of a run, as plain data: gathered in one place, laid out in another."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from d2pd.reporting.report.chart import Chart


@dataclass(frozen=True)
class Box:
    """A box on a picture: x, y, width, height in pixels of the image file.

    Attributes:
        kind: ``label``, ``detection`` or ``ignore``.
        text: Beside it.
        is_subject: The one that the picture is about.
    """

    xywh: tuple[float, float, float, float]
    kind: str
    text: str = ""
    is_subject: bool = False


@dataclass(frozen=True)
class Card:
    """One error in the gallery.

    Attributes:
        kind: ``miss`` or ``false positive``.
        reason: A word or two.
        splits: Names of the subsets of images that it belongs to, such as ``day``.
        band: Name of its height band.
        score: Of the detection; None for a miss.
        lines: What the caption says, line by line.
        image_name: As in the label file.
        image_size: (height, width) in pixels of the file.
        view: x, y, width, height of the part that is shown, in pixels of the file.
        crop: That part as a data URI; empty where the picture cannot be read.
        frame: Key of the whole picture in ``Gallery.frames``; empty as above.
        boxes: All boxes of the image.
        trouble: Why there is no picture.
    """

    kind: str
    reason: str
    splits: tuple[str, ...]
    band: str
    score: float | None
    lines: tuple[str, ...]
    image_name: str
    image_size: tuple[int, int]
    view: tuple[float, float, float, float]
    crop: str
    frame: str
    boxes: tuple[Box, ...]
    trouble: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headings; numbers are words already.

    Attributes:
        title: Its caption.
        head: Words of the columns; the first column names the rows.
        rows: Words of the cells, as many as ``head``.
        note: A sentence below.
        shades: 0..4 for each cell but the first of a row; empty for none.
        is_wide: Takes the whole width.
        details: A heading, and the sentences that it unfolds.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    shades: Sequence[Sequence[int]] = ()
    is_wide: bool = False
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A number that one looks for first.

    Attributes:
        label: What it is.
        value: The number as words.
        detail: Where it was reached, or why there is none.
    """

    label: str
    value: str
    detail: str = ""


@dataclass
class DatasetPart:
    """All about one test dataset; an empty field is told of in ``absent``."""

    name: str
    summary: str
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    confusion: Table | None = None
    error_tables: list[Table] = field(default_factory=list)
    errors_note: str = ""
    cards: list[Card] = field(default_factory=list)
    gallery_note: str = ""
    absent: list[str] = field(default_factory=list)


@dataclass
class Content:
    """All that stands on a page.

    Attributes:
        name: Of the run.
        folder: Its ``OUTPUT_DIR``, whole.
        status: ``finished``, ``stopped early``, ``unfinished`` or ``evaluated``.
        status_words: A sentence that says how far it came, and why not further.
        figures: The numbers for the head of the page.
        facts: Rows of the summary: what, and its words.
        absent: What the run lacks, why, and how to get it.
        training: Charts over the iterations.
        training_absent: Why there are none.
        datasets: One for each test dataset.
        changes: Rows of the configuration that differ from the defaults: key, value, default.
        config_text: The whole configuration.
        frames: Key -> data URI of a whole picture.
        footer: When and by what the page was written.
    """

    name: str
    folder: str
    status: str = "finished"
    status_words: str = ""
    figures: list[Figure] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    training: list[Chart] = field(default_factory=list)
    training_absent: str = ""
    datasets: list[DatasetPart] = field(default_factory=list)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    config_text: str = ""
    frames: dict[str, str] = field(default_factory=dict)
    footer: str = ""
