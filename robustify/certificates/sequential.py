r"""Exact group-sequential tests: is a label's probability above a threshold, with as few draws as possible?

A test of :math:`H_0: p \le p_0` sees the number of successes :math:`H_k` among the first :math:`n_k` draws at
looks :math:`n_1 < \dots < n_K` and rejects at the first look with :math:`H_k \ge c_k`. The boundaries are found one
look after another. Let :math:`v` be the distribution, at :math:`p = p_0`, of the successes of the runs that have not
crossed a boundary yet, and :math:`A_k = \alpha k / K` the error that may be spent up to look :math:`k`. Then

.. math:: c_k = \min\{c : \textstyle\sum_{h \ge c} v(h) \le A_k - \text{spent}\}.

What a look leaves unspent, because counts are whole, passes to the next. The chance of ever crossing a boundary grows
with :math:`p`, so its exact value at :math:`p_0`, the size of the test, covers all of :math:`H_0`.

Giving up is never a false certificate: a run may stop undecided for any reason, at no cost in alpha.

A *selection-free* test may be applied, at each look, to the class that leads on the same draws, if it spends only
:math:`p_0 \alpha`. A path with :math:`h` of :math:`n` successes has the chance :math:`p^h (1-p)^{n-h}`, which is
convex in :math:`p` on :math:`[0, p_0]` if :math:`p_0 \ge 1/2` and :math:`h` is at least a standard deviation above
:math:`n p_0`. If all boundaries are that high, the chance :math:`f(p)` of crossing is convex with :math:`f(0) = 0`,
and the classes that do not exceed :math:`p_0` cross with chance at most
:math:`\sum_c f(p_c) \le \sum_c p_c f(p_0) / p_0 \le f(p_0) / p_0`.

All sums have positive terms only. What is spent is raised by a relative :math:`10^{-9}`, which exceeds the rounding
errors of a hundred looks up to a million draws, and by the tails below :math:`10^{-30}`, which are cut off.

References:
    Repeated Significance Tests on Accumulating Data, Armitage, McPherson, Rowe, 1969,
    https://doi.org/10.2307/2343787
    Discrete Sequential Boundaries for Clinical Trials, Lan, DeMets, 1983, https://doi.org/10.1093/biomet/70.3.659
    On Closed Testing Procedures with Special Reference to Ordered Analysis of Variance, Marcus, Peritz, Gabriel,
    1976, https://doi.org/10.1093/biomet/63.3.655
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import final

import numpy as np
from numpy.typing import NDArray

from robustify.certificates.bounds import check_alpha
from robustify.errors import InputError

_ROUND_UP = 1 + 1e-9
"""Factor on what is spent that outweighs the rounding errors of all sums."""

_CUT = 1e-30
"""Chance of a tail that is cut off, and counted as spent, after each step."""


@final
@dataclass(frozen=True)
class GroupSequentialTest:
    """A test that certifies p > p0, falsely with chance at most `alpha`, however and whenever its looks stop.

    Arguments:
        p0: Threshold, in (0, 1).
        alpha: Allowed chance of a false certificate, in (0, 1).
        looks: Numbers of draws at the looks, increasing.
        boundaries: Smallest number of successes that certifies, for each look; one more than its draws where none can.
        size: Exact chance, rounded up, that a label of probability p0 is certified; at most `alpha`.
    """

    p0: float
    alpha: float
    looks: tuple[int, ...]
    boundaries: tuple[int, ...]
    size: float

    def crossed(self, counts: Sequence[int]) -> bool:
        """Whether the counts at any of the looks so far certify the label.

        Arguments:
            counts: Numbers of successes at the looks so far.

        Raises:
            InputError: If there are more counts than looks, or one exceeds its number of draws.
        """
        if len(counts) > len(self.looks) or not all(0 <= h <= n for h, n in zip(counts, self.looks, strict=False)):
            raise InputError(f"expected counts from 0 to {self.looks}; got {tuple(counts)}")
        return any(h >= boundary for h, boundary in zip(counts, self.boundaries, strict=False))


def group_sequential_test(
    p0: float,
    *,
    alpha: float,
    looks: tuple[int, ...],
    selection_free: bool = False,
) -> GroupSequentialTest:
    """The exact test of p <= p0 with these looks; its boundaries are cached.

    Arguments:
        p0: Threshold, in (0, 1).
        alpha: Allowed chance of a false certificate, in (0, 1).
        looks: Numbers of draws at the looks, increasing.
        selection_free: Whether the test may be applied, at each look, to the class that leads on the same draws.

    Raises:
        InputError: If a number is out of range, or a selection-free test is not proven to hold.
    """
    check_alpha(alpha)
    check_threshold(p0)
    check_looks(looks)
    allowed = p0 * alpha if selection_free else alpha
    boundaries, size = _boundaries(p0, looks, allowed)
    if selection_free:
        _check_convex(p0, looks, boundaries)
    return GroupSequentialTest(p0, alpha, looks, boundaries, size)


def last_boundary(p0: float, *, alpha: float, looks: Sequence[int], boundaries: Sequence[int]) -> int:
    """The smallest boundary for the last look that keeps the size of a test within alpha.

    Arguments:
        p0: Threshold, in (0, 1).
        alpha: Allowed chance of a false certificate, in (0, 1).
        looks: Numbers of draws at all looks, increasing.
        boundaries: Boundaries of all looks but the last.

    Raises:
        InputError: If a number is out of range.
    """
    check_alpha(alpha)
    check_threshold(p0)
    check_looks(looks)
    runs, spent, trials = _START, 0.0, 0
    for n, boundary in zip(looks, [*boundaries, looks[-1] + 1], strict=True):
        runs, cut = runs.draw(n - trials, p0)
        spent += cut + runs.tail(boundary) * _ROUND_UP
        runs = runs.below(boundary)
        trials = n
    return runs.least_boundary(spent, alpha)[0]


@lru_cache(maxsize=256)
def geometric_looks(n_max: int, *, first: int = 32, ratio: float = 1.1, multiple: int = 32) -> tuple[int, ...]:
    """Looks that grow geometrically up to `n_max`, by at least one `multiple` each.

    Arguments:
        n_max: Number of draws at the last look; it need not be a multiple.
        first: Number of draws at the first look.
        ratio: Factor from one look to the next, at least 1.
        multiple: All looks but the last are multiples of this number, such as the batch size.

    Raises:
        InputError: If a number is out of range.
    """
    if min(n_max, first, multiple) < 1 or not 1 <= ratio < math.inf:
        raise InputError(
            f"expected positive n_max, first and multiple, and a finite ratio of at least 1; "
            f"got {n_max}, {first}, {multiple} and {ratio}"
        )
    looks: list[int] = []
    multiples = max(1.0, first / multiple)  # kept unrounded, so that rounding errors do not accumulate
    while (look := math.floor(multiples + 0.5) * multiple) < n_max:
        looks.append(look)
        multiples = max(ratio * multiples, multiples + 1)
    return (*looks, n_max)


def check_threshold(p0: float) -> None:
    """Raises `InputError` unless 0 < p0 < 1."""
    if not 0 < p0 < 1:
        raise InputError(f"expected a threshold in (0, 1); got {p0}")


def check_looks(looks: Sequence[int]) -> None:
    """Raises `InputError` unless the looks are positive and increase."""
    if not looks or any(a >= b for a, b in pairwise((0, *looks))):
        raise InputError(f"expected increasing positive looks; got {tuple(looks)}")


@final
@dataclass(frozen=True)
class _Runs:
    """The runs that have not crossed a boundary: `mass[i]` is the chance of one with first + i successes so far."""

    first: int
    mass: NDArray[np.float64]

    def draw(self, n: int, p: float) -> "tuple[_Runs, float]":
        """The runs after `n` more draws, and the chance of the tails that were cut off."""
        if not self.mass.size:
            return self, 0.0
        step, cut = _Runs(0, _binomial(n, p))._trim()
        runs, more = _Runs(self.first + step.first, np.convolve(self.mass, step.mass))._trim()
        return runs, cut + more

    def tail(self, count: int) -> float:
        """Chance of a run with at least `count` successes."""
        return float(self.mass[max(0, count - self.first) :].sum())

    def below(self, count: int) -> "_Runs":
        """The runs with fewer than `count` successes."""
        return _Runs(self.first, self.mass[: max(0, count - self.first)])

    def least_boundary(self, spent: float, budget: float) -> tuple[int, float]:
        """The smallest count whose tail the rest of the budget can pay for, and the sum then spent."""
        spending = spent + np.cumsum(self.mass[::-1]) * _ROUND_UP
        paid = int(np.searchsorted(spending, budget, side="right"))
        return self.first + len(self.mass) - paid, float(spending[paid - 1]) if paid else spent

    def _trim(self) -> "tuple[_Runs, float]":
        start = int(np.searchsorted(np.cumsum(self.mass), _CUT, side="right"))
        stop = len(self.mass) - int(np.searchsorted(np.cumsum(self.mass[::-1]), _CUT, side="right"))
        cut = float(self.mass[:start].sum() + self.mass[max(start, stop) :].sum())
        return _Runs(self.first + start, self.mass[start:stop]), cut


_START = _Runs(0, np.ones(1))


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """Chances of 0 to n successes, from ratios of neighbours, whose error grows with the distance from the mode."""
    mode, odds = min(n, int((n + 1) * p)), p / (1 - p)
    above, below = np.arange(mode, n), np.arange(mode, 0, -1)
    rising = np.cumprod((n - above) / (above + 1) * odds)
    falling = np.cumprod(below / (n - below + 1) / odds)
    mass: NDArray[np.float64] = np.concatenate([falling[::-1], [1.0], rising])
    mass /= mass.sum()
    return mass


@lru_cache(maxsize=4096)
def _boundaries(p0: float, looks: tuple[int, ...], alpha: float) -> tuple[tuple[int, ...], float]:
    """Boundaries and size of the test that may spend the same share of alpha at every look."""
    runs, spent, trials, boundaries = _START, 0.0, 0, []
    for k, n in enumerate(looks, start=1):
        runs, cut = runs.draw(n - trials, p0)
        boundary, spent = runs.least_boundary(spent + cut, alpha * (k / len(looks)))
        runs = runs.below(boundary)
        boundaries.append(boundary)
        trials = n
    return tuple(boundaries), spent


def _check_convex(p0: float, looks: Sequence[int], boundaries: Sequence[int]) -> None:
    if p0 < 1 / 2:
        raise InputError(f"a selection-free test needs a threshold of at least 1/2; got {p0}")
    for n, boundary in zip(looks, boundaries, strict=True):
        if boundary < n * p0 + math.sqrt(n * p0 * (1 - p0)):
            raise InputError(
                f"no selection-free test is proven here: its boundary of {boundary} in {n} draws lies less than a "
                f"standard deviation above {p0:g}.\n  Use a smaller alpha."
            )
