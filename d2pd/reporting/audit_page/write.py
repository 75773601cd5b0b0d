"""Write the page of an audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from d2pd.data.audit.findings import Audit
from d2pd.output_files import write_file
from d2pd.reporting.audit_page.content import AuditContent
from d2pd.reporting.audit_page.gather import gather
from d2pd.reporting.report.page import render

NAME = "index.html"
MAX_PICTURES = 12
TEMPLATES = Path(__file__).parent / "template"


def write_audit_page(
    audit: Audit,
    folder: Path,
    paths: Sequence[Mapping[str, str]] = (),
    *,
    max_pictures: int = MAX_PICTURES,
    quiet: bool | None = None,
) -> Path:
    """Write ``index.html``: distributions, rules, and findings with their pictures, in one file.

    Args:
        audit: What was found.
        folder: Made if it is not there.
        paths: (I,) files of each image by camera, see ``PictureFindings``; empty without pictures.
        max_pictures: Findings of a rule that are shown with their picture, at most.
        quiet: No progress bar; None for none where nobody looks.

    Returns:
        The path of the file; it is whole or not there.

    Raises:
        UserError: If it cannot be written.
    """
    content = gather(audit, paths, max_pictures=max_pictures, quiet=quiet)
    write_file(folder / NAME, render_audit(content))
    return folder / NAME


def render_audit(content: AuditContent) -> str:
    """Return the page as HTML that fetches nothing from anywhere, see ``report.page.render``."""
    return render(
        "audit.html",
        TEMPLATES,
        style=(TEMPLATES / "audit.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "audit.js").read_text(encoding="utf-8"),
        title=content.name,
        brand="d2pd audit",
        enlarged="One finding",
        frames=content.frames,
        footer=content.footer,
        audit=content,
    )
