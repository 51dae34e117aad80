"""Greedy cutout: learns images under the two masks that hurt most, the first chosen alone, the second beside it.

PatchCleanser (`robustify.certificates.patch_cleanser`) certifies an image only if every pair of its masks leaves the
class as it is. So the masks are those of such a certificate, and each image is learned as it is, under its worst mask,
and under its worst second mask besides: two passes over all masks instead of one over all pairs. The masks are chosen
by the loss of the model as it is, in evaluation mode, without gradient; they follow it as it learns.

References:
    Revisiting Image Classifier Training for Improved Certified Robust Defense against Adversarial Patches, Saha, Yu,
    Norouzzadeh, Lin, Mummadi, 2023, https://arxiv.org/abs/2306.12610
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool
from torch import Tensor

from robustify.certificates.patch_cleanser import PatchCleanser
from robustify.certificates.patches import Patch
from robustify.finetune.objectives.attacks import Copies, frozen
from robustify.finetune.objectives.base import Batch, Objective, Outcome, classify
from robustify.finetune.objectives.losses import Labels, cross_entropies
from robustify.finetune.objectives.shared import check_positive, labels_of, noisy_accuracy
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.masks import covered


@final
@dataclass(frozen=True)
class GreedyCutout(Objective):
    """Cross-entropy of each image, under its worst mask, and under its worst two.

    Arguments:
        draws: Copies of each image, noisy where the model adds noise.
        patch: The patch whose masks are taken, as `PatchCleanser` takes it: a share of the image's area, a height and
            width in pixels, or several such shapes.
        masks: Masks of each axis. A step takes two passes for each of all masks, and three with gradient.

    Raises:
        InputError: If a setting is out of range; at the first step, if the patch does not fit the images.
    """

    cacheable: ClassVar[bool] = True
    needs_noise: ClassVar[bool] = False

    draws: int = 1
    patch: Patch = 0.02
    masks: int = 3

    def __post_init__(self) -> None:
        check_positive(draws=self.draws)
        PatchCleanser(self.patch, masks=self.masks)  # raises

    def __call__(self, model: SmoothedClassifier, batch: Batch) -> Outcome:
        labels = labels_of(batch)
        copies = batch.copies(model)
        fill = model.classifier.preprocessing.mean_colour(model.contract.channels)
        masks = covered(PatchCleanser(self.patch, masks=self.masks).masking(model.contract, fill)).to(copies.device)
        colour = copies.new_tensor(fill).view(-1, 1, 1)
        one = worst_masked(model, copies, labels, masks, colour)
        two = worst_masked(model, one, labels, masks, colour)
        logits = classify(model, torch.cat([copies, one, two]))
        accuracy = noisy_accuracy(logits[: len(copies)], labels)
        return Outcome(cross_entropies(logits, labels).mean(), {"noisy_accuracy": accuracy})


def worst_masked(
    model: SmoothedClassifier,
    copies: Copies,
    labels: Labels,
    masks: Bool[Tensor, "masks height width"],
    colour: Tensor,
) -> Copies:
    """Each copy under the one of some masks that makes its loss largest; the first of several.

    Arguments:
        model: The model, which is left as it is.
        copies: Copies of each image, shape (draws, B, C, H, W).
        labels: True classes, shape (B).
        masks: Whether each mask covers each pixel.
        colour: Colour of the masks, in [0, 1] pixels, shape (C, 1, 1).
    """
    with frozen(model), torch.no_grad():
        under = (classify(model, torch.where(mask, colour, copies)) for mask in masks)
        losses = torch.stack([cross_entropies(logits, labels) for logits in under])
    return torch.where(masks[losses.argmax(dim=0)].unsqueeze(2), colour, copies)
