"""Arithmetic in 50 digits agrees with SciPy, and errs on the safe side."""

import math
from fractions import Fraction

import pytest
from scipy.stats import binom, norm

from robustify.certificates.sequential import group_sequential_test
from robustify.verify.arithmetic import crossing_chance, is_deviation_above, normal_chance, normal_quantile, upper_tail


@pytest.mark.parametrize(("n", "k", "p"), [(100, 90, 0.8), (1_000, 999, 0.99), (50, 50, 0.9), (20_000, 10_400, 0.5)])
def test_tails_agree_with_scipy_and_are_never_smaller(n: int, k: int, p: float) -> None:
    assert float(upper_tail(k, n, Fraction(p))) == pytest.approx(binom.sf(k - 1, n, p), rel=1e-10)
    if n <= 1_000:
        exact = sum(math.comb(n, j) * Fraction(p) ** j * (1 - Fraction(p)) ** (n - j) for j in range(k, n + 1))
        found = upper_tail(k, n, Fraction(p)) * exact.denominator / exact.numerator
        assert 0 <= found - 1 < 1e-28


def test_impossible_tails_are_nothing_or_all() -> None:
    assert upper_tail(0, 10, Fraction(1, 2)) == 1
    assert upper_tail(3, 10, Fraction(0)) == 0
    assert upper_tail(10, 10, Fraction(1)) == 1


@pytest.mark.parametrize("p", [1e-9, 0.02, 0.5, 0.9, 1 - 1e-12])
def test_quantiles_undo_chances(p: float) -> None:
    assert float(normal_quantile(Fraction(p))) == pytest.approx(norm.ppf(p), rel=1e-9)
    assert abs(float(normal_chance(Fraction(0.7))) - norm.cdf(0.7)) < 1e-14


@pytest.mark.parametrize("p0", [0.5, 0.8, 0.99])
def test_a_walk_of_single_draws_finds_the_size_that_convolutions_find(p0: float) -> None:
    test = group_sequential_test(p0, alpha=0.01, looks=(32, 64, 200, 640))
    assert crossing_chance(p0, test.looks, test.boundaries) == pytest.approx(test.size, rel=1e-8)
    greedy = tuple(boundary - 1 for boundary in test.boundaries)
    assert crossing_chance(p0, test.looks, greedy) > 0.01


@pytest.mark.parametrize(("successes", "expected"), [(55, True), (54, False), (45, False), (50, False)])
def test_a_deviation_above_is_told_exactly(successes: int, expected: bool) -> None:
    assert is_deviation_above(successes, 100, Fraction(1, 2)) is expected
