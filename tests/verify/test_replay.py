"""Rows are drawn again from their seeds, by the same model on the same images."""

from dataclasses import replace

import pytest
import torch

from robustify import SmoothedClassifier
from robustify.data import Sample
from robustify.errors import RunError
from robustify.runs.folder import Run
from robustify.verify.replay import replay, spread
from tests.toys import Shrink


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
    with pytest.raises(RunError, match=r"not the model of the run.*:\n  the classifier has other weights, layers, "):
        replay(model, samples, run)


def test_what_differs_is_said_in_words(run: Run, model: SmoothedClassifier, samples: list[Sample]) -> None:
    other = SmoothedClassifier(model.classifier, Shrink(), sigma=0.5, precision="bfloat16")
    other.classifier.name = "renamed"  # which alone makes no other model
    with pytest.raises(RunError) as caught:
        replay(other, samples, run)
    assert str(caught.value).splitlines()[1:] == [
        '  denoiser.name: there "none", now "shrink"',
        '  numerics.precision: there "float32", now "bfloat16"',
        "  sigma: there [0.25], now [0.5]",
        "  Give the classifier, the denoiser and the options that the run was made with.",
    ]


def test_rows_to_repeat_are_spread_over_the_run(run: Run) -> None:
    assert [row.sample for row in spread(run.rows, 3)] == ["00.png", "05.png", "11.png"]
    assert len(spread(run.rows, 1)) == 1
    assert len(spread(run.rows, 50)) == 12
