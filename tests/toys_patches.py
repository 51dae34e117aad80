"""What tests of patch certificates share: masked tiny images, every attack on them, a classifier of stripes."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import TypeAlias

import torch
from torch import nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.certificates.family import CERTIFICATES
from robustify.certificates.masks import Masking
from robustify.certificates.patch_cleanser import PatchCleanser
from robustify.certificates.queries import Query

Tiny: TypeAlias = tuple[int, ...]
"""Pixels of a tiny image, row by row."""

HIDDEN = -1
"""A pixel under a mask."""

if PatchCleanser.name not in CERTIFICATES.names():
    CERTIFICATES.register(PatchCleanser.name, PatchCleanser)


def tiny(
    height: int,
    width: int,
    *shapes: tuple[int, int],
    masks: int | None = 2,
    stride: int | None = None,
    patches: int = 1,
) -> Masking:
    """Masks of a tiny gray image."""
    return Masking(height, width, shapes, masks, stride, patches, (0.5,))


def hidden(image: Tiny, masking: Masking, index: int) -> Tiny:
    """The image as draw `index` shows it."""
    found = list(image)
    for number in masking.sets[index]:
        top, left, height, width = masking.rectangles[number]
        for row, column in product(range(top, top + height), range(left, left + width)):
            found[row * masking.width + column] = HIDDEN
    return tuple(found)


def answered(query: Query, masking: Masking, classify: Callable[[Tiny], int | None], image: Tiny) -> int:
    """Tells a query the classes of masked copies, until it asks no more; the number of draws that it took."""
    draws = place = 0
    while asks := query.ask():
        for ask in asks:
            first = place if ask.first is None else ask.first
            found = [classify(hidden(image, masking, index)) for index in range(first, first + ask.draws)]
            query.tell(ask, [found.count(label) for label in range(query.classes)])
            draws += ask.draws
            place = first + ask.draws
    return draws


def attacked(image: Tiny, masking: Masking, values: int) -> Iterator[Tiny]:
    """The image under every patch: all shapes and places, all contents; with two patches, all pairs."""
    once = list(_patched(image, masking, values))
    yield from once if masking.patches == 1 else (both for one in once for both in _patched(one, masking, values))


def _patched(image: Tiny, masking: Masking, values: int) -> Iterator[Tiny]:
    for height, width in masking.shapes:
        for top, left in product(range(masking.height - height + 1), range(masking.width - width + 1)):
            for content in product(range(values), repeat=height * width):
                found = list(image)
                for k, value in enumerate(content):
                    found[(top + k // width) * masking.width + left + k % width] = value
                yield tuple(found)


def oracle(masking: Masking, classes: dict[int, int]) -> int:
    """PatchCleanser's prediction as it is published, from the class of every masked copy."""
    one = [classes[index] for index in range(masking.first)]
    if len(set(one)) == 1:
        return one[0]
    leader = max(sorted(set(one)), key=one.count)
    for index, label in enumerate(one):
        if label != leader and all(classes[union] == label for union in masking.unions(index)):
            return label
    return leader


def bright(patch: object = (1, 1), **settings: int) -> SmoothedClassifier:
    """A classifier of 1×6×6 pixels whose logits are the brightness of three stripes, with patch certificates."""
    layer = nn.Linear(36, 3)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight.copy_(torch.eye(3).repeat_interleave(12, dim=1) / 12)
    preprocessing = Preprocessing(mean=(0.4,), std=(0.5,), size=(6, 6))
    family = PatchCleanser(patch, **settings)  # type: ignore[arg-type]
    return robustify(nn.Sequential(nn.Flatten(), layer).eval(), preprocessing=preprocessing, certificate=family)
