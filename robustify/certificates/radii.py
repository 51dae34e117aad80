r"""ℓ2 radii of Gaussian randomized smoothing.

If the top class has at least the probability :math:`p_A` and any other class at most :math:`p_B`, then no
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
    """The ℓ2 radius that two bounds on probabilities prove, in the unit of sigma; 0 where they prove none.

    It is rounded down by more than the error of `ndtri`, at most 3e-16 (1 + |quantile|), and of the subtraction; both
    grow in proportion to sigma.

    Arguments:
        p_lower: Lower bound on the probability of the top class, in [0, 1].
        p_upper: Upper bound on the probability of every other class, in [0, 1].
        sigma: Standard deviation of the noise, in [0, 1] pixels.

    Raises:
        InputError: If a bound is no probability, or proves an infinite radius.
    """
    if not (0 <= p_lower <= 1 and 0 <= p_upper <= 1):
        raise InputError(f"expected probabilities; got {p_lower} and {p_upper}")
    if p_lower <= p_upper:
        return 0.0
    if p_lower == 1 or p_upper == 0:
        raise InputError("a bound of exactly 0 or 1 has no finite radius; no finite sample proves it")
    above, below = float(ndtri(p_lower)), float(ndtri(p_upper))
    error = 2e-15 * (1 + abs(above) + abs(below))
    return max(0.0, sigma / 2 * (above - below - error))


def included(number: int) -> float:
    """The radius of a proof without chance that reaches a whole number: just above it, as radii are exclusive."""
    return math.nextafter(number, math.inf)


def leading_class(votes: Sequence[int]) -> int:
    """Index of the class with the most votes; the first one where several tie."""
    return max(range(len(votes)), key=votes.__getitem__)


def strongest_rival(votes: Sequence[int], label: int, *, n: int) -> int:
    """Votes for the strongest class other than the label, plus all draws that failed.

    Rounding alone may decide the class of a draw that failed, so all of them may belong to the rival.

    Arguments:
        votes: One count per class; draws that failed are missing from the sum.
        label: Index of the label.
        n: Number of draws.
    """
    return max((*votes[:label], *votes[label + 1 :])) + n - sum(votes)


def rival_bounds(label: int, rival: int, *, n: int, alpha: float) -> tuple[float, float]:
    """Bounds (p_lower, p_upper) on the label's and on its strongest rival's probability, jointly at `alpha`.

    The label must have been chosen without these votes. Half of alpha pays for each side. The rival's side needs no
    union over classes: the class that is truly the strongest rival is fixed, and its own bound is at most the bound
    of the class that drew the most votes.

    Arguments:
        label: Votes for the label.
        rival: Votes for its strongest rival, plus the draws that failed.
        n: Number of draws.
        alpha: Allowed chance, in (0, 1), that either bound is wrong.

    Raises:
        InputError: If counts or alpha are impossible.
    """
    p_lower = lower_bound(label, n, alpha=alpha / 2)
    p_upper = min(upper_bound(rival, n, alpha=alpha / 2), math.nextafter(1 - p_lower, 2.0))
    return p_lower, p_upper


def runner_up_bounds(votes: Sequence[int], label: int, *, n: int, alpha: float) -> tuple[float, float]:
    """The bounds of `rival_bounds`, from one count per class."""
    return rival_bounds(votes[label], strongest_rival(votes, label, n=n), n=n, alpha=alpha)


def largest_radius(n: int, *, alpha: float, sigma: float) -> float:
    """The ℓ2 radius that `n` draws prove if all agree, which no other votes exceed; 0 where even they prove none."""
    p_lower, p_upper = runner_up_bounds([n, 0], 0, n=n, alpha=alpha)
    return gaussian_radius(p_lower, p_upper, sigma=sigma)


def least_n(*, alpha: float) -> int:
    """The smallest number of draws that can prove a radius above 0 at `alpha`."""
    check_alpha(alpha)
    n = 1
    while largest_radius(n, alpha=alpha, sigma=1.0) == 0:
        n += 1
    return n


def check_budget(*, n: int, alpha: float) -> None:
    """Refuses a number of draws that can never certify.

    Raises:
        InputError: If `n` is no positive whole number, alpha is not in (0, 1), or even `n` equal votes prove nothing.
    """
    check_count("n", n)
    if n < (least := least_n(alpha=alpha)):
        raise InputError(
            f"n = {n} draws can never certify at alpha = {alpha:g}, even if all agree.\n  Use n >= {least}."
        )


def check_count(name: str, value: int, *, least: int = 1, most: int | None = None) -> None:
    """Raises `InputError` unless the value is a whole number in range."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"expected {name} to be a whole number {limits}; got {value!r}")
