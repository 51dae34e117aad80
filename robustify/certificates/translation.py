"""Certificates against translation: all shifts by whole pixels, up to some number of them, are tried.

References:
    TSS: Transformation-Specific Smoothing for Robustness Certification, Li, Weber, Xu, Rimanic, Kailkhura, Xie, Zhang,
    Li, 2021, https://arxiv.org/abs/2002.12398 (translation by enumeration)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from robustify.certificates.exhaustive import (
    BROUGHT,
    ExhaustiveFamily,
    ExhaustivePlan,
    Transforms,
    check_fill,
)
from robustify.certificates.family import Subject
from robustify.certificates.radii import check_count
from robustify.certificates.stored import settings_of


@final
@dataclass(frozen=True)
class TranslationPlan(ExhaustivePlan):
    """The question by how many pixels an image can be shifted before its class changes.

    Arguments:
        transforms: The shifts.
    """

    family = "translation"
    axis = "shift along each axis, in whole pixels"

    transforms: Transforms

    def statement(self, radius: str, where: str) -> str:
        return (
            f"no shift of its {where} by up to {round(float(radius))} whole pixels along each axis, where "
            f"{BROUGHT[self.transforms.fill]}, changes the prediction"
        )

    def changes(self, size: str) -> str:
        return f"shift by whole pixels along each axis, {size}, where {BROUGHT[self.transforms.fill]}"

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, "shift": self.transforms.shift, "fill": self.transforms.fill}


@final
@dataclass(frozen=True)
class Translation(ExhaustiveFamily):
    """Certificates against translation by whole pixels, of the classifier itself: no noise, no chance, no denoiser.

    The label is certified up to the largest shift within which all (2s + 1)² shifted images get the class of the
    image itself.

    Arguments:
        shift: The largest shift along each axis that is tried, in pixels.
        fill: What comes in: "black", "mean" for the image's mean colour, or "cyclic" for what left.

    Raises:
        InputError: If a setting is out of range.
    """

    name = "translation"
    kind = TranslationPlan

    shift: int = 1
    fill: str = "black"

    def __post_init__(self) -> None:
        check_count("shift", self.shift)
        check_fill(self.fill)

    def made(self, subject: Subject) -> TranslationPlan:
        side = min(subject.contract.shape[1:])
        check_count("shift", self.shift, most=side - 1)
        return TranslationPlan(Transforms(self.shift, self.fill))

    def __str__(self) -> str:
        return f"shift = {self.shift}, fill = {self.fill}"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> TranslationPlan:
        found = cls(**settings_of(stored, TranslationPlan.rule, cls))
        return TranslationPlan(Transforms(found.shift, found.fill))
