"""Transforms of images that are enumerated rather than drawn: turned, shifted, made brighter."""

import math
from itertools import chain
from typing import final

import torch
from torch import Tensor

from robustify.certificates.exhaustive import Transform, Transforms
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.smoothing.alone import undenoised
from robustify.smoothing.laws import Enumerated, as_pixels
from robustify.smoothing.noise import Array
from robustify.smoothing.pipeline import Pipeline
from robustify.types import Bytes, Image, Pixels

_FINE = 256
"""Places between two pixels from which turned images are taken."""


@final
class TransformLaw(Enumerated):
    """The image under the i-th transform of a set; 8-bit images stay 8-bit.

    Arguments:
        view: A view whose change is a set of `Transforms`.
        soundness: Either; nothing is drawn.

    Raises:
        InputError: If the view's change is another one.
    """

    def __init__(self, view: View, soundness: str) -> None:
        del soundness
        if not isinstance(view.change, Transforms):
            raise InputError(f"expected a view of transforms; got {view}")
        self._fill = view.change.fill
        self._transforms = tuple(chain.from_iterable(view.change.rings))

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        for place, index in zip(out, noise.tolist(), strict=True):
            place.copy_(as_pixels(transformed(image, self._transforms[index], self._fill)))


@torch.inference_mode()
def counter_example(
    pipeline: Pipeline, image: Image | Bytes, transforms: Transforms, *, batch: int = 64
) -> Transform | None:
    """The first transform, ring by ring, under which an image gets another class than it has itself; None without any.

    A transform whose class rounding could decide keeps an image from being certified, and need not be found here.

    Arguments:
        pipeline: The classifier, without a denoiser.
        image: Bytes, or floats in [0, 1], shape (C, H, W), on the classifier's device.
        transforms: The transforms of a plan, such as `model.plan(Settings()).transforms`.
        batch: Images per forward pass.
    """
    classify = undenoised(pipeline)
    own = classify(as_pixels(image)[None], 0.0).argmax()
    listed = list(chain.from_iterable(transforms.rings))
    for start in range(0, len(listed), batch):
        some = listed[start : start + batch]
        shown = torch.stack([as_pixels(transformed(image, t, transforms.fill)) for t in some])
        others = (classify(shown, 0.0).argmax(dim=1) != own).nonzero()
        if len(others):
            return some[int(others[0])]
    return None


def transformed(image: Image | Bytes, transform: Transform, fill: str) -> Image | Bytes:
    """An image under a transform, of the same data type.

    Arguments:
        image: Bytes, or floats in [0, 1], shape (C, H, W).
        transform: What is done.
        fill: What a shift brings in: "black", "mean" or "cyclic".
    """
    found = turned(image, transform.quarters, fill) if transform.quarters else image
    found = shifted(found, transform.down, transform.right, fill)
    return brighter(found, transform.steps) if transform.steps else found


def turned(image: Tensor, quarters: int, fill: str) -> Tensor:
    """An image turned about its centre, counterclockwise; bilinear, from places that are rounded to 1/256 pixel.

    Bytes are computed in whole numbers, so on every device alike, and rounded to the nearest byte, halves up.

    Arguments:
        image: Shape (C, H, W).
        quarters: The angle, in quarters of a degree.
        fill: What is outside the image: "black", or "mean" for its mean colour.
    """
    height, width = image.shape[1:]
    rows, columns = _sources(height, width, quarters)
    outside = mean_colour(image) if fill == "mean" else torch.zeros_like(image[:, :1, :1])
    framed = outside.expand(-1, height + 2, width + 2).clone()  # one pixel of the outside on each side
    framed[:, 1:-1, 1:-1] = image
    numbers = framed if image.is_floating_point() else framed.long()
    total = torch.zeros_like(numbers[:, 1:-1, 1:-1])
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = (rows // _FINE + down, columns // _FINE + right)
        weight = _weight(rows % _FINE, down) * _weight(columns % _FINE, right)
        row, column = (row + 1).clamp(0, height + 1), (column + 1).clamp(0, width + 1)
        total += weight.to(image.device) * numbers[:, row.to(image.device), column.to(image.device)]
    if image.is_floating_point():
        return total / _FINE**2
    return ((total + _FINE**2 // 2) // _FINE**2).to(torch.uint8)


def _sources(height: int, width: int, quarters: int) -> tuple[Tensor, Tensor]:
    """The row and column that each pixel of a turned image is taken from, in 1/256 pixel, shape (H, W)."""
    angle = math.radians(quarters / 4)
    down = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    right = torch.arange(width, dtype=torch.float64)[None, :] - (width - 1) / 2
    row = math.sin(angle) * right + math.cos(angle) * down + (height - 1) / 2
    column = math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2
    return (row * _FINE).round().long(), (column * _FINE).round().long()


def _weight(fraction: Tensor, next_one: int) -> Tensor:
    """The weight of a neighbour, in 1/256: of the one before a place, or of the next one."""
    return fraction if next_one else _FINE - fraction


def shifted(image: Tensor, down: int, right: int, fill: str) -> Tensor:
    """An image shifted by whole pixels, fewer than its sides.

    Arguments:
        image: Shape (C, H, W).
        down, right: The shift, in pixels; negative for up and left.
        fill: What comes in: "black", "mean" or "cyclic".
    """
    if fill == "cyclic":
        return image.roll((down, right), dims=(1, 2))
    height, width = image.shape[1:]
    moved = torch.zeros_like(image)
    if fill == "mean":
        moved += mean_colour(image)
    kept = image[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    moved[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = kept
    return moved


def mean_colour(image: Tensor) -> Tensor:
    """The mean of each channel, shape (C, 1, 1); of bytes rounded to the nearest byte, halves up."""
    if image.is_floating_point():
        return image.double().mean(dim=(1, 2), keepdim=True).to(image.dtype)
    count = image[0].numel()
    total = image.long().sum(dim=(1, 2), keepdim=True)
    return ((2 * total + count) // (2 * count)).to(torch.uint8)


def brighter(image: Tensor, steps: int) -> Tensor:
    """An image with so many steps of 1/255 added to all pixels, then clipped to [0, 1]."""
    if image.is_floating_point():
        return (image + steps / 255).clamp(0, 1)
    return (image.short() + steps).clamp(0, 255).to(torch.uint8)
