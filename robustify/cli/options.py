"""Options of the command line, made from the dataclasses that Python uses.

A command declares what it takes as parameters: arguments and options of its own as typer knows them, and dataclasses
such as `ModelOptions` or `Settings`, of which it gets instances. Names, defaults and help of their fields come from
the dataclass and its docstring, so no option is written down twice. typer stays underneath: it is small, starts fast,
and takes parameters from a signature, so that making them takes a few lines.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

import typer

from robustify.errors import InputError
from robustify.model_options import ModelOptions
from robustify.smoothing.settings import PredictSettings, Settings

Model: TypeAlias = Annotated[
    str, typer.Argument(help="Classifier, 'source:name' or a folder: timm:…, open_clip:…, hf:…, zoo:…, or a plugin's.")
]
Data: TypeAlias = Annotated[
    Path,
    typer.Argument(help="Folder of images or class folders, one image, or .npz / .safetensors: images, labels."),
]
Every: TypeAlias = Annotated[int, typer.Option(help="Take every k-th image only.", min=1)]
Ledger: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Folder that counts attempts at each image: all of them together stay within --alpha."),
]
Out: TypeAlias = Annotated[Path, typer.Option(help="Folder of the run; the same command continues it.")]
Run: TypeAlias = Annotated[Path, typer.Argument(help="Folder of the run.")]

_WORD = r"(?<![\w./\\'-])"
"""What must not stand before an option's name in an error text: part of a path, of a key, or of something quoted."""

_AS_TYPED: dict[str, Any] = {
    "denoiser": str | None,
    "tuned": Path | None,
    "device": str | None,
    "classes": str | None,
    "templates": str,
    "radius": list[float] | None,
    "sigma": str | None,
    "certificate": str | None,
}
"""Types of options that are narrower on a command line than in Python."""


class Without:
    """Marks a dataclass of options some of whose fields a command does not take; they keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as typer takes it: each dataclass among its parameters becomes one option a field."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[Field[Any]]]] = {}
    for parameter in inspect.signature(function).parameters.values():
        kind, taken = _options_of(parameter.annotation)
        if kind is None:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = kind, taken
        parameters += [_parameter(kind, field) for field in taken]

    def run(**given: Any) -> None:  # noqa: ANN401 - what typer parsed
        made = {
            name: kind(**{field.name: _for_python(field.name, given.pop(field.name)) for field in taken})
            for name, (kind, taken) in groups.items()
        }
        function(**given, **made)

    run.__doc__ = function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def help_of(kind: type) -> dict[str, str]:
    """What a dataclass's docstring, and those of its bases, say of each field."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        section = inspect.cleandoc(part.__doc__ or "").partition("\nArguments:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def in_words_of_the_command_line(text: str) -> str:
    """An error text with options as they are typed: `known_label` is `--known-label`, `sigma=0.5` is `--sigma 0.5`."""
    names = {field.name for kind in (ModelOptions, Settings, PredictSettings) for field in fields(kind)}
    names |= {"validation", "targets", "epochs", "cache", "micro_batch", "learning_rate", "adapt", "family_wise", "out"}
    for name in names:
        option = f"--{name.replace('_', '-')}"
        text = re.sub(rf"{_WORD}{name}=True\b", option, text)
        for listed in re.findall(rf"{_WORD}{name}=\[([^\]]*)\]", text):
            text = text.replace(f"{name}=[{listed}]", f"{option} {_listed(listed)}")
        text = re.sub(rf"{_WORD}{name}='([^']*)'", rf"{option} \1", text)
        text = re.sub(rf"{_WORD}{name}=(?=[\w.+-])", f"{option} ", text)
        text = re.sub(rf"{_WORD}{name}=", option, text)
        text = text.replace(f"expected {name} to be", f"expected {option} to be")
        if not name.isalpha():  # words such as "radius" mean the thing, not the option
            text = re.sub(rf"{_WORD}{name}\b(?!/)", option, text)
    return text


def class_names(text: str) -> list[str]:
    """Names from a list with commas, or from a text file.

    Raises:
        InputError: If there are none, or the file holds no text.
    """
    try:
        parts = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"expected a text file (UTF-8) with one class name per line; {text!r} is none") from error
    except OSError:  # no such file, or no possible name of one
        parts = text.split(",")
    names = [part.strip() for part in parts if part.strip()]
    if not names:
        raise InputError(f"expected class names, or a text file with one per line; got {text!r}")
    return names


def _listed(items: str) -> str:
    """Items of a Python list as a command line has them."""
    return ",".join(item.strip().strip("'\"") for item in items.split(","))


def _options_of(annotation: Any) -> tuple[type | None, list[Field[Any]]]:  # noqa: ANN401
    """The dataclass that a parameter asks for, with the fields that the command takes; None for other parameters."""
    kind, *marks = get_args(annotation) or (annotation,)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return None, []
    left_out = {name for mark in marks if isinstance(mark, Without) for name in mark.names}
    return kind, [field for field in fields(kind) if field.name not in left_out]


def _parameter(kind: type, field: Field[Any]) -> inspect.Parameter:
    """One option: its name, type and default from the field, its help from the docstring."""
    as_typed = _AS_TYPED.get(field.name, get_type_hints(kind)[field.name])
    flag = [f"--{field.name.replace('_', '-')}"] if as_typed is bool else []  # no --no- form
    option = typer.Option(*flag, help=help_of(kind)[field.name])
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[as_typed, option]
    )


def _for_python(name: str, value: Any) -> Any:  # noqa: ANN401
    """What Python takes for what was typed."""
    if name == "classes" and value is not None:
        return class_names(value)
    return noise_levels(value) if name == "sigma" and value is not None else value


def noise_levels(text: str) -> float | tuple[float, ...]:
    """One noise level, or several with commas between.

    Raises:
        InputError: If one is no number.
    """
    try:
        levels = tuple(map(float, text.split(",")))
    except ValueError as error:
        raise InputError(f"expected --sigma to be a number, or several with commas between; got {text!r}") from error
    return levels if len(levels) > 1 else levels[0]
