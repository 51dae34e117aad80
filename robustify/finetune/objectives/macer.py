r"""MACER: enlarges the certified radius itself, where the soft smoothed classifier is right.

.. math:: L = -\log \bar F_y + \lambda \, 1[\text{right}] \,
          \frac\sigma2 \max\big(0, \gamma - \Phi^{-1}(a) + \Phi^{-1}(b)\big)

References:
    MACER: Attack-free and Scalable Robust Training via Maximizing Certified Radius, Zhai, Dan, He, Zhang, Gong,
    Ravikumar, Hsieh, Wang, 2020, https://arxiv.org/abs/2001.02378
"""

from dataclasses import dataclass
from typing import ClassVar, final

from robustify.errors import InputError
from robustify.finetune.objectives.base import Batch, Objective, Outcome, classify
from robustify.finetune.objectives.losses import macer_hinge, smoothed_nll
from robustify.finetune.objectives.shared import check_positive, labels_of, noisy_accuracy
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class MACER(Objective):
    r"""Maximises the certified radius.

    Published for CIFAR-10: weight 12 at sigma = 0.25, 4 at 0.5, and 12 at 1 after some epochs without.

    Arguments:
        draws: Noisy copies of each image.
        weight: :math:`\lambda`.
        beta: Inverse temperature of the softmax from which a and b are taken.
        gamma: Radii beyond :math:`\sigma\gamma/2` are not enlarged further; at most 30.
        deferred: Epochs before the radius counts.

    Raises:
        InputError: If a setting is out of range.
    """

    cacheable: ClassVar[bool] = True
    in_epochs: ClassVar[tuple[str, ...]] = ("deferred",)

    draws: int = 16
    weight: float = 12.0
    beta: float = 16.0
    gamma: float = 8.0
    deferred: float = 0.0

    def __post_init__(self) -> None:
        check_positive(draws=self.draws, beta=self.beta, gamma=self.gamma)
        if self.gamma > 30:
            raise InputError(
                f"expected gamma <= 30, beyond which no radius can be told from any other; got {self.gamma}"
            )

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        labels = labels_of(batch)
        logits = classify(model, batch.copies(model))
        loss = smoothed_nll(logits, labels)
        if batch.epoch >= self.deferred:
            hinge = macer_hinge(logits, labels, sigma=model.sigma, beta=self.beta, gamma=self.gamma)
            loss = loss + self.weight * hinge
        return Outcome(loss.mean(), {"noisy_accuracy": noisy_accuracy(logits, labels)})
