"""Certified image classifiers from the ones you already have.

reference → ImageClassifier → Denoiser → SmoothedClassifier → Certificate → Report

Names load on first use, so that the command line answers before torch is imported.
"""

from robustify.lazy import lazy_names

__getattr__, __all__ = lazy_names(__name__, __file__)


def __dir__() -> list[str]:
    return sorted(__all__)
