"""Another family of certificates goes through rows, status, verification and reports, none of which knows it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import pytest

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.decisions import KnownLabelPlan
from robustify.certificates.family import CERTIFICATES, Family, Plan, Subject, Tally
from robustify.certificates.gaussian import Gaussian
from robustify.certificates.queries import ESTIMATION
from robustify.certificates.question import Question
from robustify.certificates.radii import gaussian_radius
from robustify.certificates.views import View
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.report.html import meaning, write_report
from robustify.report.numbers import Chapter
from robustify.report.pictures import picture
from robustify.runs.estimate import estimate
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.runs.status import status
from robustify.verify.claims import verify_claims, verify_row, verify_run
from robustify.verify.replay import replay
from tests.toys import Shrink
from tests.toys_family import Agree, TwoLevels, TwoLevelsPlan

SETTINGS = Settings(n=200, n0=20, seed=3)


@pytest.fixture
def both(model: SmoothedClassifier) -> SmoothedClassifier:
    """A model whose certificates hold at two levels."""
    return SmoothedClassifier(model.classifier, model.denoiser, family=TwoLevels((0.1, 0.25)))


@pytest.fixture
def run(both: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    """A run as it is read back."""
    certify_dataset(both, samples, out, SETTINGS)
    return read_run(out)


def fields(row: Row, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, run.plan, run)}


def voting(tally: Tally, label: int) -> Tally:
    """The tally with one more vote for the label, and one look less wrong."""
    votes = tuple(v + (c == label) - (c == (label + 1) % 3) for c, v in enumerate(tally.votes))
    return tally._replace(votes=votes)


def test_rows_keep_the_tallies_of_both_levels(run: Run, both: SmoothedClassifier, samples: list[Sample]) -> None:
    assert run.plan == both.plan(SETTINGS)
    assert run.config["plan"]["sigmas"] == [0.1, 0.25]
    images = [(s.id, both.prepare(s.image)) for s in samples]
    certificates = {c.sample: c for c in both.certificates(images, both.provenance(SETTINGS))}
    assert sum(row.radius > 0 for row in run.rows) >= 3
    for row in run.rows:
        c = certificates[row.sample]
        assert (row.label, row.radius, row.bounds, row.tallies) == (c.label, c.radius, c.bounds, c.tallies)
        assert [(tally.view, tally.stage) for tally in row.tallies] == [
            (0, "selection"),
            (0, "estimation"),
            (1, "estimation"),
        ]
        levels = zip(row.bounds, (0.1, 0.25), strict=True)
        assert row.radius == min(gaussian_radius(*bound, sigma=sigma) for bound, sigma in levels)
        assert (row.n, row.draws) == (400, 420)


def test_status_estimate_and_report_tell_of_both_levels(
    run: Run, both: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    lines = str(run).splitlines()
    assert lines[0].startswith("12 of 12 images, 5,040 draws; ")
    assert [line.split(":")[0] for line in lines[1:4]] == [
        f"certified accuracy at radius {radius}" for radius in ("0", "0.25", "0.5")
    ]
    told = estimate(both, samples, SETTINGS)
    assert (told.draws, told.exact) == (5_040, True)
    chapter = Chapter("two levels", run, pictures=[picture(both, samples[0], run.rows[0], run)])
    write_report(tmp_path / "report.html", [chapter], title="t")
    html = (tmp_path / "report.html").read_text()
    assert "<td>family</td><td>two-levels</td>" in html
    assert "noise σ = 0.1" in html


def test_a_genuine_run_is_verified_and_repeats(run: Run, both: SmoothedClassifier, samples: list[Sample]) -> None:
    assert verify_run(run) == []
    assert replay(both, samples, run, 4) == []


def test_whatever_was_changed_is_found(run: Run) -> None:
    row = max(run.rows, key=lambda row: row.radius)
    assert row.label is not None
    chosen, first, second = row.tallies
    lower, upper = row.bounds
    assert fields(replace(row, radius=1.01 * row.radius), run) == {"radius"}
    assert fields(replace(row, radius=0.99 * row.radius), run) == {"radius"}
    assert fields(replace(row, bounds=(lower, upper._replace(p_lower=0.999))), run) == {"p_lower"}
    assert fields(replace(row, bounds=(lower._replace(p_upper=0.001), upper)), run) == {"p_upper"}
    assert fields(replace(row, label=(row.label + 1) % 3), run) == {"label"}
    moved = (chosen, first, voting(second, row.label))
    assert fields(replace(row, tallies=moved), run) == {"looks of view 1"}
    assert fields(replace(row, tallies=(chosen, second, first)), run) == {"tallies"}
    many = second._replace(votes=tuple(10 * v for v in second.votes))
    assert fields(replace(row, tallies=(chosen, first, many)), run) == {"votes of view 1"}
    assert fields(replace(row, tallies=(chosen, first, second._replace(view=2))), run) == {"votes of view 2"}
    assert fields(replace(row, tallies=(chosen, first)), run) == {"draws"}
    slack = {**run.config["plan"], "slack": [run.config["plan"]["slack"][0], 0.0]}
    assert verify_claims(replace(run, config={**run.config, "plan": slack}))[0].field == "slack"


def test_draws_that_another_seed_gives_do_not_repeat(run: Run, both: SmoothedClassifier, samples: list[Sample]) -> None:
    problems = replay(both, samples, replace(run, config={**run.config, "seed": "4"}), 4)
    assert {"votes of view 0", "votes of view 1"} <= {problem.field for problem in problems}


def test_other_levels_are_another_run(run: Run, both: SmoothedClassifier, samples: list[Sample]) -> None:
    other = SmoothedClassifier(both.classifier, both.denoiser, family=TwoLevels((0.1, 0.3)))
    with pytest.raises(RunError, match=r"plan\.sigmas: there \[0\.1, 0\.25\], now \[0\.1, 0\.3\]"):
        certify_dataset(other, samples, run.folder, SETTINGS)
    with pytest.raises(RunError, match=r"sigma: there \[0\.1, 0\.25\], now \[0\.1, 0\.3\]"):
        replay(other, samples, run)
    single = SmoothedClassifier(both.classifier, both.denoiser, sigma=0.1)
    with pytest.raises(RunError, match='family: there "two-levels", now "gaussian"'):
        replay(single, samples, run)


def test_both_levels_are_in_the_denoisers_description(
    both: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    shrinking = SmoothedClassifier(both.classifier, Shrink(), family=both.family)
    run = certify_dataset(shrinking, samples[:2], out, SETTINGS)
    assert run.config["denoiser"]["description"] == "by 0.1; by 0.25"
    assert isinstance(run.plan, TwoLevelsPlan)


def test_a_family_that_is_not_installed_is_named(run: Run) -> None:
    (run.folder / "run.json").write_text(json.dumps({**run.config, "family": "three-levels"}))
    with pytest.raises(Exception, match="no certificate family named 'three-levels'"):
        str(read_run(run.folder))


def test_a_proof_without_noise_and_chance_is_told_and_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CERTIFICATES._ready, "agree", Agree)
    config = {
        **{"format": 2, "family": "agree", "plan": {"radius": 0.5}, "soundness": "grid", "samples": 2},
        **{"labels": ["cat", "dog"], "contract": {"channels": 1, "height": 4, "width": 4}},
    }
    sure = Row("a", 0, 0, 0.5, (), (Tally(0, ESTIMATION, 2, (2, 0)),), batch=2, pixels="p", seconds=1.0)
    none = Row("b", 0, None, 0.0, (), (Tally(0, ESTIMATION, 2, (1, 1)),), batch=2, pixels="p", seconds=1.0)
    run = Run(Path("run"), config, [sure, none], finished=True)
    assert str(run).splitlines()[-1] == "false certificates: none, because the proof leaves nothing to chance"
    assert [(a.radius, a.share, a.proven) for a in status(run).accuracies] == [(0.5, 0.0, 0.0)]
    assert "none rests on chance." in meaning(run)
    assert verify_run(run) == []
    assert fields(replace(none, label=0, radius=0.5), run) == {"radius", "label"}
    assert fields(replace(sure, label=1), run) == {"label"}


@final
@dataclass(frozen=True)
class OfTruths(Family):
    """Certificates of true labels at one level, which no setting asks for."""

    name, checker = "gaussian", Gaussian.checker

    levels = (0.25,)

    def plan(self, question: Question, subject: Subject) -> Plan:
        return KnownLabelPlan(0.25, question.alpha, 0, question.n_max, subject.slack(View(0.25)), (0.05,))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Plan:
        return Gaussian.read(stored)


def test_a_family_gets_the_true_labels_that_it_needs(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    truthful = SmoothedClassifier(model.classifier, model.denoiser, family=OfTruths())
    run = certify_dataset(truthful, samples, out, Settings(n_max=300, seed=3))
    assert all(row.tallies[0].label == row.truth for row in run.rows)
    with pytest.raises(InputError, match="12 of 12 have none"):
        certify_dataset(truthful, [Sample(s.id, s.image, None) for s in samples], out / "other")
