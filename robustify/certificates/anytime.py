r"""A lower bound on a label's probability that may be read at several looks and holds wherever sampling stops.

The looks are fixed in advance. At the last one the bound is almost as tight as a bound that is read only once. A bound
that may be read after every single draw (a mixture of likelihood ratios, Robbins 1970) would be looser from 1,000
draws on, by up to .018 in :math:`\Phi^{-1}` for probabilities up to .9, and draws come in batches anyway.

References:
    Repeated Significance Tests on Accumulating Data, Armitage, McPherson, Rowe, 1969,
    https://doi.org/10.2307/2343787
    Treatment of Statistical Estimation Problems in Randomized Smoothing for Adversarial Robustness, Voráček,
    2024, https://arxiv.org/abs/2406.17830
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import betainc, ndtr, ndtri

from robustify.certificates.bounds import check_alpha, lower_bound
from robustify.certificates.sequential import check_looks, last_boundary
from robustify.errors import InputError

_EARLY = 3 / 4
"""Share of alpha for the looks before the last; the exact error that they make is at most about 0.3 of alpha."""


def sequential_lower_bound(counts: Sequence[int], looks: tuple[int, ...], *, alpha: float) -> float:
    r"""A lower bound that holds at every look; at the last one it is almost as tight as Clopper and Pearson's.

    The looks before the last share three quarters of alpha evenly. Each gives a Clopper-Pearson bound, and the best
    of them counts. A run without failures, which single shares are too small to reward early, takes half of all
    shares so far at once. The last look gets all of alpha that the earlier ones do not use up: their errors overlap,
    and the chance of any error is computed exactly for each p0. With 71 looks up to 100,000 draws and alpha .001, the
    last bound is .0004 to .0016 lower in :math:`\Phi^{-1}` than Clopper and Pearson's, for p in [.6, .999].

    The bound is a point of a fixed grid whose steps are :math:`1 / (32 \sqrt{n_K})` in :math:`\Phi^{-1}`, which is
    at most 1/40 of a standard error. Each point is tested at level `alpha`, and is claimed only if all smaller ones
    are rejected too. A false claim therefore needs the smallest false point to be rejected, which is one fixed test.

    Arguments:
        counts: Numbers of successes at the looks so far, at least one.
        looks: Numbers of draws at all looks, increasing, fixed before the first draw.
        alpha: Allowed chance, in (0, 1), that the bound exceeds the true probability at any look.

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
    """The share of alpha that the bound at this look, counted from 0, may always spend."""
    if look == len(looks) - 1:
        return alpha * (1 - _EARLY)
    share = alpha * _EARLY / (len(looks) - 1)
    return share * max(1, (look + 1) / 2) if successes == looks[look] else share


@lru_cache(maxsize=65536)
def _last_boundary(p0: float, alpha: float, looks: tuple[int, ...]) -> int:
    """The smallest count at the last look that rejects p0."""
    early = np.array(looks[:-1], dtype=np.int64)
    low, high = np.zeros_like(early), early + 1  # the smallest count that a share can pay for lies in (low, high]
    while np.any(high - low > 1):
        middle = (low + high) // 2
        rejects = betainc(middle, early - middle + 1, p0) <= _level(0, 0, looks, alpha)
        low, high = np.where(rejects, low, middle), np.where(rejects, middle, high)
    boundaries = high.tolist()
    for look, n in enumerate(looks[:-1]):
        if p0**n <= _level(look, n, looks, alpha):
            boundaries[look] = min(n, boundaries[look])
            break
    return last_boundary(p0, alpha=alpha, looks=looks, boundaries=boundaries)


def _grid(point: int, step: float) -> float:
    """The probability at a point of the grid."""
    return float(ndtr(point * step))
