"""Partitions go through runs, verification, reports and predictions."""

from dataclasses import replace
from pathlib import Path

import pytest

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.family import Bound, Look
from robustify.certificates.partition import Partition, PartitionPlan
from robustify.data import Sample
from robustify.report.html import write_report
from robustify.report.numbers import Chapter
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.verify.claims import verify_claims, verify_row, verify_run
from robustify.verify.partition_family import problems
from robustify.verify.replay import replay
from tests.toys_family import known

known(Partition)

SETTINGS = Settings(n=200, n0=20, seed=3)


@pytest.fixture
def halved(model: SmoothedClassifier) -> SmoothedClassifier:
    """A model of two halves."""
    return SmoothedClassifier(model.classifier, model.denoiser, family=Partition(0.1))


@pytest.fixture
def run(halved: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A run as it is read back."""
    certify_dataset(halved, samples, out, SETTINGS)
    return read_run(out)


def fields(row: Row, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, run.plan, run)}


def alone(row: Row, run: Run) -> set[str]:
    """What the independent arithmetic finds by itself."""
    assert isinstance(run.plan, PartitionPlan)
    return {problem.field for problem in problems(row, run.plan, run)}


def test_a_run_is_verified_repeated_and_reported(
    run: Run, halved: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    assert isinstance(run.plan, PartitionPlan)
    assert sum(row.radius > 0 for row in run.rows) >= 3
    assert {(row.n, row.draws) for row in run.rows} == {(400, 440)}
    assert all(len(row.bounds) == 2 for row in run.rows)
    assert verify_run(run) == []
    assert replay(halved, samples, run, 4) == []
    write_report(tmp_path / "report.html", [Chapter("halves", run)], title="t")
    assert "two halves of the pixels" in (tmp_path / "report.html").read_text()


def test_enlarged_claims_are_found(run: Run) -> None:
    row = max(run.rows, key=lambda row: row.radius)
    assert row.label is not None
    left, right = row.bounds
    assert fields(replace(row, radius=1.000_001 * row.radius), run) == {"radius"}
    assert fields(replace(row, radius=0.99 * row.radius), run) == {"radius"}
    for bounds in ((left._replace(p_lower=left.p_lower + 1e-6), right), (left, right._replace(p_lower=0.9999))):
        assert "p_lower" in fields(replace(row, bounds=bounds), run)
    assert "p_upper" in fields(replace(row, bounds=(left, Bound(right.p_lower, right.p_upper / 2))), run)
    assert fields(replace(row, bounds=(left,)), run) == {"bounds"}
    assert fields(replace(row, label=(row.label + 1) % 3), run) == {"label"}
    assert fields(replace(row, uncertified=row.label), run) == {"uncertified"}


def test_the_independent_arithmetic_finds_them_by_itself(run: Run) -> None:
    for row in run.rows:
        left, right = row.bounds
        assert alone(row, run) == set()
        assert "p_upper" in alone(replace(row, bounds=(left, right._replace(p_upper=right.p_upper - 1e-9))), run)
        if right.p_lower > 0:
            assert "p_lower" in alone(replace(row, bounds=(left, right._replace(p_lower=right.p_lower + 1e-9))), run)
        if row.radius > 0:
            assert alone(replace(row, radius=row.radius * (1 + 1e-8)), run) == {"radius"}


def test_one_half_does_not_choose_the_label(run: Run) -> None:
    row = max(run.rows, key=lambda row: row.radius)
    first, second, *tested = row.tallies
    assert row.label is not None
    other = (row.label + 1) % 3
    votes = tuple(11 * (c == other) + 9 * (c == row.label) for c in range(3))
    assert alone(replace(row, tallies=(first._replace(votes=votes), second, *tested)), run) == set()


def test_a_radius_of_the_published_rule_is_found(run: Run) -> None:
    """The root of the sum of squares, with the bounds as they are."""
    row = max(run.rows, key=lambda row: row.radius)
    root = 2**0.5 * row.radius
    assert alone(replace(row, radius=root * 0.999), run) == {"radius"}


def test_changed_counts_are_found(run: Run) -> None:
    row = max(run.rows, key=lambda row: row.radius)
    label = row.label
    assert label is not None
    first, second, left, right = row.tallies
    fewer = right._replace(votes=tuple(v - 1 if c == label else v for c, v in enumerate(right.votes)))
    assert fields(replace(row, tallies=(first, second, left, fewer)), run) == {"looks"}
    look = Look(200, right.looks[0].label + 1, right.looks[0].rival)
    assert fields(replace(row, tallies=(first, second, left, right._replace(looks=(look,)))), run) == {"looks"}
    elsewhere = right._replace(label=(label + 1) % 3)
    assert fields(replace(row, tallies=(first, second, left, elsewhere)), run) == {"tested label"}
    assert fields(replace(row, tallies=(second, first, left, right)), run) == {"tallies"}
    chosen = tuple(20 * (c == (label + 1) % 3) for c in range(3))
    pilots = first._replace(votes=chosen), second._replace(votes=chosen)
    assert fields(replace(row, tallies=(*pilots, left, right)), run) == {"tested label"}
    slack = {**run.config["plan"], "slack": 0.0}
    assert verify_claims(replace(run, config={**run.config, "plan": slack}))[0].field == "slack"


def test_predictions_are_of_the_partition(halved: SmoothedClassifier, samples: list[Sample]) -> None:
    images = [sample.image for sample in samples]
    certificates = halved.certify(images, n_max=500, seed=1)
    predictions = halved.predict(images, n=1_000, seed=2)
    assert isinstance(certificates, list)
    assert isinstance(predictions, list)
    assert sum(p.label is not None for p in predictions) >= 4
    assert all(c.label is None or p.label in {c.label, None} for c, p in zip(certificates, predictions, strict=True))
    assert any("changes the partition's prediction" in str(c) for c in certificates)
