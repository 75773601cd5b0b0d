"""The page: content in, one HTML text out that fetches nothing from anywhere."""

import base64
import hashlib
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from d2pd.reporting.report import chart
from d2pd.reporting.report.content import Box, Card, Content

TEMPLATES = Path(__file__).parent / "template"
BOX_ORDER = ("ignore", "label", "detection")


def render_page(content: Content) -> str:
    """Lay out the page of a run, see ``render``.

    Args:
        content: What stands on it.
    """
    return render(
        "page.html",
        TEMPLATES,
        title=content.name,
        brand="d2pd report",
        enlarged="One error",
        frames=content.frames,
        footer=content.footer,
        run=content,
    )


def render(name: str, templates: Path, *, style: str = "", script: str = "", **values: Any) -> str:
    """Lay out a page.

    All texts are escaped, in HTML and in the embedded JSON; a policy in the page allows its own
    style sheet and script by their hashes, pictures by data URI, and nothing else.

    Args:
        name: Of a template that extends ``base.html``.
        templates: Folder that it lies in.
        style: Rules after those that all pages have.
        script: What runs after the script that all pages have.
        values: Of the template's names: those of ``base.html`` and its own.

    Returns:
        The whole HTML document.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, TEMPLATES], encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        place_chart=chart.place_chart,
        size=chart,
        drawing_order=_drawing_order,
        short_name=_short_name,
    )
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8") + style
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8") + script
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(name).render(
        **values, style=style, script=script, policy=policy
    )


def _drawing_order(card: Card) -> list[Box]:
    """Return the boxes of a card, the one that it is about last, so that none lies over it."""
    return sorted(card.boxes, key=lambda box: (box.is_subject, BOX_ORDER.index(box.kind)))


def _short_name(name: str) -> str:
    """Keep the end of an absolute path: its start is the same for all."""
    parts = PurePath(name).parts
    return "/".join(parts[-2:]) if PurePath(name).is_absolute() else name


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
