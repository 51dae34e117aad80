"""Images to learn from, checked before any work starts."""

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
from robustify.smoothing.inputs import OneImage, check_unmasked, to_pixels
from robustify.types import Pixels

LOOKED_AT = 16
"""Images of a folder or data set that its fingerprint depends on."""


@runtime_checkable
class Labelled(Protocol):
    """A data set as torch knows it: `data[i]` is an image and its class index, or None where it has none."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> tuple[OneImage, int | None]: ...


@runtime_checkable
class _Sized(Protocol):
    """Anything with a length and rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Any: ...  # noqa: ANN401


class Minibatch(NamedTuple):
    """Some images of a data set, on the CPU.

    Arguments:
        rows: Their indices in the data set.
        pixels: Images in [0, 1] of the contract's shape.
        labels: Class indices; None where the data has none.
    """

    rows: list[int]
    pixels: Pixels
    labels: Tensor | None


@final
class Examples(Dataset[Any]):
    """Images and labels that fit a model, decoded when they are needed; without the model, so that they are light.

    Arguments:
        model: Model that decides shape and classes.
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
        _check_kind(images)
        self._preprocessing, self._contract = model.classifier.preprocessing, model.contract
        self._pairs = cast(Labelled, images) if labels is None and _gives_pairs(images) else None
        self._images = cast(Sequence[OneImage], images)
        if isinstance(images, np.ndarray | Tensor):
            self._images = cast(Sequence[OneImage], self._whole_array(torch.as_tensor(images)))
        if self._pairs is not None:
            labels = _labels_of(self._pairs)
        self.labels = None if labels is None else _checked(labels, len(images), model)

    def _whole_array(self, images: Tensor) -> Tensor:
        """The array as (N, C, H, W), with all of its pixels checked."""
        contract = self._contract
        if images.ndim == 3 and contract.channels == 1:
            images = images.unsqueeze(1)
        if tuple(images.shape[1:]) != contract.shape:
            shape = ", ".join(map(str, contract.shape))
            raise InputError(f"expected images of shape (N, {shape}); got {tuple(images.shape)}")
        if images.is_floating_point():
            low, high = images.flatten(1).aminmax(dim=1)
            outside = ~((low >= 0) & (high <= 1))  # true of NaN, too
            if bool(outside.any()):
                row = int(outside.nonzero()[0])
                self._to_pixels(images[row], row)  # raises, and names the row
        return images

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, rows: list[int]) -> Minibatch:
        labels = self.labels[torch.tensor(rows)] if self.labels is not None else None
        if isinstance(self._images, Tensor) and self._images.dtype == torch.uint8:
            return Minibatch(rows, self._images[rows].cpu().float() / 255, labels)
        return Minibatch(rows, torch.stack([self._pixels(row) for row in rows]), labels)

    def _pixels(self, row: int) -> Tensor:
        image = self._images[row] if self._pairs is None else self._pairs[row][0]
        return self._to_pixels(image, row)

    def _to_pixels(self, image: OneImage, row: int) -> Tensor:
        try:
            return to_pixels(image, self._preprocessing, self._contract).cpu()
        except InputError as error:
            raise InputError(f"image {row} of the training data cannot be used: {error}") from error

    def fingerprint(self) -> str:
        """SHA-256 of the labels, the number of images, and all images of an array, or some of other data.

        For a data set that changes its images at random, labels and number alone.
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


def _check_kind(images: object) -> None:
    """Refuses what holds no images, or none that can be counted and looked up."""
    if isinstance(images, str | PathLike):
        raise InputError(
            f"expected images; got the path {str(images)!r}.\n"
            "  robustify.data.training_examples(model, path) reads a folder or file."
        )
    if not isinstance(images, _Sized):
        raise InputError(
            f"expected images, or a data set with a length, of pairs (image, label); got {type(images).__name__}.\n"
            "  Give the data set itself, not its loader."
        )
    if len(images) == 0:
        raise InputError("expected images to learn from; got none")
    if isinstance(images, np.ndarray):
        check_unmasked(images)


def _gives_pairs(images: Any) -> bool:  # noqa: ANN401
    if isinstance(images, np.ndarray | Tensor) or not isinstance(images, Labelled):
        return False
    first = images[0]
    return isinstance(first, tuple) and len(first) == 2


def _labels_of(pairs: Labelled) -> Sequence[int | float | None]:
    """The labels of a data set, without decoding images where it keeps them in `targets`, as torchvision's do."""
    targets = getattr(pairs, "targets", None)
    unchanged = getattr(pairs, "target_transform", None) is None
    if targets is not None and unchanged and len(targets) == len(pairs) and int(targets[0]) == pairs[0][1]:
        return [int(target) for target in targets]
    return [pairs[row][1] for row in range(len(pairs))]


def _checked(
    labels: Sequence[int | float | None] | np.ndarray | Tensor, n: int, model: SmoothedClassifier
) -> Tensor | None:
    """The labels as int64, shape (n); None where no image has one."""
    if len(labels) != n:
        raise InputError(f"expected one label for each of the {n} images; got {len(labels)}")
    missing = sum(label is None for label in labels)
    if missing == n:
        return None
    if missing:
        raise InputError(f"{missing} of {n} images have no label; label all of them, or give none")
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise InputError(f"expected {n} class indices; got {array.dtype} of shape {array.shape}")
    found = torch.as_tensor(array.astype(np.int64))
    _check_classes(found, model)
    return found.long().contiguous()


def _check_classes(labels: Tensor, model: SmoothedClassifier) -> None:
    low = int(labels.min())
    high = int(labels.max())
    classes = len(model.labels)
    if low < 0 or high >= classes:
        row = int(((labels < 0) | (labels >= classes)).nonzero()[0])
        raise InputError(
            f"expected labels from 0 to {classes - 1}, the classes of {model.classifier.name}; got {low} to {high}, "
            f"first {int(labels[row])} at row {row}.\n  Give class indices, or a model with these classes."
        )


def training_examples(model: SmoothedClassifier, data: Any) -> Examples:  # noqa: ANN401
    """Images and labels that fit the model.

    Arguments:
        model: Model that decides shape and classes.
        data: A folder of class folders or an array file, as `open_samples` reads them; a pair (images, labels), the
            labels None where there are none; a data set of pairs (image, label); or ready `Examples`.

    Raises:
        InputError: If there is nothing there, or it does not fit the model.
    """
    if isinstance(data, Examples):
        return data
    if isinstance(data, str | PathLike):
        samples = open_samples(data, model.labels)
        return Examples(model, [sample.image for sample in samples], [sample.label for sample in samples])
    if isinstance(data, tuple) and len(data) == 2:
        return Examples(model, *data)
    return Examples(model, data)
