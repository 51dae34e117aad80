"""The check of a classifier."""

from collections import Counter

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.base import check_evaluation_mode
from robustify.classifiers.preprocessing import PIL_MODES
from robustify.errors import InputError, ModelError
from robustify.testing.shared import TOLERANCE, check_fixed, gap_of, require
from robustify.types import Logits, Pixels


def check_classifier(classifier: ImageClassifier) -> None:
    """Checks that a classifier is one fixed, differentiable function of each image; logits are finite, labels distinct.

    It classifies a texture, the texture under noise, black and white, gray pixels, pixels of another size and pictures.
    Takes the time of about 30 forward and 2 backward passes of one image, and of three batches of 16.

    Raises:
        ModelError: If no certificate would hold for it, or its labels are ambiguous.
    """
    check_evaluation_mode(classifier)
    _check_labels(classifier)
    _check_geometry(classifier.preprocessing, classifier.name)
    pixels = _probe(classifier)
    with torch.no_grad():
        _check_logits(classifier, pixels)
        check_fixed(classifier, pixels[:2], classifier, classifier.name)
        _check_other_sizes(classifier, pixels[:2])
        _check_other_channels(classifier, pixels[:2])
        _check_levels(classifier, pixels[:2])
    _check_gradient(classifier, pixels[:2])


def _check_labels(classifier: ImageClassifier) -> None:
    twice = [f"{label!r}" for label, count in Counter(classifier.labels).items() if count > 1]
    require(
        not twice,
        f"expected distinct labels; {classifier.name} names more than one class {', '.join(twice[:3])}: a "
        "certificate that is read by name would be ambiguous.\n"
        "  Add what tells them apart, such as a definition.",
    )


def _check_geometry(preprocessing: Preprocessing, name: str) -> None:
    """Checks that pictures of another size, in gray and in colour for RGB, become bytes of the network's size."""
    height, width = preprocessing.size
    texture = np.random.default_rng(0).integers(0, 256, (height + 7, 2 * width, 3), dtype=np.uint8)
    for channels in {1, preprocessing.channels}:
        picture = PILImage.fromarray(texture).convert(PIL_MODES[channels])
        pixels = preprocessing.geometry(picture, height, width)
        found = (tuple(pixels.shape), pixels.dtype) if isinstance(pixels, Tensor) else type(pixels).__name__
        require(
            found == ((channels, height, width), torch.uint8),
            f"expected the geometry of {name} to turn a picture of mode {picture.mode!r} into "
            f"bytes (torch.uint8) of shape {(channels, height, width)}; got {found}",
        )


def _probe(classifier: ImageClassifier) -> Pixels:
    """A texture, the texture under noise (outside [0, 1] too, as in plain smoothing), black and white."""
    shape = (classifier.preprocessing.channels, *classifier.preprocessing.size)
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(shape, generator=generator, dtype=torch.float32)
    noisy = texture + torch.randn(shape, generator=generator, dtype=torch.float32)
    probe = torch.stack([texture, noisy, torch.zeros_like(texture), torch.ones_like(texture)])
    return probe.to(classifier.device)


def _check_logits(classifier: ImageClassifier, pixels: Pixels) -> Logits:
    logits = classifier(pixels.clone())
    expected = ((len(pixels), len(classifier.labels)), torch.float32)
    found = (tuple(logits.shape), logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
    require(
        found == expected,
        f"expected logits of shape (batch, classes) = {expected[0]} in {expected[1]} for pixels of shape "
        f"{tuple(pixels.shape)}; {classifier.name} gives {found}",
    )
    require(
        bool(logits.isfinite().all()),
        f"{classifier.name} gives NaN or infinite logits for a texture, noise on it, black or white.\n"
        "  Look for a division by an image's own deviation or maximum, a logarithm, or float16 overflow.",
    )
    return logits  # type: ignore[no-any-return]  # a tensor, as just checked


def _check_other_sizes(classifier: ImageClassifier, pixels: Pixels) -> None:
    """A denoiser may work at another size; the classifier resizes to its own."""
    _check_logits(classifier, pixels[..., ::2, ::2])


def _check_other_channels(classifier: ImageClassifier, pixels: Pixels) -> None:
    """Gray pixels mean what they mean in RGB; colour never silently becomes gray."""
    gray = pixels[:, :1]
    colour = gray.repeat(1, 3, 1, 1)
    if classifier.preprocessing.channels == 1:
        _check_refuses_colour(classifier, colour)
        return
    gap = gap_of(_check_logits(classifier, gray), classifier(colour))
    require(
        gap <= TOLERANCE,
        f"{classifier.name} answers gray pixels and the same pixels repeated in 3 channels differently, "
        f"by {gap:.1%} of the largest logit",
    )


def _check_levels(classifier: ImageClassifier, pixels: Pixels) -> None:
    """Each image of a batch under noise of two levels is told its own."""
    low, high = (classifier(pixels, sigma) for sigma in (0.25, 1.0))
    both = classifier(pixels, torch.tensor([0.25, 1.0], dtype=torch.float64))
    gap = gap_of(both, torch.stack([low[0], high[1]]))
    require(
        gap <= TOLERANCE,
        f"{classifier.name} answers an image otherwise beside one of another noise level, by {gap:.1%} of the largest "
        "logit.\n  Use the level of each image, sigma[i], for image i alone.",
    )


def _check_refuses_colour(classifier: ImageClassifier, colour: Pixels) -> None:
    try:
        classifier(colour)
    except InputError:
        return
    raise ModelError(
        f"{classifier.name} expects 1 channel (gray) but takes 3: colour would silently become gray.\n"
        "  Raise InputError."
    )


def _check_gradient(classifier: ImageClassifier, pixels: Pixels) -> None:
    """Attacks need to know how each pixel moves the logits."""
    pixels = pixels.clone().requires_grad_()
    with torch.enable_grad():
        logits = classifier(pixels)
    gradient = None
    if logits.requires_grad:
        # Random weights, for the plain sum of some outputs (probabilities, centred logits) is constant.
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(logits)
        (gradient,) = torch.autograd.grad(logits, pixels, weights, allow_unused=True)
    require(
        gradient is not None and bool(gradient.flatten(1).any(dim=1).all()),
        f"no gradient reaches the pixels through {classifier.name}: attacks could not test it.\n"
        "  Look for torch.no_grad(), inference_mode(), detach(), round(), or a detour through numpy or PIL.",
    )
    require(
        gradient is None or bool(gradient.isfinite().all()),
        f"the gradient of {classifier.name} in its pixels is NaN or infinite",
    )
