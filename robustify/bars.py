"""Progress bars, for people who look at a terminal or a notebook."""

import sys
from typing import Any

from tqdm import tqdm

AFTER = 2.0
"""Seconds of work before a passing bar appears: most answers are there sooner."""


def hidden() -> bool:
    """Whether nobody looks: what is written goes to a file or a pipe, where a bar would be thousands of lines."""
    return not (sys.stderr.isatty() or "ipykernel" in sys.modules)


def bar(title: str, total: int, unit: str, *, done: int = 0, hide: bool = False, **more: Any) -> "tqdm[Any]":  # noqa: ANN401
    """A bar that is quiet where nobody looks; it counts all the same.

    Arguments:
        title: What goes on.
        total: Number of units at its end.
        unit: What is counted.
        done: Number of units before it began.
        hide: Hides it, whoever looks.
        more: Further options of tqdm.
    """
    return tqdm(total=total, initial=done, desc=title, unit=unit, disable=hide or hidden(), **more)


def passing_bar(title: str, draws: int, *, hide: bool) -> "tqdm[Any]":
    """A bar over at most so many draws that appears only where they take a while, and goes when they are done."""
    return bar(title, draws, "draw", hide=hide, unit_scale=True, delay=AFTER, leave=False)
