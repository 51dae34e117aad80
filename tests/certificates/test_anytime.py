import math
from fractions import Fraction
from itertools import accumulate, pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import binom

from robustify.certificates.anytime import sequential_lower_bound
from robustify.certificates.bounds import lower_bound
from robustify.certificates.sequential import geometric_looks
from robustify.errors import InputError


def test_no_successes_prove_nothing() -> None:
    assert sequential_lower_bound([0, 0], (5, 10), alpha=0.01) == 0


@pytest.mark.parametrize("looks", [(12,), (5, 11), (4, 8, 12), (2, 4, 6, 8, 10, 12)])
@pytest.mark.parametrize("alpha", [0.02, 0.2])
def test_sequential_bound_exceeds_the_truth_with_chance_at_most_alpha(looks: tuple[int, ...], alpha: float) -> None:
    """All runs of a few draws are tried; the truth lies just below each possible claim, where the error is greatest."""
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


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(InputError, match="0 < alpha < 1"):
        sequential_lower_bound([1], (2,), alpha=1.0)
