"""Smoothing: the only Monte Carlo, noise to votes. Names load on first use, so that settings need no torch."""

from robustify.lazy import lazy_names

__getattr__, __all__ = lazy_names(__name__, __file__)
