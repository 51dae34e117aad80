"""Checks of settings, each with an error that names the setting, what was expected and what it got."""

import math
from collections.abc import Iterable

from robustify.errors import InputError
from robustify.finetune.objectives import Objective


def expect(good: bool, what: str, got: object) -> None:
    """Refuses a value that is not what it should be.

    Raises:
        InputError: With what was expected and what was given, where `good` is false.
    """
    if not good:
        raise InputError(f"expected {what}; got {got}")


def check_whole(least: int, **values: object) -> None:
    """Refuses numbers that are not whole or too small.

    Raises:
        InputError: With the name of the first.
    """
    for name, value in values.items():
        if not (isinstance(value, int) and value >= least):
            raise InputError(f"expected {name} to be a whole number of at least {least}; got {value!r}")


def check_one_of(choices: Iterable[str], **values: object) -> None:
    """Refuses names that are not among the choices.

    Raises:
        InputError: With the name of the first setting.
    """
    choices = tuple(choices)
    for name, value in values.items():
        if value not in choices:
            raise InputError(f"expected {name} to be one of {', '.join(choices)}; got {value!r}")


def check_objective(objective: object) -> None:
    """Refuses what is no objective, and objectives whose common settings are out of range.

    Raises:
        InputError: If draws are no whole number of at least 1, or a weight or a number of epochs is negative.
    """
    if not isinstance(objective, Objective):
        raise InputError(f"expected an objective, such as FTCADIS(); got {objective!r}")
    check_whole(1, draws=objective.draws)
    for name in ("weight", *objective.in_epochs):
        value = getattr(objective, name, 0.0)
        expect(0 <= value < math.inf, f"a finite {name} of at least 0", value)
