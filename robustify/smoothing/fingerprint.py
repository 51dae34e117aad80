"""What a model is, as a hash: another weight, precision or preprocessing is another classifier."""

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier
from robustify.denoisers import Denoiser


def classifier_fingerprint(classifier: ImageClassifier) -> str:
    """SHA-256 of the weights, the layers with their settings, and the preprocessing."""
    return _digest(classifier.network, repr(classifier.preprocessing))


def denoiser_fingerprint(denoiser: Denoiser, sigmas: Sequence[float]) -> str:
    """SHA-256 of the weights, the layers with their settings, and how the denoiser works at these noise levels."""
    return _digest(denoiser, "|".join(denoiser.describe(sigma) for sigma in sigmas))


def pixels_fingerprint(image: Tensor) -> str:
    """SHA-256 of the pixels that are certified, as float32 in [0, 1], which names an image wherever it is."""
    pixels = image.cpu().float() / 255 if image.dtype == torch.uint8 else image.cpu()
    return hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()


def _digest(module: nn.Module, settings: str) -> str:
    described = re.sub(r" at 0x[0-9a-f]+", "", f"{settings}|{module!r}|")  # addresses differ between processes
    digest = hashlib.sha256(described.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
