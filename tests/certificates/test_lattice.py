import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import erfc, exp, mp, mpf, pi, sqrt
from scipy.special import ndtr, ndtri

from robustify.certificates.lattice import NDTRI_ERROR, total_variation
from robustify.errors import InputError

PIXEL = 1 / 255
PHOTO = 3 * 224 * 224


def uniforms(bits: int) -> np.ndarray:
    return np.maximum(np.arange(2**bits) * 2.0**-bits, 2.0 ** -(bits + 1))


def distance(drawn: np.ndarray, scale: float) -> float:
    """Half the sum of all differences of probability, tails included."""
    reach = int(max(np.abs(drawn).max(), 9 * scale)) + 2
    empirical = np.bincount(drawn.astype(np.int64) + reach, minlength=2 * reach + 1) / len(drawn)
    edges = (np.arange(-reach, reach + 2) - 0.5) / scale
    # differences of the nearer tail: no cancellation
    exact = np.where(edges[1:] <= 0, ndtr(edges[1:]) - ndtr(edges[:-1]), ndtr(-edges[:-1]) - ndtr(-edges[1:]))
    return float(np.abs(empirical - exact).sum() / 2)


def enumerated(sigma: float, bits: int) -> float:
    normal = torch.special.ndtri(torch.from_numpy(uniforms(bits))).numpy()
    return distance(np.rint(255 * sigma * normal), 255 * sigma)


SCALES = [*np.geomspace(0.02, 9, 60), *(k + 0.5 + x for k in range(3) for x in (-1e-3, 1e-3))]


@pytest.mark.parametrize("bits", range(10, 15))
def test_bounds_the_exact_distance_of_fewer_bits_from_near(bits: int) -> None:
    ratios = []
    for scale in (scale for scale in SCALES if scale * 5 < 0.01 * 2**bits):
        true, bound = enumerated(scale * PIXEL, bits), total_variation(scale * PIXEL, 1, bits=bits)
        # below 1e-14 the enumeration itself, a sum of float64, is rounding
        assert true <= bound + 1e-14, scale
        if true > 1e-12:
            ratios.append(bound / true)
    assert max(ratios) < 10
    assert min(ratios) < 1.05


def closest(bits: int, low: float, high: float, *, n: int = 400) -> float:
    scales = np.linspace(low, high, n)
    return max(enumerated(s * PIXEL, bits) / total_variation(s * PIXEL, 1, bits=bits) for s in scales)


def test_no_part_can_be_halved() -> None:
    """Where a part dominates, the exact distance comes within a quarter of the bound: half of it would be exceeded."""
    largest = -float(ndtri(2.0**-13))
    # no boundary can be crossed by a draw: tails alone
    assert 0.99 < closest(12, 0.4 / largest, 0.499 / largest) <= 1
    # one boundary a side, no tail to speak of: grain alone
    assert 0.9 < closest(12, 0.15, 0.25) <= 1
    # one boundary a side, the next one just out of reach: grain and tail, half each
    assert 0.75 < closest(12, 1.45 / largest, 1.499 / largest) <= 1


@pytest.mark.parametrize("error", [1e-4, 1e-3])
@pytest.mark.parametrize("sign", [1, -1])
def test_covers_a_worse_inverse(error: float, sign: int) -> None:
    """Every draw off by the whole of the allowed error: outwards, inwards, one way, or to and fro from cell to cell."""
    exact = ndtri(uniforms(14))
    shares = []
    for scale in np.linspace(0.1, 9, 50):
        bound = total_variation(scale * PIXEL, 1, bits=14, ndtri_error=error)
        for drift in (np.ones_like(exact), np.sign(exact), np.sin(np.pi * scale * exact)):
            drawn = np.rint(scale * exact * (1 + sign * error * drift))
            shares.append(distance(drawn, scale) / bound)
    assert max(shares) <= 1
    # at the last scale, draws that err to and fro fill most of the bound: no half of this part would do
    assert error < 1e-3 or shares[-1] > 0.7


def test_a_worse_inverse_costs_its_whole_share() -> None:
    grain, error = total_variation(0.5, 1, ndtri_error=2.0**-53), total_variation(0.5, 1, ndtri_error=1e-9)
    # twice the error times the mean of |g|/2 in grid steps
    assert error - grain == pytest.approx(2e-9 * (127.5 / math.sqrt(2 * math.pi) + 0.242), rel=1e-3)


GOLDEN = [
    (0.25, 1_024, 6.05e-10),
    (0.25, PHOTO, 8.89e-8),
    (0.5, 1_024, 1.20e-9),
    (0.5, PHOTO, 1.77e-7),
    (1.0, 1_024, 2.40e-9),
    (1.0, PHOTO, 3.53e-7),
]


@pytest.mark.parametrize(("sigma", "dimensions", "bound"), GOLDEN)
def test_is_negligible_at_53_bits(sigma: float, dimensions: int, bound: float) -> None:
    assert total_variation(sigma, dimensions) == pytest.approx(bound, rel=0.01)


@settings(max_examples=300, deadline=None)
@given(st.floats(1e-4, 5), st.floats(0, 1), st.integers(1, 10**6), st.integers(30, 53))
def test_grows_with_sigma_and_dimensions(sigma: float, more: float, dimensions: int, bits: int) -> None:
    def bound(sigma: float, dimensions: int) -> float:
        try:
            return total_variation(sigma, dimensions, bits=bits)
        except InputError:
            return math.inf

    assert (
        bound(sigma, dimensions) <= bound(sigma * (1 + more), dimensions) <= bound(sigma * (1 + more), dimensions + 1)
    )


def test_grows_with_sigma_wherever_a_boundary_comes_into_reach() -> None:
    largest = -float(ndtri(2.0**-54))
    for k in (0, 1, 2, 10, 1_000):
        near = (k + 0.5) / largest * PIXEL * (1 + np.linspace(-1e-13, 1e-13, 101))
        bounds = [total_variation(sigma, 1) for sigma in near]
        assert all(a <= b * (1 + 1e-12) for a, b in pairwise(bounds))
        assert bounds[0] < bounds[-1]


def test_fewer_bits_are_worse() -> None:
    bounds = [total_variation(0.5, 100, bits=bits) for bits in range(25, 54)]
    assert all(a > b for a, b in pairwise(bounds))


def inverse_error(uniform: float, normal: float) -> float:
    """Relative error of `normal` as the inverse at `uniform`, by two Newton steps at 40 digits."""
    x, target = mpf(normal), mpf(uniform)
    for _ in range(2):
        excess = erfc(-x / sqrt(2)) / 2 - target if x < 0 else (1 - target) - erfc(x / sqrt(2)) / 2
        x -= excess * sqrt(2 * pi) * exp(x * x / 2)
    return float(abs(mpf(normal) / x - 1))


def test_ndtri_is_as_exact_as_assumed() -> None:
    """At cell boundaries, where alone it matters, at seams of the approximation, in the tails, around 1/2."""
    rng = np.random.default_rng(0)
    boundaries = ndtr(np.concatenate([(np.arange(-n, n) + 0.5) / s for s, n in ((30.6, 250), (127.5, 1_000))]))
    seams = np.concatenate(
        [x * (1 + rng.normal(0, 1e-6, 100)) for x in (math.exp(-2), 1 - math.exp(-2), math.exp(-32))]
    )
    tails = np.concatenate([2.0 ** -rng.uniform(1, 54, 500), 1 - 2.0 ** -rng.uniform(1, 53, 500)])
    middle = 0.5 + rng.choice([-1, 1], 300) * 2.0 ** -rng.uniform(2, 53, 300)
    grid = np.rint(np.concatenate([boundaries, seams, tails, middle, rng.random(1_000)]) * 2**53) * 2.0**-53
    uniform = np.append(np.clip(grid, 2.0**-54, 1 - 2.0**-53), [2.0**-54, 2.0**-53, 1 - 2.0**-53])
    uniform = uniform[uniform != 0.5]
    with mp.workdps(40):
        normal = torch.special.ndtri(torch.from_numpy(uniform)).numpy()
        errors = [inverse_error(u, z) for u, z in zip(uniform.tolist(), normal.tolist(), strict=True)]
    assert max(errors) < NDTRI_ERROR / 10
    assert torch.special.ndtri(torch.tensor(0.5, dtype=torch.float64)) == 0


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_refuses_an_impossible_sigma(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma"):
        total_variation(sigma, 1)


def test_refuses_impossible_dimensions_bits_and_errors() -> None:
    with pytest.raises(InputError, match="dimension"):
        total_variation(0.5, 0)
    for bits in (7, 54):
        with pytest.raises(InputError, match="bits"):
            total_variation(0.5, 1, bits=bits)
    for error in (0.0, 0.01, math.nan):
        with pytest.raises(InputError, match="relative error"):
            total_variation(0.5, 1, ndtri_error=error)


def test_refuses_a_vacuous_bound() -> None:
    with pytest.raises(InputError, match="24-bit uniforms"):
        total_variation(0.5, PHOTO, bits=24)
    with pytest.raises(InputError, match="smaller sigma"):
        total_variation(1e300, 1)
    with pytest.raises(InputError):
        total_variation(1e12, PHOTO)


def test_vanishing_noise_has_a_bound_that_is_not_zero() -> None:
    assert 0 < total_variation(1e-6, PHOTO) < 1e-290
