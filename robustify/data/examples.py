"""The images to learn from, checked before any work starts."""

from collections.abc import Sequence
from hashlib import sha256
from os import PathLike
from typing import Any, NamedTuple, Protocol, cast, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robustify.data.sources import open_samples
from robustify.errors import InputError
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.inputs import OneImage, to_pixels
from robustify.types import Pixels

LOOKED_AT = 16
"""Images of a folder or data set that tell it from another."""


@runtime_checkable
class Labelled(Protocol):
    """A data set as torch knows it: `data[i]` is an image and its class index, or None where it has none."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> tuple[OneImage, int | None]: ...


class Picked(NamedTuple):
    """Some rows of a data set, on the CPU: pixels in [0, 1] of the contract's shape, labels where there are any."""

    rows: list[int]
    pixels: Pixels
    labels: Tensor | None


@final
class Examples(Dataset[Any]):
    """Images and labels that fit a model, decoded when their turn comes.

    Arguments:
        model: Says which shape and which classes.
        images: An array or tensor (N, C, H, W), or (N, H, W) of gray images, of bytes or of floats in [0, 1]; or N
            images of any kind, decoded when needed; or a data set of (image, label), where `labels` is None. A data
            set that changes its images at random is taken as it is; a run on it is not repeatable.
        labels: N class indices; None where there are none.

    Raises:
        InputError: If there are no images, a label is no class of the model, the shape is not the model's, or pixels
            of an array are not in [0, 1].
    """

    def __init__(
        self,
        model: SmoothedClassifier,
        images: Sequence[OneImage] | np.ndarray | Tensor | Labelled,
        labels: Sequence[int | float | None] | np.ndarray | Tensor | None = None,
    ) -> None:
        if isinstance(images, str | PathLike):
            raise InputError(
                f"expected images; got the path {str(images)!r}.\n"
                "  robustify.data.training_examples(model, path) reads a folder or file."
            )
        if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
            raise InputError(
                f"expected images, or a data set with a length, of pairs (image, label); got {type(images).__name__}.\n"
                "  Give the data set itself, not its loader."
            )
        if len(images) == 0:
            raise InputError("expected images to learn from; got none")
        self._model = model
        self._pairs = cast(Labelled, images) if labels is None and _gives_pairs(images) else None
        self._images = cast(Sequence[OneImage], images)
        if isinstance(images, np.ndarray | Tensor):
            gray = images.ndim == 3 and model.contract.channels == 1
            images = torch.as_tensor(images).unsqueeze(1) if gray else torch.as_tensor(images)
            self._images = cast(Sequence[OneImage], images)
            if tuple(images.shape[1:]) != model.contract.shape:
                raise InputError(f"expected images of shape (N, {_shape(model)}); got {tuple(images.shape)}")
            self._check_range(images)
        self.labels = _checked(labels, len(images), model) if labels is not None else None
        if self._pairs is not None:
            self.labels = _checked(_labels_of(self._pairs), len(images), model)

    def _check_range(self, images: Tensor) -> None:
        """In words of the first image that is out of it."""
        if images.is_floating_point():
            low, high = images.flatten(1).aminmax(dim=1)
            for row in (~((low >= 0) & (high <= 1))).nonzero().flatten()[:1].tolist():  # NaN is not in it, either
                self._pixels(row)

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, rows: list[int]) -> Picked:
        labels = self.labels[torch.tensor(rows)] if self.labels is not None else None
        if isinstance(self._images, Tensor) and self._images.dtype == torch.uint8:
            return Picked(rows, self._images[rows].cpu().float() / 255, labels)
        return Picked(rows, torch.stack([self._pixels(row) for row in rows]), labels)

    def _pixels(self, row: int) -> Tensor:
        image = self._pairs[row][0] if self._pairs is not None else self._images[row]
        try:
            return to_pixels(image, self._model.classifier.preprocessing, self._model.contract).cpu()
        except InputError as error:
            raise InputError(f"image {row} of the training data cannot be used: {error}") from error

    def fingerprint(self) -> str:
        """SHA-256 of the labels, how many images there are, and the images: of an array all, else some.

        Of a data set that gives another image each time, the labels must do.
        """
        digest = sha256(f"{len(self)}|".encode())
        if self.labels is not None:
            digest.update(self.labels.numpy().data)
        if isinstance(self._images, Tensor):
            digest.update(self._images.cpu().contiguous().numpy().data)
        elif torch.equal(self._pixels(0), self._pixels(0)):
            for row in sorted({round(i * (len(self) - 1) / (LOOKED_AT - 1)) for i in range(LOOKED_AT)}):
                digest.update(self._pixels(row).contiguous().numpy().data)
        return digest.hexdigest()


def _gives_pairs(images: Any) -> bool:  # noqa: ANN401
    if isinstance(images, np.ndarray | Tensor) or not isinstance(images, Labelled):
        return False
    first = images[0]
    return isinstance(first, tuple) and len(first) == 2


def _labels_of(pairs: Labelled) -> Sequence[int | float | None]:
    """Without decoding every image where the data set keeps its labels apart, unchanged, as torchvision's do."""
    targets = getattr(pairs, "targets", None)
    unchanged = getattr(pairs, "target_transform", None) is None
    if targets is not None and unchanged and len(targets) == len(pairs) and int(targets[0]) == pairs[0][1]:
        return [int(target) for target in targets]
    return [pairs[row][1] for row in range(len(pairs))]


def _checked(
    labels: Sequence[int | float | None] | np.ndarray | Tensor, n: int, model: SmoothedClassifier
) -> Tensor | None:
    classes = len(model.labels)
    if len(labels) != n:
        raise InputError(f"expected one label for each of the {n} images; got {len(labels)}")
    missing = sum(label is None for label in labels)
    if missing:
        if missing == n:
            return None
        raise InputError(f"{missing} of {n} images have no label; label all of them, or give none")
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise InputError(f"expected {n} class indices; got {array.dtype} of shape {array.shape}")
    found = torch.as_tensor(array.astype(np.int64))
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= classes:
        row = int(((found < 0) | (found >= classes)).nonzero()[0])
        raise InputError(
            f"expected labels from 0 to {classes - 1}, the classes of {model.classifier.name}; got {low} to {high}, "
            f"first {int(found[row])} at row {row}.\n  Give class indices, or a model with these classes."
        )
    return found.long().contiguous()


def _shape(model: SmoothedClassifier) -> str:
    return ", ".join(map(str, model.contract.shape))


def training_examples(model: SmoothedClassifier, data: Any) -> Examples:  # noqa: ANN401
    """Images and labels that fit the model.

    Arguments:
        model: Says which shape and which classes.
        data: A folder of class folders or an array file, as `open_samples` reads them; a pair (images, labels), the
            labels None where there are none; or a data set of pairs (image, label).

    Raises:
        InputError: If there is nothing there, or it does not fit the model.
    """
    if isinstance(data, str | PathLike):
        samples = open_samples(data, model.labels)
        return Examples(model, [sample.image for sample in samples], [sample.label for sample in samples])
    if isinstance(data, tuple) and len(data) == 2:
        return Examples(model, *data)
    return Examples(model, data)
