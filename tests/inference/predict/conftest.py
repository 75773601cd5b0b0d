"""The command as a user types it, with a detector that only pretends where none is needed."""

import pytest
from predict_toys import Pretended

from d2pd import cli


@pytest.fixture
def pretended(monkeypatch):
    """The detector that the command gets in place of a trained one; tests may change it."""
    detector = Pretended()
    monkeypatch.setattr("d2pd.inference.predict.command.load", lambda *_, **__: detector)
    return detector


@pytest.fixture
def predict(tmp_path, capfd, monkeypatch):
    """Run the command in a folder of its own; gives exit code, output, errors."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*words, weights="any.pth"):
        code = cli.main(["predict", "--weights", str(weights), *map(str, words)])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return run
