"""The check of a source of classifiers or denoisers."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

from robustify.errors import ModelError
from robustify.testing.shared import require, short

UNLIKELY = "no source lists this name"


def check_source(source: object) -> None:
    """Checks that a source has `load(name)` and `names(pattern)`; names come sorted and filtered.

    Arguments:
        source: Object to which the entry point resolves, usually a module.

    Raises:
        ModelError: If it is no such source.
    """
    _check_signature(source, "load", ["name"])
    _check_signature(source, "names", [])
    _check_signature(source, "names", ["pattern*"])
    names: Callable[..., Any] = source.names  # type: ignore[attr-defined]  # its presence was just checked
    listed = names()
    require(
        isinstance(listed, list) and all(isinstance(name, str) for name in listed),
        f"expected names() to return a list of str; got {short(listed)}.\n"
        "  Return [] where there are too many to list.",
    )
    require(
        listed == sorted(set(listed)),
        f"expected names() sorted and each once; got {short(listed)}.\n  Return sorted(set(names)).",
    )
    first = listed[:1] or [UNLIKELY]
    for pattern in ("*", escape(first[0][:1]) + "*", escape(first[0]), UNLIKELY):
        expected = [name for name in listed if fnmatchcase(name, pattern)]
        found = names(pattern)
        require(
            found == expected,
            f"expected names({pattern!r}) to be {short(expected)}, as fnmatch.fnmatchcase filters; got {short(found)}.",
        )


def _check_signature(source: object, function: str, arguments: list[str]) -> None:
    """Checks that `source.function(*arguments)` could be called; it is not."""
    found = getattr(source, function, None)
    call = f"{function}({', '.join(map(repr, arguments))})"
    require(
        callable(found),
        f"{short(source)} has no function {function!r}: a source is a module or object with load(name) and "
        "names(pattern='*').",
    )
    try:
        inspect.signature(found).bind(*arguments)  # type: ignore[arg-type]  # callable, as just checked
    except TypeError as error:
        raise ModelError(
            f"{function}{inspect.signature(found)} of {short(source)} cannot be called as {call}: {error}.\n"  # type: ignore[arg-type]
            "  The core passes only the name or the pattern; options need defaults."
        ) from error
