"""Early-learning regularisation: what it remembers, and where it goes on."""

import pytest
import torch

from robustify.errors import InputError
from robustify.finetune.objectives import CATRS, EarlyLearning, Gaussian, Outcome
from robustify.finetune.objectives.base import classify
from tests.finetune.objectives.toys import scene, slopes, smooth


def test_early_learning_remembers_what_was_said() -> None:
    model, batch = smooth(), scene()
    objective = EarlyLearning(Gaussian(draws=4), 100, weight=2.0, memory=0.7)
    p = classify(model, batch.pixels + batch.noise)[0].softmax(1)
    base = Gaussian()(model, batch).loss
    t = torch.zeros(12, 3)
    for _ in range(3):
        outcome = objective(model, batch)
        t = 0.7 * t + 0.3 * p.detach()
        expected = base + 2 * (1 - (p * t).sum(1)).log().mean()
        assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-3)
        assert torch.allclose(slopes(outcome, model), slopes(Outcome(expected, {}), model), atol=1e-3)
    means = objective.state_dict()["means"]
    assert torch.allclose(means[batch.rows], t, atol=1e-3)
    assert float(means.abs().sum(dim=1).count_nonzero()) == 12
    assert outcome.metrics.keys() == {"noisy_accuracy", "agreement"}
    assert objective.draws == 4


def test_early_learning_continues_where_it_was() -> None:
    model, batch = smooth(), scene()
    first = EarlyLearning(Gaussian(), 100)
    assert first.state_dict() == {}
    first(model, batch)
    second = EarlyLearning(Gaussian(), 100)
    second.load_state_dict(first.state_dict())
    saved = first.state_dict()["means"]  # a copy: training goes on while it is written
    assert first(model, batch).loss == second(model, batch).loss
    assert not torch.equal(first.state_dict()["means"], saved)
    with pytest.raises(InputError, match="state of 50 images; got that of 100"):
        EarlyLearning(Gaussian(), 50).load_state_dict(first.state_dict())
    second.load_state_dict({})
    assert second.state_dict() == {}


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_early_learning_is_finite_when_certain(scale: float) -> None:
    model, batch = smooth(scale=scale), scene()
    objective = EarlyLearning(Gaussian(), 100, memory=0.0)
    for _ in range(3):
        outcome = objective(model, batch)
        assert bool(slopes(outcome, model).isfinite().all())


def test_early_learning_knows_how_many_images_there_are() -> None:
    EarlyLearning(Gaussian(), 100).check(100, 3)
    with pytest.raises(InputError, match="expected 100 images, as EarlyLearning was told; got 44"):
        EarlyLearning(Gaussian(), 100).check(44, 3)
    with pytest.raises(InputError, match=r"expected targets of shape \(100, 3\)"):
        EarlyLearning(CATRS(targets=torch.full((99, 3), 1 / 3)), 100).check(100, 3)
