"""Verification of cascades finds claims that counts do not prove, and counts that the plan did not ask for."""

from dataclasses import replace
from pathlib import Path

import pytest

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.cascade import Cascade
from robustify.certificates.cascade_level import Counts
from robustify.certificates.cascade_plans import CascadePlan
from robustify.certificates.family import Bound, Look, Tally, read_plan
from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.errors import RunError
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.cascade_family import problems
from robustify.verify.claims import verify_claims, verify_row
from tests import toys
from tests.toys_cascade import SIGMAS, fixed, tallied


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made("abstain", tmp_path_factory.mktemp("run"))


def made(otherwise: str, out: Path, p0: float = 0.5) -> Run:
    family = Cascade(SIGMAS, p0=p0, otherwise=otherwise)
    model = SmoothedClassifier(toys.linear_model().classifier, Identity(), family=family)
    samples: list[Sample] = toys.twelve_samples()
    return certify_dataset(model, samples, out, Settings(n=200, n0=20, alpha=0.01, seed=3))


def certified(run: Run) -> Row:
    return max(run.rows, key=lambda row: row.radius)


def fields(row: Row, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, run.plan, run)}


def own(row: Row, plan: CascadePlan, run: Run) -> set[str]:
    """What the independent arithmetic alone finds."""
    return {problem.field for problem in problems(row, plan, run)}


def test_genuine_rows_pass(run: Run, tmp_path: Path) -> None:
    assert verify_claims(run) == []
    for otherwise in ("argmax", "clean"):
        assert verify_claims(made(otherwise, tmp_path / otherwise, p0=0.9)) == []


def test_every_enlarged_claim_is_found_by_independent_arithmetic(run: Run) -> None:
    plan = run.plan
    assert isinstance(plan, CascadePlan)
    for row in run.rows:
        if row.radius > 0:
            assert row.label is not None
            assert own(row, plan, run) == set()
            assert own(replace(row, radius=row.radius * (1 + 1e-9)), plan, run) == {"radius"}
            assert own(replace(row, label=(row.label + 1) % 3), plan, run)
            for view, bound in enumerate(row.bounds):
                low = Bound(bound.p_lower + 1e-6, bound.p_upper)
                high = Bound(bound.p_lower, bound.p_upper - 1e-6)
                for name, changed in (("p_lower", low), ("p_upper", high)):
                    if bound != Bound(0.0, 1.0):
                        bounds = (*row.bounds[:view], changed, *row.bounds[view + 1 :])
                        assert own(replace(row, bounds=bounds), plan, run) == {name}


def test_changed_counts_are_found(run: Run) -> None:
    row = certified(run)
    assert row.label is not None
    for i, tally in enumerate(row.tallies):
        for changed in (
            tally._replace(draws=tally.draws + 1),
            tally._replace(view=(tally.view + 1) % 3),
            tally._replace(label=(row.label + 1) % 3),
            tally._replace(looks=(*tally.looks, *row.tallies[1].looks)),
        ):
            assert fields(replace(row, tallies=(*row.tallies[:i], changed, *row.tallies[i + 1 :])), run)
    assert "tallies" in fields(replace(row, tallies=row.tallies[:-1]), run)
    assert "tallies" in fields(replace(row, tallies=row.tallies[:-2]), run)
    assert "draws" in fields(replace(row, tallies=(*row.tallies, row.tallies[-1])), run)
    assert "bounds" in fields(replace(row, bounds=row.bounds[:2]), run)


def test_a_vote_that_was_moved_is_found(run: Run) -> None:
    row = certified(run)
    assert row.label is not None
    for i, tally in enumerate(row.tallies):
        other = (row.label + 1) % 3
        moved = [v + (c == row.label) - (c == other) for c, v in enumerate(tally.votes)]
        if tally.stage == "estimation" and min(moved) >= 0:
            changed = tally._replace(votes=tuple(moved))
            assert fields(replace(row, tallies=(*row.tallies[:i], changed, *row.tallies[i + 1 :])), run)


def test_bounds_of_a_level_that_was_not_drawn_from_are_refused() -> None:
    plan = fixed(200, n0=20, alpha=0.01)
    votes = [((200, 0, 0), 0)]
    claim = plan.certify_votes(tallied(plan, votes))
    assert claim.bounds[1:] == (Bound(0.0, 1.0),) * 2
    tallies = tuple(_looked(t) for t in tallied(plan, votes))
    row = Row("a", 0, claim.label, claim.radius, claim.bounds, tallies, batch=64, pixels="p", seconds=1.0)
    run = Run(Path("run"), {}, [row], finished=True)
    assert own(row, plan, run) == set()
    grown = replace(row, bounds=(*claim.bounds[:2], Bound(0.5, 1.0)))
    assert own(grown, plan, run) == {"p_lower"}


def _looked(tally: Tally) -> Tally:
    """The tally with its look, where a label was tested."""
    if tally.label is None:
        return tally
    others = max(v for c, v in enumerate(tally.votes) if c != tally.label)
    return tally._replace(looks=(Look(tally.draws, tally.votes[tally.label], others),))


def test_a_chain_of_another_label_proves_nothing() -> None:
    """The draws that choose a label must have chosen it, however the draws that test it vote."""
    plan = fixed(1000, n0=20, alpha=0.01)
    votes = [((100, 450, 450), 1), ((30, 950, 20), 0), ((30, 950, 20), 0)]
    tallies = tuple(_looked(t) for t in tallied(plan, votes))
    bounds = tuple(lv.bound(Counts.of(v, 1, 1000)) for lv, (v, _) in zip(plan.levels, votes, strict=True))
    row = Row("a", 0, 1, 0.01, bounds, tallies, batch=64, pixels="p", seconds=1.0)
    run = Run(Path("run"), {}, [row], finished=True)
    assert plan.certify_votes(tallies).label is None
    assert own(row, plan, run) == {"radius"}


def test_answers_of_the_classifier_alone_are_checked(tmp_path: Path) -> None:
    run = made("clean", tmp_path, p0=0.9)
    plan = run.plan
    assert isinstance(plan, CascadePlan)
    row = next(row for row in run.rows if row.uncertified is not None)
    assert own(row, plan, run) == set()
    assert row.uncertified is not None
    assert own(replace(row, uncertified=(row.uncertified + 1) % 3), plan, run) == {"uncertified"}
    assert "tallies" in own(replace(row, tallies=row.tallies[:-1]), plan, run)


def test_a_plan_that_is_no_cascade_proves_nothing(run: Run) -> None:
    """The threshold changes no draw, so drawing again does not find a forged one: below 1/2 two classes could fire."""
    plan = run.plan
    assert isinstance(plan, CascadePlan)
    for wrong in ({"p0": 0.01}, {"sigmas": plan.sigmas[::-1]}):
        assert own(certified(run), replace(plan, **wrong), run) == {"plan"}
        with pytest.raises(RunError, match="expected"):
            read_plan("cascade", {**plan.stored(), **wrong})


def test_alpha_is_a_chance(run: Run) -> None:
    plan = run.plan
    assert isinstance(plan, CascadePlan)
    forged = replace(run, config={**run.config, "plan": {**plan.stored(), "alpha": 1.99}})
    assert "alpha" in {problem.field for problem in verify_claims(forged)}


def test_labels_that_are_none_are_named(run: Run) -> None:
    row = certified(run)
    assert "label" in fields(replace(row, label=3), run)
    assert "label" in fields(replace(row, uncertified=3), run)
