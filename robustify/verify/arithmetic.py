r"""Arithmetic for verification that shares no code with what made the claims.

Claims are made with SciPy's inverse incomplete beta function and with convolutions. Here a binomial tail is a sum of
its terms, each the one before times an exact ratio, in 50 decimal digits; quantiles of the normal distribution too have
50 digits; and a test's chance of crossing its boundaries is that of a random walk, followed draw by draw.

Floats stand for exactly the numbers they are: callers hand them over as fractions.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

import numpy as np

_DIGITS = 50
_TINY = 1e-40
"""Mass of a walk that is counted as having crossed rather than followed."""


def upper_tail(successes: int, trials: int, p: Fraction) -> Any:  # noqa: ANN401 - a number of mpmath, which has no types
    """P(B(trials, p) >= successes), rounded up by at most a relative 1e-29; 1 where it is about a half or more."""
    mp = _digits()
    if successes <= trials * p:  # no level of interest is as large
        return mp.mpf(1)
    if p <= 0:
        return mp.mpf(0)
    chance, failure = _number(p), _number(1 - p)
    log_ways = mp.loggamma(trials + 1) - mp.loggamma(successes + 1) - mp.loggamma(trials - successes + 1)
    term = mp.exp(log_ways + successes * mp.log(chance) + (trials - successes) * mp.log(failure))
    odds, total = chance / failure, mp.mpf(0)
    for count in range(successes, trials + 1):
        total += term
        ratio = odds * (trials - count) / (count + 1)
        term *= ratio
        if term < total * (1 - ratio) * mp.mpf("1e-30"):  # all further terms together are less than 1e-30 of the sum
            break
    return total * (1 + mp.mpf("1e-29"))


def normal_quantile(p: Fraction) -> Any:  # noqa: ANN401
    r"""Quantile of the standard normal distribution, :math:`\Phi^{-1}(p)`, for p in (0, 1)."""
    mp = _digits()
    return mp.sqrt(2) * mp.erfinv(_number(2 * p - 1))


def normal_chance(x: Fraction) -> Any:  # noqa: ANN401
    r"""Distribution function of the standard normal distribution, :math:`\Phi(x)`."""
    return _digits().ncdf(_number(x))


def shifted_chance(p: Fraction, by: Fraction) -> Any:  # noqa: ANN401
    r"""Probability p in (0, 1) whose quantile is moved, :math:`\Phi(\Phi^{-1}(p) + by)`."""
    return _digits().ncdf(normal_quantile(p) + _number(by))


@lru_cache(maxsize=4096)
def crossing_chance(p: float, looks: tuple[int, ...], boundaries: tuple[int, ...]) -> float:
    """An upper bound on the chance that successes of probability p reach the boundary at any look.

    A walk of single draws. Each draw rounds a state by at most three half units in the last place, all terms are
    positive, and mass that is no longer followed counts as having crossed.
    """
    mass = np.zeros(looks[-1] + 2)
    mass[0] = 1.0
    low, high, trials, crossed = 0, 0, 0, 0.0
    for n, boundary in zip(looks, boundaries, strict=True):
        for trial in range(trials, n):
            old = mass[low : high + 1].copy()
            mass[low : high + 1] *= 1 - p
            mass[low + 1 : high + 2] += old * p
            high += 1
            if trial % 64 == 0:
                low, high, lost = _trim(mass, low, high)
                crossed += lost
        over = max(low, boundary)
        crossed += float(mass[over : high + 1].sum())
        mass[over : high + 1] = 0.0
        high, trials = min(high, over), n
    return crossed * (1 + 1e-15 * (looks[-1] + 1000)) + 1e-290


def _trim(mass: np.ndarray[Any, np.dtype[np.float64]], low: int, high: int) -> tuple[int, int, float]:
    """The range of states that are followed further, and the mass of the others, which is set to zero."""
    kept = np.flatnonzero(mass[low : high + 1] >= _TINY)
    if not kept.size:
        return low, high, 0.0
    first, last = low + int(kept[0]), low + int(kept[-1])
    lost = float(mass[low:first].sum() + mass[last + 1 : high + 1].sum())
    mass[low:first] = 0.0
    mass[last + 1 : high + 1] = 0.0
    return first, last, lost


def early_boundaries(p: float, looks: Sequence[int], share: float) -> list[int]:
    """The smallest count at each look whose tail has at most the chance `share`; n + 1 where none has."""
    from scipy.special import bdtrc

    found = []
    for n in looks:
        low, high = 0, n + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if bdtrc(middle - 1, n, p) <= share else (middle, high)
        found.append(high)
    return found


def at_most(number: Any, limit: Fraction) -> bool:  # noqa: ANN401 - a number of mpmath, which has no types
    """Whether a number of mpmath is no more than a fraction."""
    return bool(number * limit.denominator <= limit.numerator)


def is_deviation_above(successes: int, trials: int, p: Fraction) -> bool:
    """Whether a number of successes is at least one standard deviation above its mean under `p`."""
    above = successes - trials * p
    return above >= 0 and above**2 >= trials * p * (1 - p)


def is_probability(value: float) -> bool:
    """Whether a number lies in [0, 1]; NaN does not."""
    return math.isfinite(value) and 0 <= value <= 1


def _number(value: Fraction) -> Any:  # noqa: ANN401
    return _digits().mpf(value.numerator) / value.denominator


@cache
def _digits() -> Any:  # noqa: ANN401
    """An mpmath context of this module, so that the precision that others set does not matter."""
    import mpmath

    context = mpmath.MPContext()
    context.dps = _DIGITS
    return context
