"""Write the page of a run into its folder."""

from pathlib import Path

from d2pd.atomic_file import atomic_file
from d2pd.errors import UserError
from d2pd.reporting.report.gather import gather
from d2pd.reporting.report.page import render_page

NAME = "report.html"
MAX_PICTURES = 60


def write_report(
    output_dir: str | Path, *, max_pictures: int = MAX_PICTURES, quiet: bool = False
) -> Path:
    """Write ``report.html``: what a run did, its curves, its numbers and its errors, in one file.

    Args:
        output_dir: ``OUTPUT_DIR`` of a run, finished or not.
        max_pictures: Errors in the gallery at most, over all datasets; each takes up to 0.1 MB.
        quiet: No progress bar.

    Returns:
        The path of the file; it is whole or not there.

    Raises:
        MissingFileError: If the folder holds no run.
        ConfigError: If its configuration cannot be used.
        UserError: If the page cannot be written.
    """
    folder = Path(output_dir)
    page = render_page(gather(folder, max_pictures=max_pictures, quiet=quiet))
    try:
        with atomic_file(folder / NAME) as file:
            # Half a character, as a name may hold, fits no encoding: its code is shown.
            file.write(page.encode(errors="backslashreplace"))
    except OSError as error:
        raise UserError(
            f"cannot write {folder / NAME} ({error.strerror or error}): make room there, or copy "
            "the run to another folder"
        ) from error
    return folder / NAME
