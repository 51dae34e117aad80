"""Gaussian augmentation: learns to classify noisy copies, the plain way to train for smoothing.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

from dataclasses import dataclass
from typing import ClassVar, final

from robustify.finetune.objectives.base import Batch, Objective, Outcome, classify
from robustify.finetune.objectives.losses import cross_entropies
from robustify.finetune.objectives.shared import check_positive, labels_of, noisy_accuracy
from robustify.smoothing import SmoothedClassifier


@final
@dataclass(frozen=True)
class Gaussian(Objective):
    """Cross-entropy of noisy copies, or of denoised ones where there is a denoiser.

    Arguments:
        draws: Copies of each image.

    Raises:
        InputError: If there are none.
    """

    cacheable: ClassVar[bool] = True

    draws: int = 1

    def __post_init__(self) -> None:
        check_positive(draws=self.draws)

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        labels = labels_of(batch)
        logits = classify(model, batch.copies(model))
        return Outcome(cross_entropies(logits, labels).mean(), {"noisy_accuracy": noisy_accuracy(logits, labels)})
