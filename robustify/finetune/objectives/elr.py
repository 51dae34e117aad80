r"""Early-learning regularisation: keeps any objective from memorising false labels.

.. math:: L = L_\text{other} + \lambda \log(1 - \langle p, t \rangle), \quad t \leftarrow \beta t + (1 - \beta) p

p is the prediction for an image and t its running mean over epochs. A network learns true labels first; t remembers
what it said then, and the second term holds it there.

References:
    Early-Learning Regularization Prevents Memorization of Noisy Labels, Liu, Niles-Weed, Razavian,
    Fernandez-Granda, 2020, https://arxiv.org/abs/2007.00151
"""

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from robustify.errors import InputError
from robustify.finetune.objectives.base import Batch, Objective, Outcome, classify
from robustify.smoothing import SmoothedClassifier

_LEAST = 1e-4
"""Predictions are kept this far from 0 and 1, as published."""


@final
class EarlyLearning(Objective):
    r"""Early-learning regularisation: one more forward pass, of one copy of each image.

    Each process keeps the running means of the images that it sees, so several processes are refused.

    Arguments:
        other: The objective that is minimised beside it.
        images: Number of images in the data set.
        weight: :math:`\lambda`; published: 3 for CIFAR-10, 7 for CIFAR-100.
        memory: :math:`\beta`; published: 0.7 for CIFAR-10, 0.9 for CIFAR-100.

    Raises:
        InputError: If a setting is out of range.
    """

    remembers: ClassVar[bool] = True

    def __init__(self, other: Objective, images: int, *, weight: float = 3.0, memory: float = 0.7) -> None:
        if not 0 <= memory < 1:
            raise InputError(f"expected memory from 0 to below 1; got {memory}")
        self.other = other
        self.draws = other.draws
        self.weight = weight
        self.memory = memory
        self._images = images
        self._means: Tensor | None = None

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        outcome = self.other(model, batch)
        p = classify(model, batch.copies(model)[:1])[0].softmax(dim=1).clamp(_LEAST, 1 - _LEAST)
        agreement = (p * self._remember(batch.rows, p.detach())).sum(dim=1)
        penalty = (1 - agreement).log()
        return Outcome(
            outcome.loss + self.weight * penalty.mean(), {**outcome.metrics, "agreement": agreement.detach()}
        )

    def check(self, images: int, classes: int) -> None:
        self.other.check(images, classes)
        if images != self._images:
            raise InputError(f"expected {self._images} images, as EarlyLearning was told; got {images}")

    def _remember(self, rows: Tensor, p: Tensor) -> Tensor:
        """The running means of these images, after this prediction."""
        if self._means is None:
            self._means = torch.zeros(self._images, p.shape[1], dtype=torch.float32)
        self._means = self._means.to(p.device)
        self._means[rows] = self.memory * self._means[rows] + (1 - self.memory) * p / p.sum(dim=1, keepdim=True)
        return self._means[rows]

    def state_dict(self) -> dict[str, Tensor]:
        """The running means; empty before the first batch."""
        return {} if self._means is None else {"means": self._means.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from the state of another run.

        Raises:
            InputError: If the state is that of another number of images.
        """
        means = state.get("means")
        if means is not None and len(means) != self._images:
            raise InputError(f"expected the state of {self._images} images; got that of {len(means)}")
        self._means = None if means is None else means.clone()
