r"""SmoothAdv: adversarial training on images that the soft smoothed classifier misclassifies.

.. math:: L = \frac1m \sum_i \mathrm{CE}\big(F(\hat x + \delta_i), y\big), \quad
          \hat x \approx \arg\max_{\|x' - x\|_2 \le \epsilon} -\log \frac1m \sum_i F(x' + \delta_i)_y

with the same noise in both, and optionally the penalty of consistency regularisation at :math:`\hat x`.

References:
    Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers, Salman, Yang, Li, Zhang, Zhang,
    Razenshteyn, Bubeck, 2019, https://arxiv.org/abs/1906.04584
    Consistency Regularization for Certified Robustness of Smoothed Classifiers, Jeong, Shin, 2020,
    https://arxiv.org/abs/2006.04062
"""

from dataclasses import dataclass
from typing import ClassVar, final

from robustify.finetune.objectives.attacks import noisy_logits, smooth_pgd
from robustify.finetune.objectives.base import Batch, Objective, Outcome
from robustify.finetune.objectives.losses import consistency, cross_entropies
from robustify.finetune.objectives.shared import check_positive, check_several, labels_of, noisy_accuracy, ramped
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class SmoothAdv(Objective):
    r"""Adversarial training of the smoothed classifier, through the denoiser where there is one.

    Published for CIFAR-10 with 10 steps: draws 4 and epsilon 1 at sigma = 0.25, 8 and 1 at 0.5, 2 and 2 at 1. With
    consistency: draws 4, epsilon 1, weight 2 at sigma = 0.25, and draws 2, epsilon 2, weight 1 at 0.5 and 1, entropy
    0.5 throughout.

    Arguments:
        draws: Noisy copies of each image, for the attack and for learning.
        epsilon: Radius of the attack in l2, in [0, 1] pixels.
        steps: Number of steps of the attack.
        ramp: Epochs over which epsilon grows to its value.
        weight: :math:`\lambda` of the consistency penalty.
        entropy: :math:`\eta` of the consistency penalty.

    Raises:
        InputError: If a setting is out of range.
    """

    in_epochs: ClassVar[tuple[str, ...]] = ("ramp",)

    draws: int = 4
    epsilon: float = 1.0
    steps: int = 10
    ramp: float = 10.0
    weight: float = 0.0
    entropy: float = 0.0

    def __post_init__(self) -> None:
        check_positive(draws=self.draws, epsilon=self.epsilon, steps=self.steps)
        if self.weight:
            check_several(self.draws)

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        labels = labels_of(batch)
        epsilon = self.epsilon * ramped(batch.epoch, self.ramp)
        adversary = smooth_pgd(model, batch.pixels, labels, batch.noise, epsilon=epsilon, steps=self.steps)
        logits = noisy_logits(model, adversary, batch.noise)
        loss = cross_entropies(logits, labels).mean(dim=0)
        if self.weight or self.entropy:
            loss = loss + consistency(logits, weight=self.weight, entropy=self.entropy)
        return Outcome(loss.mean(), {"noisy_accuracy": noisy_accuracy(logits, labels)})
