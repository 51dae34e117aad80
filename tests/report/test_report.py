import re
from pathlib import Path

import numpy as np
import pytest
import torch

from robustify import Identity, Settings, SmoothedClassifier, robustify
from robustify.data import Sample
from robustify.report.html import Chapter, write_report
from robustify.report.pictures import picture, telling
from robustify.runs.certify import certify_dataset


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
    assert "<td>–</td>" in html
    assert "Certified accuracy" not in html


def test_a_picture_shows_the_first_draw_that_was_counted(
    model: SmoothedClassifier, samples: list[Sample], out: Path
) -> None:
    settings = Settings(n=64, n0=64, batch=136, seed=3)  # all draws and eight probes in one batch
    run = certify_dataset(model, samples, out, settings)
    row, image = run.rows[2], model.prepare(samples[2].image)
    fed: list[torch.Tensor] = []
    model.pipeline.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    assert len(list(model.certificates([(row.sample, image)], model.provenance(settings)))) == 1
    selection, estimation = next(batch for batch in reversed(fed) if len(batch) == 136)[:128].split(64)
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
