"""Options mean the same in all commands and in Python, and the examples are possible commands."""

import inspect
import shlex
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from robustify import Settings, robustify
from robustify.cli.__main__ import app
from robustify.cli.certify import certify
from robustify.cli.estimate import estimate
from robustify.cli.options import build, class_names
from robustify.cli.predict import predict
from robustify.cli.tune import tune
from robustify.cli.verify import verify
from robustify.errors import InputError

README = Path(__file__).parents[2] / "README.md"


def options(command: Callable[..., None]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(command).parameters)


def test_estimate_takes_the_options_of_certify() -> None:
    wanted = options(certify)
    del wanted["out"]
    assert options(estimate) == wanted


@pytest.mark.parametrize(
    ("command", "own"),
    [(predict, {"n"}), (tune, {"data", "out", "batch", "seed"}), (verify, {"model", "data"})],
)
def test_an_option_is_the_same_in_every_command(command: Callable[..., None], own: set[str]) -> None:
    known = options(certify)
    shared = {name: option for name, option in options(command).items() if name in known}
    assert {name for name, option in shared.items() if option != known[name]} == own


def test_defaults_are_those_of_the_library() -> None:
    library = {name: parameter.default for name, parameter in inspect.signature(robustify).parameters.items()}
    library |= {f.name: f.default for f in fields(Settings)}
    ours = {name: option.default for name, option in options(certify).items() if name not in ("model", "data", "out")}
    assert {name: default for name, default in ours.items() if name in library} == {
        name: default for name, default in library.items() if name in ours
    }
    assert ours.keys() - library.keys() == {"ledger", "every"}


def examples() -> list[str]:
    told = [line.split("Example: ")[1] for command in commands().values() for line in lines(command.help) if line]
    return [*told, *(line.split("#")[0] for line in README.read_text().splitlines() if line.startswith("robustify "))]


def lines(help_text: str | None) -> list[str]:
    return [line for line in (help_text or "").splitlines() if line.startswith("Example: ")]


def commands() -> dict[str, Any]:
    found = dict(vars(get_command(app))["commands"])
    group = found.pop("denoisers")
    return {**found, **group.commands}


def test_every_command_shows_an_example() -> None:
    assert [name for name, command in commands().items() if not lines(command.help)] == []


@pytest.mark.parametrize("example", examples())
def test_examples_are_possible_commands(example: str) -> None:
    words = shlex.split(example.replace("denoisers convert", "convert"))
    assert words[0] == "robustify"
    commands()[words[1]].make_context(words[1], words[2:])


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
@pytest.mark.parametrize("compiled", [False, True])
def test_compiling_is_announced(compiled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    build("zoo:timm", denoiser=None, sigma=0.25, classes=None, templates="openai", compiled=compiled)
    told = capsys.readouterr()
    assert told.out == ""
    assert ("nothing moves for a minute or so" in told.err) == compiled


def test_class_names_are_a_list_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffcat\n\n hot dog \n", encoding="utf-8")
    assert class_names(str(tmp_path / "names.txt")) == ["cat", "hot dog"]
    assert class_names("cat, hot dog") == ["cat", "hot dog"]
    assert class_names("x" * 300 + ",cat")[1] == "cat"
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="expected a text file"):
        class_names(str(tmp_path / "picture.png"))
    with pytest.raises(InputError, match="expected class names"):
        class_names(" , ")
