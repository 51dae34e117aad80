"""Certificates against a change of brightness: one number, added to all pixels.

On 8-bit images this is a claim for real computers: the number drawn is a whole multiple of 1/255, a Gaussian rounded,
so that what the network sees of the brighter image is what rounding the ideal draw would give, exactly. It speaks of
the 8-bit images that are reached by whole steps without clipping any pixel at 0 or 255.

References:
    TSS: Transformation-Specific Smoothing for Robustness Certification, Li, Weber, Xu, Rimanic, Kailkhura, Xie, Zhang,
    Li, 2021, https://arxiv.org/abs/2002.12398
"""

from dataclasses import dataclass
from typing import final

from robustify.certificates.family import Subject
from robustify.certificates.lattice import total_variation
from robustify.certificates.parameters import ParameterFamily, ParameterNoise, ParameterPlan, on_grid


@final
@dataclass(frozen=True)
class BrightnessNoise(ParameterNoise):
    """One random number for each draw, added to all pixels, without clipping.

    Arguments:
        sigma: Standard deviation of the number, in [0, 1] pixels.
    """

    law = "robustify.smoothing.parameters:BrightnessLaw"


@final
@dataclass(frozen=True)
class BrightnessPlan(ParameterPlan):
    """A question about brightness.

    Arguments:
        of: The question about the number that is added, in [0, 1] pixels.
    """

    family = "brightness"
    change = BrightnessNoise
    axis = "change of brightness, added to all [0, 1] pixels"

    @property
    def _number(self) -> str:
        """What may be added; on 8-bit images, whose draws differ from a Gaussian by some slack, whole steps."""
        return "whole multiple of 1/255" if self.of.slack else "number"

    def statement(self, radius: str, where: str) -> str:
        return (
            f"no {self._number} below {radius} in size, added to all values of its {where} without clipping any, "
            "changes the smoothed prediction"
        )

    def changes(self, size: str) -> str:
        return (
            f"change of brightness: a {self._number} {size} in size, added to all pixels in [0, 1] without clipping any"
        )


@final
@dataclass(frozen=True)
class Brightness(ParameterFamily):
    """Certificates against a change of brightness, by smoothing it; no denoiser.

    The smoothed classifier's answer is the class that the classifier gives most often at a random brightness.

    Arguments:
        sigma: Standard deviation of the number that draws add to all pixels, in [0, 1] pixels, positive.

    Raises:
        InputError: If sigma is out of range.
    """

    name = "brightness"
    kind = BrightnessPlan

    def slack(self, subject: Subject) -> float:
        """The distance of one rounded value from its ideal law on 8-bit images; 0 in real arithmetic."""
        return total_variation(self.sigma, 1) if on_grid(subject, self.sigma) else 0.0
