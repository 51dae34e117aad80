import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf, ncdf

from robustify.certificates.lattice import BITS, LARGEST, largest_step, thresholds, total_variation
from robustify.errors import InputError

PHOTO = 3 * 224 * 224


def tails(sigma: float) -> list[int]:
    """P_0, P_1, …: chances of more than k steps up, in units of 2^-64."""
    table = thresholds(sigma)
    return list(reversed(table[: len(table) // 2]))


def distance(sigma: float, bits: int) -> mpf:
    """Half the sum of all differences of probability between drawn and exactly rounded noise, tails included."""
    with mp.workdps(60):
        scale, table = 255 * mpf(sigma), thresholds(sigma, bits=bits)
        edges = [0, *table, 1 << bits]
        least = -(len(table) // 2)
        total = mpf(0)
        for place, (low, high) in enumerate(pairwise(edges)):
            k = abs(least + place)
            exact = ncdf((mpf(1) / 2 - k) / scale) - ncdf(-(k + mpf(1) / 2) / scale)
            total += abs(mpf(high - low) / 2**bits - exact)
        return (total + 2 * ncdf((least - mpf(1) / 2) / scale)) / 2


@pytest.mark.parametrize(("sigma", "values"), [(0.05, 235), (0.25, 1_169), (0.5, 2_335), (1.0, 4_671), (2.0, 9_339)])
def test_tables_have_their_known_sizes(sigma: float, values: int) -> None:
    assert len(thresholds(sigma)) + 1 == values
    assert largest_step(sigma) == values // 2


def test_tables_have_their_known_entries() -> None:
    quarter = tails(0.25)
    assert quarter[:2] == [9_165_653_521_579_243_463, 9_050_230_692_035_549_859]
    assert quarter[-1] == 1
    assert tails(0.5)[0] == 9_194_512_557_308_354_100


@pytest.mark.parametrize("sigma", [0.001, 0.12, 0.25, 1.0])
def test_tables_are_symmetric_and_increase(sigma: float) -> None:
    table = thresholds(sigma)
    assert all(a <= b for a, b in pairwise(table))
    assert all(0 < a < 1 << BITS for a in table)
    assert [(1 << BITS) - a for a in reversed(table)] == list(table)


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_every_threshold_is_exact_to_half_a_unit(sigma: float) -> None:
    with mp.workdps(80):
        for k, tail in enumerate(tails(sigma)):
            assert abs(tail - 2**BITS * ncdf(-(k + mpf(1) / 2) / (255 * mpf(sigma)))) <= 0.5


@settings(max_examples=60)
@given(st.floats(1e-4, 0.03), st.integers(8, 20))
def test_the_bound_holds_and_is_near_where_every_word_is_enumerated(sigma: float, bits: int) -> None:
    exact = distance(sigma, bits)
    bound = (largest_step(sigma, bits=bits) + 1) * 2.0**-bits
    if bound < LARGEST:
        assert total_variation(sigma, 1, bits=bits) == pytest.approx(bound, rel=1e-12)
        assert exact <= total_variation(sigma, 1, bits=bits)


def test_the_bound_is_near_for_few_values() -> None:
    """Noise below a step: three values, and an error that nearly reaches the bound for some sigma."""
    shares = [float(distance(s, 10)) / total_variation(s, 1, bits=10) for s in (0.0008, 0.001, 0.0013, 0.0015)]
    assert max(shares) > 0.3


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5])
def test_the_bound_holds_for_noise_as_it_is_drawn(sigma: float) -> None:
    exact = distance(sigma, BITS)
    assert 0.2 * total_variation(sigma, 1) < exact <= total_variation(sigma, 1)


def test_photographs_are_near_ideal() -> None:
    assert total_variation(0.5, PHOTO) < 1e-11
    assert total_variation(1.0, PHOTO) < 2e-11


def test_the_bound_adds_up_over_dimensions_and_grows_with_sigma() -> None:
    one = total_variation(0.25, 1)
    assert total_variation(0.25, PHOTO) == pytest.approx(PHOTO * one, rel=1e-12)
    assert total_variation(0.5, 1) > one
    assert total_variation(0.25, 1, bits=63) == pytest.approx(2 * one, rel=0.05)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_impossible_sigmas_are_refused(sigma: float) -> None:
    for ask in (thresholds, largest_step, lambda s: total_variation(s, 1)):
        with pytest.raises(InputError, match="positive, finite sigma"):
            ask(sigma)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 dimension; got 0"):
        total_variation(0.25, 0)
    with pytest.raises(InputError, match=r"may be 0\.\d+ from a rounded Gaussian.*\n.*smaller"):
        total_variation(1.0, 1, bits=16)
