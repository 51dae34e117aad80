"""Certified image classifiers from the ones you already have.

reference → ImageClassifier → Denoiser → SmoothedClassifier → Certificate → Report

Names load on first use, so that the command line answers before torch is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustify.api import robustify as robustify
    from robustify.certificates import Certificate as Certificate
    from robustify.certificates import Prediction as Prediction
    from robustify.classifiers import ImageClassifier as ImageClassifier
    from robustify.classifiers import Preprocessing as Preprocessing
    from robustify.classifiers import ResizeCrop as ResizeCrop
    from robustify.classifiers import ZeroShotModel as ZeroShotModel
    from robustify.data import Examples as Examples
    from robustify.denoisers import Denoiser as Denoiser
    from robustify.denoisers import Identity as Identity
    from robustify.errors import RobustifyError as RobustifyError
    from robustify.finetune import Lora as Lora
    from robustify.finetune import Recipe as Recipe
    from robustify.finetune import tune as tune
    from robustify.finetune.objectives import Objective as Objective
    from robustify.registry import CLASSIFIERS as CLASSIFIERS
    from robustify.registry import DENOISERS as DENOISERS
    from robustify.runs.certify import certify_dataset as certify_dataset
    from robustify.smoothing import Settings as Settings
    from robustify.smoothing import SmoothedClassifier as SmoothedClassifier

_HOMES = {
    "robustify": "api",
    "Certificate": "certificates",
    "Prediction": "certificates",
    "ImageClassifier": "classifiers",
    "Preprocessing": "classifiers",
    "ResizeCrop": "classifiers",
    "ZeroShotModel": "classifiers",
    "Denoiser": "denoisers",
    "Identity": "denoisers",
    "RobustifyError": "errors",
    "certify_dataset": "runs.certify",
    "Examples": "data",
    "Lora": "finetune",
    "Recipe": "finetune",
    "tune": "finetune",
    "Objective": "finetune.objectives",
    "CLASSIFIERS": "registry",
    "DENOISERS": "registry",
    "Settings": "smoothing",
    "SmoothedClassifier": "smoothing",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'robustify' has no attribute {name!r}")
    return getattr(import_module(f"robustify.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
