"""Exact one-sided bounds on a probability from counts of successes.

References:
    The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, Clopper, Pearson, 1934,
    https://doi.org/10.1093/biomet/26.4.404
"""

import math
from numbers import Real
from typing import TypeGuard

from scipy.special import betaincinv

from robustify.errors import InputError

_SAFETY = 1 - 1e-9
"""Factor on alpha that outweighs the relative error of `betaincinv`, 2e-12, so that rounding cannot loosen a bound."""


def lower_bound(successes: int, trials: int, *, alpha: float) -> float:
    """A lower bound on a probability, which exceeds the true one with chance at most `alpha`.

    Arguments:
        successes: Number of successes, 0 to `trials`.
        trials: Number of independent trials, positive.
        alpha: Allowed chance that the bound is wrong, in (0, 1).

    Raises:
        InputError: If the counts or alpha are impossible.
    """
    _check(successes, trials, alpha)
    if successes == 0:
        return 0.0
    bound = float(betaincinv(successes, trials - successes + 1, alpha * _SAFETY))
    return math.nextafter(bound, 0.0)


def upper_bound(successes: int, trials: int, *, alpha: float) -> float:
    """An upper bound on a probability, which falls below the true one with chance at most `alpha`.

    Arguments:
        successes: Number of successes, 0 to `trials`.
        trials: Number of independent trials, positive.
        alpha: Allowed chance that the bound is wrong, in (0, 1).

    Raises:
        InputError: If the counts or alpha are impossible.
    """
    # successes and failures swap roles; the subtraction from 1 may round down, so one ulp is added
    return min(1.0, math.nextafter(1 - lower_bound(trials - successes, trials, alpha=alpha), 2.0))


def check_alpha(alpha: float) -> None:
    """Raises `InputError` unless 0 < alpha < 1."""
    if not is_number(alpha) or not 0 < alpha < 1:
        raise InputError(f"expected 0 < alpha < 1, the allowed chance of a false certificate; got {alpha!r}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _check(successes: int, trials: int, alpha: float) -> None:
    check_alpha(alpha)
    if not 0 <= successes <= trials or trials <= 0:
        raise InputError(f"expected 0 <= successes <= trials, trials > 0; got {successes}, {trials}")
