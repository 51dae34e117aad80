"""Band certificates go through rows, status, verification and the report; what was changed is found."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustify import Settings, SmoothedClassifier, certify_dataset
from robustify.certificates.band_smoothing import BandPlan, BandSmoothing
from robustify.certificates.bands import Bands, most_touched
from robustify.certificates.family import Bound, Look, Subject
from robustify.certificates.question import Question
from robustify.contract import InputContract
from robustify.data import Sample
from robustify.report.html import write_report
from robustify.report.numbers import Chapter
from robustify.report.pictures import picture
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.verify.band_family import holds, largest_touched
from robustify.verify.claims import verify_row, verify_run
from robustify.verify.replay import replay
from tests.toys import Stripes
from tests.toys_bands import bright


@pytest.fixture
def model() -> SmoothedClassifier:
    return bright((1, 1), 1)


@pytest.fixture
def samples(stripes: Stripes) -> list[Sample]:
    images = stripes[0] // 4 + torch.randint(0, 192, (44, 1, 6, 6)).byte()
    labels = stripes[1].tolist()
    return [Sample(f"{i:02d}", x[0].numpy(), t) for i, (x, t) in enumerate(zip(images, labels, strict=True))][:20]


@pytest.fixture
def run(model: SmoothedClassifier, samples: list[Sample], out: Path) -> Run:
    certify_dataset(model, samples, out, Settings(seed=3))
    return read_run(out)


def fields(row: Row, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, run.plan, run)}


def test_rows_are_those_of_certificates_and_repeat(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    assert run.plan == model.plan(Settings())
    found = model.certify([sample.image for sample in samples])
    for row, c in zip(run.rows, found, strict=True):
        assert (row.label, row.uncertified, row.radius, row.tallies) == (c.label, c.uncertified, c.radius, c.tallies)
    certified = sum(row.label is not None for row in run.rows)
    assert 3 <= certified < 20
    assert all(row.answer is not None for row in run.rows)
    assert verify_run(run) == []
    assert replay(model, samples, run, 4) == []


def test_status_and_report_speak_of_patches(
    run: Run, model: SmoothedClassifier, samples: list[Sample], tmp_path: Path
) -> None:
    share = sum(row.label == row.truth for row in run.rows) / 20
    assert f"certified accuracy at radius 1: {100 * share:.1f} %" in str(run)
    write_report(
        tmp_path / "r.html", [Chapter("bands", run, pictures=[picture(model, samples[0], run.rows[0], run)])], title="t"
    )
    html = (tmp_path / "r.html").read_text()
    assert "<td>family</td><td>band-smoothing</td>" in html
    assert "patches, of the size that was asked about" in html


def test_whatever_was_changed_is_found(run: Run) -> None:
    row = next(row for row in run.rows if row.label is not None)
    (tally,) = row.tallies
    other = (tally.label + 1) % 3  # type: ignore[operator]  # there is one
    assert fields(replace(row, radius=2.0), run) == {"radius"}
    assert fields(replace(row, label=other), run) == {"label"}
    fewer = list(tally.votes)
    fewer[tally.label] -= 3  # type: ignore[index]
    fewer[other] += 3
    changed = replace(row, tallies=(tally._replace(votes=tuple(fewer)),))
    assert fields(changed, run) & {"label", "radius", "tested label"}
    assert fields(replace(row, tallies=(tally._replace(label=other),)), run) == {"tested label"}
    assert fields(replace(row, tallies=(tally._replace(looks=(Look(6, 6, 0),)),)), run) == {"votes"}
    assert fields(replace(row, bounds=(Bound(0.9, 0.1),)), run) >= {"bounds"}
    doubtful = next(row for row in run.rows if row.label is None)
    claimed = replace(doubtful, label=doubtful.answer, uncertified=None, radius=row.radius)
    assert fields(claimed, run) >= {"label", "radius"}
    other_images = Bands(6, 6, "columns", 1, 1, (0.4, 0.4, 0.4))
    assert {p.field for p in verify_row(row, BandPlan(other_images, (1, 1)), run)} == {"bands"}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (BandSmoothing((32, 32), 19, stride=10), 6),
        (BandSmoothing((32, 32), 19, stride=5), 11),
        (BandSmoothing((32, 1), 37, keep="rows", stride=10), 8),
        (BandSmoothing((32, 32), 19, keep="blocks", stride=10), 36),
        (BandSmoothing((5, 9), 19, keep="blocks", stride=10), 3 * 4),
    ],
    ids=str,
)
def test_the_independent_count_of_touched_bands_agrees(family: BandSmoothing, expected: int) -> None:
    plan = family.plan(Question(), Subject(InputContract(1, 224, 224), 2, lambda view: 0.0, mean=(0.5,)))
    assert largest_touched(plan) == plan.touched == expected


def test_the_independent_rule_settles_ties_against_every_rival() -> None:
    assert holds((21, 5, 5, 1), 0, 32, 8)
    assert not holds((5, 21, 5, 1), 1, 32, 8)
    assert holds((4, 21, 5, 2), 1, 32, 8)
    assert not holds((4, 21, 5, 1), 1, 32, 8)  # a draw failed
    assert most_touched(32, 5, 4, 1) == 8
