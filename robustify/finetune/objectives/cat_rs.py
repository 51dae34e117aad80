r"""CAT-RS: confidence-aware training, which asks more of images that are classified correctly under noise.

With :math:`\hat p` the share of an image's M copies that are classified as its label, K is binomial (M, p̂), at least 1:

.. math:: L = \frac1M \sum_{i=1}^K \mathrm{CE}_{(i)} + \lambda\, 1[K = M] \max_i \mathrm{KL}(t \| F(x + \delta_i^*))

:math:`\mathrm{CE}_{(i)}` are the copies' losses in rising order, t is a smoothed prediction of the image and
:math:`\delta_i^*` noise moved adversely. With a denoiser, what it left of the noise takes the noise's place.

References:
    Confidence-aware Training of Smoothed Classifiers for Certified Robustness, Jeong, Kim, Shin, 2023,
    https://arxiv.org/abs/2212.09000
"""

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from robustify.errors import InputError
from robustify.finetune.objectives.attacks import kl_noise_pgd
from robustify.finetune.objectives.base import Batch, Objective, Outcome, classify
from robustify.finetune.objectives.losses import (
    DrawLogits,
    LogProbabilities,
    bottom_k_ce,
    cross_entropies,
    log_mean_softmax,
    worst_kl,
)
from robustify.finetune.objectives.shared import check_positive, check_several, labels_of, noisy_accuracy, uniforms
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class CATRS(Objective):
    r"""Confidence-aware training.

    Published for CIFAR-10: weight 0.5 at sigma = 0.25, 1 at 0.5, 2 at 1.

    Arguments:
        draws: Noisy copies of each image, at least 2.
        weight: :math:`\lambda`.
        epsilon: How far the attack may move a copy, in l2, in [0, 1] pixels.
        steps: Number of steps of the attack.
        targets: Smoothed predictions of shape (images, classes), indexed by `Batch.rows`; shares of hard votes, with
            zeros, are fine: `robustify.runs.soft_labels` reads them from a certification run over the images. The
            published ones are from 10,000 draws of a model trained with noise of 0.25. Where None, the mean prediction
            of the copies, without gradient.

    Raises:
        InputError: If a setting is out of range, or the targets are no probabilities.
    """

    cacheable: ClassVar[bool] = True

    draws: int = 4
    weight: float = 0.5
    epsilon: float = 1.0
    steps: int = 4
    targets: Float[Tensor, "images classes"] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_several(self.draws)
        check_positive(epsilon=self.epsilon, steps=self.steps)
        if self.targets is not None:
            off = float((self.targets.sum(dim=1) - 1).abs().max())
            if not (bool((self.targets >= 0).all()) and off < 1e-3):
                raise InputError(f"expected targets >= 0 that sum to 1 for each image; sums are off by up to {off:.2g}")

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        labels = labels_of(batch)
        copies = batch.copies(model)
        logits = classify(model, copies)
        accuracy = noisy_accuracy(logits, labels)
        kept = (uniforms(batch, "cat-rs", len(copies)) < accuracy).sum(dim=0).clamp(min=1)  # binomial
        target = self._target(batch, logits)
        moved = batch.pixels + kl_noise_pgd(
            model, batch.pixels, copies - batch.pixels, target, epsilon=self.epsilon, steps=self.steps
        )
        hard = torch.where(kept == len(copies), worst_kl(target, classify(model, moved)), 0.0)
        loss = bottom_k_ce(cross_entropies(logits, labels), kept) + self.weight * hard
        return Outcome(loss.mean(), {"noisy_accuracy": accuracy})

    def check(self, images: int, classes: int) -> None:
        if self.targets is not None and tuple(self.targets.shape) != (images, classes):
            raise InputError(
                f"expected targets of shape ({images}, {classes}), the images and classes of the data; "
                f"got {tuple(self.targets.shape)}"
            )

    def _target(self, batch: Batch, logits: DrawLogits) -> LogProbabilities:
        if self.targets is None:
            return log_mean_softmax(logits.detach())
        return self.targets[batch.rows.to(self.targets.device)].to(logits).log()
