import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustify.certificates.decisions import KnownLabelPlan
from robustify.certificates.family import Bound, Claim, Look, Tally
from robustify.certificates.gaussian import Gaussian
from robustify.certificates.plans import AdaptivePlan, FixedPlan, GaussianPlan
from robustify.certificates.queries import (
    ESTIMATION,
    SELECTION,
    Ask,
    CertifyingQuery,
    CertifyQuery,
    PredictQuery,
    Query,
)
from robustify.errors import InputError
from tests.certificates.examples import LEADER, PLANS, SIGMA, asked

NO_CLAIM = Claim(None, 0.0, (Bound(0.0, 1.0),))


def told(plan: GaussianPlan, votes: Sequence[tuple[int, ...]], truth: int | None = None) -> CertifyQuery:
    """A query that was told these votes."""
    query = plan.query(len(votes[0]), truth)
    for counts, ask in zip(votes, asked(query), strict=False):
        assert sum(counts) <= ask.draws
        query.tell(ask, counts)
    return query


def test_an_adaptive_query_tests_the_label_with_fresh_draws_only() -> None:
    plan = AdaptivePlan(SIGMA, 0.001, 100, 10_000)
    query, planned = told(plan, [(90, 10)]), plan.after((90, 10)).n
    assert 1_000 < planned < 10_000
    for ask in asked(query):
        assert ask.stage == ESTIMATION
        query.tell(ask, (ask.draws, 0))
    assert (query.n, query.votes, query.plan) == (planned, [planned, 0], plan)
    assert plan.certify_votes(query.tallies).radius > 0  # though the plan itself goes on to 10,000


def test_a_leader_may_change_until_one_has_earned_a_radius() -> None:
    query = told(LEADER, [(17, 15, 0), (2, 28, 2)])
    assert (query.label, query.looks) == (1, [Look(32, 17, 15), Look(64, 43, 19)])
    query = told(LEADER, [(2, 29, 1), (20, 12, 0), (32, 0, 0)])
    assert LEADER.prove(query.looks[:1]).radius > 0.1
    assert (query.label, query.selection) == (1, [2, 29, 1])  # though another leads by now
    assert query.looks[-1] == Look(96, 41, 54)
    assert LEADER.prove(query.looks).radius == LEADER.prove(query.looks[:1]).radius
    assert query.tallies == (
        Tally(0, SELECTION, 0, (2, 29, 1)),
        Tally(0, ESTIMATION, 96, (54, 41, 1), 1, tuple(query.looks)),
    )


def test_a_known_label_is_tested_without_a_selection() -> None:
    plan = KnownLabelPlan(SIGMA, 0.05, 0, 600, radii=(0.1,))
    query = told(plan, [(30, 1, 1)], truth=0)
    assert (query.label, query.selection, query.ask()) == (0, [], [])
    assert query.tallies == (Tally(0, ESTIMATION, 32, (30, 1, 1), 0, (Look(32, 30, 1),)),)
    assert plan.certify_votes(query.tallies).radius > 0.1
    lost = told(plan, [(30, 1, 1)], truth=2)
    assert (lost.ask(), plan.certify_votes(lost.tallies)) == ([], NO_CLAIM)  # another class clearly wins


@pytest.mark.parametrize(
    ("plan", "truth", "text"),
    [
        (PLANS[3], None, "needs the true label"),
        (PLANS[0], 1, "chooses the label itself"),
        (LEADER, 1, "chooses the label itself"),
        (PLANS[3], 3, "true label from 0 to 2"),
        (PLANS[3], -1, "true label from 0 to 2"),
    ],
)
def test_a_true_label_that_is_missing_or_out_of_place_is_refused(
    plan: GaussianPlan, truth: int | None, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        plan.query(3, truth)


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.rule)
def test_a_query_asks_in_order_and_never_for_more_than_n(plan: GaussianPlan) -> None:
    query, drawn = plan.query(3, 1 if plan.needs_truth else None), 0
    if plan.label_from == "selection":
        assert query.ask() == query.ask() == [Ask(0, SELECTION, 10), *[Ask(0, ESTIMATION, plan.n)] * plan.exact]
        query.tell(Ask(0, SELECTION, 10), (1, 6, 3))
    assert query.label == 1
    for ask in asked(query):
        assert ask.stage == ESTIMATION
        drawn += ask.draws
        won = ask.draws // 2 + 1
        query.tell(ask, (0, won, ask.draws - won - 1))  # one draw fails each time
    assert drawn == query.n <= plan.n
    assert query.looks[-1].label == query.votes[1]
    assert query.looks[-1].rival == query.n - query.votes[1]  # the one other class, and failures


def test_failed_draws_are_the_rivals() -> None:
    query = told(FixedPlan(SIGMA, 0.1, 10, 100), [(10, 0), (60, 5)])
    assert query.looks == [Look(100, 60, 40)]


@pytest.mark.parametrize("plan", [*PLANS, LEADER], ids=lambda p: p.rule)
def test_a_query_that_was_told_nothing_has_no_tallies_and_proves_nothing(plan: GaussianPlan) -> None:
    query = plan.query(3, 1 if plan.needs_truth else None)
    assert query.tallies == ()
    assert plan.certify_votes(query.tallies) == NO_CLAIM


def test_a_selection_alone_proves_nothing() -> None:
    query = told(PLANS[2], [(10, 0)])
    assert query.tallies == (Tally(0, SELECTION, 10, (10, 0)),)
    assert PLANS[2].certify_votes(query.tallies) == NO_CLAIM


def test_a_query_may_draw_from_another_view() -> None:
    query = PLANS[0].query(2, view=3)
    for ask in asked(query):
        assert ask.view == 3
        query.tell(ask, (ask.draws, 0))
    assert [tally.view for tally in query.tallies] == [3, 3]
    assert PLANS[0].certify_votes(query.tallies).radius > 0


@settings(deadline=None, max_examples=80)
@given(
    which=st.sampled_from([*PLANS, LEADER]),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=5).filter(lambda shares: sum(shares) > 0.1),
    failing=st.sampled_from([0.0, 0.02, 0.3]),
    slack=st.sampled_from([0.0, 0.01]),
    n=st.sampled_from([64, 600, 2_000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_tallies_prove_what_the_plan_proved_from_the_looks(
    which: GaussianPlan, shares: list[float], failing: float, slack: float, n: int, seed: int
) -> None:
    plan, rng = replace(which, n=n, slack=slack), np.random.default_rng(seed)
    chances = [(1 - failing) * share / sum(shares) for share in shares]
    truth = int(np.argmax(shares)) if plan.needs_truth else None
    query, drawn, testing = plan.query(len(shares), truth), 0, plan
    for ask in asked(query):
        votes = rng.multinomial(ask.draws, [*chances, max(0.0, 1 - sum(chances))])[:-1].tolist()
        query.tell(ask, votes)
        drawn += ask.draws
        if ask.stage == SELECTION:
            testing = plan.after(votes)
    proof = testing.prove(query.looks)
    label = query.label if proof.radius > 0 else None
    claim = plan.certify_votes(query.tallies)
    assert claim == Claim(label, proof.radius, (Bound(proof.p_lower, proof.p_upper),))
    assert sum(tally.draws for tally in query.tallies) == drawn <= plan.most_draws
    assert drawn == plan.most_draws or not plan.exact
    assert Gaussian.read(json.loads(json.dumps(plan.stored()))) == plan


def test_a_predict_query_asks_once() -> None:
    query = PredictQuery(2, 7)
    (ask,) = query.ask()
    assert ask.draws == 7
    query.tell(ask, (3, 4))
    assert (query.ask(), query.votes) == ((), [3, 4])


def test_queries_are_what_the_engine_expects() -> None:
    assert isinstance(PredictQuery(2, 7), Query)
    assert not isinstance(PredictQuery(2, 7), CertifyingQuery)
    assert isinstance(PLANS[0].query(2), CertifyingQuery)
