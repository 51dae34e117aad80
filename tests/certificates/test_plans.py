import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy.signal import convolve2d
from scipy.stats import binom

from robustify.certificates.bounds import lower_bound
from robustify.certificates.plans import (
    AdaptivePlan,
    Claim,
    DecisionPlan,
    FixedPlan,
    KnownLabelPlan,
    LeaderPlan,
    Look,
    Plan,
    plan_of,
)
from robustify.certificates.radius import gaussian_radius
from robustify.certificates.sequential import group_sequential_test
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
    KnownLabelPlan(SIGMA, 0.1, 0, 600, radii=(0.1, 0.2, 0.4)),
]
LEADER = LeaderPlan(SIGMA, 0.05, 0, 600, radii=(0.1, 0.2, 0.4))


def transcribe(plan: Plan, votes: list[tuple[int, ...]], truth: int | None = None) -> Transcript:
    """A transcript after these answers."""
    transcript = Transcript(plan, len(votes[0]), truth)
    for answer in votes:
        request = transcript.request
        assert request is not None
        assert sum(answer) <= request.draws
        transcript.answer(request, answer)
    return transcript


@pytest.mark.parametrize("plan", PLANS[:3], ids=lambda p: p.rule)
@pytest.mark.parametrize("p", [(0.5, 0.5), (0.4, 0.35, 0.25), (0.65, 0.35), (0.9, 0.06, 0.04)])
def test_no_stopping_rule_makes_a_claim_false_more_often_than_alpha(plan: Plan, p: tuple[float, ...]) -> None:
    """The user peeks at every look and takes the largest radius that was ever claimed."""
    rng, runs = np.random.default_rng(1), 250
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


def test_an_adaptive_plan_draws_as_many_as_its_selection_makes_worth_while() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 100, 100_000)
    fixed = FixedPlan(SIGMA, 0.001, 100, 100_000)
    for selection in ((99, 1), (80, 10, 10), (1, 90, 3)):
        after = plan.after(selection)
        label, rival = sorted((*selection, 100 - sum(selection)))[:-3:-1]
        before = after.schedule[-2]
        full, enough, fewer = (
            fixed.claim([Look(n, round(n * label / 100), round(n * rival / 100))]).radius
            for n in (100_000, after.n, before)
        )
        assert after.n < 60_000
        assert fewer < 0.98 * full <= enough
    assert plan.after((50, 50)) == plan  # nothing to hope for, so nothing to plan
    assert fixed.after((99, 1)) == fixed


def test_an_adaptive_plan_claims_at_its_end_only_what_fixed_draws_prove() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 100, 10_000)
    looks = [Look(n, n - n // 10, n // 10) for n in plan.schedule]
    assert plan.claim(looks[:-1]) == Claim(0.0, 0.0, 1.0)
    assert plan.claim(looks) == FixedPlan(SIGMA, 0.001, 100, 10_000).claim(looks)


@pytest.mark.parametrize("p", [0.5, 0.45, 0.3])
def test_adaptive_claims_are_false_with_chance_at_most_alpha(p: float) -> None:
    """Exactly, for two classes whose first is not the smoothed label; nobody gives up."""
    plan, wrong = AdaptivePlan(SIGMA, 0.1, 20, 600), 0.0
    for votes in range(21):
        label = p if votes >= 10 else 1 - p
        if label > 0.5:
            continue
        n = plan.after((votes, 20 - votes)).n
        least = next(k for k in range(n // 2, n + 2) if k > n or lower_bound(k, n, alpha=0.05) > 0.5)
        wrong += float(binom.pmf(votes, 20, p) * binom.sf(least - 1, n, label))
    assert 0 < wrong <= plan.alpha


def test_an_adaptive_transcript_tests_the_label_with_fresh_draws_only() -> None:
    transcript = transcribe(AdaptivePlan(SIGMA, 0.001, 100, 10_000), [(90, 10)])
    planned = transcript.plan.n
    assert 1_000 < planned < 10_000
    while (request := transcript.request) is not None:
        assert request.stage == ESTIMATION
        transcript.answer(request, (request.draws, 0))
    assert (transcript.n, transcript.votes) == (planned, [planned, 0])


def test_a_hopeless_image_is_given_up_early() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 10, 10_000)
    assert plan.decided([Look(640, 200, 300)])
    assert not plan.decided([Look(320, 100, 150)])
    assert not plan.decided([Look(640, 320, 310)])
    assert plan.decided([Look(2_528, 1_260, 1_250)])
    assert not plan.decided([Look(2_528, 2_000, 528)])


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


def test_a_leader_may_change_until_one_has_earned_a_radius() -> None:
    transcript = transcribe(LEADER, [(17, 15, 0), (2, 28, 2)])
    assert (transcript.guess, transcript.looks) == (1, [Look(32, 17, 15), Look(64, 43, 19)])
    transcript = transcribe(LEADER, [(2, 29, 1), (20, 12, 0), (32, 0, 0)])
    assert LEADER.claim(transcript.looks[:1]).radius > 0.1
    assert (transcript.guess, transcript.selection) == (1, [2, 29, 1])  # though another leads by now
    assert transcript.looks[-1] == Look(96, 41, 54)
    assert transcript.plan.claim(transcript.looks).radius == LEADER.claim(transcript.looks[:1]).radius


def test_a_leader_has_no_help_from_the_runner_up() -> None:
    selected, leader = (
        plan(SIGMA, 0.05, n0, 2_000, radii=(0.1,)) for plan, n0 in ((DecisionPlan, 10), (LeaderPlan, 0))
    )
    looks = [Look(n, round(0.48 * n), round(0.26 * n)) for n in leader.schedule]
    assert selected.claim(looks).radius > 0.1
    assert leader.claim(looks).radius == 0
    assert (selected.decided(looks[:12]), leader.decided(looks[:12])) == (False, True)


def test_a_leader_is_decided_once_all_radii_are_or_hope_is_gone() -> None:
    assert not LEADER.decided([Look(32, 29, 2)])
    assert LEADER.decided([Look(n, n, 0) for n in LEADER.schedule[:3]])
    assert LEADER.decided([Look(32, 9, 9)])


def test_a_known_label_is_tested_without_a_selection() -> None:
    plan = KnownLabelPlan(SIGMA, 0.05, 0, 600, radii=(0.1,))
    transcript = transcribe(plan, [(30, 1, 1)], truth=0)
    assert (transcript.guess, transcript.selection, transcript.request) == (0, [], None)
    assert plan.claim(transcript.looks).radius > 0.1
    lost = transcribe(plan, [(30, 1, 1)], truth=2)
    assert (lost.request, plan.claim(lost.looks).radius) == (None, 0.0)  # another class clearly wins


@pytest.mark.parametrize(
    ("plan", "truth"), [(PLANS[3], None), (PLANS[0], 1), (LEADER, 1), (PLANS[3], 3), (PLANS[3], -1)]
)
def test_a_label_that_is_known_where_it_may_not_be_is_refused(plan: Plan, truth: int | None) -> None:
    with pytest.raises(InputError, match=r"true label|chooses the label itself"):
        Transcript(plan, 3, truth)


@pytest.mark.parametrize("plan", [LeaderPlan, KnownLabelPlan])
def test_plans_without_a_selection_draw_none(plan: type[LeaderPlan] | type[KnownLabelPlan]) -> None:
    with pytest.raises(InputError, match="got n0 = 10"):
        plan(SIGMA, 0.05, 10, 600, radii=(0.1,))
    with pytest.raises(InputError, match="n0 to be a whole number of at least 1"):
        DecisionPlan(SIGMA, 0.05, 0, 600, radii=(0.1,))


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
    if plan.rule in ("fixed", "adaptive"):
        assert slacked.claim(looks).p_lower == pytest.approx(plan.claim(looks).p_lower - 0.01)
        assert slacked.claim(looks).p_upper == pytest.approx(plan.claim(looks).p_upper + 0.01)


@pytest.mark.parametrize("plan", [*PLANS, LEADER], ids=lambda p: p.rule)
def test_a_plan_comes_back_from_what_a_row_stores(plan: Plan) -> None:
    settings = {"sigma": plan.sigma, "alpha": plan.alpha, "n0": plan.n0, "n": plan.n, "slack": plan.slack}
    assert plan_of(plan.rule, **settings, radii=getattr(plan, "radii", ())) == plan
    with pytest.raises(InputError, match="got 'guess'"):
        plan_of("guess", **settings)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
def test_a_transcript_asks_in_order_and_never_for_more_than_n(plan: Plan) -> None:
    transcript, asked = Transcript(plan, 3, 1 if plan.rule == "known label" else None), 0
    if plan.selects:
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
    assert transcript.looks[-1].rival == transcript.n - transcript.votes[1]  # the one other class, and failures


def test_failed_draws_are_the_rivals() -> None:
    transcript = Transcript(FixedPlan(SIGMA, 0.1, 10, 100), 2)
    transcript.answer(Request(SELECTION, 10), (10, 0))
    transcript.answer(Request(ESTIMATION, 100), (60, 5))
    assert transcript.looks == [Look(100, 60, 40)]


def test_a_poll_asks_once() -> None:
    poll = Poll(2, 7)
    assert poll.request is not None
    poll.answer(poll.request, (3, 4))
    assert (poll.request, poll.votes) == (None, [3, 4])


def test_an_abstaining_claim_has_no_radius() -> None:
    plan = DecisionPlan(SIGMA, 0.001, 10, 10_000, radii=(0.25,))
    assert plan.claim([Look(32, 10, 22)]) == Claim(0.0, 0.0, 1.0)


def test_a_radius_counts_only_after_all_smaller_ones() -> None:
    plan = DecisionPlan(SIGMA, 0.05, 10, 600, radii=(0.1, 0.2))
    looks = [Look(32, 32, 0)]
    assert plan.claim(looks).radius > 0.2
    never = replace(plan.tests[0], boundaries=tuple(n + 1 for n in plan.tests[0].looks))
    plan.__dict__["tests"] = (never, plan.tests[1])
    plan.__dict__["_runner_up"] = lambda _: Claim(0.0, 0.0, 1.0)
    assert plan.claim(looks).radius == 0


def test_a_leaders_larger_radius_rests_on_looks_after_its_smaller_one() -> None:
    plan = LeaderPlan(SIGMA, 0.05, 0, 600, radii=(0.1, 0.2))
    looks = [Look(32, 32, 0), Look(64, 33, 31), Look(96, 65, 31)]
    late = replace(plan.tests[0], boundaries=(33, 33, *plan.tests[0].boundaries[2:]))
    early = replace(plan.tests[1], boundaries=(32, 65, *(n + 1 for n in plan.tests[1].looks[2:])))
    plan.__dict__["tests"] = (late, early)
    assert 0.1 < plan.claim(looks[:2]).radius < 0.2  # another class may have led at the first look
