"""Genuine runs pass; whatever makes a row claim more than its counts prove does not."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binom, norm

from robustify import Settings, SmoothedClassifier
from robustify.certificates.decisions import DecisionPlan, LeaderPlan
from robustify.certificates.family import Bound, Look, Plan, Tally
from robustify.certificates.queries import SELECTION
from robustify.certificates.sequential import group_sequential_test
from robustify.data import Sample
from robustify.errors import RunError
from robustify.runs.certify import certify_dataset
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import crossing_chance, is_deviation_above, normal_chance, normal_quantile, upper_tail
from robustify.verify.claims import verify_row, verify_run
from robustify.verify.gaussian import _holds
from robustify.verify.replay import replay, spread

SETTINGS = {
    "fixed": Settings(n=100, seed=3),
    "adaptive": Settings(n_max=500, seed=3),
    "decision": Settings(radius=[0.05, 0.1], n_max=500, seed=3),
}


@pytest.fixture(params=list(SETTINGS))
def run(request: pytest.FixtureRequest, model: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A genuine run of each rule."""
    certify_dataset(model, samples, out, SETTINGS[request.param])
    return read_run(out)


def claimed(run: Run) -> Row:
    return max((row for row in run.rows if row.radius > 0), key=lambda row: row.p_upper < 1)


def fields(row: Row, run: Run) -> set[str]:
    return fields_of(row, run.plan, run)


def fields_of(row: Row, plan: Plan, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, plan, run)}


def counted(row: Row, **changed: Any) -> Row:  # noqa: ANN401
    """The row with other tallies: their selection, or fields of the votes that were tested."""
    *chosen, tested = row.tallies
    if (selection := changed.pop("selection", None)) is not None:
        chosen = [(chosen[0] if chosen else Tally(0, SELECTION, 0, ()))._replace(votes=tuple(selection))]
    return replace(row, tallies=(*chosen, tested._replace(**changed)))


def claiming(row: Row, *, radius: float | None = None, **bound: float) -> Row:
    """The row with another radius or another bound."""
    return replace(row, radius=row.radius if radius is None else radius, bounds=(row.bounds[0]._replace(**bound),))


def configured(run: Run, **plan: Any) -> Run:  # noqa: ANN401
    """The run with another plan in its run.json."""
    changed = {**run.config["plan"], **plan}
    if changed["rule"] in ("fixed", "adaptive"):
        changed.pop("radii", None)
    return replace(run, config={**run.config, "plan": changed})


@pytest.mark.parametrize(("n", "k", "p"), [(100, 90, 0.8), (1_000, 999, 0.99), (50, 50, 0.9), (20_000, 10_400, 0.5)])
def test_tails_agree_with_scipy_and_are_never_smaller(n: int, k: int, p: float) -> None:
    assert float(upper_tail(k, n, Fraction(p))) == pytest.approx(binom.sf(k - 1, n, p), rel=1e-10)
    if n <= 1_000:
        exact = sum(math.comb(n, j) * Fraction(p) ** j * (1 - Fraction(p)) ** (n - j) for j in range(k, n + 1))
        found = upper_tail(k, n, Fraction(p)) * exact.denominator / exact.numerator
        assert 0 <= found - 1 < 1e-28


def test_impossible_tails_are_nothing_or_all() -> None:
    assert upper_tail(0, 10, Fraction(1, 2)) == 1
    assert upper_tail(3, 10, Fraction(0)) == 0
    assert upper_tail(10, 10, Fraction(1)) == 1


@pytest.mark.parametrize("p", [1e-9, 0.02, 0.5, 0.9, 1 - 1e-12])
def test_quantiles_undo_chances(p: float) -> None:
    assert float(normal_quantile(Fraction(p))) == pytest.approx(norm.ppf(p), rel=1e-9)
    assert abs(float(normal_chance(Fraction(0.7))) - norm.cdf(0.7)) < 1e-14


@pytest.mark.parametrize("p0", [0.5, 0.8, 0.99])
def test_a_walk_of_single_draws_finds_the_size_that_convolutions_find(p0: float) -> None:
    test = group_sequential_test(p0, alpha=0.01, looks=(32, 64, 200, 640))
    assert crossing_chance(p0, test.looks, test.boundaries) == pytest.approx(test.size, rel=1e-8)
    greedy = tuple(boundary - 1 for boundary in test.boundaries)
    assert crossing_chance(p0, test.looks, greedy) > 0.01


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
    problems = verify_run(configured(run, **{name: change(stored)}))
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
    problems = verify_run(configured(run, slack=0.0))
    assert problems[0].field == "slack"
    assert str(problems[0]).startswith("run.json: slack is 0.0; expected ")


def test_rows_beyond_the_data_are_rejected(run: Run) -> None:
    problems = verify_run(replace(run, config={**run.config, "samples": 11}))
    assert [problem.field for problem in problems] == ["samples"]


def test_another_seed_does_not_repeat(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    problems = replay(model, samples, replace(run, config={**run.config, "seed": "4"}), 4)
    assert {problem.field for problem in problems} & {"selection", "votes"}


def test_other_pixels_and_truths_do_not_repeat(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    rows = [replace(row, pixels="0" * 64, truth=(row.truth or 0) + 1) for row in run.rows]
    problems = replay(model, samples, replace(run, rows=rows), 2)
    assert [p.field for p in problems] == ["truth"] * len(rows) + ["pixels"] * 2  # and nothing of what follows from it
    with pytest.raises(RunError, match=rf"lacks 1 of the run's {len(run.rows)} images, '{samples[0].id}' being the fi"):
        replay(model, samples[1:], run, 2)


def test_another_model_is_refused(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    with torch.no_grad():
        next(model.classifier.parameters()).add_(1e-3)
    with pytest.raises(RunError, match=r"not the model of the run(.|\n)*classifier.sha256: there"):
        replay(model, samples, run)


def test_rows_to_repeat_are_spread_over_the_run(run: Run) -> None:
    assert [row.sample for row in spread(run.rows, 3)] == ["00.png", "05.png", "11.png"]
    assert len(spread(run.rows, 1)) == 1
    assert len(spread(run.rows, 50)) == 12


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


@pytest.fixture
def led(model: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A run whose labels were never chosen."""
    certify_dataset(model, samples, out, Settings(radius=[0.05, 0.1], n_max=500, n0=0, seed=3))
    return read_run(out)


@pytest.fixture
def known(model: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A run that tested the true labels; every second of them is what the classifier says."""
    said = [int(model.classifier(model.prepare(s.image, "float")[None]).argmax()) for s in samples]
    pairs = enumerate(zip(samples, said, strict=True))
    labelled = [Sample(s.id, s.image, c if i % 2 else (c + 1) % 3) for i, (s, c) in pairs]
    certify_dataset(model, labelled, out, Settings(radius=[0.05, 0.1], n_max=500, known_label=True, seed=3))
    assert replay(model, labelled, read_run(out), 4) == []
    return read_run(out)


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


@pytest.mark.parametrize(("successes", "expected"), [(55, True), (54, False), (45, False), (50, False)])
def test_a_deviation_above_is_told_exactly(successes: int, expected: bool) -> None:
    assert is_deviation_above(successes, 100, Fraction(1, 2)) is expected


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
    assert fields(replace(row, truth=3, label=3), known) == {"truth"}
    assert fields(counted(row, label=3), known) == {"tested label"}
    assert fields(counted(row, selection=row.votes), known) == {"selection"}
    assert "radius" in fields(claiming(row, radius=1.001 * row.radius), known)


def test_alpha_is_no_more_than_its_share(led: Run) -> None:
    def wrong(**changed: float) -> set[str]:
        return {problem.field for problem in verify_run(replace(led, config={**led.config, **changed}))}

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
