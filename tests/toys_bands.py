"""What tests of band smoothing share: tiny images, functions of their bands, a classifier of stripes."""

import random
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any, TypeAlias

import torch
from torch import nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.certificates.band_smoothing import BandSmoothing
from robustify.certificates.bands import Bands
from robustify.certificates.family import CERTIFICATES

Tiny: TypeAlias = tuple[int, ...]
"""Pixels of a tiny image, row by row."""

HIDDEN = -1
"""A pixel that is not kept."""

if BandSmoothing.name not in CERTIFICATES.names():
    CERTIFICATES.register(BandSmoothing.name, BandSmoothing)


@cache
def kept(bands: Bands, index: int) -> set[tuple[int, int]]:
    """Rows and columns of the pixels that a draw keeps, as the publications describe it."""
    down = range(0, bands.height, bands.stride)
    across = range(0, bands.width, bands.stride)
    places = {
        "columns": [(0, left) for left in across],
        "rows": [(top, 0) for top in down],
        "blocks": list(product(down, across)),
    }
    top, left = places[bands.keep][index]
    rows = range(bands.height) if bands.keep == "columns" else [(top + i) % bands.height for i in range(bands.band)]
    columns = range(bands.width) if bands.keep == "rows" else [(left + i) % bands.width for i in range(bands.band)]
    return set(product(rows, columns))


def copies(bands: Bands, image: Tiny) -> list[Tiny]:
    """What each draw shows of an image."""
    return [tuple(v if k else HIDDEN for v, k in zip(image, shown, strict=True)) for shown in _shown(bands)]


@cache
def _shown(bands: Bands) -> list[list[bool]]:
    """Whether each draw keeps each pixel."""
    pixels = list(product(range(bands.height), range(bands.width)))
    return [[place in kept(bands, i) for place in pixels] for i in range(bands.draws)]


def attacked(bands: Bands, patch: tuple[int, int], image: Tiny, values: int) -> Iterator[Tiny]:
    """The image under every patch of a shape: all places and all contents."""
    tall, wide = patch
    for top, left in product(range(bands.height - tall + 1), range(bands.width - wide + 1)):
        for content in product(range(values), repeat=tall * wide):
            found = list(image)
            for k, value in enumerate(content):
                found[(top + k // wide) * bands.width + left + k % wide] = value
            yield tuple(found)


class Chosen:
    """A random function of copies, one class more likely than the others.

    At some copies it fails: it then has a class, another each time that it is asked, but no vote.
    """

    def __init__(self, seed: int, classes: int, failing: float = 0.0) -> None:
        self.random, self.classes, self.failing = random.Random(seed), classes, failing
        self.known: dict[Tiny, int | None] = {}
        self.likely, self.favourite = self.random.choice((0.5, 0.8, 0.95)), self.random.randrange(classes)

    def __call__(self, copy: Tiny) -> int | None:
        r = self.random
        if copy not in self.known:
            label = self.favourite if r.random() < self.likely else r.randrange(self.classes)
            self.known[copy] = None if r.random() < self.failing else label
        return self.known[copy]

    def votes(self, bands: Bands, image: Tiny) -> list[int]:
        """One count per class; draws that fail are missing."""
        found = [self(copy) for copy in copies(bands, image)]
        return [found.count(label) for label in range(self.classes)]

    def winner(self, bands: Bands, image: Tiny) -> int:
        """The class of an exact vote, in which draws that fail vote for any class; the first of several."""
        found = [self.random.randrange(self.classes) if c is None else c for c in map(self, copies(bands, image))]
        return max(range(self.classes), key=found.count)


def bright(patch: Any = (1, 1), band: int = 1, **settings: Any) -> SmoothedClassifier:  # noqa: ANN401
    """A classifier of 1×6×6 pixels whose logits are the brightness of three stripes of rows."""
    layer = nn.Linear(36, 3)
    with torch.no_grad():
        layer.bias.copy_(0.003 * torch.arange(3))  # no ties where a copy is dark
        layer.weight.copy_(torch.eye(3).repeat_interleave(12, dim=1) / 12)
    preprocessing = Preprocessing(mean=(0.4,), std=(0.5,), size=(6, 6))
    family = BandSmoothing(patch, band, **settings)
    return robustify(nn.Sequential(nn.Flatten(), layer).eval(), preprocessing=preprocessing, certificate=family)
