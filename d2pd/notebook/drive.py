"""Google Drive in Colab: mounted only there, and what to do where something is not in it."""

import importlib
from pathlib import Path

from d2pd.errors import MissingFileError, UserError
from d2pd.notebook.runtime import is_colab

MOUNT = Path("/content/drive")
MY_DRIVE = MOUNT / "MyDrive"
FEW = 8

REMOUNT = "mount_drive(force_remount=True)"
PERSONAL = "a personal Google account, as those of work or school often may not"


def mount_drive(*, force_remount: bool = False) -> Path | None:
    """Mount Drive where this is Colab.

    Args:
        force_remount: Mount anew, as after a shortcut was added or the connection was lost.

    Returns:
        The folder "My Drive"; None elsewhere, where nothing is mounted.

    Raises:
        UserError: If it cannot be mounted, or does not answer afterwards.
    """
    if not is_colab():
        print("Not Colab: there is no Drive to mount, and folders of this machine are used.")
        return None
    drive = importlib.import_module("google.colab.drive")
    try:
        drive.mount(str(MOUNT), force_remount=force_remount)
        is_there = MY_DRIVE.is_dir()
    except Exception as error:  # whatever Colab raises: a refused sign-in, files in the way
        raise UserError(f"Drive cannot be mounted ({_first_line(error)}): {_way_out()}") from error
    if not is_there:
        raise UserError(f"Drive is mounted and {MY_DRIVE} is not there: {_way_out()}")
    return MY_DRIVE


def find_on_drive(path: str | Path, my_drive: Path = MY_DRIVE) -> Path:
    """Return a file or folder of Drive.

    Args:
        path: From "My Drive", such as ``kaist/kaist.zip``; or whole.
        my_drive: Where "My Drive" is mounted.

    Raises:
        MissingFileError: If it is not there, with the usual reasons; or if Drive is not.
    """
    place = my_drive / path
    try:
        if not my_drive.is_dir():
            raise MissingFileError(
                f"{place}: Drive is not mounted; run mount_drive() and allow what it asks for"
            )
        if place.exists():
            return place
        held = _names_beside(place, my_drive)
    except MissingFileError:
        raise
    except OSError as error:
        raise MissingFileError(
            f"{place}: Drive does not answer ({error.strerror or error}); run {REMOUNT}"
        ) from error
    raise MissingFileError(
        f"{place} is not on Drive; {held}. Is it in a folder that someone shared with you? Then, "
        "on drive.google.com under Shared with me, choose Organise > Add shortcut > My Drive, and "
        f"run {REMOUNT}. Sign in with the account that sees it, best {PERSONAL}"
    )


def _names_beside(place: Path, my_drive: Path) -> str:
    """Say what lies in the nearest folder above that is there."""
    folder = next((parent for parent in place.parents if parent.is_dir()), my_drive)
    names = sorted(path.name for path in folder.iterdir())
    more = ", ..." if len(names) > FEW else ""
    return f"{folder} holds {', '.join(names[:FEW])}{more}" if names else f"{folder} is empty"


def _way_out() -> str:
    return (
        f"allow everything that the sign-in asks for, with {PERSONAL}; where {MOUNT} holds files "
        f"of its own, rename that folder; then run {REMOUNT}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
