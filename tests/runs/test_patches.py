"""Patch certificates go through rows, status, verification, reports and the command line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.family import Bound, Look
from robustify.certificates.masks import Masking
from robustify.certificates.patch_cleanser import MaskingPlan, PatchCleanser
from robustify.certificates.question import Question
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.report.html import meaning, write_report
from robustify.report.numbers import Chapter, text_table
from robustify.report.pictures import picture
from robustify.runs.estimate import estimate
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.runs.status import status
from robustify.testing import check_certificate
from robustify.verify.claims import verify_claims, verify_row, verify_run
from robustify.verify.patch_family import problems, uncovered
from robustify.verify.replay import replay
from tests.toys import stripes
from tests.toys_patches import bright, tiny

SETTINGS = Settings(batch=32)


@pytest.fixture(scope="module")
def model() -> SmoothedClassifier:
    """A classifier of stripes with certificates against a patch of 2×2 pixels."""
    return bright((2, 2), masks=3)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Some clear stripes, some not; every third true label is another one."""
    torch.manual_seed(0)
    images = stripes()[0] // 3 + torch.randint(0, 160, (44, 1, 6, 6)).byte()
    labels = [(i + (i % 9 == 0)) % 3 for i in range(24)]
    return [Sample(f"{i:02d}", images[i].numpy(), label) for i, label in enumerate(labels)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model: SmoothedClassifier, samples: list[Sample]) -> Run:
    """A run as it is read back."""
    out = tmp_path_factory.mktemp("patches") / "run"
    certify_dataset(model, samples, out, SETTINGS)
    return read_run(out)


@pytest.mark.parametrize(
    "family", [PatchCleanser(0.02, masks=2), PatchCleanser((2, 2), stride=3), PatchCleanser([(1, 3), (3, 1)], masks=3)]
)
def test_the_family_passes_the_conformance_suite(family: PatchCleanser) -> None:
    check_certificate(family, Question(), [])


def test_two_patches_pass_the_conformance_suite() -> None:
    check_certificate(PatchCleanser((1, 1), masks=2, patches=2), Question(), [])


def test_rows_keep_what_certificates_say(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    assert run.plan == model.plan(SETTINGS)
    assert run.config["plan"]["shapes"] == [[2, 2]]
    certified = [row for row in run.rows if row.label is not None]
    uncertified = [row for row in run.rows if row.uncertified is not None]
    assert len(certified) >= 5
    assert len(uncertified) >= 1
    assert {row.draws for row in run.rows} == {9, 45}
    assert all(row.radius > 1 and row.votes[row.label or 0] == 45 for row in certified)
    assert verify_run(run) == []
    assert replay(model, samples, run, 24) == []


def test_status_estimate_and_report_tell_of_patches(
    run: Run, model: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    right = sum(row.correct for row in run.rows)
    assert 0 < right < sum(row.label is not None for row in run.rows)
    lines = str(run).splitlines()
    assert lines[0].startswith("24 of 24 images, ")
    assert lines[1].startswith("certified accuracy at radius 1: ")
    assert "false certificates: none, because the proof leaves nothing to chance" in lines
    assert lines[-1].startswith("An image whose single masks disagree has no certificate")
    (accuracy,) = status(run).accuracies
    assert (accuracy.radius, accuracy.share, accuracy.proven) == (1.0, right / 24, right / 24)
    told = estimate(model, samples, SETTINGS)
    assert (told.draws, told.exact, told.alpha) == (24 * 45, False, 0.0)
    assert "draws: at most 1,080, in batches of 32" in str(told)
    said = "under every change of the pixels by patches, their number up to r, each within 2×2 pixels; none rests on"
    assert said in meaning(run)
    chapter = Chapter("patches", run, pictures=[picture(model, samples[0], run.rows[0], run)])
    assert "r = 1" in text_table([chapter])
    write_report(tmp_path / "report.html", [chapter], title="t")
    html = (tmp_path / "report.html").read_text()
    assert "<figcaption>first draw</figcaption>" in html
    assert "<td>family</td><td>patch-cleanser</td>" in html


def fields(row: Row, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, run.plan, run)}


def test_whatever_was_changed_in_a_certified_row_is_found(run: Run) -> None:
    row = next(row for row in run.rows if row.label is not None)
    label = row.label or 0
    (tally,) = row.tallies

    def told(**changed: Any) -> set[str]:  # noqa: ANN401 - fields of several types
        return fields(replace(row, tallies=(tally._replace(**changed),)), run)

    assert fields(replace(row, radius=1.001), run) == {"radius"}
    assert fields(replace(row, radius=2.0), run) == {"radius"}
    assert fields(replace(row, radius=0.5), run) == {"radius"}
    assert fields(replace(row, label=(label + 1) % 3), run) == {"label"}
    assert fields(replace(row, label=None, radius=0.0), run) == {"label", "radius"}
    one_less = tuple(v - (c == label) for c, v in enumerate(tally.votes))
    moved = tuple(v - (c == label) + (c == (label + 1) % 3) for c, v in enumerate(tally.votes))
    for votes in (one_less, moved):
        assert told(votes=votes) == {"looks"}
        assert told(votes=votes, looks=(tally.looks[0], Look(45, 44, 1))) == {"label", "radius", "uncertified"}
    assert told(label=(label + 1) % 3) == {"tested label"}
    assert told(looks=()) == {"looks"}
    assert told(looks=(tally.looks[1],)) == {"looks"}
    assert told(looks=(Look(9, 8, 1), tally.looks[1])) == {"looks"}
    assert told(draws=9, looks=tally.looks[:1], votes=tuple(v // 5 for v in tally.votes)) == {
        *("label", "radius", "uncertified"),
    }
    assert told(draws=44) == {"votes"}
    assert fields(replace(row, tallies=(tally, tally._replace(draws=0))), run) == {"votes"}


def test_the_checker_alone_finds_claims_that_counts_do_not_prove(run: Run) -> None:
    """Without the plan's own reading of the counts, which finds whatever is not as it says."""

    def alone(row: Row) -> set[str]:
        assert isinstance(run.plan, MaskingPlan)
        return {problem.field for problem in problems(row, run.plan, run)}

    row = next(row for row in run.rows if row.label is not None)
    assert alone(row) == set()
    assert alone(replace(row, radius=1.001)) == {"radius"}
    assert alone(replace(row, label=((row.label or 0) + 1) % 3)) == {"label"}
    assert alone(replace(row, bounds=(Bound(0.9, 0.1),))) == {"bounds"}
    other = next(row for row in run.rows if row.uncertified is not None)
    assert alone(replace(other, label=other.uncertified, radius=1.0)) == {"label", "radius"}


def test_an_uncertified_row_cannot_become_certified(run: Run) -> None:
    row = next(row for row in run.rows if row.label is None)
    lead = row.votes.index(max(row.votes))
    assert {"label", "radius"} <= fields(replace(row, label=lead, radius=1.0, uncertified=None), run)
    answered = next(row for row in run.rows if row.uncertified is not None)
    other = (answered.uncertified or 0) + 1
    assert fields(replace(answered, uncertified=other % 3), run) == {"uncertified"}


@pytest.mark.parametrize(
    "changed", [{"height": 7}, {"width": 5}, {"fill": [0.4, 0.4]}, {"masks": 2}, {"patches": 2}, {"shapes": [[3, 2]]}]
)
def test_masks_of_another_plan_do_not_fit_the_rows(run: Run, changed: dict[str, Any]) -> None:
    config = {**run.config, "plan": {**run.config["plan"], **changed}}
    assert verify_claims(replace(run, config=config)) != []


def test_masks_that_leave_a_place_uncovered_are_found(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    assert uncovered(tiny(6, 7, (2, 3), (3, 2), masks=3)) is None
    honest = Masking.rectangles.func(run.plan.masking)  # type: ignore[attr-defined]
    for lost in range(len(honest)):
        kept = tuple(honest[i - 1] if i == lost else r for i, r in enumerate(honest))
        monkeypatch.setattr(Masking, "rectangles", property(lambda self, kept=kept: kept))
        uncovered.cache_clear()
        assert uncovered(tiny(6, 6, (2, 2), masks=3)) == (2, 2)
        assert {problem.field for problem in verify_claims(run)} == {"masks"}
    uncovered.cache_clear()


def test_other_masks_are_another_run(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    with pytest.raises(RunError, match=r"plan\.masks: there 3, now 4"):
        certify_dataset(bright((2, 2), masks=4), samples, run.folder, SETTINGS)
    with pytest.raises(InputError, match="leave out n="):
        certify_dataset(model, samples, run.folder, Settings(n=100))
    again = certify_dataset(model, samples, run.folder, Settings(radius=1.0))
    assert [row.tallies for row in again.rows] == [row.tallies for row in run.rows]


def test_a_ledger_counts_attempts_at_masks_too(
    model: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    for attempt in (1, 2):
        ledger, out = tmp_path / "ledger", tmp_path / f"run{attempt}"
        run = certify_dataset(model, samples[:2], out, Settings(family_wise=True), ledger=ledger)
        assert run.config["attempt"] == attempt
        assert verify_run(run) == []
