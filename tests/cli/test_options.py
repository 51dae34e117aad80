"""Options mean the same in all commands and in Python, and the examples are possible commands."""

import inspect
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

from robustify import Settings, SmoothedClassifier, robustify
from robustify.cli.__main__ import app
from robustify.cli.build import build
from robustify.cli.certify import certify
from robustify.cli.estimate import estimate
from robustify.cli.options import class_names, command, help_of, in_words_of_the_command_line
from robustify.cli.predict import predict
from robustify.cli.tune import tune
from robustify.cli.verify import verify
from robustify.errors import InputError
from robustify.model_options import ModelOptions

README = Path(__file__).parents[2] / "README.md"


MINE = {"model", "data", "out", "every", "ledger"}
"""Parameters of certify that are no field of a dataclass."""


def options(function: Callable[..., None]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(command(function)).parameters)


def test_estimate_takes_the_options_of_certify() -> None:
    wanted = options(certify)
    del wanted["out"]
    assert {name: _told(option) for name, option in options(estimate).items()} == {
        name: _told(option) for name, option in wanted.items()
    }


@pytest.mark.parametrize(
    ("function", "own"),
    [(predict, {"n", "alpha"}), (tune, {"data", "out", "batch", "seed"}), (verify, {"model", "data"})],
)
def test_an_option_is_the_same_in_every_command(function: Callable[..., None], own: set[str]) -> None:
    known = options(certify)
    shared = {name: option for name, option in options(function).items() if name in known}
    assert {name for name, option in shared.items() if _told(option) != _told(known[name])} == own


def _told(option: inspect.Parameter) -> tuple[object, ...]:
    """Type, default and help of an option."""
    kind, *more = get_args(option.annotation) or (option.annotation,)
    return kind, option.default, [found.help for found in more]


def test_every_field_is_an_option_with_its_default_and_its_help() -> None:
    ours = options(certify)
    for kind in (ModelOptions, Settings):
        for field in fields(kind):
            assert ours[field.name].default == field.default
            assert len(help_of(kind)[field.name]) > 20
            assert _told(ours[field.name])[2] == [help_of(kind)[field.name]]
    assert ours.keys() - {f.name for kind in (ModelOptions, Settings) for f in fields(kind)} == MINE


def test_python_takes_the_same_options() -> None:
    python = inspect.signature(robustify).parameters
    assert all(python[field.name].default == field.default for field in fields(ModelOptions))
    certifying = inspect.signature(SmoothedClassifier.certify).parameters
    assert all(certifying[field.name].default == field.default for field in fields(Settings))


def test_help_shows_what_the_docstrings_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        get_command(app)(["certify", "--help"], standalone_mode=True)
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    for field in fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in shown
        assert " ".join(help_of(Settings)[field.name].split()[:4]) in shown


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("say which, classes=['cat', 'dog', …]", "say which, --classes cat,dog,…"),
        ("known_label decides; give the radius", "--known-label decides; give the radius"),
        (
            "give a number of draws n, not both; n_max caps a decision",
            "give a number of draws n, not both; --n-max caps a decision",
        ),
        ("real arithmetic: soundness='float'.", "real arithmetic: --soundness float."),
        ("compiled=True needs a C++ compiler", "--compiled needs a C++ compiler"),
        ("expected n0 to be a whole number", "expected --n0 to be a whole number"),
        ("got n0 = 3", "got --n0 = 3"),
        ("sigma = 0.5 and radius 3", "sigma = 0.5 and radius 3"),
        ("use cache=0", "use --cache 0"),
        ("where both compute: device='cuda'.", "where both compute: --device cuda."),
        ("--known-label stays", "--known-label stays"),
        ("in 'runs/sigma=0.5/seed=1'", "in 'runs/sigma=0.5/seed=1'"),
        ("in '/data/n0/x'", "in '/data/n0/x'"),
        ("plan.n0: there 100, now 50", "plan.n0: there 100, now 50"),
        ("got sigma=-1", "got --sigma -1"),
    ],
)
def test_errors_speak_of_options_as_they_are_typed(said: str, typed: str) -> None:
    assert in_words_of_the_command_line(said) == typed


def test_an_unknown_keyword_gets_the_nearest() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sigmma'; did you mean 'sigma'"):
        robustify("zoo:timm", sigmma=0.5)  # type: ignore[call-arg]


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
    build("zoo:timm", ModelOptions(compiled=compiled))
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
