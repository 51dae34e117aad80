"""The augmentations of the published recipes, on clean pixels before any noise."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robustify.finetune.seeds import generator
from robustify.types import Pixels

AUGMENTATIONS = ("none", "mirror", "crop")
"""`mirror`: half of the images are mirrored. `crop`: also shifted by up to an eighth of their size, over zeros."""


def augment(pixels: Pixels, rows: Sequence[int], kind: str, *, seed: int, epoch: int) -> Pixels:
    """Each image changed on its own, by numbers that depend on (seed, row, epoch) alone."""
    if kind == "none":
        return pixels
    return torch.stack(
        [_one(image, row, kind, seed, epoch) for image, row in zip(pixels, rows, strict=True)],
    )


def _one(image: Tensor, row: int, kind: str, seed: int, epoch: int) -> Tensor:
    height, width = image.shape[-2:]
    g = generator(seed, "augment", row, epoch)
    if g.random() < 0.5:
        image = image.flip(-1)
    if kind == "mirror":
        return image
    reach = max(height, width) // 8
    top, left = g.integers(0, 2 * reach + 1, size=2)
    return F.pad(image, (reach,) * 4)[..., top : top + height, left : left + width]
