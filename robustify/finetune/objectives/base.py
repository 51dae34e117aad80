"""The interface of objectives: the batch they are given and the outcome they return."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustify.finetune.objectives.attacks import Copies
from robustify.finetune.objectives.losses import DrawLogits
from robustify.smoothing import SmoothedClassifier
from robustify.types import Pixels


@final
@dataclass(frozen=True)
class Batch:
    """Images to learn from, with the noise they are seen through.

    Arguments:
        pixels: Clean, in [0, 1].
        labels: True classes; None where the data has none.
        noise: Noise of standard deviation sigma, in [0, 1] pixels, for each copy; never clipped.
        rows: Indices of the images in the data set.
        epoch: Passes over the data so far, with a fraction; schedules depend on it.
        denoised: The denoised `pixels + noise`, where they were computed before; `noise` then has no copies.
        seed: Seed of everything that objectives draw at random.
    """

    pixels: Pixels
    labels: Int64[Tensor, " batch"] | None
    noise: Copies
    rows: Int64[Tensor, " batch"]
    epoch: float = 0.0
    denoised: Float[Tensor, "copies batch channels height width"] | None = None
    seed: int = 0

    def copies(self, model: SmoothedClassifier) -> Copies:
        """The denoised copies, without gradient: the denoiser is fixed."""
        if self.denoised is not None:
            return self.denoised
        with torch.no_grad():
            noisy = (self.pixels + self.noise).flatten(0, 1)
            return model.denoise(noisy).view_as(self.noise)


class Outcome(NamedTuple):
    """Loss and metrics of one batch.

    Arguments:
        loss: Scalar, to be minimised.
        metrics: One detached number per image, by name; `noisy_accuracy` is the share of its copies classified as
            its label.
    """

    loss: Tensor
    metrics: dict[str, Float[Tensor, " batch"]]


class Objective(ABC):
    """A loss that fine-tuning minimises. Implementations are frozen dataclasses, whose fields are their settings.

    Arguments:
        draws: Noisy copies of each image.
    """

    needs_labels: ClassVar[bool] = True
    """Whether it cannot learn from images without labels."""

    needs_noise: ClassVar[bool] = True
    """Whether it teaches by images under noise."""

    cacheable: ClassVar[bool] = False
    """Whether it needs only `Batch.copies`, so that copies denoised once can serve many epochs."""

    remembers: ClassVar[bool] = False
    """Whether it keeps a state for each image, which several processes could not share."""

    in_epochs: ClassVar[tuple[str, ...]] = ()
    """Fields that count epochs; where the epochs of a recipe change, they keep their share of the run."""

    draws: int

    def state_dict(self) -> Mapping[str, Tensor]:
        """Tensors that it remembers of the images; empty for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from `state_dict`; forgets everything where it is empty."""
        del state

    def check(self, images: int, classes: int) -> None:
        """Raises `InputError` where its settings do not fit data of so many images and classes."""
        del images, classes

    @abstractmethod
    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        """The loss, differentiable in the parameters of `model.classifier`."""


def classify(model: SmoothedClassifier, copies: Copies, levels: Float[Tensor, " copies"] | None = None) -> DrawLogits:
    """The classifier's logits of denoised copies, all in one forward pass.

    Arguments:
        model: The model whose classifier is asked.
        copies: Versions of each image of a batch.
        levels: Standard deviation of the noise in each version, for classifiers that are told; sigma in all if None.
    """
    sigma = model.sigma if levels is None else levels.repeat_interleave(copies.shape[1])
    logits: Tensor = model.classifier(copies.flatten(0, 1), sigma)
    return logits.view(*copies.shape[:2], -1)
