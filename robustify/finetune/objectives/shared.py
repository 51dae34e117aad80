"""Helpers that several objectives share."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from robustify.errors import InputError
from robustify.finetune.objectives.base import Batch
from robustify.finetune.objectives.losses import DrawLogits, correct
from robustify.finetune.seeds import generator


def labels_of(batch: Batch) -> Int64[Tensor, " batch"]:
    """The true classes.

    Raises:
        InputError: If there are none.
    """
    if batch.labels is None:
        raise InputError(
            "this objective learns from labels; the data has none.\n  Give labels, or use the objective 'stability'."
        )
    return batch.labels


def noisy_accuracy(logits: DrawLogits, labels: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Share of copies of each image that are classified as its label, in [0, 1]."""
    return correct(logits.detach(), labels).float().mean(dim=0)


def uniforms(batch: Batch, what: str, count: int) -> Float64[Tensor, "{count} batch"]:
    """Uniform random numbers in [0, 1), shape (count, batch), that depend only on seed, row and whole epochs.

    So they are the same in any batch and process and after an interruption.
    """
    numbers = [generator(batch.seed, what, row, int(batch.epoch)).random(count) for row in batch.rows.tolist()]
    return torch.from_numpy(np.stack(numbers, axis=1)).to(batch.pixels.device)


def ramped(epoch: float, epochs: float) -> float:
    """A factor that grows by whole epochs from 1 / epochs to 1; 1 where there is no ramp."""
    return min(1.0, (int(epoch) + 1) / epochs) if epochs else 1.0


def check_positive(**values: float | int) -> None:
    """Refuses settings that are not positive.

    Raises:
        InputError: With the name of the first.
    """
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"expected {name} > 0; got {value}")


def check_several(draws: int) -> None:
    """Refuses a single noisy copy where predictions are compared with their mean.

    Raises:
        InputError: If there is only one.
    """
    if draws < 2:
        raise InputError(f"expected draws >= 2; got {draws}: one copy is its own mean, so nothing would be learned")
