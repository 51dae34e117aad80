r"""ℓ2 radii of Gaussian randomized smoothing.

With :math:`p_A` the least probability of the top class and :math:`p_B` the most of any other, no
change of ℓ2 norm below :math:`\frac{\sigma}{2}(\Phi^{-1}(p_A) - \Phi^{-1}(p_B))` changes the smoothed prediction.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

import math
from collections.abc import Sequence

from scipy.special import ndtri

from robustify.certificates.bounds import check_alpha, lower_bound, upper_bound
from robustify.errors import InputError


def gaussian_radius(p_lower: float, p_upper: float, *, sigma: float) -> float:
    """The radius for a top class of at least `p_lower` and rivals of at most `p_upper`; 0 if there is none.

    Rounded down by more than the error of `ndtri` (a few ulp).
    """
    if not (0 <= p_lower <= 1 and 0 <= p_upper <= 1):
        raise InputError(f"expected probabilities; got {p_lower} and {p_upper}")
    if p_lower <= p_upper:
        return 0.0
    if p_lower == 1 or p_upper == 0:
        raise InputError("a bound of exactly 0 or 1 has no finite radius; no finite sample proves it")
    radius = sigma / 2 * float(ndtri(p_lower) - ndtri(p_upper))
    return max(0.0, radius * (1 - 1e-12) - 1e-15)


def strongest_rival(votes: Sequence[int], label: int, *, n: int) -> int:
    """The most votes of any other class, and with them those missing from `n`.

    A draw that failed may be any class to a function that differs by rounding alone, so all of them may be the rival's.
    """
    return max((*votes[:label], *votes[label + 1 :])) + n - sum(votes)


def rival_bounds(label: int, rival: int, *, n: int, alpha: float) -> tuple[float, float]:
    """Bounds (p_lower, p_upper) on the label's probability and on that of its strongest rival, jointly at `alpha`.

    The label must have been chosen without these votes. Half of alpha pays for each side. The
    rival's side needs no union over classes: the truly strongest rival is one fixed class, and
    its bound is at most the bound of whichever class drew the most votes.

    Arguments:
        label: Votes for the label.
        rival: Votes of the other class that has most.
    """
    p_lower = lower_bound(label, n, alpha=alpha / 2)
    p_upper = min(upper_bound(rival, n, alpha=alpha / 2), math.nextafter(1 - p_lower, 2.0))
    return p_lower, p_upper


def runner_up_bounds(votes: Sequence[int], label: int, *, n: int, alpha: float) -> tuple[float, float]:
    """`rival_bounds` of votes per class."""
    return rival_bounds(votes[label], strongest_rival(votes, label, n=n), n=n, alpha=alpha)


def largest_radius(n: int, *, alpha: float, sigma: float) -> float:
    """The radius if all `n` draws agree: no certificate from `n` draws can exceed it; 0 if even that is none."""
    p_lower, p_upper = runner_up_bounds([n, 0], 0, n=n, alpha=alpha)
    return gaussian_radius(p_lower, p_upper, sigma=sigma)


def least_n(*, alpha: float) -> int:
    """The smallest number of draws that can certify anything at `alpha`."""
    check_alpha(alpha)
    n = 1
    while largest_radius(n, alpha=alpha, sigma=1.0) == 0:
        n += 1
    return n


def check_budget(*, n: int, alpha: float) -> None:
    """Refuses budgets that can never certify.

    Raises:
        InputError: If the count is not positive, alpha not a chance, or even `n` equal votes prove nothing.
    """
    check_count("n", n)
    if n < (least := least_n(alpha=alpha)):
        raise InputError(
            f"n = {n} draws can never certify at alpha = {alpha:g}, even if all agree.\n  Use n >= {least}."
        )


def check_count(name: str, value: int, *, least: int = 1) -> None:
    """Raises `InputError` unless the count is a whole number of at least `least`."""
    if not isinstance(value, int) or value < least:
        raise InputError(f"expected {name} to be a whole number of at least {least}; got {value!r}")
