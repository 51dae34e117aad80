"""Self-test of the numbers by which draws change all of an image: are they what the law says?

Each number is recovered from what is fed, as the change of one pixel, and every other pixel must have changed
accordingly. The numbers then take the tests of noise, each as an image of one pixel (`noise_law`): shape, centre,
scale, tails, extremes, independence of consecutive draws, the grid. True numbers are refused with a chance of at most
1e-6 at each call.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, final

import torch
from torch import Tensor

from robustify.errors import ModelError
from robustify.smoothing.checks.noise_law import NoiseCheck
from robustify.types import Pixels

ROUNDING = 2.0**-20
"""Largest error, relative to 1 and to the pixel, of a pixel found again in float32."""

DARK = 1e-3
"""Brightest pixel of an image that is too dark to tell a factor."""


class Recovered(NamedTuple):
    """Numbers that were found again in what was fed.

    Arguments:
        numbers: One for each draw that tells it.
        even: For each draw, whether all pixels changed by the same.
    """

    numbers: Tensor
    even: Tensor


Recover: TypeAlias = Callable[[Tensor, Tensor], Recovered]
"""Finds the numbers again, from draws and from the clean image of each, both float of shape (B, values)."""


@final
class ParameterCheck:
    """Collects the numbers by which images were changed; refuses what is not Gaussian, or not the same for all pixels.

    Arguments:
        sigma: Declared standard deviation of the numbers.
        grid: Whether they are declared to be whole multiples of 1/255, or continuous.
        recover: Finds them again.
        what: Their name, such as "changes of brightness".
    """

    def __init__(self, sigma: float, *, grid: bool, recover: Recover, what: str) -> None:
        self.sigma, self.sampled = sigma, 0
        self._recover, self._what = recover, what
        self._law = NoiseCheck(sigma, grid=grid)
        self._broken = self._uneven = 0

    def add(self, noisy: Pixels, clean: Tensor) -> None:
        """Takes the numbers of consecutive draws, and whether all pixels of each changed alike.

        Arguments:
            noisy: What is fed, float32 of shape (B, C, H, W).
            clean: The image of each draw, of the same shape, in [0, 1] or as bytes.
        """
        if not len(noisy):
            return
        pixels = clean.float() / 255 if clean.dtype == torch.uint8 else clean
        found = self._recover(noisy.detach().flatten(1), pixels.flatten(1))
        numbers = found.numbers.to("cpu", torch.float32)
        self._broken += int((~numbers.isfinite()).sum())
        self._uneven += int((~found.even).sum())
        self._law.add(numbers.view(-1, 1, 1, 1), torch.zeros(len(numbers), 1, 1, 1))
        self.sampled = self._law.sampled

    def verify(self) -> None:
        """Refuses the numbers if they can't be what is declared; true ones with a chance of at most 1e-6 per call.

        Raises:
            ModelError: With all that was found and what was expected.
        """
        refused = [str(finding) for finding in self._law.findings() if finding.refused]
        if self._broken:
            refused.insert(0, f"found {self._broken:,} numbers that are not finite; expected none")
        if self._uneven:
            refused.insert(0, f"found {self._uneven:,} draws whose pixels changed unevenly; expected none")
        if refused:
            listed = "".join(f"\n  {text}" for text in refused)
            raise ModelError(
                f"the network was not fed independent Gaussian {self._what} of sigma = {self.sigma:g}: no certificate "
                f"would hold.{listed}\n  Look for a changed generator, or for pixels clipped or scaled on their way."
            )


def number_of(noisy: Tensor, clean: Tensor) -> Recovered:
    """The number that was added to all pixels."""
    difference = noisy - clean
    numbers = difference[:, 0]
    error = (difference - numbers[:, None]).abs().amax(dim=1)
    return Recovered(numbers, error <= ROUNDING * (1 + numbers.abs()))  # what is not a number is not even


def factor_of(noisy: Tensor, clean: Tensor) -> Recovered:
    """The logarithm of the factor on all pixels, by the brightest; images that are nearly black do not tell it."""
    brightest, place = clean.max(dim=1, keepdim=True)
    factors = noisy.gather(1, place) / brightest
    error = (noisy - factors * clean).abs().amax(dim=1)
    told = brightest[:, 0] >= DARK
    even = ~told | (error <= ROUNDING * factors[:, 0])
    return Recovered(factors[told, 0].log(), even)
