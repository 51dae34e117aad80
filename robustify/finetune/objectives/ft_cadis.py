r"""FT-CADIS: learns from the denoised copies that are classified correctly.

With copies :math:`d_i` of an image, :math:`S` those classified as its label and :math:`\hat y` their mean prediction:

.. math:: L = \frac1M \sum_{i \in S} \mathrm{CE}(f(d_i), y)
          + \lambda \, 1[|S| = M] \max_i \mathrm{KL}(\hat y \| f(x + \eta_i^*))

The denoiser may have turned a copy into another class; such a copy is left out. Where no copy is correct, the one of
smallest loss still counts. Where all are, :math:`\eta_i^*` is what the denoiser left of the noise, moved adversely.

References:
    Confidence-aware Denoised Fine-tuning of Off-the-shelf Models for Certified Robustness, Jang, Kim, Shin, Jeong,
    2024, https://arxiv.org/abs/2411.08933
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from robustify.finetune.objectives.attacks import kl_noise_pgd
from robustify.finetune.objectives.base import Batch, Objective, Outcome, classify
from robustify.finetune.objectives.losses import correct, cross_entropies, log_mean_softmax, selective_ce, worst_kl
from robustify.finetune.objectives.shared import check_positive, check_several, labels_of
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class FTCADIS(Objective):
    r"""Confidence-aware denoised fine-tuning.

    The published recipes at sigma = 1 are draws 4, steps 4, weight 4 (CIFAR-10, the defaults) and draws 2, steps 1,
    weight 2 (ImageNet). Their radius of 64/256 is in units of [-1, 1].

    Arguments:
        draws: Noisy copies of each image, at least 2: one alone is its own mean prediction.
        weight: :math:`\lambda`.
        epsilon: How far the attack may move a copy, in l2, in [0, 1] pixels.
        steps: Number of steps of the attack.
        detach: Whether :math:`\hat y` gets no gradient; the published code lets it have one.

    Raises:
        InputError: If a setting is out of range.
    """

    cacheable: ClassVar[bool] = True

    draws: int = 4
    weight: float = 4.0
    epsilon: float = 0.125
    steps: int = 4
    detach: bool = False

    def __post_init__(self) -> None:
        check_several(self.draws)
        check_positive(epsilon=self.epsilon, steps=self.steps)

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        labels = labels_of(batch)
        copies = batch.copies(model)
        logits = classify(model, copies)
        right = correct(logits, labels)
        target = log_mean_softmax(logits)
        moved = batch.pixels + kl_noise_pgd(
            model, batch.pixels, copies - batch.pixels, target.detach(), epsilon=self.epsilon, steps=self.steps
        )
        worst = worst_kl(target.detach() if self.detach else target, classify(model, moved))
        hard = torch.where(right.all(dim=0), worst, 0.0)
        loss = selective_ce(cross_entropies(logits, labels), right) + self.weight * hard
        return Outcome(loss.mean(), {"noisy_accuracy": right.float().mean(dim=0)})
