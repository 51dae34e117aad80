"""Exact chances, and bounds on chances, of the statistics that noise is judged by."""

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, ndtr

Array: TypeAlias = NDArray[Any]


def rounded_gaussian(scale: float) -> Array:
    """Probabilities of the integers from -r to r under a rounded Gaussian of that many steps, r beyond 9 sigma."""
    reach = math.ceil(9 * scale) + 1
    edges = (np.arange(-reach, reach + 2) - 0.5) / scale
    probabilities: Array = np.diff(ndtr(edges))
    return probabilities


def near_grid(scale: float) -> float:
    """Chance that a Gaussian of that many steps is within 1/20 of an integer."""
    # Beyond 3 steps it is 1/10 up to e^(-18 pi^2).
    scale = min(scale, 3.0)
    integers = np.arange(-30, 31)
    return float((ndtr((integers + 0.05) / scale) - ndtr((integers - 0.05) / scale)).sum())


def coincidence(count: int, n: int, probability: float) -> float:
    """Chance, twice that of the rarer side, of a binomial count at least as far out as this."""
    if n == 0:
        return 1.0
    above = 1.0 if count == 0 else float(bdtrc(count - 1, n, probability))
    return min(1.0, 2 * above, 2 * float(bdtr(count, n, probability)))


def divergence_of(counts: Array, law: Array) -> float:
    """Number of values times the relative entropy of their frequencies to the law, in nats."""
    seen = counts > 0
    return float((counts[seen] * np.log(counts[seen] / (counts.sum() * law[seen]))).sum())


def divergence_chance(divergence: float, cells: int) -> float:
    """Bound on the chance of so large a `divergence_of`, for any number of values and any law on so many cells."""
    freedom = cells - 1
    if divergence <= freedom:
        return 1.0
    return math.exp(freedom * (1 + math.log(divergence / freedom)) - divergence)
