r"""Exact group-sequential tests: is a label's probability above a threshold, with as few draws as possible?

A test of :math:`H_0: p \le p_0` sees the number of successes :math:`H_k` among the first :math:`n_k` draws at
looks :math:`n_1 < \dots < n_K` and rejects at the first look with :math:`H_k \ge c_k`. The boundary is found look
by look: with :math:`v` the distribution, at :math:`p = p_0`, of the successes of the runs that go on and
:math:`A_k = \alpha k / K` the error that may be spent by each look,

.. math:: c_k = \min\{c : \textstyle\sum_{h \ge c} v(h) \le A_k - \text{spent}\}.

What a look leaves unspent, because counts are whole, rolls over to the next. The chance of ever crossing grows
with :math:`p`, so its exact value at :math:`p_0`, the test's size, covers all of :math:`H_0`.

Giving up is never a false certificate: a run may stop undecided for any reason, at no cost in alpha.

A *selection-free* test may take, at each look, the class that leads on the very same draws, if it spends only
:math:`p_0 \alpha`. A path with :math:`h` of :math:`n` successes has the chance :math:`p^h (1-p)^{n-h}`, which is
convex in :math:`p` on :math:`[0, p_0]` if :math:`p_0 \ge 1/2` and :math:`h` is at least a standard deviation above
:math:`n p_0`. If all boundaries are, the chance :math:`f(p)` of crossing is convex with :math:`f(0) = 0`, and the
classes that do not exceed :math:`p_0` cross with chance at most
:math:`\sum_c f(p_c) \le \sum_c p_c f(p_0) / p_0 \le f(p_0) / p_0`.

Every sum has positive terms only. A relative :math:`10^{-9}` is added to what is spent, more than the rounding of a
hundred looks up to a million draws, and so are the tails below :math:`10^{-30}` that are not followed further.

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
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from robustify.certificates.bounds import check_alpha
from robustify.errors import InputError

_ROUND_UP = 1 + 1e-9
_CUT = 1e-30


class Characteristics(NamedTuple):
    """How a test behaves where the truth is known.

    Arguments:
        power: Chance of certifying.
        mean_trials: Expected number of draws; a run that is never decided takes all.
    """

    power: float
    mean_trials: float


@final
@dataclass(frozen=True)
class GroupSequentialTest:
    """Certifies p > p0, wrongly with chance at most `alpha` however and whenever one stops looking.

    Arguments:
        p0: Threshold, in (0, 1).
        alpha: Allowed chance of a false certificate.
        looks: Draws seen at each look.
        boundaries: Least successes that certify, per look; one more than the draws where none can.
        size: Exact chance, rounded up, that a label of probability p0 crosses; at most `alpha`.
    """

    p0: float
    alpha: float
    looks: tuple[int, ...]
    boundaries: tuple[int, ...]
    size: float

    def crossed(self, counts: Sequence[int]) -> bool:
        """Whether the successes at the looks so far have certified at any of them.

        Raises:
            InputError: If the counts are impossible.
        """
        if len(counts) > len(self.looks) or not all(0 <= h <= n for h, n in zip(counts, self.looks, strict=False)):
            raise InputError(f"expected counts from 0 to {self.looks}; got {tuple(counts)}")
        return any(h >= boundary for h, boundary in zip(counts, self.boundaries, strict=False))

    def characteristics(self, p: float) -> Characteristics:
        """Exact power and mean number of draws if the label's probability is `p`."""
        if not 0 <= p <= 1:
            raise InputError(f"expected a probability; got {p}")
        runs, trials, power, mean = _START, 0, 0.0, 0.0
        for n, boundary in zip(self.looks, self.boundaries, strict=True):
            mean += (n - trials) * runs.chance
            runs, _ = runs.draw(n - trials, p)
            power += runs.tail(boundary)
            runs = runs.below(boundary)
            trials = n
        return Characteristics(power, mean)


def group_sequential_test(
    p0: float,
    *,
    alpha: float,
    looks: tuple[int, ...],
    selection_free: bool = False,
) -> GroupSequentialTest:
    """The exact test of p <= p0 with these looks; its tables are cached.

    Arguments:
        p0: Threshold, in (0, 1).
        alpha: Allowed chance of a false certificate.
        looks: Draws seen at each look, increasing.
        selection_free: Whether the class is, at each look, the leading one of the very same draws.

    Raises:
        InputError: If a chance or look is impossible, or a selection-free test would not hold.
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
    """The least boundary at the last look that, after `boundaries` at those before, keeps the size within alpha."""
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
    """Looks that grow by `ratio`, and by at least one `multiple`, up to `n_max`.

    Arguments:
        n_max: The last look, a multiple or not.
        first: The first look.
        ratio: Growth, at least 1.
        multiple: All looks but the last are rounded to multiples of it, such as the batch size.

    Raises:
        InputError: If a number is out of range.
    """
    if min(n_max, first, multiple) < 1 or not 1 <= ratio < math.inf:
        raise InputError(
            f"expected positive n_max, first, multiple and a ratio of at least 1; "
            f"got {n_max}, {first}, {multiple} and {ratio}"
        )
    looks: list[int] = []
    multiples = max(1.0, first / multiple)  # not rounded itself, or its growth would carry the rounding on
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
    """The runs that go on: `mass[i]` is the chance of one with first + i successes so far."""

    first: int
    mass: NDArray[np.float64]

    @property
    def chance(self) -> float:
        """Of still going on."""
        return float(self.mass.sum())

    def draw(self, n: int, p: float) -> "tuple[_Runs, float]":
        """After `n` more draws, with the mass of the tails that were cut off."""
        if not self.mass.size:
            return self, 0.0
        step, cut = _Runs(*_binomial(n, p))._trim()
        runs, more = _Runs(self.first + step.first, np.convolve(self.mass, step.mass))._trim()
        return runs, cut + more

    def tail(self, count: int) -> float:
        """The chance of at least `count` successes."""
        return float(self.mass[max(0, count - self.first) :].sum())

    def below(self, count: int) -> "_Runs":
        """Those with fewer successes."""
        return _Runs(self.first, self.mass[: max(0, count - self.first)])

    def least_boundary(self, spent: float, budget: float) -> tuple[int, float]:
        """The least count whose tail can still be paid for, and what is spent then."""
        spending = spent + np.cumsum(self.mass[::-1]) * _ROUND_UP
        paid = int(np.searchsorted(spending, budget, side="right"))
        return self.first + len(self.mass) - paid, float(spending[paid - 1]) if paid else spent

    def _trim(self) -> "tuple[_Runs, float]":
        start = int(np.searchsorted(np.cumsum(self.mass), _CUT, side="right"))
        stop = len(self.mass) - int(np.searchsorted(np.cumsum(self.mass[::-1]), _CUT, side="right"))
        cut = float(self.mass[:start].sum() + self.mass[max(start, stop) :].sum())
        return _Runs(self.first + start, self.mass[start:stop]), cut


_START = _Runs(0, np.ones(1))


def _binomial(n: int, p: float) -> tuple[int, NDArray[np.float64]]:
    """Chances of 0 to n successes, from ratios of neighbours: their error grows with the distance to the mode."""
    if p in (0, 1):
        return n * int(p), np.ones(1)
    mode, odds = min(n, int((n + 1) * p)), p / (1 - p)
    above, below = np.arange(mode, n), np.arange(mode, 0, -1)
    rising = np.cumprod((n - above) / (above + 1) * odds)
    falling = np.cumprod(below / (n - below + 1) / odds)
    mass = np.concatenate([falling[::-1], [1.0], rising])
    return 0, mass / mass.sum()


@lru_cache(maxsize=4096)
def _boundaries(p0: float, looks: tuple[int, ...], alpha: float) -> tuple[tuple[int, ...], float]:
    """Boundaries and size of the test that spends as much at every look."""
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
                f"no selection-free test: its boundary {boundary} of {n} lies less than a standard deviation "
                f"above {p0:g}.\n  Use a smaller alpha."
            )
