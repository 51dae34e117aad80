import pytest
from tests.certificates.conftest import LEADER, PLANS, SIGMA

from robustify.certificates.decisions import KnownLabelPlan
from robustify.certificates.plans import AdaptivePlan, FixedPlan, Look, Plan
from robustify.certificates.queries import ESTIMATION, SELECTION, Poll, Request, Transcript
from robustify.errors import InputError


def transcribe(plan: Plan, votes: list[tuple[int, ...]], truth: int | None = None) -> Transcript:
    """A transcript after these answers."""
    transcript = Transcript(plan, len(votes[0]), truth)
    for answer in votes:
        request = transcript.request
        assert request is not None
        assert sum(answer) <= request.draws
        transcript.answer(request, answer)
    return transcript


def test_an_adaptive_transcript_tests_the_label_with_fresh_draws_only() -> None:
    transcript = transcribe(AdaptivePlan(SIGMA, 0.001, 100, 10_000), [(90, 10)])
    planned = transcript.plan.n
    assert 1_000 < planned < 10_000
    while (request := transcript.request) is not None:
        assert request.stage == ESTIMATION
        transcript.answer(request, (request.draws, 0))
    assert (transcript.n, transcript.votes) == (planned, [planned, 0])


def test_a_leader_may_change_until_one_has_earned_a_radius() -> None:
    transcript = transcribe(LEADER, [(17, 15, 0), (2, 28, 2)])
    assert (transcript.guess, transcript.looks) == (1, [Look(32, 17, 15), Look(64, 43, 19)])
    transcript = transcribe(LEADER, [(2, 29, 1), (20, 12, 0), (32, 0, 0)])
    assert LEADER.claim(transcript.looks[:1]).radius > 0.1
    assert (transcript.guess, transcript.selection) == (1, [2, 29, 1])  # though another leads by now
    assert transcript.looks[-1] == Look(96, 41, 54)
    assert transcript.plan.claim(transcript.looks).radius == LEADER.claim(transcript.looks[:1]).radius


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
