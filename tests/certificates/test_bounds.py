import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy.stats import binom

from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.errors import InputError

# specs: n, successes, bound at alpha = .001, computed independently
GOLDEN = [
    (100, 100, 0.9332543008),
    (100, 99, 0.9113731113),
    (100, 66, 0.5016499513),
    (100, 65, 0.4913756115),
    (1_000, 990, 0.9760361872),
    (10_000, 9_900, 0.9865311593),
    (100_000, 100_000, 0.9999309248),
    (100_000, 99_000, 0.9889893404),
    (100_000, 50_490, 0.5000089488),
    (100_000, 50_489, 0.4999989485),
]


@pytest.mark.parametrize(("n", "successes", "bound"), GOLDEN)
def test_lower_bound_has_the_published_values(n: int, successes: int, bound: float) -> None:
    assert lower_bound(successes, n, alpha=0.001) == pytest.approx(bound, abs=2e-10)


@given(n=st.integers(1, 60), p=st.floats(0.01, 0.99), alpha=st.floats(1e-6, 0.5))
def test_lower_bound_exceeds_the_truth_with_chance_at_most_alpha(n: int, p: float, alpha: float) -> None:
    wrong = sum(binom.pmf(k, n, p) for k in range(n + 1) if lower_bound(k, n, alpha=alpha) > p)
    assert wrong <= alpha * (1 + 1e-9)


@given(n=st.integers(1, 60), p=st.floats(0.01, 0.99), alpha=st.floats(1e-6, 0.5))
def test_upper_bound_falls_below_the_truth_with_chance_at_most_alpha(n: int, p: float, alpha: float) -> None:
    wrong = sum(binom.pmf(k, n, p) for k in range(n + 1) if upper_bound(k, n, alpha=alpha) < p)
    assert wrong <= alpha * (1 + 1e-9)


def exact_tail(k: int, n: int, p: float) -> mpf:
    """P(at least k of n successes) in the working precision, summed until the terms no longer matter."""
    exact = mpf(p)
    term = mp.exp(mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1))
    term *= exact**k * (1 - exact) ** (n - k)
    total = mpf(0)
    while k <= n and term > total * mpf(10) ** -30:
        total += term
        term *= (n - k) * exact / ((k + 1) * (1 - exact))
        k += 1
    return total


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(1, 100_000), alpha=st.floats(1e-12, 0.5))
def test_lower_bound_is_below_the_exact_one_and_near_it(data: st.DataObject, n: int, alpha: float) -> None:
    """A second opinion in 40 digits: P(at least k successes at the bound) is alpha, never above."""
    k = data.draw(st.integers(1, n))
    with mp.workdps(40):
        tail = exact_tail(k, n, lower_bound(k, n, alpha=alpha))
    assert tail <= alpha
    # alpha was shrunk by 1e-9; an ulp of the bound moves the tail by its steepness, n of them at most
    assert float(tail) == pytest.approx(alpha, rel=1e-6)


@given(data=st.data(), n=st.integers(2, 2_000), alpha=st.floats(1e-9, 0.4))
def test_bounds_grow_with_successes_and_with_alpha(data: st.DataObject, n: int, alpha: float) -> None:
    k = data.draw(st.integers(0, n - 1))
    assert lower_bound(k, n, alpha=alpha) < lower_bound(k + 1, n, alpha=alpha)
    assert upper_bound(k, n, alpha=alpha) <= upper_bound(k + 1, n, alpha=alpha)
    assert lower_bound(k, n, alpha=alpha) <= lower_bound(k, n, alpha=2 * alpha)


def test_extreme_counts_are_exact() -> None:
    assert lower_bound(0, 50, alpha=0.01) == 0
    assert upper_bound(50, 50, alpha=0.01) == 1
    assert lower_bound(50, 50, alpha=0.01) == pytest.approx(0.01 ** (1 / 50), rel=1e-9)
    assert upper_bound(0, 500, alpha=0.001) == pytest.approx(1 - 0.001 ** (1 / 500), rel=1e-9)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0), (1, -1)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(InputError, match="successes <= trials"):
        lower_bound(k, n, alpha=0.1)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_impossible_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="0 < alpha < 1"):
        upper_bound(1, 5, alpha=alpha)
