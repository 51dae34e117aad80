"""Accuracy without noise, to set certified accuracy beside."""

from collections.abc import Sequence

import torch

from robustify.data import Sample
from robustify.errors import InputError
from robustify.smoothing import SmoothedClassifier

BATCH = 64
"""Images per forward pass."""


@torch.inference_mode()
def clean_accuracy(model: SmoothedClassifier, samples: Sequence[Sample]) -> float:
    """Share of images that the classifier alone, without noise and denoiser, gets right.

    Arguments:
        model: The model whose classifier is asked.
        samples: Images with labels, of the kind that the model certifies.

    Raises:
        InputError: If there are no images, one cannot be used, or one has no label.
    """
    if unlabelled := [sample.id for sample in samples if sample.label is None]:
        raise InputError(f"expected images with labels; {unlabelled[0]!r} has none")
    if not samples:
        raise InputError("expected at least one image; got none")
    right = 0
    for first in range(0, len(samples), BATCH):
        part = samples[first : first + BATCH]
        pixels = torch.stack([model.prepare(sample.image, "float") for sample in part])
        truth = torch.tensor([sample.label for sample in part])
        right += int((model.classifier(pixels).argmax(dim=1).cpu() == truth).sum())
    return right / len(samples)
