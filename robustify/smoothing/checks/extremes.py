r"""The smallest and the largest of all values of noise that were fed.

Samples of the noise see tails too rarely: noise cut off at 3 sigma looks right in 99.7 of 100 values. So the extremes
of every value are kept. Of n independent values, the largest is at most x with chance
:math:`(1 - \Phi(-x / \sigma))^n`; so a cut at 3 sigma is refused from 12,800 values on, one at 4 sigma from 546,000.
One value far beyond what n values reach is refused too.
"""

import math
from typing import final

import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from robustify.smoothing.checks.finding import Finding
from robustify.types import Pixels

_ROUNDING = 2.0**-22
"""Largest error, relative to the noisy pixel, of noise found again as a difference of float32 pixels."""


@final
class Extremes:
    """The two extremes of all values, in constant memory.

    Arguments:
        sigma: Declared standard deviation of the noise, in [0, 1] pixels.
        grid: Whether the noise is declared to be rounded to multiples of 1/255.
    """

    def __init__(self, sigma: float, *, grid: bool) -> None:
        self._sigma, self._grid = sigma, grid
        self._fed = 0
        self._low, self._high = math.inf, -math.inf

    def add(self, noisy: Pixels, clean: Tensor) -> None:
        """Takes all values of the noise of a batch, of shape (B, C, H, W), on any device."""
        if not len(noisy):
            return
        if clean.stride(0) == 0:  # one image, not copied for each draw
            clean = clean[:1]
        pixels = clean.float() / 255 if clean.dtype == torch.uint8 else clean
        low, high = torch.aminmax(noisy.detach() - pixels)
        self._fed += noisy.numel()
        # A value that is not finite makes its extreme infinite, whose chance is 0.
        self._low = min(self._low, float(low.nan_to_num(-math.inf)))
        self._high = max(self._high, float(high.nan_to_num(math.inf)))

    def findings(self) -> tuple[Finding, Finding]:
        """What the extremes tell."""
        return self._finding("smallest value", -self._low), self._finding("largest value", self._high)

    def _finding(self, test: str, most: float) -> Finding:
        """The outcome for the largest of all values, or of all values with the other sign."""
        if not self._fed:
            return Finding(test, "no values", "none", 1.0)
        # Half a step on the grid, where a value stands for all that are rounded to it.
        width = 0.5 / 255 if self._grid else _ROUNDING * (1 + 6 * self._sigma)
        beyond = [float(ndtr(-(most + side) / self._sigma)) for side in (width, -width)]
        at_most, less = (self._fed * math.log1p(-tail) if tail < 1 else -math.inf for tail in beyond)
        chance = min(1.0, 2 * math.exp(at_most), -2 * math.expm1(less))
        typical = -float(ndtri(-math.expm1(-math.log(2) / self._fed)))
        found = f"{most / self._sigma:.3g} sigma in size among {self._fed:,} values"
        return Finding(test, found, f"about {typical:.3g} sigma", chance)
