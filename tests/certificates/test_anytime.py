import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from itertools import accumulate, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from robustify.certificates.anytime import (
    anytime_lower_bound,
    anytime_upper_bound,
    log_evidence,
    sequential_lower_bound,
)
from robustify.certificates.bounds import lower_bound
from robustify.certificates.sequential import geometric_looks
from robustify.errors import InputError

# specs: p0, chance at p = p0 that the evidence ever reaches 1 / .001 within 20 000 draws
FALSE_CERTIFICATES = [
    (0.5, 8.0e-4),
    (0.6, 8.5e-4),
    (0.8, 8.7e-4),
    (0.9, 9.2e-4),
    (0.95, 9.1e-4),
    (0.99, 8.5e-4),
    (0.999, 5.3e-4),
]

# specs: p, share of the true radius, mean draws of the evidence at alpha = .001, at most 100 000
MEAN_DRAWS = [
    (0.8, 0.5, 179),
    (0.8, 0.8, 1_262),
    (0.8, 0.9, 5_483),
    (0.9, 0.5, 96),
    (0.9, 0.8, 704),
    (0.9, 0.9, 3_113),
    (0.99, 0.5, 80),
    (0.99, 0.8, 754),
    (0.99, 0.9, 3_658),
    (0.999, 0.5, 135),
    (0.999, 0.8, 1_962),
    (0.999, 0.9, 10_859),
]


def follow(p: float, p0: float, horizon: int) -> tuple[float, float]:
    """Chance of reaching 1 / .001 and mean draws, seen from the failures.

    A run with F failures certifies at a time that depends on F alone, and can only do so between failures.
    """
    alive, first, trials, power, mean = np.ones(1), 0, 0, 0.0, 0.0
    due = 1
    for failures in range(horizon):
        while due <= horizon and log_evidence(max(0, due - failures), due, p0) < -math.log(0.001):
            due += 1
        if due > horizon or alive.sum() < 1e-10:
            break
        mean += (due - trials) * alive.sum()
        steps = np.arange(min(due - trials, 60 + int(30 * (1 - p) * (due - trials))) + 1)
        alive = np.convolve(alive, binom.pmf(steps, due - trials, 1 - p))
        trials = due
        reached = max(0, failures + 1 - first)
        power += alive[:reached].sum()
        alive, first = alive[reached:], first + min(reached, len(alive))
        alive = alive[: len(alive) - int(np.searchsorted(np.cumsum(alive[::-1]), 1e-18))]
    return power, mean + (horizon - trials) * float(alive.sum())


def adversary(bound: Callable[[int, int], float], horizon: int, p: float) -> float:
    """The greatest chance of a bound above p that a rule for when to stop can reach, looking at every draw."""
    alive, wrong = np.ones(1), 0.0
    for trials in range(1, horizon + 1):
        alive = np.convolve(alive, [1 - p, p])
        false = np.array([bound(h, trials) > p for h in range(trials + 1)])
        wrong += float(alive[false].sum())
        alive[false] = 0
    return wrong


def exact_evidence(successes: int, trials: int, p0: float) -> float:
    """A second opinion in 60 digits."""
    with mp.workdps(60):
        p, failures = mp.mpf(p0), trials - successes
        a, b = successes + mp.mpf(1) / 2, failures + mp.mpf(1) / 2
        kept = 1 - mp.betainc(a, b, 0, p, regularized=True)
        prior = 2 * mp.asin(mp.sqrt(1 - p))
        return mp.log(mp.beta(a, b) * kept / prior) - successes * mp.log(p) - failures * mp.log(1 - p)


@settings(deadline=None, max_examples=40)
@given(trials=st.integers(1, 3_000), share=st.floats(0, 1), away=st.floats(-3, 6))
def test_evidence_is_the_exact_one_rounded_down(trials: int, share: float, away: float) -> None:
    successes = round(share * trials)
    spread = math.sqrt(max(share * (1 - share), 1 / trials) / trials)
    p0 = min(max(share - away * spread, 1e-6), 1 - 1e-6)
    gap = float(exact_evidence(successes, trials, p0) - log_evidence(successes, trials, p0))
    assert 0 <= gap < 1e-10


@pytest.mark.parametrize(
    ("successes", "trials", "p0"),
    [
        (1_000_000, 1_000_000, 0.99999),
        (999_990, 1_000_000, 0.99997),
        (100_000, 100_000, 1 - 1e-9),
        (40, 100_000, 1e-4),
    ],
)
def test_evidence_is_stable_for_long_runs(successes: int, trials: int, p0: float) -> None:
    gap = float(exact_evidence(successes, trials, p0) - log_evidence(successes, trials, p0))
    assert 0 <= gap < 5e-8


def test_evidence_far_on_the_wrong_side_is_minus_infinity() -> None:
    assert log_evidence(10, 100_000, 0.99) == -math.inf


@settings(deadline=None, max_examples=50)
@given(data=st.data(), trials=st.integers(1, 100_000))
def test_evidence_falls_with_the_threshold(data: st.DataObject, trials: int) -> None:
    """Up to half a success below the observed share: there the bound is searched."""
    successes = data.draw(st.integers(1, trials))
    top = (successes - 0.5) / trials
    thresholds = sorted(data.draw(st.lists(st.floats(1e-3, 1), min_size=2, max_size=6)))
    values = [log_evidence(successes, trials, share * top) for share in thresholds]
    assert all(a >= b - 1e-8 for a, b in pairwise(values))


@pytest.mark.parametrize(("p0", "published"), FALSE_CERTIFICATES)
def test_false_certificates_have_the_published_chance(p0: float, published: float) -> None:
    chance, _ = follow(p0, p0, 20_000)
    assert chance == pytest.approx(published, abs=0.6e-5)
    assert chance <= 0.001


@pytest.mark.parametrize(("p", "share", "mean"), MEAN_DRAWS)
def test_mean_draws_have_the_published_values(p: float, share: float, mean: int) -> None:
    _, found = follow(p, float(ndtr(share * ndtri(p))), 100_000)
    assert found == pytest.approx(mean, rel=0.01)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), trials=st.integers(1, 100_000), alpha=st.floats(1e-6, 0.4))
def test_anytime_bound_is_where_the_evidence_suffices(data: st.DataObject, trials: int, alpha: float) -> None:
    successes = data.draw(st.integers(1, trials))
    bound = anytime_lower_bound(successes, trials, alpha=alpha)
    assert 0 < bound < lower_bound(successes, trials, alpha=alpha)
    assert log_evidence(successes, trials, bound) >= -math.log(alpha)
    beyond = bound + 1e-6 * min(bound, 1 - bound)
    assert beyond >= (successes - 0.5) / trials or log_evidence(successes, trials, beyond) < -math.log(alpha)


def test_anytime_bounds_have_the_published_values() -> None:
    """specs: all of n draws agree, at alpha = .001."""
    found = [float(ndtri(anytime_lower_bound(n, n, alpha=0.001))) for n in (1_000, 10_000, 100_000)]
    assert found == pytest.approx([2.407, 3.153, 3.773], abs=5.1e-4)


def test_anytime_bounds_may_be_watched_at_every_draw() -> None:
    """The fixed-n bound may not."""
    anytime, fixed = cache(partial(anytime_lower_bound, alpha=0.05)), cache(partial(lower_bound, alpha=0.05))
    for p in (0.2, 0.5, 0.8, 0.9, 0.95):
        assert adversary(anytime, 60, p) <= 0.05
        assert p == 0.95 or adversary(fixed, 60, p) > 0.05


@settings(deadline=None, max_examples=50)
@given(data=st.data(), trials=st.integers(1, 1_000), alpha=st.floats(1e-6, 0.4))
def test_the_upper_bound_mirrors_the_lower(data: st.DataObject, trials: int, alpha: float) -> None:
    successes = data.draw(st.integers(0, trials))
    upper = anytime_upper_bound(successes, trials, alpha=alpha)
    assert upper == pytest.approx(1 - anytime_lower_bound(trials - successes, trials, alpha=alpha), abs=1e-15)
    assert upper >= 1 - anytime_lower_bound(trials - successes, trials, alpha=alpha)


def test_no_successes_prove_nothing() -> None:
    assert anytime_lower_bound(0, 50, alpha=0.01) == 0
    assert anytime_upper_bound(50, 50, alpha=0.01) == 1
    assert sequential_lower_bound([0, 0], (5, 10), alpha=0.01) == 0


@pytest.mark.parametrize("looks", [(12,), (5, 11), (4, 8, 12), (2, 4, 6, 8, 10, 12)])
@pytest.mark.parametrize("alpha", [0.02, 0.2])
def test_sequential_bound_exceeds_the_truth_with_chance_at_most_alpha(looks: tuple[int, ...], alpha: float) -> None:
    """Every run of a few draws; the truth just below each claim that can be made, where the error is greatest."""
    draws = [b - a for a, b in pairwise((0, *looks))]
    runs = [tuple(accumulate(new)) for new in product(*(range(n + 1) for n in draws))]
    best = {
        run: max(sequential_lower_bound(run[:k], looks, alpha=alpha) for k in range(1, len(looks) + 1)) for run in runs
    }
    worst = Fraction(0)
    for claim in sorted({bound for bound in best.values() if bound > 0}):
        p, wrong = Fraction(math.nextafter(claim, 0)), Fraction(0)
        for run in (run for run in runs if best[run] >= claim):
            steps = [b - a for a, b in pairwise((0, *run))]
            wrong += math.prod(
                (math.comb(n, k) * p**k * (1 - p) ** (n - k) for n, k in zip(draws, steps, strict=True)),
                start=Fraction(1),
            )
        worst = max(worst, wrong)
    assert 0.8 * alpha < worst <= alpha


@pytest.mark.parametrize("p", [0.6, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("quantile", [0.02, 0.5])
def test_sequential_bound_loses_next_to_nothing_to_clopper_pearson(p: float, quantile: float) -> None:
    looks = geometric_looks(100_000)
    last = int(binom.ppf(quantile, 100_000, p))
    counts = [*(int(n * last / 100_000) for n in looks[:-1]), last]
    bound = sequential_lower_bound(counts, looks, alpha=0.001)
    loss = float(ndtri(lower_bound(last, 100_000, alpha=0.001)) - ndtri(bound))
    assert 0 < loss < 0.002  # in units of sigma; the demand is .003
    assert sequential_lower_bound(counts[:-1], looks, alpha=0.001) < bound


@settings(deadline=None, max_examples=40)
@given(data=st.data(), alpha=st.floats(1e-4, 0.2))
def test_sequential_bound_grows_along_a_run_and_stays_below_clopper_pearson(data: st.DataObject, alpha: float) -> None:
    looks, counts, bounds = (20, 30, 45, 60), list[int](), [0.0]
    for n, before in zip(looks, (0, *looks), strict=False):
        counts.append((counts or [0])[-1] + data.draw(st.integers(0, n - before)))
        bounds.append(sequential_lower_bound(counts, looks, alpha=alpha))
    assert bounds == sorted(bounds)
    fixed = [lower_bound(h, n, alpha=alpha) for h, n in zip(counts, looks, strict=True)]
    assert bounds[-1] <= max(fixed)


@settings(deadline=None, max_examples=20)
@given(data=st.data(), n=st.integers(10, 300))
def test_with_one_look_the_sequential_bound_is_clopper_pearson_on_a_grid(data: st.DataObject, n: int) -> None:
    successes = data.draw(st.integers(1, n))
    bound, exact = sequential_lower_bound([successes], (n,), alpha=0.01), lower_bound(successes, n, alpha=0.01)
    assert bound <= exact
    assert float(ndtri(exact) - ndtri(bound)) < 1.001 / (32 * math.sqrt(n))


@pytest.mark.parametrize("counts", [[], [1, 2, 3], [6], [-1], [3, 11]])
def test_counts_that_do_not_fit_the_looks_are_refused(counts: list[int]) -> None:
    with pytest.raises(InputError, match="expected"):
        sequential_lower_bound(counts, (5, 10), alpha=0.01)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    for bound in (anytime_lower_bound, anytime_upper_bound):
        with pytest.raises(InputError, match="successes <= trials"):
            bound(successes, trials, alpha=0.1)
    with pytest.raises(InputError, match="successes <= trials"):
        log_evidence(successes, trials, 0.5)


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(InputError, match="0 < alpha < 1"):
        anytime_lower_bound(1, 2, alpha=0.0)
    with pytest.raises(InputError, match="0 < alpha < 1"):
        sequential_lower_bound([1], (2,), alpha=1.0)
    with pytest.raises(InputError, match="threshold"):
        log_evidence(1, 2, 1.0)
