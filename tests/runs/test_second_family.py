"""A family that the package has never heard of goes through runs, status, verification and reports unchanged."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from robustify import Identity, Settings, SmoothedClassifier
from robustify.certificates.family import CERTIFICATES
from robustify.certificates.plans import FixedPlan
from robustify.certificates.queries import ESTIMATION
from robustify.data import Sample
from robustify.errors import PluginError
from robustify.report.html import Chapter, write_report
from robustify.report.pictures import picture
from robustify.runs.certify import certify_dataset
from robustify.runs.estimate import estimate
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row, RowStore
from robustify.runs.status import status
from robustify.verify.claims import verify_run
from robustify.verify.replay import replay
from tests.toys_family import TwoLevels

SETTINGS = Settings(n=80, n0=20, batch=37, seed=3)
SIGMAS = (0.1, 0.2)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers the family in this process, for one test."""
    monkeypatch.setattr(CERTIFICATES, "_ready", dict(CERTIFICATES._ready))
    CERTIFICATES.register("two-levels", TwoLevels)
    yield


@pytest.fixture
def two(model: SmoothedClassifier) -> SmoothedClassifier:
    """The linear toy at two noise levels."""
    return SmoothedClassifier(model.classifier, Identity(), family=TwoLevels(SIGMAS))


@pytest.fixture
def run(family: None, two: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A finished run of the second family."""
    certify_dataset(two, samples, out, SETTINGS)
    return read_run(out)


def changed(run: Run, row: Row, **values: object) -> list[str]:
    """Fields of the problems that are found where one row has other values."""
    rows = [replace(row, **values) if old.sample == row.sample else old for old in run.rows]
    return [problem.field for problem in verify_run(replace(run, rows=rows))]


def claimed(run: Run) -> Row:
    return next(row for row in run.rows if row.radius > 0)


def test_it_is_certified_told_verified_repeated_and_reported(
    run: Run, two: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    assert sum(row.radius > 0 for row in run.rows) >= 3
    assert {row.draws for row in run.rows} == {180}
    assert (run.config["family"], run.plan) == ("two-levels", two.plan(SETTINGS))
    told = status(run)
    assert (told.draws, [a.radius for a in told.accuracies]) == (12 * 180, [0.0, 0.2, 0.4])
    assert str(told).endswith("Each radius is the minimum over two noise levels.")
    assert verify_run(run) == []
    assert replay(two, samples, run, 4) == []
    shown = [picture(two, sample, row, run) for sample, row in zip(samples[:2], run.rows[:2], strict=True)]
    assert [picture.sigma for picture in shown] == [0.2, 0.2]
    write_report(tmp_path / "report.html", [Chapter("two levels", run, pictures=shown)], title="t")
    html = (tmp_path / "report.html").read_text()
    assert "the minimum over two noise levels" in html
    assert "plan.sigmas" in html


def test_the_radius_is_the_smaller_of_those_of_one_level(run: Run) -> None:
    """Each level's votes, read by the plan of the standard family."""
    plan = run.plan
    for row in run.rows:
        radii = []
        for view, tally in enumerate(row.tallies[1:]):
            one = FixedPlan(SIGMAS[view], plan.alpha, 20, 80, plan.slack[view])  # type: ignore[attr-defined]
            chosen = row.tallies[0]
            radii.append(one.certify_votes([chosen, tally._replace(view=0)]).radius)
        assert len(radii) == 2
        assert row.radius == min(radii)


def test_an_interrupted_run_continues_to_the_same_rows(
    run: Run, two: SmoothedClassifier, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, out = RowStore.add, tmp_path / "again"

    def interrupted(store: RowStore, row: Row) -> None:
        if len(list((out / "rows").glob("*.parquet"))) == 4:
            raise KeyboardInterrupt
        add(store, row)

    with monkeypatch.context() as patch:
        patch.setattr(RowStore, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            certify_dataset(two, samples, out, SETTINGS)
    during = read_run(out)
    assert (len(during.rows), during.finished) == (4, False)
    assert "4 of 12 images, 720 draws" in str(during)
    again = certify_dataset(two, samples, out, replace(SETTINGS, batch=64))
    assert [row.tallies for row in again.rows] == [row.tallies for row in run.rows]


def test_what_was_tampered_with_is_found(run: Run, two: SmoothedClassifier, samples: list[Sample]) -> None:
    row = claimed(run)
    assert changed(run, row, radius=1.01 * row.radius) == ["radius"]
    assert changed(run, row, radius=0.99 * row.radius) == ["radius"]
    assert changed(run, row, label=(row.tallies[1].label or 0) + 1) == ["label"]
    second = row.bounds[1]._replace(p_lower=1 - (1 - row.bounds[1].p_lower) / 2)
    assert "p_lower of view 1" in changed(run, row, bounds=(row.bounds[0], second))
    votes = [v - (c == row.label) for c, v in enumerate(row.tallies[2].votes)]
    moved = row.tallies[2]._replace(votes=tuple(votes))
    assert changed(run, row, tallies=(*row.tallies[:2], moved)) == [f"{ESTIMATION} looks of view 1"]
    assert changed(run, row, tallies=row.tallies[:2]) == ["tallies"]
    other = replace(run, config={**run.config, "seed": "4"})
    assert {problem.field for problem in replay(two, samples, other, 4)} & {"estimation votes of view 1"}


def test_its_cost_is_estimated(family: None, two: SmoothedClassifier, samples: list[Sample], tmp_path: Path) -> None:
    told = estimate(two, samples, SETTINGS, ledger=tmp_path / "ledger")
    assert (told.draws, told.exact, told.attempt, told.batch) == (12 * 180, True, 1, 37)


def test_a_run_of_a_family_that_is_not_installed_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CERTIFICATES, "_ready", {})
    with pytest.raises(PluginError, match="two-levels"):
        verify_run(run)
    with pytest.raises(PluginError, match="two-levels"):
        status(run)
