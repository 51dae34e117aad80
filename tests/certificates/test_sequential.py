import math
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise, product, takewhile
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from robustify.certificates.bounds import lower_bound
from robustify.certificates.sequential import (
    GroupSequentialTest,
    geometric_looks,
    group_sequential_test,
    last_boundary,
)
from robustify.errors import InputError

LOOKS = geometric_looks(100_000)
TINY = (3, 6, 9)

# specs: p, share of the true radius, mean draws at alpha = .001 over `LOOKS`, computed independently
GOLDEN = [
    (0.6, 0.5, 1_640),
    (0.6, 0.8, 10_244),
    (0.6, 0.9, 40_864),
    (0.8, 0.5, 201),
    (0.8, 0.8, 1_162),
    (0.8, 0.9, 4_674),
    (0.8, 0.95, 18_784),
    (0.9, 0.5, 127),
    (0.9, 0.8, 699),
    (0.9, 0.9, 2_837),
    (0.9, 0.95, 11_493),
    (0.99, 0.5, 120),
    (0.99, 0.8, 820),
    (0.99, 0.9, 3_685),
    (0.99, 0.95, 15_822),
    (0.999, 0.5, 170),
    (0.999, 0.8, 2_051),
    (0.999, 0.9, 11_277),
    (0.999, 0.95, 52_127),
]

chances = st.floats(0.02, 0.98)
levels = st.floats(1e-4, 0.4)


def paths(looks: tuple[int, ...], p: float) -> list[tuple[tuple[int, ...], Fraction]]:
    """All possible counts of a run at its looks, each with its exact chance."""
    q, draws = Fraction(p), [b - a for a, b in zip((0, *looks), looks, strict=False)]
    found = []
    for new in product(*(range(n + 1) for n in draws)):
        chance = Fraction(1)
        for n, k in zip(draws, new, strict=True):
            chance *= math.comb(n, k) * q**k * (1 - q) ** (n - k)
        found.append((tuple(accumulate(new)), chance))
    return found


class Behaviour(NamedTuple):
    """How a test behaves for a label of known probability: chance of a yes, and mean number of draws."""

    power: float
    mean_draws: float


def behaviour(test: GroupSequentialTest, p: float) -> Behaviour:
    """The exact behaviour of a test, by an independent program; chances below 1e-25 are cut off."""
    p = 0.0 if p < 1e-30 else p  # SciPy overflows at the least chances
    alive, first, before, power, mean = np.ones(1), 0, 0, 0.0, 0.0
    for n, boundary in zip(test.looks, test.boundaries, strict=True):
        new = n - before
        mean += new * float(alive.sum())
        reach = 12 * math.sqrt(new * p * (1 - p)) + 40
        low, high = max(0, math.floor(new * p - reach)), min(new, math.ceil(new * p + reach))
        alive, first = np.convolve(alive, binom.pmf(np.arange(low, high + 1), new, p)), first + low
        power += float(alive[max(0, boundary - first) :].sum())
        alive = alive[: max(0, boundary - first)]
        kept = np.flatnonzero(alive > 1e-25)
        if not kept.size:
            break
        alive, first = alive[kept[0] : kept[-1] + 1], first + int(kept[0])
        before = n
    return Behaviour(power, mean)


def adversary(looks: tuple[int, ...], certifies: list[int], p: float) -> float:
    """The greatest chance of a certificate that any stopping rule can reach, by backward induction."""
    value = [float(h >= certifies[-1]) for h in range(looks[-1] + 1)]
    for n, after, least in zip(looks[-2::-1], looks[:0:-1], certifies[-2::-1], strict=True):
        steps = binom.pmf(range(after - n + 1), after - n, p)
        going_on = [float(steps @ value[h : h + len(steps)]) for h in range(n + 1)]
        value = [max(float(h >= least), going_on[h]) for h in range(n + 1)]
    return float(binom.pmf(range(looks[0] + 1), looks[0], p) @ value)


def test_looks_grow_by_a_tenth_in_multiples_of_32() -> None:
    assert len(LOOKS) == 71
    assert LOOKS[:13] == (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416)
    assert LOOKS[-3:] == (88_576, 97_440, 100_000)


@settings(deadline=None, max_examples=60)
@given(
    n_max=st.integers(1, 20_000),
    first=st.integers(1, 300),
    ratio=st.floats(1, 3),
    multiple=st.integers(16, 300),
)
def test_looks_are_spaced_and_end_at_the_maximum(n_max: int, first: int, ratio: float, multiple: int) -> None:
    looks = geometric_looks(n_max, first=first, ratio=ratio, multiple=multiple)
    steps = [b - a for a, b in pairwise(looks)]
    assert looks[-1] == n_max
    assert all(look % multiple == 0 for look in looks[:-1])
    assert all(step >= multiple for step in steps[:-1])
    assert all(step > 0 for step in steps)


@pytest.mark.parametrize(("p", "share", "mean"), GOLDEN)
def test_mean_draws_have_the_published_values(p: float, share: float, mean: int) -> None:
    p0 = float(ndtr(share * ndtri(p)))
    found = behaviour(group_sequential_test(p0, alpha=0.001, looks=LOOKS), p)
    assert found.mean_draws == pytest.approx(mean, abs=0.6)
    assert found.power > 0.99 or (p, share) == (0.999, 0.95)
    if share >= 0.8:  # a test that knew p would need so many
        oracle = -math.log(0.001) / (p * math.log(p / p0) + (1 - p) * math.log((1 - p) / (1 - p0)))
        assert oracle < found.mean_draws < 1.25 * oracle


@pytest.mark.parametrize("p0", [0.5, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_the_size_is_alpha_or_little_less(p0: float) -> None:
    test = group_sequential_test(p0, alpha=0.001, looks=LOOKS)
    assert (0.95 if p0 < 0.999 else 0.9) * 0.001 <= test.size <= 0.001
    assert behaviour(test, p0).power == pytest.approx(test.size, rel=2e-9)
    assert behaviour(test, p0).power < test.size


@settings(deadline=None, max_examples=60)
@given(p0=chances, alpha=levels)
def test_boundaries_are_the_least_that_enumeration_allows(p0: float, alpha: float) -> None:
    test = group_sequential_test(p0, alpha=alpha, looks=TINY)
    every, spent = paths(TINY, p0), Fraction(0)
    for look, (boundary, share) in enumerate(zip(test.boundaries, (1 / 3, 2 / 3, 1), strict=True)):
        alive = [(counts, chance) for counts, chance in every if not test.crossed(counts[:look])]
        tail = {c: sum(chance for counts, chance in alive if counts[look] >= c) for c in range(11)}
        budget = Fraction(alpha) * Fraction(share) - spent
        assert tail[boundary] <= budget * (1 + Fraction(1, 10**12))
        assert boundary == 0 or tail[boundary - 1] > budget * (1 - Fraction(1, 10**8)) - Fraction(1, 10**25)
        spent += tail[boundary]
    assert spent <= Fraction(test.size) <= spent * (1 + Fraction(1, 10**8)) + Fraction(1, 10**25)


def test_tails_too_small_to_follow_are_spent() -> None:
    test = group_sequential_test(0.5, alpha=2e-30, looks=(100,))
    assert 0.5**100 <= test.size <= 2e-30


@settings(deadline=None, max_examples=60)
@given(p0=chances, alpha=levels, p=st.floats(0, 1))
def test_power_and_mean_draws_are_those_of_enumeration(p0: float, alpha: float, p: float) -> None:
    test = group_sequential_test(p0, alpha=alpha, looks=TINY)
    power, mean = Fraction(0), Fraction(0)
    for counts, chance in paths(TINY, p):
        crossed = [test.crossed(counts[: look + 1]) for look in range(len(TINY))]
        power += chance * crossed[-1]
        mean += chance * (TINY[crossed.index(True)] if crossed[-1] else TINY[-1])
    assert behaviour(test, p) == pytest.approx((float(power), float(mean)), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(p0=st.floats(0.3, 0.99), alpha=levels, ps=st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_power_grows_with_the_truth(p0: float, alpha: float, ps: list[float]) -> None:
    test = group_sequential_test(p0, alpha=alpha, looks=(16, 32, 64, 128))
    power = [behaviour(test, p).power for p in sorted(ps)]
    assert all(a <= b + 1e-12 for a, b in pairwise(power))
    assert all(behaviour(test, p).power <= alpha for p in ps if p <= p0)


@pytest.mark.parametrize("p0", [0.5, 0.8, 0.95])
def test_no_rule_for_when_to_stop_reaches_more_than_alpha(p0: float) -> None:
    looks = geometric_looks(500)
    test = group_sequential_test(p0, alpha=0.01, looks=looks)
    assert adversary(looks, list(test.boundaries), p0) == pytest.approx(test.size, rel=1e-8)
    assert all(adversary(looks, list(test.boundaries), p) <= 0.01 for p in (0.3 * p0, 0.9 * p0, p0))
    naive = [next(h for h in range(n + 2) if h > n or lower_bound(h, n, alpha=0.01) > p0) for n in looks]
    assert adversary(looks, naive, p0) > 0.02  # the fixed-n bound, looked at repeatedly


def test_the_looks_may_spend_what_their_rule_allows() -> None:
    test = group_sequential_test(0.8, alpha=0.001, looks=LOOKS)
    early = behaviour(replace(test, looks=LOOKS[:-1], boundaries=test.boundaries[:-1]), 0.8)
    assert 0.95 < early.power / (0.001 * 70 / 71) <= 1
    last = last_boundary(0.8, alpha=0.001, looks=LOOKS, boundaries=test.boundaries[:-1])
    assert last == test.boundaries[-1]
    lower = replace(test, boundaries=(*test.boundaries[:-1], last - 1))
    assert behaviour(lower, 0.8).power > 0.001


def nested_claims(tests: list[GroupSequentialTest], counts: tuple[int, ...]) -> int:
    """Number of thresholds that a decision claims: each needs all smaller ones to be crossed too, at any look."""
    return sum(1 for _ in takewhile(lambda test: test.crossed(counts), tests))


@settings(deadline=None, max_examples=25)
@given(
    thresholds=st.lists(chances, min_size=3, max_size=3, unique=True).map(sorted),
    alpha=levels,
    p=chances,
    exact=st.booleans(),
)
def test_nested_claims_are_false_with_chance_at_most_alpha(
    thresholds: list[float], alpha: float, p: float, exact: bool
) -> None:
    """The truth is any p, or a threshold itself, where the error is greatest."""
    truth = thresholds[1] if exact else p
    tests = [group_sequential_test(p0, alpha=alpha, looks=TINY) for p0 in thresholds]
    true = sum(p0 < truth for p0 in thresholds)
    wrong = sum(chance for counts, chance in paths(TINY, truth) if nested_claims(tests, counts) > true)
    assert wrong <= Fraction(alpha)


def leader_error(test: GroupSequentialTest) -> float:
    """The chance that either of two equally likely classes ever crosses, by an independent program."""
    alive, wrong, trials = {0: 1.0}, 0.0, 0
    for n, boundary in zip(test.looks, test.boundaries, strict=True):
        steps, after = binom.pmf(range(n - trials + 1), n - trials, 0.5), dict[int, float]()
        for h, chance in alive.items():
            for k, step in enumerate(steps):
                after[h + k] = after.get(h + k, 0.0) + chance * step
        wrong += sum(chance for h, chance in after.items() if max(h, n - h) >= boundary)
        alive = {h: chance for h, chance in after.items() if max(h, n - h) < boundary}
        trials = n
    return wrong


@pytest.mark.parametrize("looks", [(20, 40, 60), (30,), (8, 16, 24, 32, 40, 48)])
def test_a_selection_free_test_may_follow_the_leader(looks: tuple[int, ...]) -> None:
    free = group_sequential_test(0.5, alpha=0.05, looks=looks, selection_free=True)
    plain = group_sequential_test(0.5, alpha=0.05, looks=looks)
    assert leader_error(free) <= 0.05 < leader_error(plain)
    assert free.size <= 0.5 * 0.05


def test_following_the_leader_has_the_published_error() -> None:
    plain = group_sequential_test(0.5, alpha=0.001, looks=(1_000,))
    free = group_sequential_test(0.5, alpha=0.001, looks=(1_000,), selection_free=True)
    assert leader_error(plain) == pytest.approx(1.73e-3, rel=0.005)
    assert leader_error(free) == pytest.approx(8.9e-4, rel=0.005)


@settings(deadline=None, max_examples=40)
@given(p0=st.floats(0.5, 0.95), alpha=st.floats(1e-4, 0.05), shares=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_false_classes_together_cross_with_chance_at_most_alpha(p0: float, alpha: float, shares: list[float]) -> None:
    """The classes have any probabilities below the threshold, and their chances of crossing add up."""
    test = group_sequential_test(p0, alpha=alpha, looks=(16, 32, 64, 96), selection_free=True)
    ps = [min(p0, share / max(1.0, sum(shares))) for share in [*shares, 0.0]]
    assert sum(behaviour(test, p).power for p in ps) <= alpha
    assert all(behaviour(test, p).power <= p / p0 * test.size + 1e-25 for p in ps)


@pytest.mark.parametrize("p0", [0.5, 0.6, 0.9, 0.99, 0.999])
def test_selection_free_tests_of_usual_levels_exist(p0: float) -> None:
    test = group_sequential_test(p0, alpha=0.001, looks=LOOKS, selection_free=True)
    assert 0.9 * p0 * 0.001 <= test.size <= p0 * 0.001


@pytest.mark.parametrize(("p0", "alpha", "text"), [(0.49, 0.01, "at least 1/2"), (0.6, 0.9, "smaller alpha")])
def test_a_selection_free_test_without_proof_is_refused(p0: float, alpha: float, text: str) -> None:
    with pytest.raises(InputError, match=text):
        group_sequential_test(p0, alpha=alpha, looks=(100, 200), selection_free=True)


def test_a_look_that_cannot_certify_says_so() -> None:
    test = group_sequential_test(0.9, alpha=0.001, looks=(32, 64, 96))
    assert test.boundaries[:2] == (33, 65)
    assert not test.crossed([32, 64])
    assert test.crossed([32, 64, 96])
    assert behaviour(test, 1.0) == (1.0, 96.0)
    assert behaviour(test, 0.0) == (0.0, 96.0)


@pytest.mark.parametrize("counts", [(-1,), (4,), (3, 7), (1, 2, 3, 4)])
def test_impossible_counts_are_refused(counts: tuple[int, ...]) -> None:
    test = group_sequential_test(0.5, alpha=0.1, looks=TINY)
    with pytest.raises(InputError, match="expected counts"):
        test.crossed(counts)


@pytest.mark.parametrize(
    ("p0", "alpha", "looks"),
    [
        (0.0, 0.1, TINY),
        (1.0, 0.1, TINY),
        (math.nan, 0.1, TINY),
        (0.5, 0.0, TINY),
        (0.5, 0.1, ()),
        (0.5, 0.1, (0, 5)),
        (0.5, 0.1, (5, 5)),
    ],
)
def test_impossible_tests_are_refused(p0: float, alpha: float, looks: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        group_sequential_test(p0, alpha=alpha, looks=looks)


def test_looks_that_do_not_grow_are_refused() -> None:
    with pytest.raises(InputError, match="a finite ratio of at least 1"):
        geometric_looks(100, ratio=0.9)
