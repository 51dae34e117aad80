"""A short recipe, an objective to do sums with, and runs that die."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

from robustify import SmoothedClassifier
from robustify.data.examples import Examples
from robustify.finetune import Recipe, tune
from robustify.finetune.objectives import Batch, Gaussian, Objective, Outcome

RECIPE = Recipe(Gaussian(draws=2), epochs=2, batch=8, learning_rate=0.01, warmup=0.5)


class StopError(Exception):
    """What the tests interrupt a run with."""


@final
@dataclass(frozen=True)
class Slope(Objective):
    """A gradient of `size` everywhere, whatever the images."""

    draws: ClassVar[int] = 1
    size: float = 1.0

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        del batch
        parameters = list(model.classifier.parameters())
        return Outcome(self.size * torch.stack([p.sum() for p in parameters]).sum(), {})


LOUD = Recipe(
    Slope(1e34),
    epochs=1,
    batch=11,
    optimizer="sgd",
    learning_rate=1e-36,
    final_learning_rate=1e-36,
    warmup=0.0,
    clip=None,
    precision="float16",
)
"""Its gradients overflow at torch's first scale and not at half of it."""


def weights(model: SmoothedClassifier) -> dict[str, Tensor]:
    return model.classifier.network.state_dict()


def same(a: SmoothedClassifier, b: SmoothedClassifier) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


def interrupted(
    model: SmoothedClassifier,
    examples: Examples,
    recipe: Recipe,
    out: Path,
    rows: int,
    validation: Examples | None = None,
) -> None:
    """Logs so many rows, one for each step and each measurement on validation images, then dies."""
    seen = []

    def log(row: dict[str, float]) -> None:
        seen.append(row)
        if len(seen) == rows:
            raise StopError

    with pytest.raises(StopError):
        tune(model, examples, recipe, out=out, validation=validation, log=log, quiet=True)
