"""A short recipe, and runs that die."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustify import SmoothedClassifier
from robustify.finetune import Examples, Recipe, loop, tune
from robustify.finetune.objectives import Gaussian

RECIPE = Recipe(Gaussian(draws=2), epochs=2, batch=8, learning_rate=0.01, warmup=0.5)


class StopError(Exception):
    """What the tests interrupt a run with."""


def weights(model: SmoothedClassifier) -> dict[str, Tensor]:
    return model.classifier.network.state_dict()


def same(a: SmoothedClassifier, b: SmoothedClassifier) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


def interrupted(model: SmoothedClassifier, examples: Examples, recipe: Recipe, out: Path, steps: int) -> None:
    """Runs so many steps, then dies."""
    seen = []

    def log(row: dict[str, float]) -> None:
        seen.append(row)
        if len(seen) == steps:
            raise StopError

    with pytest.raises(StopError):
        tune(model, examples, recipe, out, log=log, quiet=True)


@pytest.fixture
def checkpoint_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a checkpoint after every step, however short it was."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
