"""What a model is, as a hash: another weight, precision or preprocessing is another classifier."""

import hashlib
import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier
from robustify.denoisers import Denoiser
from robustify.smoothing.definition import Definition, bytes_of, tensors_of


def classifier_fingerprint(classifier: ImageClassifier) -> str:
    """SHA-256 of the weights, the layers with their settings and own code, and the preprocessing."""
    told = "|told the noise level" if classifier.noise_conditioned else ""
    return _digest(classifier.network, f"{classifier.preprocessing!r}{told}")


def denoiser_fingerprint(denoiser: Denoiser, sigmas: Sequence[float]) -> str:
    """SHA-256 of the weights, the layers with their settings and own code, and the work at these noise levels."""
    return _digest(denoiser, "|".join(denoiser.describe(sigma) for sigma in sigmas))


def pixels_fingerprint(image: Tensor) -> str:
    """SHA-256 of the pixels that are certified, as float32 in [0, 1], which names an image wherever it is."""
    pixels = image.cpu().float() / 255 if image.dtype == torch.uint8 else image.cpu()
    return hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()


def _digest(module: nn.Module, settings: str) -> str:
    described = re.sub(r" at 0x[0-9a-f]+", "", f"{settings}|{module!r}|")  # addresses differ between processes
    digest = hashlib.sha256(described.encode())
    for text in Definition().of_network(module):
        digest.update(f"{text}|".encode())
    for name, value in tensors_of(module).items():
        digest.update(f"{name}|".encode())
        for part in _stored(value):
            digest.update(part)
    return digest.hexdigest()


def _stored(value: object) -> Iterator[bytes | memoryview]:
    """An entry of a state dictionary; quantised layers keep tuples, types and tensors of whole steps there."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _stored(part)
    elif isinstance(value, Tensor):
        yield f"{value.dtype}|{tuple(value.shape)}|".encode()
        yield bytes_of(value)
    else:
        yield f"{value!r}|".encode()
