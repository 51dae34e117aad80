import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustify import Identity, Settings, SmoothedClassifier, robustify
from robustify.certificates.decisions import DecisionPlan
from robustify.certificates.plans import FixedPlan
from robustify.certificates.radii import largest_radius
from robustify.data import Sample, open_samples
from robustify.report.clean import clean_accuracy
from robustify.report.curves import steps, ticks
from robustify.report.html import write_report
from robustify.report.numbers import Chapter, columns, text_table
from robustify.report.pictures import picture, telling
from robustify.runs.certify import certify_dataset
from robustify.runs.metrics import certified_accuracy
from robustify.zoo import FOLDER, HELD_OUT


@pytest.fixture
def chapter(model: SmoothedClassifier, samples: list[Sample], out: Path) -> Chapter:
    """One model with its baseline and two pictures."""
    plain = robustify(model.classifier, denoiser=Identity(channels=1), sigma=0.25)
    run = certify_dataset(model, samples, out / "a", Settings(n=100))
    baseline = certify_dataset(plain, samples, out / "b", Settings(n=100))
    pictures = [picture(model, samples[i], run.rows[i], run) for i in (0, 1)]
    return Chapter("<tiny> model", run, baseline, pictures)


def test_the_report_is_one_file_that_needs_nothing_else(chapter: Chapter, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [chapter], title="a < b")
    html = (tmp_path / "report.html").read_text()
    assert "a &lt; b" in html
    assert "&lt;tiny&gt; model, no denoiser" in html
    assert html.count("data:image/png;base64,") == 4  # clean and noisy: there is no denoiser
    assert html.count("<svg") == 1
    assert not re.search(r"""(src|href)=["']https?:""", html.replace("xmlns", ""))
    assert "false with chance at most 0.001" in html
    assert "Dashed: without a denoiser" in html


def test_name_and_label_stand_above_the_images_of_a_card(chapter: Chapter, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [chapter], title="t")
    cards = (tmp_path / "report.html").read_text().split('<div class="card">')[1:]
    for card, shown in zip(cards, chapter.pictures, strict=True):
        about, images = card.split('<div class="images">')
        assert re.findall(r"<span[^>]*>([^<]*)</span>", about) == [shown.row.sample, f"true label: {shown.truth}"]
        assert re.findall(r"<figcaption>([^<]*)<", images) == ["clean", "noise σ = 0.25"]


def test_what_was_run_is_one_folded_table(chapter: Chapter, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [chapter], title="t")
    html = (tmp_path / "report.html").read_text()
    (folded,) = re.findall(r"<details>.*?</details>", html, re.DOTALL)
    assert "What was run" in folded.split("</summary>")[0]
    assert folded.count("<table") == 1
    assert "<th>&lt;tiny&gt; model</th><th>&lt;tiny&gt; model, no denoiser</th>" in folded
    assert chapter.run.config["classifier"]["sha256"] in folded
    assert re.search(r'<td>plan.n</td><td colspan="2">100</td>', folded)  # what all runs share is said once
    assert str(chapter.run.seed) in folded
    assert chapter.baseline is not None
    assert str(chapter.baseline.seed) in folded


def test_clean_accuracy_stands_beside_certified(chapter: Chapter, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [replace(chapter, clean=0.75)], title="t")
    html = (tmp_path / "report.html").read_text()
    assert "<th>clean</th>" in html
    assert html.count("<td>75.0 %</td>") >= 2
    write_report(tmp_path / "report.html", [chapter], title="t")
    assert "<th>clean</th>" not in (tmp_path / "report.html").read_text()


def test_clean_accuracy_is_the_classifier_alone(model: SmoothedClassifier, samples: list[Sample]) -> None:
    """Neither noise nor denoiser is before it."""
    pixels = torch.stack([torch.from_numpy(np.asarray(s.image)).float()[None] / 255 for s in samples])
    with torch.inference_mode():
        guessed = model.classifier(pixels).argmax(dim=1).tolist()
    right = [Sample(s.id, s.image, label) for s, label in zip(samples, guessed, strict=True)]
    wrong = [Sample(s.id, s.image, (label + 1) % 3) for s, label in zip(samples[:4], guessed[:4], strict=True)]
    assert clean_accuracy(model, right) == 1
    assert clean_accuracy(model, [*wrong, *right[4:]]) == pytest.approx(8 / 12)


def test_clean_accuracy_is_that_on_record() -> None:
    model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5)
    recorded = json.loads((FOLDER / "record.json").read_text())["models"]["timm"]["accuracy"]["held_out"]
    assert clean_accuracy(model, open_samples(HELD_OUT, model.labels)) == recorded


def test_columns_follow_sigma_up_to_what_can_be_proven() -> None:
    assert columns(FixedPlan(sigma=0.5, alpha=0.001, n0=10, n=128)) == (0, 0.25, 0.5, 0.75)
    assert columns(FixedPlan(sigma=0.12, alpha=0.001, n0=10, n=128)) == pytest.approx((0, 0.06, 0.12, 0.18))
    assert columns(DecisionPlan(0.5, 0.001, 100, 1_000, radii=(0.1, 0.3))) == (0.1, 0.3)


def test_the_text_table_shows_what_the_report_shows(chapter: Chapter) -> None:
    lines = [re.split("  +", line) for line in text_table([replace(chapter, clean=0.75)]).splitlines()]
    assert [line[0] for line in lines] == ["model", "<tiny> model, no denoiser", "<tiny> model"]
    rows = chapter.run.rows
    for r in columns(chapter.run.plan):
        assert f"r = {r:g}" in lines[0]
    share = 100 * sum(row.correct for row in rows) / len(rows)
    assert lines[2][1:3] == ["75.0 %", f"{math.floor(10 * share) / 10:.1f} %"]


def test_curves_are_steps(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    rows = certify_dataset(model, samples, out, Settings(n=100, seed=1)).rows
    edges, values = steps(rows, 2.0)
    assert (edges[0], edges[-1], values[-1]) == (0, 2, 0)
    assert list(edges) == sorted(edges)
    assert len(edges) == len(values) + 1
    assert set(edges[1:-1]) == {row.radius for row in rows if row.correct and row.radius}
    for left, right, value in zip(edges, edges[1:], values, strict=False):
        for r in (left, (left + right) / 2, right * (1 - 1e-9)):
            assert value == certified_accuracy(rows, r)


def test_the_figure_names_what_the_draws_can_prove(chapter: Chapter, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [chapter], title="t")
    html = (tmp_path / "report.html").read_text()
    most = largest_radius(100, alpha=0.001, sigma=0.25)
    assert f"n = 100 proves at most {math.floor(1000 * most) / 1000:.3f}" in html


@pytest.mark.parametrize(("sigma", "end"), [(0.5, 0.81), (0.25, 0.95), (0.12, 0.38), (1.0, 3.8)])
def test_ticks_are_multiples_of_a_quarter_of_sigma(sigma: float, end: float) -> None:
    found = ticks(sigma, end)
    assert 4 <= len(found) <= 12
    assert found[0] == 0
    assert found[-1] <= end < found[-1] + (found[1] - found[0])
    assert all(4 * r / sigma == pytest.approx(round(4 * r / sigma)) for r in found)


def test_the_table_shows_the_radii_that_were_decided(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path
) -> None:
    run = certify_dataset(model, samples, out, Settings(radius=[0.1, 0.3]))
    write_report(tmp_path / "report.html", [Chapter("m", run)], title="t")
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r"<th>r = ([\d.]+)</th>", html) == ["0.1", "0.3"]
    assert "Dashed" not in html


def test_unlabelled_images_give_a_report_without_a_curve(
    model: SmoothedClassifier, samples: list[Sample], out: Path, tmp_path: Path
) -> None:
    unlabelled = [Sample(s.id, s.image, None) for s in samples]
    run = certify_dataset(model, unlabelled, out, Settings(n=100))
    write_report(tmp_path / "report.html", [Chapter("m", run)], title="t")
    html = (tmp_path / "report.html").read_text()
    assert "<svg" not in html
    assert "Certified accuracy" not in html
    assert re.findall(r"<th>([^<]*)</th>", html.split("<details>")[0]) == ["model", "images", "abstains", "s / image"]
    assert "–" not in html


def test_a_picture_shows_the_first_draw_that_was_counted(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    settings = Settings(n=64, n0=64, batch=133, seed=3)  # all draws and some probes in one batch
    run = certify_dataset(model, samples, out, settings)
    row, image = run.rows[2], model.prepare(samples[2].image)
    fed: list[torch.Tensor] = []
    model.pipeline.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    assert len(list(model.certificates([(row.sample, image)], model.provenance(settings)))) == 1
    selection, estimation = next(batch for batch in reversed(fed) if len(batch) == 133)[:128].split(64)
    shown = picture(model, samples[2], row, run)
    noisy = (255 * estimation[0, 0].clamp(0, 1)).round().to(torch.uint8).numpy()
    assert np.array_equal(shown.noisy[:, :, 0], noisy)
    assert not torch.equal(selection[0], estimation[0])
    assert shown.sigma == 0.25
    assert np.array_equal(shown.clean[:, :, 0], np.asarray(samples[2].image))
    assert shown.votes[0] == (model.labels[np.argmax(row.votes)], max(row.votes) / 64)


def test_telling_rows_span_the_radii(model: SmoothedClassifier, samples: list[Sample], out: Path) -> None:
    rows = certify_dataset(model, samples, out, Settings(n=100)).rows
    chosen = telling(rows, 4)
    radii = [row.radius for row in chosen]
    assert radii == sorted(radii, reverse=True)
    assert (radii[0], radii[-1]) == (max(r.radius for r in rows), min(r.radius for r in rows))
    assert telling(rows[:2], 4) == sorted(rows[:2], key=lambda r: -r.radius)
