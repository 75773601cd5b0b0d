"""How long a user waits before anything happens: whole processes, from the command to its exit."""

import argparse
import subprocess
import sys

from drawn import ROOT  # makes d2pd importable
from measuring import Turn, compare, time_in_turn
from report import OtherWork, report

from d2pd.config import default_config

BARE, PACKAGE, HELP, VERSION = "python alone", "import d2pd", "d2pd --help", "d2pd --version"
PARSED = "import d2pd, python apart"
COMMANDS = {
    BARE: ["-c", "pass"],
    PACKAGE: ["-c", "import d2pd"],
    HELP: ["-m", "d2pd", "--help"],
    VERSION: ["-m", "d2pd", "--version"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--json", help="also write everything measured to this file")
    args = parser.parse_args()
    args.clock = "wall"
    turns = {name: run_python(words) for name, words in COMMANDS.items()}
    other_work = OtherWork()
    seconds = time_in_turn(turns, args.repetitions, warmup=1)
    both = zip(seconds[PACKAGE], seconds[BARE], strict=True)
    seconds[PARSED] = [max(1e-6, package - bare) for package, bare in both]
    cfg = default_config()
    cfg.MODEL.DEVICE = "cpu"
    report(
        args,
        cfg,
        data="nothing",
        rows=compare(seconds, [(name, BARE) for name in seconds if name != BARE], "s"),
        samples={"seconds": seconds},
        other_work=other_work,
    )


def run_python(words: list[str]) -> Turn:
    command = [sys.executable, *words]
    return lambda _: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
