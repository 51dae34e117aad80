from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy.signal import convolve2d
from scipy.stats import binom

from robustify.certificates.anytime import sequential_lower_bound
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan, sequential_bounds
from robustify.certificates.family import Look
from robustify.certificates.plans import NOTHING
from robustify.certificates.sequential import geometric_looks, group_sequential_test
from robustify.errors import InputError
from tests.certificates.examples import LEADER, SIGMA


def leader_error(boundaries: tuple[int, ...], looks: tuple[int, ...], p: tuple[float, float, float]) -> float:
    """The exact chance that any of three classes ever crosses."""
    alive, wrong, trials = np.ones((1, 1)), 0.0, 0
    for n, boundary in zip(looks, boundaries, strict=True):
        a, b = np.indices((n - trials + 1,) * 2)
        step = binom.pmf(a, n - trials, p[0]) * binom.pmf(b, np.maximum(n - trials - a, 0), p[1] / (1 - p[0]))
        alive = convolve2d(alive, step)
        a, b = np.indices(alive.shape)
        crossed = (np.maximum(np.maximum(a, b), n - a - b) >= boundary) & (a + b <= n)
        wrong += float(alive[crossed].sum())
        alive[crossed] = 0
        trials = n
    return wrong


@pytest.mark.parametrize("p", [(0.5, 0.5, 0.0), (0.5, 0.25, 0.25), (0.49, 0.49, 0.02), (0.34, 0.33, 0.33)])
def test_following_the_leader_is_false_with_chance_at_most_alpha(p: tuple[float, float, float]) -> None:
    """No class exceeds a half, so that any claim is false."""
    plan = LeaderPlan(SIGMA, 0.05, 0, 96, radii=(1e-6,))
    assert leader_error(plan.tests[0].boundaries, plan.schedule, p) <= plan.alpha


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.6])
def test_following_the_leader_spends_its_alpha_on_a_label_at_the_threshold(radius: float) -> None:
    plan = LeaderPlan(SIGMA, 0.05, 0, 96, radii=(radius,))
    p0 = plan.tests[0].p0
    error = leader_error(plan.tests[0].boundaries, plan.schedule, (p0, 1 - p0, 0.0))
    assert 0.5 * p0 * plan.alpha < error <= plan.alpha


def test_following_the_leader_uncorrected_would_fail_that_test() -> None:
    plan = LeaderPlan(SIGMA, 0.05, 0, 96, radii=(1e-6,))
    naive = group_sequential_test(plan.tests[0].p0, alpha=plan.alpha, looks=plan.schedule)
    assert leader_error(naive.boundaries, plan.schedule, (0.5, 0.5, 0.0)) > 1.5 * plan.alpha


def test_a_leader_has_no_help_from_the_runner_up() -> None:
    selected, leader = (
        plan(SIGMA, 0.05, n0, 2_000, radii=(0.1,)) for plan, n0 in ((DecisionPlan, 10), (LeaderPlan, 0))
    )
    looks = [Look(n, round(0.48 * n), round(0.26 * n)) for n in leader.schedule]
    assert selected.prove(looks).radius > 0.1
    assert leader.prove(looks).radius == 0
    assert (selected.decided(looks[:12]), leader.decided(looks[:12])) == (False, True)


def test_a_leader_is_decided_once_all_radii_are_or_hope_is_gone() -> None:
    assert not LEADER.decided([Look(32, 29, 2)])
    assert LEADER.decided([Look(n, n, 0) for n in LEADER.schedule[:3]])
    assert LEADER.decided([Look(32, 9, 9)])


@pytest.mark.parametrize("plan", [LeaderPlan, KnownLabelPlan])
def test_plans_without_a_selection_draw_none(plan: type[LeaderPlan] | type[KnownLabelPlan]) -> None:
    with pytest.raises(InputError, match="got n0 = 10"):
        plan(SIGMA, 0.05, 10, 600, radii=(0.1,))
    with pytest.raises(InputError, match="n0 to be a whole number of at least 1"):
        DecisionPlan(SIGMA, 0.05, 0, 600, radii=(0.1,))


def test_decisions_are_nested_and_say_how_far() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, radii=(0.25, 0.5))
    all_agree = [Look(n, n, 0) for n in plan.schedule]
    first = next(k for k in range(1, len(all_agree)) if plan.prove(all_agree[:k]).radius >= 0.25)
    both = next(k for k in range(1, len(all_agree)) if plan.prove(all_agree[:k]).radius >= 0.5)
    assert first < both
    assert plan.prove(all_agree[: first - 1] or all_agree[:0] or [Look(32, 0, 32)]).radius == 0
    assert 0.25 < plan.prove(all_agree[:first]).radius < 0.2500001
    assert plan.decided(all_agree[:both])
    assert not plan.decided(all_agree[: both - 1])


def test_a_decision_tests_the_probability_that_its_radius_needs() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, radii=(0.25,))
    assert plan.tests[0].p0 == pytest.approx(NormalDist().cdf(0.5), abs=1e-8)
    assert plan.tests[0].p0 > NormalDist().cdf(0.5)
    slacked = replace(plan, slack=0.01)
    assert slacked.tests[0].p0 == pytest.approx(plan.tests[0].p0 + 0.01)


def test_the_two_routes_of_a_decision_share_alpha() -> None:
    plan = DecisionPlan(SIGMA, 0.05, 10, 2_000, radii=(0.1,))
    looks = [Look(n, round(0.48 * n), round(0.26 * n)) for n in plan.schedule]
    assert not plan.tests[0].crossed([look.label for look in looks])
    proof = plan.prove(looks)
    rest = sequential_bounds(looks, plan.schedule, alpha=plan.alpha - plan.tests[0].alpha)
    assert proof.radius > 0.1
    assert (proof.p_lower, proof.p_upper) == pytest.approx(rest, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("kind", [DecisionPlan, KnownLabelPlan])
def test_the_test_takes_three_quarters_of_alpha_and_the_runner_up_one(
    kind: type[DecisionPlan] | type[KnownLabelPlan], alpha: float
) -> None:
    plan = kind(SIGMA, alpha, 10 if kind is DecisionPlan else 0, 2_000, radii=(0.1,))
    assert plan.tests[0].alpha == pytest.approx(0.75 * alpha, rel=1e-12)
    assert 0.7 * alpha < plan.tests[0].size <= 0.75 * alpha
    looks = [Look(n, round(0.48 * n), round(0.24 * n)) for n in plan.schedule]
    assert not plan.tests[0].crossed([look.label for look in looks])
    proof = plan.prove(looks)
    assert proof.radius > 0.1
    assert proof[1:] == pytest.approx(sequential_bounds(looks, plan.schedule, alpha=0.25 * alpha), rel=1e-12)


def test_bounds_on_label_and_rival_pay_half_of_alpha_each() -> None:
    schedule = geometric_looks(600)
    looks = [Look(n, round(0.7 * n), round(0.2 * n)) for n in schedule[:5]]
    p_lower, p_upper = sequential_bounds(looks, schedule, alpha=0.02)
    assert p_lower == sequential_lower_bound([look.label for look in looks], schedule, alpha=0.01)
    others = sequential_lower_bound([look.n - look.rival for look in looks], schedule, alpha=0.01)
    assert p_upper == pytest.approx(1 - others, rel=1e-12)
    assert p_upper >= 1 - others


def test_a_decision_shows_a_bound_on_votes_under_ideal_noise() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, 0.01, radii=(0.25,))
    proof = plan.prove([Look(n, n, 0) for n in plan.schedule])
    assert NormalDist().cdf(0.5) < proof.p_lower < NormalDist().cdf(0.5) + 1e-8
    assert 1 - proof.p_lower <= proof.p_upper < 1 - proof.p_lower + 1e-15


def test_an_abstaining_proof_has_no_radius() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, radii=(0.25,))
    assert plan.prove([Look(32, 10, 22)]) == NOTHING == (0.0, 0.0, 1.0)


def test_a_radius_counts_only_after_all_smaller_ones() -> None:
    plan = DecisionPlan(SIGMA, 0.05, 10, 600, radii=(0.1, 0.2))
    looks = [Look(32, 32, 0)]
    assert plan.prove(looks).radius > 0.2
    never = replace(plan.tests[0], boundaries=tuple(n + 1 for n in plan.tests[0].looks))
    plan.__dict__["tests"] = (never, plan.tests[1])
    plan.__dict__["_runner_up"] = lambda _: NOTHING
    assert plan.prove(looks).radius == 0


def test_a_leaders_larger_radius_rests_on_looks_after_its_smaller_one() -> None:
    plan = LeaderPlan(SIGMA, 0.05, 0, 600, radii=(0.1, 0.2))
    looks = [Look(32, 32, 0), Look(64, 33, 31), Look(96, 65, 31)]
    late = replace(plan.tests[0], boundaries=(33, 33, *plan.tests[0].boundaries[2:]))
    early = replace(plan.tests[1], boundaries=(32, 65, *(n + 1 for n in plan.tests[1].looks[2:])))
    plan.__dict__["tests"] = (late, early)
    assert 0.1 < plan.prove(looks[:2]).radius < 0.2  # another class may have led at the first look
