r"""Stability training: learns the same prediction for noisy copies as for the clean image; needs no labels.

.. math:: L = \mathrm{CE}(F(x), y) + \lambda \frac1m \sum_i \mathrm{CE}\big(F(x), F(x + \delta_i)\big)

Without labels the first term is left out, and the clean prediction, a soft label, gets no gradient: with one it could
give way to the noise, and nothing would hold it. This is how denoised smoothing learns from a classifier.

References:
    Certified Adversarial Robustness with Additive Noise, Li, Chen, Wang, Carin, 2019,
    https://arxiv.org/abs/1809.03113
    Denoised Smoothing: A Provable Defense for Pretrained Classifiers, Salman, Sun, Yang, Kapoor, Kolter, 2020,
    https://arxiv.org/abs/2003.01908
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from robustify.finetune.objectives.base import Batch, Objective, Outcome, classify
from robustify.finetune.objectives.losses import cross_entropies, stability
from robustify.finetune.objectives.shared import check_positive, noisy_accuracy
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class Stability(Objective):
    r"""Cross-entropy of noisy predictions to the classifier's own clean prediction.

    The classifier sees clean images as they are and noisy ones denoised, in one forward pass: layers that gather
    statistics of their batch meet both together. Published for CIFAR-10: weight 2 at sigma = 0.25 and 0.5, 1 at 1.
    Without labels the classifier may slowly agree with itself on one class; watch its accuracy, and stop early.

    Arguments:
        draws: Noisy copies of each image.
        weight: :math:`\lambda`; without labels it only scales the loss.

    Raises:
        InputError: If there are no copies.
    """

    needs_labels: ClassVar[bool] = False
    cacheable: ClassVar[bool] = True

    draws: int = 1
    weight: float = 2.0

    def __post_init__(self) -> None:
        check_positive(draws=self.draws)

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        views = torch.cat([batch.pixels.unsqueeze(0), batch.copies(model)])
        levels = torch.tensor([0.0] + [model.sigma] * (len(views) - 1))
        logits = classify(model, views, levels)
        clean, noisy = logits[:1], logits[1:]
        if batch.labels is None:
            return Outcome(self.weight * stability(clean[0].detach(), noisy).mean(), {})
        loss = cross_entropies(clean, batch.labels)[0] + self.weight * stability(clean[0], noisy)
        metrics: dict[str, Tensor] = {"noisy_accuracy": noisy_accuracy(noisy, batch.labels)}
        return Outcome(loss.mean(), metrics)
