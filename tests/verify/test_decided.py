"""Decisions: of leaders, of known labels, and by the runner-up; each must pay for its label."""

import math
from dataclasses import replace

import pytest

from robustify import SmoothedClassifier
from robustify.certificates.decisions import DecisionPlan, LeaderPlan
from robustify.certificates.family import Bound, Look
from robustify.certificates.sequential import group_sequential_test
from robustify.data import Sample
from robustify.runs.folder import Run
from robustify.verify.arithmetic import crossing_chance
from robustify.verify.claims import verify_run
from robustify.verify.gaussian_family import _holds
from robustify.verify.replay import replay
from tests.verify.changed import claimed, claiming, counted, fields, fields_of


@pytest.mark.parametrize("run", ["decision"], indirect=True)
def test_decisions_by_the_runner_up_are_verified_and_guarded(run: Run) -> None:
    """57 % of the votes are short of what the radius needs, but no rival has more than 21.6 %."""
    row, plan = claimed(run), run.plan
    assert row.label is not None
    looks = tuple(Look(n, round(0.57 * n), math.ceil(0.215 * n)) for n in plan.schedule)
    votes = [0, 0, 0]
    votes[row.label] = looks[-1].label
    others = [c for c in range(3) if c != row.label]
    votes[others[0]] = looks[-1].rival
    votes[others[1]] = looks[-1].n - looks[-1].label - looks[-1].rival
    claim = plan.prove(looks)  # type: ignore[attr-defined]
    assert claim.radius == pytest.approx(0.05)
    assert not any(test.crossed([look.label for look in looks]) for test in plan.tests)  # type: ignore[attr-defined]
    tested = counted(row, looks=looks, votes=tuple(votes), draws=looks[-1].n)
    genuine = replace(tested, radius=claim.radius, bounds=(Bound(claim.p_lower, claim.p_upper),))
    assert fields(genuine, run) == set()
    assert "radius" in fields(claiming(genuine, radius=0.1), run)
    assert "p_lower" in fields(claiming(genuine, p_lower=claim.p_lower + 0.01), run)
    assert "p_upper" in fields(claiming(genuine, p_upper=claim.p_upper - 0.01), run)


def test_a_run_that_follows_leaders_is_verified_and_guarded(
    led: Run, model: SmoothedClassifier, samples: list[Sample]
) -> None:
    assert (led.plan.rule, led.rows[0].tallies[0].draws) == ("leader", 0)
    assert verify_run(led) == []
    assert replay(model, samples, led, 4) == []
    row = claimed(led)
    for name, value in (
        ("radius", 1.001 * row.radius),
        ("p_lower", 1.001 * row.p_lower),
        ("p_upper", 0.9 * row.p_upper),
    ):
        assert name in fields(claiming(row, **{name: value}), led)
    assert row.label is not None
    assert fields(replace(row, label=(row.label + 1) % 3), led) == {"label"}
    assert fields(counted(row, selection=(*row.selection[1:], row.selection[0])), led)
    for other in {0, 1, 2} - {row.label}:
        moved = list(row.selection)
        moved[row.label] -= 1
        moved[other] += 1
        assert fields(counted(row, selection=tuple(moved)), led) == {"selection"}
    assert fields(counted(row, selection=()), led) == {"selection"}
    early = next(row for row in led.rows if row.radius > 0 and row.selection != row.votes)
    fewer = tuple(v - (c == early.label) for c, v in enumerate(early.selection))
    assert fields(counted(early, selection=fewer), led) == {"selection"}
    assert fields(counted(row, selection=row.votes, looks=row.looks), led) <= {"selection"}


def test_a_leader_must_pay_for_all_who_could_lead(led: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boundaries that spend all of alpha on one class, or lie too near the threshold, prove nothing."""
    row, plan = claimed(led), led.plan
    greedy = tuple(
        group_sequential_test(test.p0, alpha=plan.alpha, looks=test.looks)
        for test in plan.tests  # type: ignore[attr-defined]
    )
    monkeypatch.setitem(plan.__dict__, "tests", greedy)
    assert "radius" in fields_of(row, plan, led)
    near = tuple(replace(test, boundaries=(*test.boundaries[:-1], round(test.p0 * 500) + 1)) for test in greedy)
    monkeypatch.setitem(plan.__dict__, "tests", near)
    assert "radius" in fields_of(row, plan, led)


def test_a_decision_must_leave_the_runner_up_its_share() -> None:
    plan = DecisionPlan(1.0, 0.05, 20, 500, radii=(0.5,))
    (test,) = plan.tests
    greedy = group_sequential_test(test.p0, alpha=plan.alpha, looks=test.looks)
    assert 0.75 * plan.alpha < crossing_chance(test.p0, greedy.looks, greedy.boundaries) <= plan.alpha
    assert _holds(test, plan)
    assert not _holds(greedy, plan)


def test_a_boundary_near_the_threshold_does_not_bound_all_leaders() -> None:
    plan = LeaderPlan(1.0, 0.05, 0, 96, radii=(1.3,))
    test = replace(plan.tests[0], looks=(96,), boundaries=(89,))  # .9 standard deviations above
    object.__setattr__(plan, "alpha", 0.4)
    assert crossing_chance(test.p0, test.looks, test.boundaries) < 0.4 * test.p0
    assert not _holds(test, plan)
    assert _holds(replace(test, boundaries=(90,)), plan)


def test_a_run_with_known_labels_is_verified_and_guarded(known: Run) -> None:
    assert verify_run(known) == []
    assert all(row.label in (None, row.truth) and row.selection == () for row in known.rows)
    row = claimed(known)
    assert row.truth is not None
    other = (row.truth + 1) % 3
    assert fields(replace(row, label=other), known) == {"label"}
    assert fields(replace(row, label=other, truth=other), known) == {"tested label"}
    assert fields(counted(replace(row, label=other, truth=other), label=other), known) == {"looks"}
    assert fields(replace(row, truth=None), known) == {"truth"}
    assert fields(replace(row, truth=3, label=3), known) == {"truth", "label"}
    assert fields(counted(row, label=3), known) == {"tested label"}
    assert fields(counted(row, selection=row.votes), known) == {"selection"}
    assert "radius" in fields(claiming(row, radius=1.001 * row.radius), known)
