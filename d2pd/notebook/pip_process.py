"""pip in a process of its own: nothing that is installed is replaced, and it shows that it lives.

A package that is replaced under a running kernel breaks it, or asks for a restart: Colab's torch,
numpy and OpenCV stay as they are.
"""

import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from d2pd.errors import InstallError

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")

SHOWN = re.compile(
    r"(Collecting|Downloading|Building|Preparing|Cloning|Processing|Installing|Successfully|ERROR)"
    r"|.*(still running|: finished)"
)
"""Lines of pip that a person wants to see; those on what is there already are left out."""

CAUSE = "The conflict is caused by:"
PIN_OF_CONFLICT = re.compile(r"The user requested \(constraint\) (\S+)==(\S+)")
MOST_LINES = 4

VERSION = re.compile(
    r"(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview|post|rev|r|dev)[-_.]?\d*)*(-\d+)?"
    r"(\+[a-z0-9]+([-_.][a-z0-9]+)*)?",
    re.IGNORECASE,
)
"""A version as PEP 440 has it, or nearly; others cannot be pinned."""


def canonical(name: str) -> str:
    """Return the one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions() -> dict[str, str]:
    """Return the version of every package that Python finds, by canonical name.

    Not from ``pip list``, which fails where one package has no proper version.
    """
    found: dict[str, str] = {}
    for package in metadata.distributions():
        name, version = package.metadata["Name"], package.metadata["Version"]
        if name and version:  # a folder that a removal left behind has none
            found.setdefault(canonical(name), version)  # the first is the one that is imported
    return found


def constraint_lines(installed: Mapping[str, str]) -> list[str]:
    """Pin every package to the version that is installed.

    Args:
        installed: Name -> version; what is no version as pip knows them is left out.
    """
    return [f"{name}=={v}" for name, v in sorted(installed.items()) if VERSION.fullmatch(v)]


def add_packages(
    words: Sequence[str], installed: Mapping[str, str], purpose: str
) -> dict[str, str]:
    """Run ``pip install`` so that only packages are added that are not there.

    Args:
        words: For ``pip install``.
        installed: What ``installed_versions`` returned.
        purpose: What they are for, for the message.

    Returns:
        What is new, name -> version.

    Raises:
        InstallError: If that cannot be done without replacing a package, or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        constraints.write_text("\n".join(constraint_lines(installed)) + "\n", encoding="utf-8")
        run_pip(["install", "--constraint", str(constraints), *words], purpose)
    importlib.invalidate_caches()  # so that the running kernel finds them
    return {
        name: version
        for name, version in installed_versions().items()
        if installed.get(name) != version
    }


def run_pip(words: Sequence[str], purpose: str) -> None:
    """Run pip and print its lines that matter as they come.

    Args:
        words: Command and options.
        purpose: What it is for, for the message.

    Raises:
        InstallError: If it fails; the message holds pip's reason.
    """
    command = [*PIP, *words, "--progress-bar", "off"]
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                said.append(line.rstrip())
                if SHOWN.match(line.strip()):
                    print(f"  {line.strip()}", flush=True)
        except BaseException:  # the stop button: pip must not go on unseen
            process.kill()
            raise
    if process.returncode:
        raise InstallError(f"{purpose} cannot be installed: {_reason(said)}")


def _reason(said: Sequence[str]) -> str:
    """Return pip's reason in one line: what conflicts, else its errors, else its last words."""
    if CAUSE in said:
        causes = []
        for line in said[said.index(CAUSE) + 1 :]:
            if not line.startswith(" "):
                break
            causes.append(PIN_OF_CONFLICT.sub(r"\1 \2 is installed and stays", line.strip()))
        return "; ".join(causes)
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    if errors == ["Exception:"]:  # a fault of pip: the last line of its traceback tells
        errors = [line for line in said if line][-1:]
    words = errors[:MOST_LINES] or [line for line in said if line][-MOST_LINES:]
    return "; ".join(line.strip() for line in words) or "pip says nothing"
