"""Commands, run in this process so that libraries are imported once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from robustify.cli.__main__ import main


class Outcome(NamedTuple):
    """What a command left behind."""

    status: object
    stdout: str
    stderr: str


@pytest.fixture
def robustify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs a command line in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["robustify", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return Outcome(stopped.value.code or 0, *capsys.readouterr())

    return run
