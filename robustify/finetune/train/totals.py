"""Sums over the images of one step, from its micro-batches and from all processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from accelerate.utils import reduce
from torch import Tensor

from robustify.finetune.objectives import Batch, Outcome


@final
@dataclass
class Totals:
    """Sums of one step, on the CPU.

    Arguments:
        sums: Loss and metrics, summed over images, by name.
        correct: Share of noisy copies classified as their label, summed over the images of each class; shape (classes).
        images: Number of images of each class; shape (classes).
    """

    sums: dict[str, Tensor]
    correct: Tensor
    images: Tensor

    @classmethod
    def zero(cls, classes: int) -> "Totals":
        """Sums over no images."""
        correct, images = torch.zeros(2, classes, dtype=torch.float32)
        return cls({"loss": torch.zeros((), dtype=torch.float32)}, correct, images)

    def add(self, batch: Batch, outcome: Outcome) -> None:
        """Adds the images of a micro-batch."""
        self.sums["loss"] = self.sums["loss"] + outcome.loss.detach().float().cpu() * len(batch.rows)
        for name, values in outcome.metrics.items():
            self.sums[name] = self.sums.get(name, 0) + values.float().sum().cpu()
        if batch.labels is not None and "noisy_accuracy" in outcome.metrics:
            labels = batch.labels.cpu()
            self.correct.index_add_(0, labels, outcome.metrics["noisy_accuracy"].float().cpu())
            self.images += torch.bincount(labels, minlength=len(self.images))

    def over_all_processes(self, device: torch.device) -> "Totals":
        """The sums over the images of all processes."""
        mine = torch.cat([torch.stack(list(self.sums.values())), self.correct, self.images])
        everybody = reduce(mine.to(device), reduction="sum").cpu()
        values, correct, images = everybody.split([len(self.sums), len(self.correct), len(self.images)])
        return Totals(dict(zip(self.sums, values, strict=True)), correct, images)

    def means(self, images: int) -> dict[str, float]:
        """Loss and metrics by name, as means over so many images."""
        return {name: float(value) / images for name, value in self.sums.items()}


def add_up_gradients(parameters: Sequence[Tensor]) -> None:
    """Replaces each parameter's gradient by its sum over all processes."""
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    whole = reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
    for p, part in zip(parameters, whole.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)
