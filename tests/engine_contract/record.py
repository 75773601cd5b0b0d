"""Record what Detectron2 does: run the contract suite under it and write ``recorded/``.

The commit of Detectron2 is read from its installation; --commit names it where that does not say.
"""

import argparse
import json
import os
import sys
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", metavar="HASH", help="commit that Detectron2 was built from")
    commit = parser.parse_args().commit
    wish = os.environ.get("D2PD_ENGINE") or "detectron2"
    if wish not in ("auto", "detectron2"):
        return refuse(f"D2PD_ENGINE is '{wish}', but only Detectron2 can be recorded: unset it")
    os.environ["D2PD_ENGINE"] = "detectron2"
    sys.path.insert(0, str(ROOT))
    from d2pd.engine_state import choose_engine
    from d2pd.errors import EngineError

    try:
        choose_engine("detectron2")
    except EngineError as error:
        return refuse(str(error))
    commit = commit or installed_commit()
    if not commit:
        return refuse("the installed Detectron2 does not tell its commit: add --commit HASH")
    return record(commit)


def record(commit: str) -> int:
    """Run the suite as a recording; remove what no test records any more."""
    import pytest
    from contract_recording import FOLDER as RECORDED
    from contract_recording import Recorder

    os.chdir(ROOT)  # where pytest finds its settings
    RECORDED.mkdir(exist_ok=True)
    recorder = Recorder(metadata.version("detectron2"), commit)
    suite = [str(FOLDER), "-q", "-p", "no:cacheprovider"]
    # Those tests look at the files, which are all there only afterwards.
    suite.append(f"--ignore={FOLDER / 'test_contract_recording.py'}")
    code = pytest.main(suite, plugins=[recorder])
    if code == 0:
        for path in sorted(set(RECORDED.glob("*.json")) - recorder.written):
            path.unlink()
            print(f"removed {path.name}: no test records it any more")
    return int(code)


def installed_commit() -> str:
    """Return the commit that pip noted when it installed from git; empty if it did not."""
    noted = metadata.distribution("detectron2").read_text("direct_url.json") or "{}"
    return str(json.loads(noted).get("vcs_info", {}).get("commit_id", ""))


def refuse(reason: str) -> int:
    """Say why nothing is recorded; return the exit code for it."""
    print(f"record: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
