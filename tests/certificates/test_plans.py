import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from robustify.certificates.bounds import lower_bound
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan
from robustify.certificates.family import Look
from robustify.certificates.plans import NOTHING, AdaptivePlan, FixedPlan, GaussianPlan
from robustify.certificates.radii import gaussian_radius
from robustify.errors import InputError
from tests.certificates.examples import PLANS, SIGMA


def play(
    plan: GaussianPlan, p: tuple[float, ...], rng: np.random.Generator, *, to_the_end: bool = False
) -> list[tuple[Look, ...]]:
    """All prefixes of the looks of a run that tests the first class, to the end or to where the plan stops."""
    votes, looks, seen = np.zeros(len(p), dtype=int), [], []
    for before, n in zip((0, *plan.schedule), plan.schedule, strict=False):
        votes += rng.multinomial(n - before, p)
        looks.append(Look(n, int(votes[0]), int(votes[1:].max())))
        seen.append(tuple(looks))
        if not to_the_end and plan.decided(looks):
            break
    return seen


@pytest.mark.parametrize("plan", PLANS[:3], ids=lambda p: p.rule)
@pytest.mark.parametrize("p", [(0.5, 0.5), (0.4, 0.35, 0.25), (0.65, 0.35), (0.9, 0.06, 0.04)])
def test_no_stopping_rule_makes_a_claim_false_more_often_than_alpha(plan: GaussianPlan, p: tuple[float, ...]) -> None:
    """The user peeks at every look and takes the largest radius that was ever claimed."""
    rng, runs = np.random.default_rng(1), 250
    truth = gaussian_radius(p[0], max(p[1:]), sigma=SIGMA) + 1e-9
    false = sum(
        any(plan.prove(looks).radius > truth for looks in play(plan, p, rng, to_the_end=True)) for _ in range(runs)
    )
    assert false <= plan.alpha * runs + 3 * math.sqrt(plan.alpha * (1 - plan.alpha) * runs)


def test_naive_peeking_would_fail_that_test() -> None:
    """The test above catches a plan that peeks: it reads fixed-n bounds at every look of the adaptive plan."""
    plan, rng, runs = AdaptivePlan(SIGMA, 0.1, 10, 20_000), np.random.default_rng(1), 600
    naive = FixedPlan(SIGMA, 0.1, 10, 20_000)
    false = sum(
        any(naive.prove(looks).radius > 1e-9 for looks in play(plan, (0.5, 0.5), rng, to_the_end=True))
        for _ in range(runs)
    )
    assert false > plan.alpha * runs + 3 * math.sqrt(plan.alpha * (1 - plan.alpha) * runs)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
def test_slack_only_ever_shrinks_claims(plan: GaussianPlan) -> None:
    slacked = replace(plan, slack=0.01)
    looks = [Look(n, round(0.9 * n), n - round(0.9 * n)) for n in plan.schedule]
    assert slacked.prove(looks).radius <= plan.prove(looks).radius
    if plan.rule in ("fixed", "adaptive"):
        assert slacked.prove(looks).p_lower == pytest.approx(plan.prove(looks).p_lower - 0.01)
        assert slacked.prove(looks).p_upper == pytest.approx(plan.prove(looks).p_upper + 0.01)


def test_an_adaptive_plan_draws_as_many_as_its_selection_makes_worth_while() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 100, 100_000)
    fixed = FixedPlan(SIGMA, 0.001, 100, 100_000)
    for selection in ((99, 1), (80, 10, 10), (1, 90, 3)):
        after = plan.after(selection)
        label, rival = sorted((*selection, 100 - sum(selection)))[:-3:-1]
        before = after.schedule[-2]
        full, enough, fewer = (
            fixed.prove([Look(n, round(n * label / 100), round(n * rival / 100))]).radius
            for n in (100_000, after.n, before)
        )
        assert after.n < 60_000
        assert fewer < 0.98 * full <= enough
    assert plan.after((50, 50)) == plan  # nothing to hope for, so nothing to plan
    assert fixed.after((99, 1)) == fixed


def test_an_adaptive_plan_claims_at_its_end_only_what_fixed_draws_prove() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 100, 10_000)
    looks = [Look(n, n - n // 10, n // 10) for n in plan.schedule]
    assert plan.prove(looks[:-1]) == NOTHING
    assert plan.prove(looks) == FixedPlan(SIGMA, 0.001, 100, 10_000).prove(looks)


@pytest.mark.parametrize("p", [0.5, 0.45, 0.3])
def test_adaptive_claims_are_false_with_chance_at_most_alpha(p: float) -> None:
    """The exact chance for two classes, the first of which is not the smoothed label, if no run gives up."""
    plan, wrong = AdaptivePlan(SIGMA, 0.1, 20, 600), 0.0
    for votes in range(21):
        label = p if votes >= 10 else 1 - p
        if label > 0.5:
            continue
        n = plan.after((votes, 20 - votes)).n
        least = next(k for k in range(n // 2, n + 2) if k > n or lower_bound(k, n, alpha=0.05) > 0.5)
        wrong += float(binom.pmf(votes, 20, p) * binom.sf(least - 1, n, label))
    assert 0 < wrong <= plan.alpha


def test_a_hopeless_image_is_given_up_early() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 10, 10_000)
    assert plan.decided([Look(640, 200, 300)])
    assert not plan.decided([Look(320, 100, 150)])
    assert not plan.decided([Look(640, 320, 310)])
    assert plan.decided([Look(2_528, 1_260, 1_250)])
    assert not plan.decided([Look(2_528, 2_000, 528)])


@pytest.mark.parametrize("radii", [(), (0.0, 0.1), (-0.1,), (0.2, 0.1), (0.1, 0.1), (math.inf,), (math.nan,)])
def test_radii_that_are_not_positive_and_increasing_are_refused(radii: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="radii to decide, positive and increasing"):
        DecisionPlan(SIGMA, 0.1, 10, 600, radii=radii)


def test_a_radius_that_no_votes_could_certify_is_refused() -> None:
    with pytest.raises(InputError, match=r"600 draws can never certify radius 3 at sigma = 0\.5 (.|\n)*Use more draws"):
        DecisionPlan(SIGMA, 0.1, 10, 600, radii=(0.1, 3.0))


@pytest.mark.parametrize("sigma", [0.0, -0.5, math.inf, math.nan])
def test_noise_without_a_standard_deviation_is_refused(sigma: float) -> None:
    with pytest.raises(InputError, match="expected sigma"):
        FixedPlan(sigma, 0.1, 10, 600)


@pytest.mark.parametrize("slack", [-1e-9, math.nan])
def test_slack_that_would_tighten_bounds_is_refused(slack: float) -> None:
    with pytest.raises(InputError, match="expected slack"):
        FixedPlan(SIGMA, 0.1, 10, 600, slack)


def test_plans_say_what_engine_and_reports_need_to_know() -> None:
    fixed, _, decision, known = PLANS
    assert [plan.most_draws for plan in PLANS] == [610, 610, 610, 600]
    assert [plan.exact for plan in PLANS] == [True, False, False, False]
    assert [plan.needs_truth for plan in PLANS] == [False, False, False, True]
    assert (fixed.radii, decision.radii, fixed.scale) == ((), (0.1, 0.2, 0.4), SIGMA)
    assert [str(plan) for plan in PLANS[:2]] == ["n = 600", "n up to 600"]
    assert str(decision) == "decided at radius 0.1, 0.2, 0.4, n up to 600"
    assert isinstance(known, KnownLabelPlan)
    assert known.note == "tested the true label"
    assert "Only the true label was tested" in known.remark
    assert not any(plan.note or plan.remark for plan in PLANS[:3])


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
def test_no_votes_prove_more_than_the_ceiling(plan: GaussianPlan) -> None:
    proven = max(
        plan.prove(looks).radius
        for begun in (5, 6, 8, 10)
        for looks in [[Look(n, n, 0) for n in replace(plan).after([begun, 10 - begun]).schedule]]
    )
    assert 0.97 * plan.ceiling < proven <= plan.ceiling
    assert plan.ceiling == (plan.radii[-1] * (1 + 1e-9) if plan.radii else plan.prove([Look(600, 600, 0)]).radius)
