"""Objectives by name: those of this package and of plugins, found in the same way."""

from robustify.finetune.objectives.base import Objective
from robustify.registry import Registry


def _problem(entry: object) -> str | None:
    if isinstance(entry, type) and issubclass(entry, Objective):
        return None
    return f"expected a subclass of Objective; got {entry!r}"


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "robustify.objectives", _problem)
"""Each entry is a class whose fields are its settings, with defaults for all."""
