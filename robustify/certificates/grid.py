"""Certificates against all combinations of shift, brightness and rotation on a grid, which are tried one by one.

References:
    Safety Verification of Deep Neural Networks, Huang, Kwiatkowska, Wang, Wu, 2017, https://arxiv.org/abs/1610.06940
    (exhaustive search of a discretised region; here over the image, not layer by layer)
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

from robustify.certificates.bounds import is_number
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
from robustify.errors import InputError


@final
@dataclass(frozen=True)
class GridPlan(ExhaustivePlan):
    """The question by how many steps of a grid an image can be transformed before its class changes.

    Arguments:
        transforms: The grid.
    """

    family = "grid"
    axis = "steps along each axis of the grid of transforms"

    transforms: Transforms

    def statement(self, radius: str, where: str) -> str:
        ring = round(float(radius))
        return f"no combination on the grid of {self._axes(ring)} of its {where} changes the prediction"

    def changes(self, size: str) -> str:
        return f"combination on a grid of {self._axes(None)}: {size} steps along each axis of the grid"

    def _axes(self, ring: int | None) -> str:
        """The axes in words, up to a ring; the whole grid where it is None."""
        t = self.transforms
        quarters, shift, brightness = (
            most if ring is None else min(ring, most) for most in (t.quarters, t.shift, t.brightness)
        )
        found = []
        if quarters:
            found.append(f"turns by quarters of a degree up to {quarters / 4:g}°")
        if shift:
            found.append(f"shifts by whole pixels up to {shift}")
        if quarters or shift:
            found[-1] += f" ({BROUGHT[t.fill]})"
        if brightness:
            found.append(f"brightness by multiples of {t.step}/255 up to {brightness * t.step}/255 (then clipped)")
        return ", ".join(found)

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self.transforms)}


@final
@dataclass(frozen=True)
class Grid(ExhaustiveFamily):
    """Certificates for each combination of shift, brightness and rotation on a grid: no noise, no chance, no denoiser.

    They speak of the points of the grid alone, as they are computed here: images are turned about their centre,
    bilinearly, from places rounded to 1/256 pixel; then shifted; then made brighter and clipped; 8-bit images are
    rounded back to bytes.

    Arguments:
        shift: The largest shift along each axis, in pixels.
        brightness: The largest change of brightness, in 1/255: a multiple of `step`.
        step: The step of brightness, in 1/255.
        rotation: The largest angle, in degrees, a multiple of 0.25, up to 180, which is its step.
        fill: What comes in: "black", "mean" for the image's mean colour, or "cyclic" for what left, without rotation.

    Raises:
        InputError: If a setting is out of range, or nothing is to be tried.
    """

    name = "grid"
    kind = GridPlan

    shift: int = 1
    brightness: int = 8
    step: int = 8
    rotation: float = 0.0
    fill: str = "black"

    def __post_init__(self) -> None:
        check_count("shift", self.shift, least=0)
        check_count("brightness", self.brightness, least=0, most=255)
        check_count("step", self.step, most=255)
        check_fill(self.fill)
        if self.brightness % self.step:
            raise InputError(
                f"expected brightness, in 1/255, to be a multiple of step = {self.step}; got {self.brightness}"
            )
        if not (is_number(self.rotation) and 0 <= self.rotation <= 180 and (4 * self.rotation) % 1 == 0):
            raise InputError(f"expected rotation to be a multiple of 0.25 from 0 to 180 degrees; got {self.rotation!r}")
        if self.rotation and self.fill == "cyclic":
            raise InputError("images that are turned cannot be filled cyclically; use fill='black' or fill='mean'")
        if not (self.shift or self.brightness or self.rotation):
            raise InputError("expected a shift, brightness or rotation above 0; got none: there is nothing to try")

    def made(self, subject: Subject) -> GridPlan:
        check_count("shift", self.shift, least=0, most=min(subject.contract.shape[1:]) - 1)
        brightness, quarters = self.brightness // self.step, round(4 * self.rotation)
        return GridPlan(Transforms(self.shift, self.fill, brightness, self.step, quarters))

    def __str__(self) -> str:
        return (
            f"shift = {self.shift}, brightness = {self.brightness}, step = {self.step}, rotation = {self.rotation:g}, "
            f"fill = {self.fill}"
        )

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> GridPlan:
        t = Transforms(**settings_of(stored, GridPlan.rule, Transforms))
        cls(t.shift, t.brightness * t.step, t.step, t.quarters / 4, t.fill)  # raises where it is no grid of this family
        return GridPlan(t)
