r"""Self-test of the noise that networks are really fed.

A certificate holds for Gaussian noise of one sigma, independent over pixels and draws. A broken or tampered generator,
a wrong scale or a batch fed twice would make false certificates that nothing else shows. So a sample of the noise is
put to sixteen tests. Each has a threshold that follows from the exact law of its statistic, whatever the number of
values, so true noise is refused with a chance of at most 1e-6 in all, and few values are never refused for being few.

**Uniform first.** Every value is mapped to :math:`u = \Phi(v / \sigma)`. On the grid, :math:`k = 255 v` is mapped to
:math:`u = P(K^* < k) + w P(K^* = k)`, with :math:`K^*` the rounded Gaussian and :math:`w` uniform and ours. If and only
if :math:`v` has the right law, u is uniform. Its 4,096 cells of equal probability are counted.

**Then tested**, each at a chance of 1e-6 / 16:

- *shape*: n times the relative entropy of the counts in 34 cells (32 equal ones, the outer two split at 3.49 sigma)
  to their law is at least G with chance at most :math:`e^{-G} (eG / 33)^{33}`, for all n (Agrawal, section 1);
- *centre*, *scale* and *tails*: how many values are positive, how many exceed 1.53 sigma in size, and how many 2.42
  sigma, are binomial;
- *dependence*: of two neighbours (consecutive draws of a pixel, next row, next column, next channel), "have equal
  sign" and "are on the same side of the median size" are tosses of a fair coin, independent over neighbours;
- *repetition*: sizes of the first values of a draw, as many as make any coincidence unlikely, must never recur. This
  finds repeated and mirrored draws, among the first 1,024 and later among those sampled;
- *extremes*: the smallest and the largest of all values fed, sampled or not; see `extremes.py`;
- *grid*: all noise must lie on multiples of 1/255 where that is declared. Where it is not, the number of values within
  1/20 of a step is binomial.

**Power.** A scale that is 10 % off is refused with a chance of 99 % from 5,000 sampled values on: 80 draws of 1×8×8,
7 of 1×28×28, 2 of 3×32×32, 1 of 3×224×224. The first 8,192 values fed are all sampled, later 1 of 256, up to a million.
A 1 % error takes about 470,000 sampled values.

References:
    Finite-Sample Concentration of the Multinomial in Relative Entropy, Agrawal, 2020, https://arxiv.org/abs/1904.02291
    Remarks on a Multivariate Transformation, Rosenblatt, 1952, https://doi.org/10.1214/aoms/1177729394 (the map to u)
"""

import math
from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from robustify.errors import InputError, ModelError
from robustify.smoothing.checks.chances import (
    Array,
    coincidence,
    divergence_chance,
    divergence_of,
    near_grid,
    rounded_gaussian,
)
from robustify.smoothing.checks.extremes import Extremes
from robustify.smoothing.checks.finding import LEVEL, Finding
from robustify.types import Pixels

LEAST_GRID_SIGMA = 0.001
"""Where noise is a quarter of a step of 1/255: 19 pixels in 20 would not change."""

_CELLS = 4_096
_DIRECTIONS = ("consecutive draws", "neighbouring channels", "neighbouring rows", "neighbouring columns")

_PER_CALL, _TOTAL = 20_000, 1_000_000
_FREE, _ONE_OF, _LEAST = 8_192, 256, 2_048
"""Values sampled before there is a quota, the quota after, and what is worth a look."""

_REMEMBERED = 2**17
"""Draws among which repetition is found."""

_ALL_REMEMBERED = 1_024
"""The first draws are all among them, later ones where they are sampled for the other tests too."""

_FINE = 256
"""Steps per sigma to which float noise is rounded before draws are compared: mirrored draws round alike."""


@final
class NoiseCheck:
    """Collects statistics of noise in fixed memory (1 MB); refuses what isn't Gaussian.

    Arguments:
        sigma: Declared standard deviation, in [0, 1] pixels.
        grid: Whether the noise is declared to be a Gaussian rounded to multiples of 1/255, or a continuous one.
    """

    def __init__(self, sigma: float, *, grid: bool) -> None:
        if not 0 < sigma <= 100:
            # beyond, float32 pixels no longer hold noise to a fraction of a step
            raise InputError(f"expected 0 < sigma <= 100, in [0, 1] pixels; got {sigma}")
        if grid and sigma < LEAST_GRID_SIGMA:
            raise InputError(
                f"expected sigma >= {LEAST_GRID_SIGMA:g} for 8-bit images: below a quarter of a step of 1/255 hardly "
                f"any pixel would change; got {sigma:g}"
            )
        self.sigma, self.grid = sigma, grid
        self.sampled = 0
        self._fed = self._broken = self._on_grid = 0
        self._cells: Array = np.zeros(_CELLS, np.int64)
        self._pairs: Array = np.zeros((len(_DIRECTIONS), 3), np.int64)
        self._rng = np.random.Generator(np.random.Philox(key=0x0B5E55ED))
        self._law: Array = rounded_gaussian(255 * sigma if grid else float(_FINE))
        self._below: Array = self._law.cumsum() - self._law
        self._leading = _values_to_tell_draws_apart(self._law)
        self._mixers: Array = self._rng.integers(2**63, size=self._leading, dtype=np.int64) * 2 + 1
        self._prints: Array = np.empty(_REMEMBERED, np.int64)
        self._remembered = 0
        self._extremes = Extremes(sigma, grid=grid)

    def add(self, noisy: Pixels, clean: Tensor) -> None:
        """Takes the extremes and a sample of the noise of consecutive draws.

        Arguments:
            noisy: What is fed, float32 of shape (B, C, H, W).
            clean: The image of each draw, of the same shape, in [0, 1] or as bytes.
        """
        self._fed += noisy.numel()
        self._extremes.add(noisy, clean)
        quota = _FREE + self._fed // _ONE_OF - self.sampled
        room = min(_PER_CALL, quota, _TOTAL - self.sampled, noisy.numel())
        enough = room >= min(_LEAST, max(1, noisy.numel()))
        if enough or self._remembered < _ALL_REMEMBERED:
            self._remember(noisy, clean)
        if enough:
            self._sample(noisy, clean, room)

    def _sample(self, noisy: Pixels, clean: Tensor, room: int) -> None:
        """Adds so many values to the counts."""
        window = _noise(noisy, clean, self._window(noisy.shape, room))
        self.sampled += window.size
        self._broken += int(np.count_nonzero(~np.isfinite(window)))
        largest = np.float32(4_096 * self.sigma)
        cells = self._cell(np.fmin(np.fmax(window, -largest), largest))
        self._cells += np.bincount(cells.ravel(), minlength=_CELLS)
        # Quarters 0, 1, 2, 3 in Gray code: one bit is the sign, the other the size, both fair coins.
        quarter = (cells // (_CELLS // 4)).astype(np.uint8)
        coins = quarter ^ (quarter >> 1)
        for axis in range(4):
            along = coins.swapaxes(0, axis)
            unlike = along[1:] ^ along[:-1]
            self._pairs[axis] += (unlike.size, np.count_nonzero(unlike & 2), np.count_nonzero(unlike & 1))

    def findings(self) -> tuple[Finding, ...]:
        """The outcome of every test on what was added so far."""
        return (
            self._lattice(),
            self._shape(),
            self._share("centre", "are positive", int(self._cells[_CELLS // 2 :].sum()), 0.5),
            self._share("scale", "exceed 1.534 sigma in size", self._outside(_CELLS // 16), 1 / 8),
            self._share("tails", "exceed 2.418 sigma in size", self._outside(_CELLS // 128), 1 / 64),
            *self._dependence(),
            *self._extremes.findings(),
            self._repetition(),
        )

    def verify(self) -> None:
        """Refuses the noise if it can't be what is declared; true noise with a chance of at most 1e-6 per call.

        Raises:
            ModelError: With all that was found and what was expected.
        """
        refused = [str(finding) for finding in self.findings() if finding.refused]
        if self._broken:
            refused.insert(0, f"found {self._broken:,} values that are not finite; expected none")
        if refused:
            kind = "Gaussian noise rounded to multiples of 1/255" if self.grid else "continuous Gaussian noise"
            listed = "".join(f"\n  {text}" for text in refused)
            raise ModelError(
                f"the network was not fed independent {kind} of sigma = {self.sigma:g}: no certificate would hold."
                f"{listed}\n  Look for a changed generator, or for noise scaled or reused on its way to the network."
            )

    def _window(self, shape: Sequence[int], room: int) -> tuple[slice, ...]:
        """The place of at most so many values: adjoining draws, channels, rows and columns, elsewhere each time."""
        draws, channels, height, width = shape
        channels = min(channels, 3)
        draws = min(draws, max(2, room // (channels * min(16, height * width))))
        rows = min(height, max(1, math.isqrt(room // (draws * channels))))
        columns = min(width, max(1, room // (draws * channels * rows)))
        lengths = (draws, channels, rows, columns)
        starts = (self._rng.random(4) * (np.array(shape) - lengths + 1)).astype(int).tolist()
        return tuple(slice(a, a + length) for a, length in zip(starts, lengths, strict=True))

    def _cell(self, values: Array) -> Array:
        """Which of the cells of equal probability each value lies in; counts values on the grid."""
        steps = np.float32(255) * values
        nearest = np.rint(steps)
        self._on_grid += int(np.count_nonzero(np.abs(steps - nearest) < 0.05))
        if not self.grid:
            scaled = torch.from_numpy(values * np.float32(math.sqrt(0.5) / self.sigma))
            uniform = (torch.erf(scaled).numpy() + 1) / 2
        else:
            reach = len(self._law) // 2
            index = np.clip(nearest, -reach, reach).astype(np.intp) + reach
            uniform = self._below[index] + self._law[index] * self._rng.random(index.shape, dtype=np.float32)
        cells: Array = np.minimum((uniform * _CELLS).astype(np.intp), _CELLS - 1)
        return cells

    def _remember(self, noisy: Pixels, clean: Tensor) -> None:
        """Keeps a 64-bit print of the sizes of each draw's first values."""
        count = min(len(noisy), _REMEMBERED - self._remembered)
        if noisy[:1].numel() < self._leading or count < 1:
            return
        place = (slice(count), slice(self._leading))
        leading = _noise(noisy.flatten(1), clean.flatten(1), place)
        unit = np.float32(255 if self.grid else _FINE / self.sigma)
        with np.errstate(invalid="ignore", over="ignore"):  # what isn't finite is counted elsewhere
            sizes = np.rint(np.abs(leading) * unit).astype(np.int64)
        self._prints[self._remembered : self._remembered + count] = sizes @ self._mixers
        self._remembered += count

    def _outside(self, cells: int) -> int:
        """Values in so many cells at either end."""
        return int(self._cells[:cells].sum() + self._cells[-cells:].sum())

    def _lattice(self) -> Finding:
        found = f"{self._on_grid:,} of {self.sampled:,} values within 1/20 step of a multiple of 1/255"
        if self.grid:
            return Finding("grid", found, "all", 1.0 if self._on_grid == self.sampled else 0.0)
        share = near_grid(255 * self.sigma)
        return Finding("grid", found, f"{100 * share:.3g} %", coincidence(self._on_grid, self.sampled, share))

    def _shape(self) -> Finding:
        counts = self._cells.reshape(32, -1).sum(axis=1)
        ends = self._cells[[0, -1]]
        counts = np.concatenate([ends, counts])
        counts[[2, -1]] -= ends
        law = np.full(34, 1 / 32)
        law[:2] = 1 / _CELLS
        law[[2, -1]] -= 1 / _CELLS
        divergence = divergence_of(counts, law)
        found = f"a relative entropy to the Gaussian of {divergence / max(1, self.sampled):.2g} in 34 cells"
        expected = f"about {(len(law) - 1) / 2 / max(1, self.sampled):.2g}"
        return Finding("shape", found, expected, divergence_chance(divergence, len(law)))

    def _share(self, test: str, what: str, count: int, probability: float) -> Finding:
        found = f"{_percent(count, self.sampled)} of {self.sampled:,} values {what}"
        chance = coincidence(count, self.sampled, probability)
        return Finding(test, found, f"{100 * probability:.3g} %", chance)

    def _dependence(self) -> Iterator[Finding]:
        for direction, (n, unlike_sign, unlike_size) in zip(_DIRECTIONS, self._pairs.tolist(), strict=True):
            for what, unlike in (("sign", unlike_sign), ("size", unlike_size)):
                found = f"{_percent(n - unlike, n)} of {n:,} pairs alike"
                yield Finding(f"{what} of {direction}", found, "50 %", coincidence(unlike, n, 0.5))

    def _repetition(self) -> Finding:
        prints = self._prints[: self._remembered]
        repeated = len(prints) - len(np.unique(prints))
        found = f"{repeated:,} of {len(prints):,} draws that repeat or mirror another"
        return Finding("repetition", found, "none", 0.0 if repeated else 1.0)


def _noise(noisy: Tensor, clean: Tensor, place: tuple[slice, ...]) -> Array:
    """The noise at a place, in [0, 1] pixels."""
    pixels = clean[place].to("cpu", torch.float32)
    pixels = pixels / 255 if clean.dtype == torch.uint8 else pixels
    noise: Array = (noisy[place].detach().to("cpu", torch.float32) - pixels).numpy()
    return noise


def _values_to_tell_draws_apart(law: Array) -> int:
    """How many values two of the draws remembered agree on in size with chance below the level of one test."""
    middle = len(law) // 2
    alike = 2 * float(law @ law) - float(law[middle]) ** 2
    pairs = math.comb(_REMEMBERED, 2)
    # Half of the level is for prints of different draws that coincide: pairs / 2^64.
    return max(1, math.ceil(math.log(LEVEL / 2 / pairs) / math.log(min(alike, 1 - 1e-9))))


def _percent(count: int, n: int) -> str:
    return f"{100 * count / max(1, n):.3g} %"
