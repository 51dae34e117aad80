"""Certified image classifiers from the ones you already have.

reference → ImageClassifier → Denoiser → SmoothedClassifier → Certificate → Report

Names load on first use, so that the command line answers before torch is imported.
"""

from robustify.lazy import lazy_names

_find, __all__ = lazy_names(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("robustify-vision")
    return _find(name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
