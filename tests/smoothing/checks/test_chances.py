"""Every test of the noise keeps its level exactly."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from robustify.smoothing.checks import chances, finding
from robustify.smoothing.checks import noise_law as noise_check
from robustify.smoothing.checks.noise_law import NoiseCheck


def test_every_test_pays_its_share() -> None:
    findings = NoiseCheck(0.5, grid=True).findings()
    assert len({finding.test for finding in findings}) == len(findings) == finding.TESTS
    assert finding.LEVEL * len(findings) <= finding.FALSE_ALARM * (1 + 1e-12)


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (7, 0.5), (40, 0.125), (300, 0.1), (2_000, 0.5)])
def test_a_binomial_test_keeps_its_level_exactly(n: int, p: float) -> None:
    found = np.array([chances.coincidence(k, n, p) for k in range(n + 1)])
    law = binom.pmf(np.arange(n + 1), n, p)
    for level in (0.5, 0.05, 1e-3, 1e-6):
        assert law[found < level].sum() <= level
    assert chances.coincidence(0, n, p) == pytest.approx(min(1, 2 * (1 - p) ** n), rel=1e-9)


@pytest.mark.parametrize("n", [1, 5, 60])
@pytest.mark.parametrize("law", [(0.5, 0.5), (1 / 3, 1 / 3, 1 / 3), (0.01, 0.19, 0.8)])
def test_the_shape_test_keeps_its_level_exactly(n: int, law: tuple[float, ...]) -> None:
    """Every possible sample, weighted by its probability: the bound holds at each divergence that can occur."""
    samples = [k for k in product(range(n + 1), repeat=len(law) - 1) if sum(k) <= n]
    counts = np.array([(*k, n - sum(k)) for k in samples])
    divergence = np.array([chances.divergence_of(k, np.array(law)) for k in counts])
    weight = multinomial.pmf(counts, n, law)
    for value in np.unique(divergence):
        assert weight[divergence >= value - 1e-12].sum() <= chances.divergence_chance(value, len(law)) + 1e-12


@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0, 30.6])
def test_rounded_law(scale: float) -> None:
    law = chances.rounded_gaussian(scale)
    integers = np.arange(len(law)) - len(law) // 2
    assert law.sum() == pytest.approx(1, abs=1e-15 * len(law))
    assert law @ integers == pytest.approx(0, abs=1e-12)
    if scale >= 3:  # Sheppard's correction
        assert law @ integers**2 == pytest.approx(scale**2 + 1 / 12, rel=1e-12)
        assert chances.near_grid(scale) == pytest.approx(0.1, abs=1e-15)


def test_draws_are_told_apart_by_enough_values() -> None:
    law = chances.rounded_gaussian(30.6)
    folded = np.bincount(np.abs(np.arange(len(law)) - len(law) // 2), weights=law)
    coincidences = math.comb(noise_check._REMEMBERED, 2) * float(folded @ folded) ** np.array([10, 11])
    assert coincidences[1] < finding.LEVEL / 2 < coincidences[0]
    assert noise_check._values_to_tell_draws_apart(law) == 11
    assert noise_check._values_to_tell_draws_apart(chances.rounded_gaussian(0.01)) > 10**9
