"""What a newcomer types before anything else: the version, completion, status of a run."""

import importlib.metadata
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import robustify as package
from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.data import Sample

Command = Callable[..., Any]
"""Runs a command line; answers with status, stdout and stderr."""


def test_the_version_is_that_of_the_installed_package(robustify: Command) -> None:
    assert package.__version__ == importlib.metadata.version("robustify-vision")
    assert "__version__" in dir(package)
    found = robustify("--version")
    assert (found.status, found.stdout) == (0, f"robustify {package.__version__}\n")


def test_the_version_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'scipy', 'numpy'} & sys.modules.keys()"
    code = f"import sys, robustify; robustify.__version__; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str) -> None:
    typed = {"COMP_WORDS": "robustify cert", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "robustify cert"}
    wanted = {
        **os.environ,
        **typed,
        "_ROBUSTIFY_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    found = subprocess.run([sys.executable, "-m", "robustify"], capture_output=True, text=True, env=wanted)
    assert re.search(r"\bcertify\b", found.stdout), found
    assert "demo" not in found.stdout


def test_status_imports_nothing_that_takes_long(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    """The command reads numbers only: torch, models' libraries, pictures and bars stay out."""
    certify_dataset(model, samples, out, Settings(n=40, n0=20))
    code = (
        "import sys; from robustify.cli.status import status; from pathlib import Path; status(Path(sys.argv[1])); "
        "print({'torch', 'timm', 'matplotlib', 'PIL', 'huggingface_hub', 'pandas', 'jinja2'} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True)
    assert found.stdout.startswith("12 of 12 images"), found
    assert found.stdout.splitlines()[-1] == "set()"


def test_what_is_logged_is_said_once_whoever_else_listens(
    robustify: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libraries give the root logger a handler, which would repeat every line."""
    root = logging.getLogger()
    echo = logging.StreamHandler(sys.stderr)
    root.addHandler(echo)
    try:
        robustify("--version")
        robustify("--version")
        logging.getLogger("robustify").info("checking")
    finally:
        root.removeHandler(echo)
    assert capsys.readouterr() == ("", "checking\n")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_lacks_a_letter_still_shows_the_rest(encoding: str) -> None:
    """Windows gives pipes an old encoding: ℓ and σ are not in it."""
    wanted = {**os.environ, "PYTHONIOENCODING": encoding}
    found = subprocess.run([sys.executable, "-m", "robustify", "certify", "--help"], capture_output=True, env=wanted)
    assert (found.returncode, found.stderr) == (0, b"")
    assert b"--sigma" in found.stdout
