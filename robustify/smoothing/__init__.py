"""Smoothing: the only Monte Carlo, noise to votes. Names load on first use, so that settings need no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

from robustify.smoothing.settings import Settings as Settings

if TYPE_CHECKING:
    from robustify.smoothing.pipeline import Pipeline as Pipeline
    from robustify.smoothing.smoothed import SmoothedClassifier as SmoothedClassifier

_HOMES = {"Pipeline": "pipeline", "SmoothedClassifier": "smoothed"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'robustify.smoothing' has no attribute {name!r}")
    return getattr(import_module(f"robustify.smoothing.{_HOMES[name]}"), name)
