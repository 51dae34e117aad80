"""Certificates against a change of contrast: one factor on all pixels, whose logarithm is smoothed.

Factors multiply, so their logarithms add. Contrast is meant around black: black stays black. 8-bit images hold no such
multiples, and rounding them is no part of the proof, so this is a claim in real arithmetic alone.

References:
    TSS: Transformation-Specific Smoothing for Robustness Certification, Li, Weber, Xu, Rimanic, Kailkhura, Xie, Zhang,
    Li, 2021, https://arxiv.org/abs/2002.12398
"""

import math
from dataclasses import dataclass
from typing import final

from robustify.certificates.bounds import is_number
from robustify.certificates.family import Subject
from robustify.certificates.parameters import ParameterFamily, ParameterNoise, ParameterPlan, on_grid
from robustify.errors import InputError

MOST = 4.0
"""The largest sigma: half of the draws would be 15 times too bright or too dark, and some near the end of float32."""


@final
@dataclass(frozen=True)
class ContrastNoise(ParameterNoise):
    """One random factor for each draw, on all pixels, without clipping or rounding.

    Arguments:
        sigma: Standard deviation of the factor's natural logarithm.
    """

    law = "robustify.smoothing.parameters:ContrastLaw"


@final
@dataclass(frozen=True)
class ContrastPlan(ParameterPlan):
    """A question about contrast.

    Arguments:
        of: The question about the natural logarithm of the factor.
    """

    family = "contrast"
    change = ContrastNoise
    axis = "change of contrast, logarithm of the factor on all pixels"

    def statement(self, radius: str, where: str) -> str:
        most = math.floor(1000 * math.exp(float(radius))) / 1000
        least = math.ceil(1000 * math.exp(-float(radius))) / 1000
        return (
            f"no factor above {least:.3f} and below {most:.3f} on all values of its {where} (logarithm below {radius} "
            "in size), without clipping or rounding any, changes the smoothed prediction"
        )

    def changes(self, size: str) -> str:
        return (
            f"change of contrast: a factor on all pixels, without clipping or rounding any, whose logarithm is {size} "
            "in size"
        )


@final
@dataclass(frozen=True)
class Contrast(ParameterFamily):
    """Certificates against a change of contrast, by smoothing its logarithm; no denoiser, soundness="float" alone.

    The smoothed classifier's answer is the class that the classifier gives most often at a random contrast.

    Arguments:
        sigma: Standard deviation of the natural logarithm of the factor that draws put on all pixels, above 0, up to 4.

    Raises:
        InputError: If sigma is out of range.
    """

    name = "contrast"
    kind = ContrastPlan

    def __post_init__(self) -> None:
        if not (is_number(self.sigma) and 0 < self.sigma <= MOST):
            raise InputError(
                f"expected a sigma above 0, up to {MOST:g}: the standard deviation of the logarithm of a factor on all "
                f"pixels, such as 0.2; got {self.sigma!r}"
            )

    def slack(self, subject: Subject) -> float:
        """0: factors are drawn in real arithmetic.

        Raises:
            InputError: If the images are to stay 8-bit.
        """
        if on_grid(subject, self.sigma):
            raise InputError(REAL)
        return 0.0


REAL = (
    "a change of contrast multiplies pixels by real numbers, and its certificates do not allow for the rounding to "
    "8 bits.\n  Accept certificates in real arithmetic: soundness='float'."
)
"""What is said where contrast should be certified on 8-bit images."""
