import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import erfinv as mp_erfinv
from mpmath import mp, mpf, sqrt
from scipy.special import ndtri
from scipy.stats import multinomial

from robustify.certificates.bounds import lower_bound
from robustify.certificates.radii import (
    check_budget,
    gaussian_radius,
    largest_radius,
    least_n,
    runner_up_bounds,
)
from robustify.errors import InputError

# specs §2.1: radius / sigma at n = 10,000, alpha = .001, for counts at their expectation
RUNNER_UP = [
    (0.4, 0.2, 0.250),
    (0.5, 0.2, 0.377),
    (0.6, 0.2, 0.503),
    (0.6, 0.39, 0.224),
    (0.8, 0.1, 1.010),
    (0.8, 0.19, 0.812),
    (0.9, 0.05, 1.400),
    (0.99, 0.003, 2.382),
]


def exact_quantile(p: float) -> mpf:
    return sqrt(2) * mp_erfinv(2 * mp.mpf(p) - 1)


@given(
    low=st.floats(1e-9, 1 - 1e-9),
    gap=st.one_of(st.floats(-1, 1), st.floats(-1e-12, 1e-12)),
    sigma=st.one_of(st.floats(0.01, 4), st.floats(4, 1e6)),
)
def test_radius_never_exceeds_the_exact_one(low: float, gap: float, sigma: float) -> None:
    """Nor falls short by more than rounding: both in units of sigma, for bounds far apart and nearly equal."""
    high = min(max(low + gap, 1e-9), 1 - 1e-9)
    with mp.workdps(60):
        exact = mp.mpf(sigma) / 2 * (exact_quantile(low) - exact_quantile(high))
        radius = gaussian_radius(low, high, sigma=sigma)
        assert radius <= max(exact, 0)
        assert radius >= exact - mp.mpf(sigma) * mp.mpf("2e-14")


@given(st.one_of(st.floats(1e-12, 1 - 1e-12), st.floats(0.5 - 1e-9, 0.5 + 1e-9)))
def test_the_quantile_is_as_near_as_the_radius_allows_for(p: float) -> None:
    with mp.workdps(60):
        exact = exact_quantile(p)
        assert abs(mpf(float(ndtri(p))) - exact) <= mpf("3e-16") * (1 + abs(exact))


@pytest.mark.parametrize(("p_a", "p_b", "expected"), RUNNER_UP)
def test_runner_up_radius_has_the_published_values(p_a: float, p_b: float, expected: float) -> None:
    n = 10_000
    votes = [round(n * p_a), round(n * p_b)]
    rest, small = n - sum(votes), round(n * p_b) // 2 + 1
    votes += [small] * (rest // small) + [rest % small]
    radius = gaussian_radius(*runner_up_bounds(votes, 0, n=n, alpha=0.001), sigma=1.0)
    # the spec's figures are means over draws of a concave function of the counts; at the expectation it is larger by
    # less than its curvature times the counts' variance, and the figures are rounded to 3 digits
    assert radius == pytest.approx(expected, abs=0.012)


def test_runner_up_is_near_or_above_the_binary_radius() -> None:
    for n, top in product((1_000, 10_000), (0.6, 0.8, 0.9, 0.99)):
        k = round(n * top)
        binary = gaussian_radius(low := lower_bound(k, n, alpha=0.001), 1 - low, sigma=1.0)
        ours = gaussian_radius(*runner_up_bounds([k, n - k], 0, n=n, alpha=0.001), sigma=1.0)
        assert ours > binary - 0.02


def test_failed_draws_count_for_the_rival() -> None:
    with_failures = runner_up_bounds([600, 10], 0, n=1_000, alpha=0.001)
    as_the_rival = runner_up_bounds([600, 400, 0], 0, n=1_000, alpha=0.001)
    assert with_failures == as_the_rival
    assert with_failures[1] > runner_up_bounds([600, 200, 200], 0, n=1_000, alpha=0.001)[1]


@pytest.mark.parametrize("p", [(0.5, 0.5, 0.0), (0.4, 0.3, 0.3), (0.7, 0.2, 0.1), (0.34, 0.33, 0.33)])
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_radius_exceeds_the_true_one_with_chance_at_most_alpha(p: tuple[float, float, float], alpha: float) -> None:
    """Every outcome of 24 draws over three classes, for each label that could have been selected."""
    n = 24
    mp_radius = {label: gaussian_radius(p[label], max(p[:label] + p[label + 1 :]), sigma=1.0) for label in range(3)}
    for label in range(3):
        wrong = 0.0
        for a in range(n + 1):
            for b in range(n + 1 - a):
                votes = [a, b, n - a - b]
                radius = gaussian_radius(*runner_up_bounds(votes, label, n=n, alpha=alpha), sigma=1.0)
                if radius > mp_radius[label]:
                    wrong += float(multinomial.pmf(votes, n, p))
        assert wrong <= alpha


@given(
    votes=st.lists(st.integers(0, 200), min_size=2, max_size=6).filter(lambda v: sum(v) > 0),
    alpha=st.floats(1e-6, 0.4),
)
def test_a_vote_more_for_the_label_never_shrinks_the_radius(votes: list[int], alpha: float) -> None:
    n = sum(votes)
    donor = max(range(1, len(votes)), key=votes.__getitem__)
    if votes[donor] == 0:
        return
    better = [votes[0] + 1, *votes[1:]]
    better[donor] -= 1
    before = gaussian_radius(*runner_up_bounds(votes, 0, n=n, alpha=alpha), sigma=1.0)
    after = gaussian_radius(*runner_up_bounds(better, 0, n=n, alpha=alpha), sigma=1.0)
    assert after >= before


def test_no_certificate_exceeds_the_largest_radius() -> None:
    alpha, n = 0.001, 1_000
    # all draws agree: both bounds use alpha / 2 and mirror each other
    expected = gaussian_radius((alpha / 2) ** (1 / n), 1 - (alpha / 2) ** (1 / n), sigma=0.5)
    assert largest_radius(n, alpha=alpha, sigma=0.5) == pytest.approx(expected, rel=1e-8)
    assert largest_radius(10, alpha=alpha, sigma=0.5) == 0


@given(alpha=st.floats(1e-9, 0.9))
def test_least_n_is_the_first_that_can_certify(alpha: float) -> None:
    n = least_n(alpha=alpha)
    assert largest_radius(n, alpha=alpha, sigma=1.0) > 0
    assert n == 1 or largest_radius(n - 1, alpha=alpha, sigma=1.0) == 0
    assert n == pytest.approx(math.log2(2 / alpha), abs=1.01)


def test_hopeless_budgets_are_refused_with_the_budget_that_works() -> None:
    with pytest.raises(InputError, match=r"n = 10 .* alpha = 0.001, even if all agree.\n  Use n >= 11"):
        check_budget(n=10, alpha=0.001)
    check_budget(n=11, alpha=0.001)


@pytest.mark.parametrize("n", [0, -5])
def test_counts_must_be_positive(n: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        check_budget(n=n, alpha=0.001)


def test_impossible_probabilities_are_refused() -> None:
    with pytest.raises(InputError, match="expected probabilities"):
        gaussian_radius(1.2, 0.1, sigma=1.0)
    with pytest.raises(InputError, match="no finite"):
        gaussian_radius(1.0, 0.1, sigma=1.0)
    assert gaussian_radius(0.3, 0.3, sigma=1.0) == 0
