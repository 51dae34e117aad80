"""A model whose certificates are of a cascade: from one line to rows, and back from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor

from robustify import Preprocessing, Settings, SmoothedClassifier, certify_dataset, robustify
from robustify.certificates.cascade import Cascade
from robustify.certificates.certificate import Certificate
from robustify.data import Sample
from robustify.denoisers import Denoiser, Identity
from robustify.report.html import write_report
from robustify.report.numbers import Chapter
from robustify.runs.folder import read_run
from robustify.runs.status import status
from robustify.types import Levels, Pixels
from robustify.verify.claims import verify_run
from robustify.verify.replay import replay
from tests import toys
from tests.toys_cascade import SIGMAS

SETTINGS = Settings(n=200, n0=20, alpha=0.01, seed=3)


@final
class Watching(Denoiser):
    """Changes nothing, and keeps the noise levels of every batch."""

    name, channels, size, licence = "watching", None, None, None

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[set[float]] = []
        self.eval()

    def forward(self, noisy: Pixels, sigma: Levels) -> Pixels:
        self.seen.append(set(sigma.tolist()) if isinstance(sigma, Tensor) else {sigma})
        return noisy

    def describe(self, sigma: float) -> str:
        return f"at {sigma}"


def cascade(denoiser: Denoiser | None = None, **settings: Any) -> SmoothedClassifier:  # noqa: ANN401
    family = Cascade(SIGMAS, **settings)
    return SmoothedClassifier(toys.linear_model().classifier, denoiser or Identity(), family=family)


def certificates(model: SmoothedClassifier, samples: list[Sample], settings: Settings) -> list[Certificate]:
    found = model.certify([sample.image for sample in samples], **vars(settings))
    assert isinstance(found, list)
    return found


def test_one_line_makes_a_cascade(samples: list[Sample]) -> None:
    network = toys.linear_model().classifier.network
    model = robustify(network, preprocessing=Preprocessing((0.5,), (0.5,), (4, 4)), sigma=[0.5, 0.25, 1.0])
    assert model.family.levels == (1.0, 0.5, 0.25)
    assert "sigma = 1, 0.5, 0.25, the first with a class above 0.5" in repr(model)
    found = certificates(model, samples, SETTINGS)
    assert sum(c.radius > 0 for c in found) > 6
    assert all(len(c.bounds) == 3 and c.n == 600 for c in found)


def test_draws_of_several_levels_share_batches(samples: list[Sample]) -> None:
    denoiser = Watching()
    model = cascade(denoiser)
    certificates(model, samples, SETTINGS)  # and what it takes to check the model
    model_checked = len(denoiser.seen)
    found = certificates(model, samples, replace(SETTINGS, seed=4))
    batches = denoiser.seen[model_checked:]
    assert any(len(levels) == 3 for levels in batches)
    draws = sum(c.draws for c in found)
    assert len(batches) <= draws / 63 + 8  # full batches, but for the last ones


def test_predict_and_certify_answer_for_one_classifier(samples: list[Sample]) -> None:
    for otherwise in ("abstain", "argmax", "clean"):
        model = cascade(otherwise=otherwise)
        found = certificates(model, samples, SETTINGS)
        predicted = model.predict([sample.image for sample in samples], n=1000, seed=9)
        pairs = [(c.answer, p.label) for c, p in zip(found, predicted, strict=True)]  # type: ignore[arg-type]
        assert all(one == other for one, other in pairs if None not in (one, other))
        assert sum(None not in pair for pair in pairs) > 4


def test_where_no_level_fires_the_classifier_alone_may_answer(samples: list[Sample], tmp_path: Path) -> None:
    model = cascade(otherwise="clean", p0=0.9)
    run = certify_dataset(model, samples, tmp_path, SETTINGS)
    alone = [row for row in run.rows if row.uncertified is not None]
    assert len(alone) > 2
    images = {sample.id: model.prepare(sample.image).float() / 255 for sample in samples}
    for row in alone:
        assert (row.label, row.radius) == (None, 0.0)
        assert row.answer == int(model.classifier(images[row.sample][None]).argmax())
        assert [(t.view, t.draws) for t in row.tallies][-1] == (3, 1)
    assert read_run(tmp_path).rows == run.rows
    assert verify_run(run) == []
    assert replay(model, samples, run, 4) == []
    assert status(run).uncertified == len(alone)
    told = certificates(model, samples, SETTINGS)
    assert any("not certified" in str(c) for c in told)
    predicted = model.predict([sample.image for sample in samples], seed=5)
    assert any(p.n == 1 and p.label is not None for p in predicted)  # type: ignore[union-attr]


@pytest.mark.parametrize("question", [{"n": 200}, {"n_max": 300}])
def test_a_run_of_a_cascade_is_kept_verified_and_told(
    question: dict[str, int], samples: list[Sample], tmp_path: Path
) -> None:
    model = cascade()
    run = certify_dataset(model, samples, tmp_path, Settings(**question, n0=20, alpha=0.01, seed=3))
    assert run.config["family"] == "cascade"
    assert read_run(tmp_path).plan == run.plan == model.plan(Settings(**question, n0=20, alpha=0.01))
    assert verify_run(run) == []
    assert replay(model, samples, run, 3) == []
    assert "a level" in str(run.plan)
    write_report(tmp_path / "report.html", [Chapter("cascade", run)], title="t")
    assert "<td>family</td><td>cascade</td>" in (tmp_path / "report.html").read_text()


def test_the_classifier_alone_computes_in_the_precision_of_the_pipeline(samples: list[Sample]) -> None:
    for precision in ("float32", "bfloat16"):
        model = SmoothedClassifier(toys.linear_model().classifier, Identity(), sigma=0.25, precision=precision)
        image = model.prepare(samples[0].image).float()[None] / 255
        with torch.inference_mode():
            assert torch.equal(model.pipeline.classify(image), model.pipeline(image, 0.25))
