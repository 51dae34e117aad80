"""Mixtures go through runs, status, verification, reports and the command line."""

from dataclasses import replace
from pathlib import Path

import pytest

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.family import Bound, Look
from robustify.certificates.mixed import Mixed, MixedPlan
from robustify.data import Sample
from robustify.report.html import write_report
from robustify.report.numbers import Chapter
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.verify.claims import verify_claims, verify_row, verify_run
from robustify.verify.mixed_family import problems
from robustify.verify.replay import replay
from tests.toys_family import known

known(Mixed)

SETTINGS = Settings(n=200, n0=20, seed=3)


@pytest.fixture
def mixed(model: SmoothedClassifier) -> SmoothedClassifier:
    """A model with a mixture of low weight."""
    return SmoothedClassifier(model.classifier, model.denoiser, family=Mixed(0.25, 0.7))


@pytest.fixture
def run(mixed: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A run as it is read back."""
    certify_dataset(mixed, samples, out, SETTINGS)
    return read_run(out)


def fields(row: Row, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, run.plan, run)}


def alone(row: Row, run: Run) -> set[str]:
    """What the independent arithmetic finds by itself."""
    assert isinstance(run.plan, MixedPlan)
    return {problem.field for problem in problems(row, run.plan, run)}


def test_every_image_is_answered(run: Run) -> None:
    assert isinstance(run.plan, MixedPlan)
    certified = [row for row in run.rows if row.radius > 0]
    others = [row for row in run.rows if row.radius == 0]
    assert min(len(certified), len(others)) >= 2
    assert all(row.uncertified is not None and row.label is None for row in others)
    assert all(row.uncertified is None for row in certified)
    assert {(row.n, row.draws) for row in run.rows} == {(200, 221)}
    assert f"answered without a certificate: {len(others)}" in str(run)


def test_a_run_is_verified_repeated_and_reported(
    run: Run, mixed: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    assert verify_run(run) == []
    assert replay(mixed, samples, run, 4) == []
    write_report(tmp_path / "report.html", [Chapter("mixed", run)], title="t")
    assert "the mixture&#39;s answer is given without" in (tmp_path / "report.html").read_text()


def test_enlarged_claims_are_found(run: Run) -> None:
    row = max(run.rows, key=lambda row: row.radius)
    assert row.label is not None
    ((low, high),) = row.bounds
    assert fields(replace(row, radius=1.000_001 * row.radius), run) == {"radius"}
    assert fields(replace(row, radius=0.99 * row.radius), run) == {"radius"}
    assert fields(replace(row, bounds=(Bound(low + 1e-6, high),)), run) == {"p_lower"}
    assert fields(replace(row, bounds=(Bound(low, high - 1e-6),)), run) == {"p_upper"}
    assert fields(replace(row, bounds=()), run) == {"bounds"}
    assert fields(replace(row, label=(row.label + 1) % 3), run) == {"label"}
    assert fields(replace(row, uncertified=row.label), run) == {"uncertified"}


def test_the_independent_arithmetic_finds_them_by_itself(run: Run) -> None:
    assert isinstance(run.plan, MixedPlan)
    forms = set()
    for row in run.rows:
        ((low, high),) = row.bounds
        assert alone(row, run) == set()
        forms.add(run.plan.single([row.tallies[0].votes], 200))
        if low > 0:
            assert "p_lower" in alone(replace(row, bounds=(Bound(low + 1e-9, high),)), run)
        if high < 1:
            assert "p_upper" in alone(replace(row, bounds=(Bound(low, high - 1e-9),)), run)
        if row.radius > 0:
            assert alone(replace(row, radius=row.radius * (1 + 1e-8)), run) == {"radius"}
        else:
            others = {c for c in range(3) if alone(replace(row, uncertified=c), run) == {"uncertified"}}
            assert others == {0, 1, 2} - {row.uncertified}
    assert forms == {True, False}


def test_changed_counts_are_found(run: Run) -> None:
    row = max(run.rows, key=lambda row: row.radius)
    label = row.label
    assert label is not None
    chosen, alone, tested = row.tallies
    votes = tuple(v + (c == label) - (c != label and v > 0) for c, v in enumerate(tested.votes))
    assert fields(replace(row, tallies=(chosen, alone, tested._replace(votes=votes))), run) & {
        "looks",
        "votes of view 0",
    }
    look = Look(200, tested.looks[0].label, 0)
    assert "looks" in fields(replace(row, tallies=(chosen, alone, tested._replace(looks=(look,)))), run)
    other = tested._replace(label=(label + 1) % 3)
    assert fields(replace(row, tallies=(chosen, alone, other)), run) == {"tested label"}
    assert fields(replace(row, tallies=(chosen, tested, alone)), run) == {"tallies"}
    named = alone._replace(label=0)
    assert fields(replace(row, tallies=(chosen, named, tested)), run) == {"selection"}
    short = tested._replace(draws=100, votes=tuple(v // 3 for v in tested.votes))
    assert "draws" in fields(replace(row, tallies=(chosen, alone, short)), run)


def test_another_answer_without_a_certificate_is_found(run: Run) -> None:
    row = next(row for row in run.rows if row.uncertified is not None)
    assert row.uncertified is not None
    assert fields(replace(row, uncertified=(row.uncertified + 1) % 3), run) == {"uncertified"}
    chosen, alone, tested = row.tallies
    beaten = [c for c in range(3) if c != row.uncertified and tested.votes[c] > tested.votes[row.uncertified] - 80]
    for c in beaten:  # at weight .7 the vote of the classifier alone is worth 86 of 200
        moved = alone._replace(votes=tuple(int(k == c) for k in range(3)))
        assert fields(replace(row, tallies=(chosen, moved, tested)), run) == {"uncertified"}


def test_another_weight_is_found(run: Run) -> None:
    heavier = {**run.config["plan"], "weight": 0.9}
    assert "radius" in {p.field for p in verify_claims(replace(run, config={**run.config, "plan": heavier}))}
    slack = {**run.config["plan"], "slack": 0.0}
    assert verify_claims(replace(run, config={**run.config, "plan": slack}))[0].field == "slack"


def test_predictions_are_of_the_mixture(mixed: SmoothedClassifier, samples: list[Sample]) -> None:
    images = [sample.image for sample in samples]
    certificates = mixed.certify(images, n_max=500, seed=1)
    predictions = mixed.predict(images, n=500, seed=2)
    assert sum(p.label is not None for p in predictions) >= 4
    for c, p in zip(certificates, predictions, strict=True):
        assert p.label in {c.answer, None} or c.label is None
        assert c.label is None or p.label in {c.label, None}


def test_certificates_tell_what_is_not_certified(mixed: SmoothedClassifier, samples: list[Sample]) -> None:
    told = [str(c) for c in mixed.certify([sample.image for sample in samples], n=200, n0=20, seed=3)]
    assert any("not certified: no label is certain enough" in text for text in told)
    assert any("changes the mixture's prediction" in text for text in told)
