"""The augmentations of the published recipes, on clean pixels before any noise."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robustify.finetune.seeds import generator
from robustify.types import Pixels

AUGMENTATIONS = ("none", "mirror", "crop")
"""Names of augmentations: `mirror` mirrors half of the images; `crop` also shifts them by up to an eighth of their
size, over zeros."""


def augment(pixels: Pixels, rows: Sequence[int], kind: str, *, seed: int, epoch: int) -> Pixels:
    """Changes each image on its own, by random numbers that depend on (seed, row, epoch) alone.

    Arguments:
        pixels: Clean images in [0, 1].
        rows: Index of each image in the data set.
        kind: One of `AUGMENTATIONS`.
        seed: Seed of the recipe.
        epoch: Number of whole epochs so far.
    """
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
