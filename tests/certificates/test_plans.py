import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from robustify.certificates.plans import AdaptivePlan, Claim, DecisionPlan, FixedPlan, Look, Plan, plan_of
from robustify.certificates.radius import gaussian_radius
from robustify.certificates.transcript import ESTIMATION, SELECTION, Poll, Request, Transcript
from robustify.errors import InputError

SIGMA = 0.5


def play(
    plan: Plan, p: tuple[float, ...], rng: np.random.Generator, *, to_the_end: bool = False
) -> list[tuple[Look, ...]]:
    """Looks of one run with the first class as the label; every prefix, or up to where the plan stops."""
    votes, looks, seen = np.zeros(len(p), dtype=int), [], []
    for before, n in zip((0, *plan.schedule), plan.schedule, strict=False):
        votes += rng.multinomial(n - before, p)
        looks.append(Look(n, int(votes[0]), int(votes[1:].max())))
        seen.append(tuple(looks))
        if not to_the_end and plan.decided(looks):
            break
    return seen


PLANS = [
    FixedPlan(SIGMA, 0.1, 10, 600),
    AdaptivePlan(SIGMA, 0.1, 10, 600),
    DecisionPlan(SIGMA, 0.1, 10, 600, radii=(0.1, 0.2, 0.4)),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
@pytest.mark.parametrize("p", [(0.5, 0.5), (0.4, 0.35, 0.25), (0.65, 0.35), (0.9, 0.06, 0.04)])
def test_no_stopping_rule_makes_a_claim_false_more_often_than_alpha(plan: Plan, p: tuple[float, ...]) -> None:
    """The user peeks at every look and takes the largest radius that was ever claimed."""
    rng, runs = np.random.default_rng(1), 600
    truth = gaussian_radius(p[0], max(p[1:]), sigma=SIGMA) + 1e-9
    false = sum(
        any(plan.claim(looks).radius > truth for looks in play(plan, p, rng, to_the_end=True)) for _ in range(runs)
    )
    assert false <= plan.alpha * runs + 3 * math.sqrt(plan.alpha * (1 - plan.alpha) * runs)


def test_naive_peeking_would_fail_that_test() -> None:
    """The guard above has teeth: fixed-n bounds read at every look of the adaptive plan."""
    plan, rng, runs = AdaptivePlan(SIGMA, 0.1, 10, 20_000), np.random.default_rng(1), 600
    naive = FixedPlan(SIGMA, 0.1, 10, 20_000)
    false = sum(
        any(naive.claim(looks).radius > 1e-9 for looks in play(plan, (0.5, 0.5), rng, to_the_end=True))
        for _ in range(runs)
    )
    assert false > plan.alpha * runs + 3 * math.sqrt(plan.alpha * (1 - plan.alpha) * runs)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.99, 0.999])
def test_an_adaptive_plan_loses_next_to_nothing_at_the_end(p: float) -> None:
    n = 100_000
    adaptive, fixed = AdaptivePlan(1.0, 0.001, 10, n), FixedPlan(1.0, 0.001, 10, n)
    looks = [Look(m, round(m * p), m - round(m * p)) for m in adaptive.schedule]
    loss = fixed.claim(looks[-1:]).radius - adaptive.claim(looks).radius
    assert -1e-9 < loss <= 0.003


def test_an_adaptive_plan_stops_early_where_the_radius_is_nearly_reached() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 10, 100_000)
    rng = np.random.default_rng(0)
    for p in ((0.99, 0.01), (0.8, 0.1, 0.1)):
        looks = play(plan, p, rng)[-1]
        fixed = FixedPlan(SIGMA, 0.001, 10, 100_000)
        final = fixed.claim([Look(100_000, round(1e5 * p[0]), round(1e5 * p[1]))]).radius
        assert looks[-1].n < 60_000
        assert plan.claim(looks).radius > 0.97 * final


def test_a_hopeless_image_is_given_up_early() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 10, 100_000)
    assert plan.decided([Look(128, 40, 60)])
    assert not plan.decided([Look(128, 60, 58)])


def test_decisions_are_nested_and_say_how_far() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, radii=(0.5, 0.25))
    assert plan.radii == (0.25, 0.5)
    all_agree = [Look(n, n, 0) for n in plan.schedule]
    first = next(k for k in range(1, len(all_agree)) if plan.claim(all_agree[:k]).radius >= 0.25)
    both = next(k for k in range(1, len(all_agree)) if plan.claim(all_agree[:k]).radius >= 0.5)
    assert first < both
    assert plan.claim(all_agree[: first - 1] or all_agree[:0] or [Look(32, 0, 32)]).radius == 0
    assert 0.25 < plan.claim(all_agree[:first]).radius < 0.2500001
    assert plan.decided(all_agree[:both])
    assert not plan.decided(all_agree[: both - 1])


def test_a_decision_tests_the_probability_that_its_radius_needs() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, radii=(0.25,))
    assert plan.tests[0].p0 == pytest.approx(NormalDist().cdf(0.5), abs=1e-8)
    assert plan.tests[0].p0 > NormalDist().cdf(0.5)
    slacked = replace(plan, slack=0.01)
    assert slacked.tests[0].p0 == pytest.approx(plan.tests[0].p0 + 0.01)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
def test_slack_only_ever_shrinks_claims(plan: Plan) -> None:
    slacked = replace(plan, slack=0.01)
    looks = [Look(n, round(0.9 * n), n - round(0.9 * n)) for n in plan.schedule]
    assert slacked.claim(looks).radius <= plan.claim(looks).radius
    if plan.rule != "decision":
        assert slacked.claim(looks).p_lower == pytest.approx(plan.claim(looks).p_lower - 0.01)
        assert slacked.claim(looks).p_upper == pytest.approx(plan.claim(looks).p_upper + 0.01)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
def test_a_plan_comes_back_from_what_a_row_stores(plan: Plan) -> None:
    settings = {"sigma": plan.sigma, "alpha": plan.alpha, "n0": plan.n0, "n": plan.n, "slack": plan.slack}
    assert plan_of(plan.rule, **settings, radii=getattr(plan, "radii", ())) == plan
    with pytest.raises(InputError, match="got 'guess'"):
        plan_of("guess", **settings)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
def test_a_transcript_asks_in_order_and_never_for_more_than_n(plan: Plan) -> None:
    transcript, asked = Transcript(plan, 3), 0
    assert transcript.request == Request(SELECTION, 10)
    transcript.answer(Request(SELECTION, 10), (1, 6, 3))
    assert transcript.guess == 1
    while (request := transcript.request) is not None:
        assert request.stage == ESTIMATION
        asked += request.draws
        won = request.draws // 2 + 1
        transcript.answer(request, (0, won, request.draws - won - 1))  # one draw fails each time
    assert asked == transcript.n <= plan.n
    assert transcript.looks[-1].label == transcript.votes[1]
    assert transcript.looks[-1].rival == transcript.votes[2]


def test_failed_draws_are_a_rival() -> None:
    transcript = Transcript(FixedPlan(SIGMA, 0.1, 10, 100), 2)
    transcript.answer(Request(SELECTION, 10), (10, 0))
    transcript.answer(Request(ESTIMATION, 100), (60, 5))
    assert transcript.looks == [Look(100, 60, 35)]


def test_a_poll_asks_once() -> None:
    poll = Poll(2, 7)
    assert poll.request is not None
    poll.answer(poll.request, (3, 4))
    assert (poll.request, poll.votes) == (None, [3, 4])


def test_an_abstaining_claim_has_no_radius() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, radii=(0.25,))
    assert plan.claim([Look(32, 10, 22)]) == Claim(0.0, 0.0, 1.0)
