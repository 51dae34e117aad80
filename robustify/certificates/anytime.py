r"""Bounds on a label's probability that stay valid however and whenever one stops drawing.

Two tools. `anytime_lower_bound` may be asked after every draw. It rests on evidence against :math:`p \le p_0`, a
mixture over :math:`q > p_0` of the likelihood ratios of :math:`q` to :math:`p_0` after :math:`H` successes and
:math:`F` failures in :math:`t` draws,

.. math::
    M_t(p_0) = \frac{B(H + \frac12, F + \frac12)\, P[\mathrm{Beta}(H + \frac12, F + \frac12) > p_0]}
                    {B(\frac12, \frac12)\, P[\mathrm{Beta}(\frac12, \frac12) > p_0]\; p_0^H (1 - p_0)^F}.

Each ratio is, for every :math:`p \le p_0`, a supermartingale that starts at 1, so :math:`M` ever reaches
:math:`1/\alpha` with chance at most :math:`\alpha`. It is the betting of Krichevsky and Trofimov, without
its bets on :math:`q \le p_0`.

`sequential_lower_bound` may be asked at looks fixed in advance. It is tighter, and at the last look loses next to
nothing to a bound that could not have stopped early.

References:
    Statistical Methods Related to the Law of the Iterated Logarithm, Robbins, 1970,
    https://doi.org/10.1214/aoms/1177696786
    The Performance of Universal Encoding, Krichevsky, Trofimov, 1981, https://doi.org/10.1109/TIT.1981.1056331
    Treatment of Statistical Estimation Problems in Randomized Smoothing for Adversarial Robustness, Voráček,
    2024, https://arxiv.org/abs/2406.17830
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import betainc, betaincc, betaln, ndtr, ndtri

from robustify.certificates.bounds import check_alpha, lower_bound
from robustify.certificates.sequential import check_looks, check_threshold, last_boundary
from robustify.errors import InputError

_EARLY = 3 / 4
"""Of alpha, for the looks before the last, which really use at most about 0.3 of it."""


def log_evidence(successes: int, trials: int, p0: float) -> float:
    r"""The logarithm of :math:`M_t(p_0)`, rounded down; minus infinity where it is far below 0.

    Raises:
        InputError: If the counts or p0 are impossible.
    """
    _check_counts(successes, trials)
    check_threshold(p0)
    failures = trials - successes
    a, b = successes + 0.5, failures + 0.5
    if (kept := float(betaincc(a, b, p0))) == 0:
        return -math.inf
    mixture = float(betaln(a, b)) + math.log(kept)
    prior = math.log(math.pi) + math.log(float(betaincc(0.5, 0.5, p0)))
    return mixture - prior - successes * math.log(p0) - failures * math.log1p(-p0) - _rounding(trials)


def anytime_lower_bound(successes: int, trials: int, *, alpha: float) -> float:
    r"""The largest p0 with :math:`M_t(p_0) \ge 1/\alpha`, rounded down.

    With chance at least 1 - `alpha` no such bound, at any number of draws, exceeds the true probability: the
    largest of all those seen so far is as valid as each.

    Raises:
        InputError: If the counts or alpha are impossible.
    """
    check_alpha(alpha)
    _check_counts(successes, trials)
    if successes == 0:
        return 0.0
    # M falls with p0 up to here: its logarithm's slope is at most (1/2 - (H - t p0)) / (p0 (1 - p0))
    refuted, high = 0.0, (successes - 0.5) / trials
    for _ in range(60):
        middle = (refuted + high) / 2
        if log_evidence(successes, trials, middle) >= -math.log(alpha):
            refuted = middle
        else:
            high = middle
    return refuted


def anytime_upper_bound(successes: int, trials: int, *, alpha: float) -> float:
    """Likewise from above: the smallest of those seen so far is valid.

    Raises:
        InputError: If the counts or alpha are impossible.
    """
    _check_counts(successes, trials)
    return min(1.0, math.nextafter(1 - anytime_lower_bound(trials - successes, trials, alpha=alpha), 2.0))


def sequential_lower_bound(counts: Sequence[int], looks: tuple[int, ...], *, alpha: float) -> float:
    r"""A bound to stop at any of the looks, which at the last is nearly Clopper and Pearson's.

    The looks before the last may err by three quarters of alpha, split evenly for Clopper-Pearson bounds of which
    the best counts; a run without failures, which early looks cannot judge, takes half of all shares so far at once.
    The last look gets all of alpha that the others do not really use: they are so correlated that they err less
    often than their sum says, by how much is known exactly for each p0. With 71 looks up to 100,000 and alpha
    .001 the last bound costs .0004 to .0016 in :math:`\Phi^{-1}` against Clopper and Pearson's, for p in [.6, .999].

    The claims are the points of a fixed grid, :math:`1 / (32 \sqrt{n_K})` apart on the scale of :math:`\Phi^{-1}`
    and so within 1/40 of a standard error. Each point is tested at `alpha`, and is claimed only if all smaller
    ones are refuted: a false claim needs the smallest false point to be refuted, which is one fixed test.

    Arguments:
        counts: Successes at the looks so far.
        looks: All looks that may be made, fixed before the first draw.
        alpha: Allowed chance that the bound, at whichever look, exceeds the true probability.

    Raises:
        InputError: If counts, looks or alpha are impossible.
    """
    check_alpha(alpha)
    check_looks(looks)
    if not 1 <= len(counts) <= len(looks):
        raise InputError(f"expected counts at 1 to {len(looks)} looks; got {len(counts)}")
    bound = max(
        lower_bound(h, n, alpha=_level(k, h, looks, alpha)) for k, (h, n) in enumerate(zip(counts, looks, strict=False))
    )
    if bound == 0:
        return 0.0
    step = 1 / (32 * math.sqrt(looks[-1]))
    point = math.floor(float(ndtri(bound)) / step) + 1
    while _grid(point, step) > bound:
        point -= 1
    if len(counts) == len(looks):
        while counts[-1] >= _last_boundary(_grid(point + 1, step), alpha, looks):
            point += 1
    return _grid(point, step)


def _level(look: int, successes: int, looks: tuple[int, ...], alpha: float) -> float:
    """The error that a bound at this look, counted from 0, may surely spend."""
    if look == len(looks) - 1:
        return alpha * (1 - _EARLY)
    share = alpha * _EARLY / (len(looks) - 1)
    return share * max(1, (look + 1) / 2) if successes == looks[look] else share


@lru_cache(maxsize=65536)
def _last_boundary(p0: float, alpha: float, looks: tuple[int, ...]) -> int:
    """The least count at the last look that refutes p0."""
    early = np.array(looks[:-1], dtype=np.int64)
    low, high = np.zeros_like(early), early + 1  # the least count that a share can pay for lies in (low, high]
    while np.any(high - low > 1):
        middle = (low + high) // 2
        refutes = betainc(middle, early - middle + 1, p0) <= _level(0, 0, looks, alpha)
        low, high = np.where(refutes, low, middle), np.where(refutes, middle, high)
    boundaries = high.tolist()
    for look, n in enumerate(looks[:-1]):
        if p0**n <= _level(look, n, looks, alpha):
            boundaries[look] = min(n, boundaries[look])
            break
    return last_boundary(p0, alpha=alpha, looks=looks, boundaries=boundaries)


def _grid(point: int, step: float) -> float:
    return float(ndtr(point * step))


def _rounding(trials: int) -> float:
    """More than the rounding in the logarithm of evidence, whose terms reach that of a factorial."""
    return 1e-15 * (math.lgamma(trials + 2) + 1e3)


def _check_counts(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials or trials <= 0:
        raise InputError(f"expected 0 <= successes <= trials, trials > 0; got {successes}, {trials}")
