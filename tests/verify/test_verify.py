"""Genuine runs pass; whatever makes a row claim more than its counts prove does not."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustify import Settings, SmoothedClassifier
from robustify.certificates.family import Look
from robustify.data import Sample
from robustify.errors import RunError
from robustify.runs.certify import certify_dataset
from robustify.runs.folder import Run, read_run
from robustify.verify.claims import verify_claims, verify_run
from robustify.verify.replay import replay
from tests.verify.changed import claimed, claiming, configured, counted, fields


def test_a_genuine_run_is_verified_and_repeats(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    assert sum(row.radius > 0 for row in run.rows) >= 3
    assert verify_run(run) == []
    assert replay(model, samples, run, 4) == []


@pytest.mark.parametrize("factor", [1 + 1e-6, 1.01, 2.0])
def test_larger_claims_are_rejected(run: Run, factor: float) -> None:
    row = claimed(run)
    assert "radius" in fields(claiming(row, radius=row.radius * factor), run)
    p_lower = 1 - (1 - row.p_lower) / factor
    assert "p_lower" in fields(claiming(row, p_lower=p_lower), run)
    assert "p_upper" in fields(claiming(row, p_upper=row.p_upper / factor), run)


@pytest.mark.parametrize("factor", [1 - 1e-6, 0.5])
def test_smaller_claims_are_changes_too(run: Run, factor: float) -> None:
    row = claimed(run)
    assert fields(claiming(row, radius=row.radius * factor), run) == {"radius"}
    assert fields(claiming(row, p_lower=row.p_lower * factor), run) >= {"p_lower"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.5])
@pytest.mark.parametrize("name", ["radius", "p_lower", "p_upper"])
def test_numbers_that_are_none_are_rejected(run: Run, name: str, value: float) -> None:
    assert fields(claiming(claimed(run), **{name: value}), run)


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("sigma", lambda v: 2 * v, {"radius"}),
        ("alpha", lambda v: v / 10, {"p_lower", "radius"}),
        ("n0", lambda v: v + 1, {"selection", "draws"}),
        ("n", lambda v: v + 100, {"looks", "draws"}),
        ("rule", lambda v: "fixed" if v != "fixed" else "adaptive", {"looks", "draws"}),
        ("radii", lambda v: [r / 2 for r in v], {"radius"}),
    ],
)
def test_another_question_than_the_one_that_was_asked_is_rejected(
    run: Run,
    name: str,
    change: Any,  # noqa: ANN401
    wrong: set[str],
) -> None:
    stored = run.config["plan"].get(name)
    if stored is None:
        return
    problems = verify_claims(configured(run, **{name: change(stored)}))
    assert {p.field for p in problems if p.sample != "run.json"} & wrong


def test_another_label_is_rejected(run: Run) -> None:
    row = claimed(run)
    assert row.label is not None
    assert fields(replace(row, label=(row.label + 1) % 3), run) == {"label"}
    assert fields(replace(row, label=None), run) == {"label"}
    swapped = (*row.selection[1:], row.selection[0])
    assert fields(counted(row, selection=swapped), run)
    assert fields(replace(row, truth=3), run) == {"truth"}
    abstained = replace(row, label=None, radius=0.0)
    assert fields(abstained, run) == {"label", "radius"}


def test_votes_that_moved_are_rejected(run: Run) -> None:
    row = claimed(run)
    guess = row.selection.index(max(row.selection))
    for other in {0, 1, 2} - {guess}:
        for way in (1, -1):
            votes = list(row.votes)
            votes[guess] += way
            votes[other] -= way
            assert fields(counted(row, votes=tuple(votes)), run) & {"looks", "votes"}
    assert fields(counted(row, votes=(*row.votes, 0)), run) == {"votes"}
    assert fields(counted(row, votes=tuple(10 * v for v in row.votes)), run) == {"votes"}
    assert fields(counted(row, selection=tuple(10 * v for v in row.selection)), run) == {"selection"}
    assert fields(replace(row, batch=0), run) == {"batch"}


def test_looks_that_were_altered_are_rejected(run: Run) -> None:
    row = claimed(run)
    last = row.looks[-1]
    for altered in (
        (*row.looks[:-1], Look(last.n, last.label + 1, last.rival)),
        (*row.looks[:-1], Look(last.n, last.label, last.rival + 1)),
        (*row.looks[:-1], Look(last.n - 1, last.label, last.rival)),
        (*row.looks, Look(last.n + 32, last.label + 32, last.rival)),
        (),
        row.looks[:-1],
    ):
        assert fields(counted(row, looks=altered), run) & {"looks", "votes"}


def test_tallies_that_no_plan_has_are_rejected(run: Run) -> None:
    row = claimed(run)
    chosen, tested = row.tallies
    for tallies, wrong in (
        ((), "draws" if run.plan.exact else "selection"),
        ((chosen,), "draws" if run.plan.exact else "selection"),
        ((tested,), "draws" if run.plan.exact else "selection"),
        ((tested, chosen), "selection"),
        ((chosen._replace(view=1), tested), "selection"),
        ((chosen._replace(stage="rehearsal"), tested), "rehearsal"),
        ((chosen._replace(draws=-1), tested), "selection"),
        ((chosen._replace(draws=99), tested), "draws" if run.plan.exact else "selection"),
        ((chosen, tested._replace(view=-1)), "votes"),
        ((chosen, tested._replace(label=3)), "tested label"),
        ((chosen, tested._replace(label=None)), "tested label"),
    ):
        assert wrong in fields(replace(row, tallies=tallies), run)
    assert fields(replace(row, bounds=row.bounds * 2), run) == {"bounds"}
    assert fields(replace(row, bounds=()), run) == {"bounds"}


def test_votes_that_prove_less_than_is_claimed_are_rejected(run: Run) -> None:
    """Votes and looks changed together, so that only the arithmetic can tell."""
    row = claimed(run)
    guess = row.selection.index(max(row.selection))
    votes = [0, 0, 0]
    votes[guess] = half = row.n // 2
    votes[(guess + 1) % 3] = row.n - half
    looks = tuple(Look(look.n, look.n * half // row.n, look.n - look.n * half // row.n) for look in row.looks)
    assert "radius" in fields(counted(row, votes=tuple(votes), looks=looks), run)


def test_an_adaptive_run_that_takes_all_draws_is_verified(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    settings = [Settings(n_max=300, seed=seed, alpha=0.01) for seed in range(20)]
    runs = (certify_dataset(model, samples, out / str(s.seed), s) for s in settings)
    run = next(run for run in runs if any(row.n == 300 and row.radius > 0 for row in run.rows))
    assert verify_run(run) == []


def test_a_slack_that_the_noise_does_not_have_is_rejected(run: Run) -> None:
    problems = verify_claims(configured(run, slack=0.0))
    assert problems[0].field == "slack"
    assert str(problems[0]).startswith("run.json: slack is 0.0; expected ")


def test_rows_beyond_the_data_are_rejected(run: Run) -> None:
    problems = verify_claims(replace(run, config={**run.config, "samples": 11}))
    assert [problem.field for problem in problems] == ["samples"]


def test_folders_that_hold_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no certification run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="cannot read"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="it lacks format, family, plan"):
        read_run(tmp_path)


def test_a_run_without_rows_or_sense_cannot_be_verified(run: Run, out: Path) -> None:
    with pytest.raises(RunError, match="no rows yet"):
        verify_run(replace(run, rows=[]))
    (out / "run.json").write_text(json.dumps(configured(run, alpha=2).config))
    with pytest.raises(RunError, match="describes no possible run"):
        verify_run(read_run(out))


def test_alpha_is_no_more_than_its_share(led: Run) -> None:
    def wrong(**changed: float) -> set[str]:
        return {problem.field for problem in verify_claims(replace(led, config={**led.config, **changed}))}

    assert wrong(family_alpha=0.012) == wrong(attempt=2, attempts_alpha=0.0066) == set()
    assert wrong(family_alpha=0.0119) == {"family_alpha"}
    assert wrong(attempt=3, attempts_alpha=0.0066) == {"alpha"}
    assert wrong(family_alpha=0.06, attempt=2, attempts_alpha=0.0066) == {"family_alpha"}
    assert wrong(attempt=2) == wrong(attempts_alpha=0.01) == wrong(attempt=0, attempts_alpha=0.01) == {"attempt"}


def test_counts_that_shrink_between_looks_are_refused(run: Run) -> None:
    for row in run.rows:
        if len(row.looks) > 1:
            first, second = row.looks[:2]
            assert "looks" in fields(counted(row, looks=(first._replace(label=second.label + 1), *row.looks[1:])), run)
            fallen = first._replace(label=first.label - 1, rival=second.rival + 1)
            assert "looks" in fields(counted(row, looks=(fallen, *row.looks[1:])), run)


def test_abstaining_is_never_correct(run: Run) -> None:
    row = run.rows[0]
    assert not replace(row, label=None, truth=None).correct
    assert not replace(row, label=None, truth=1).correct
    assert replace(row, label=1, truth=1).correct
    assert not replace(row, label=0, truth=1).correct
