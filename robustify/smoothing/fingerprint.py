"""What a model is, as a hash: another weight, precision or preprocessing is another classifier."""

import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import torch
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier
from robustify.denoisers import Denoiser

_NO_SETTINGS = ("training", "name_or_path")
"""Attributes that say in which mode a module is, and where it came from."""

_LIBRARIES = (*map(Path, sysconfig.get_paths().values()), Path(__file__).parents[1])


def classifier_fingerprint(classifier: ImageClassifier) -> str:
    """SHA-256 of the weights, the layers with their settings and own code, and the preprocessing."""
    return _digest(classifier.network, repr(classifier.preprocessing))


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
    for name, part in module.named_modules():
        digest.update(f"{name}|{'|'.join(_plain(part))}|".encode())
    for name, value in sorted(module.state_dict().items()):
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
        numbers = value.dequantize() if value.is_quantized else value
        yield f"{value.dtype}|{tuple(value.shape)}|".encode()
        yield numbers.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    else:
        yield f"{value!r}|".encode()


def _plain(module: nn.Module) -> Iterator[str]:
    """What a module computes by, besides its tensors: its code, where that is no library's, and its attributes.

    A library's next version may add attributes or change code that computes the same; so only its plain numbers and
    words count, which somebody may have changed by hand.
    """
    own = not _of_a_library(type(module))
    yield from [_source(kind) for kind in type(module).__mro__ if not _of_a_library(kind)] or [_name(type(module))]
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or name in _NO_SETTINGS:
            continue
        if isinstance(value, str | int | float | None):
            yield f"{name}={value!r}"
        elif own:
            yield f"{name}={_described(value)}"


def _described(value: object) -> str:
    """An attribute of a module of the user's own: collections in full, functions by their source, others by type."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{key!r}: {_described(item)}' for key, item in value.items()))}}}"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(map(_described, value)))}}}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"{type(value).__name__}({', '.join(map(_described, value))})"
    if callable(value):
        return _name(value) if _of_a_library(value) else _source(value)
    return repr(value) if isinstance(value, str | bytes | int | float | None) else type(value).__qualname__


def _source(part: object) -> str:
    """The source of a class or function; its name where none is kept, as in a console."""
    try:
        return inspect.getsource(part)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return _name(part)


def _name(part: object) -> str:
    return f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', type(part).__qualname__)}"


def _of_a_library(part: object) -> bool:
    """Whether a class or function is of this package, of Python or of an installed distribution."""
    module = sys.modules.get(str(getattr(part, "__module__", None)))
    file = getattr(module, "__file__", None)
    if file is None:
        return module is not None and module.__name__ != "__main__"  # built in
    return any(Path(file).is_relative_to(folder) for folder in _LIBRARIES)
