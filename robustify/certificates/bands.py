"""Bands of an image, and how many of them a patch touches; geometry only.

A band of b pixels begins at every stride-th pixel of an axis and goes on at its other end, as on a ring. How many bands
a patch touches is counted at each of its places. The published formula, the patch and the band less one pixel, over the
stride, rounded up, is too small where the stride does not divide the axis: the last band is then nearer to the first.

References:
    (De)Randomized Smoothing for Certifiable Defense against Patch Attacks, Levine, Feizi, 2020,
    https://arxiv.org/abs/2002.10733
    Certified Patch Robustness via Smoothed Vision Transformers, Salman, Jain, Wong, Madry, 2022,
    https://arxiv.org/abs/2110.07719
"""

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import final

from robustify.certificates.radii import check_count
from robustify.certificates.views import Change
from robustify.errors import InputError

KEPT = ("columns", "rows", "blocks")
"""What a draw keeps of an image: whole columns, whole rows, or a square of pixels."""


@lru_cache(maxsize=256)
def most_touched(length: int, patch: int, band: int, stride: int) -> int:
    """The largest number of bands that a patch touches, over all its places on an axis.

    Arguments:
        length: Pixels of the axis.
        patch: Pixels of the patch along it, 1 to `length`.
        band: Pixels of a band, 1 to `length`.
        stride: Pixels from the first pixel of a band to that of the next.
    """
    starts = range(0, length, stride)
    return max(
        # one of two arcs on a ring that meet begins inside the other
        sum((place - start) % length < band or (start - place) % length < patch for start in starts)
        for place in range(length - patch + 1)
    )


@final
@dataclass(frozen=True)
class Bands(Change):
    """Copies of an image of which each draw keeps one band, or block, and fills the rest.

    Arguments:
        height, width: Size of the image in pixels.
        keep: What is kept: "columns", "rows" or "blocks".
        band: Columns or rows of a band, or both of a block.
        stride: Pixels from the first pixel of a band to that of the next.
        fill: Colour of the rest, in [0, 1] pixels, one number per channel.
        drop_tokens: Whether the base function is told which pixels are not kept, and leaves them out.

    Raises:
        InputError: If a setting is out of range.
    """

    law = "robustify.smoothing.bands:Banded"

    height: int
    width: int
    keep: str
    band: int
    stride: int
    fill: tuple[float, ...]
    drop_tokens: bool = False

    def __post_init__(self) -> None:
        check_kept(self.keep)
        check_count("band, in pixels,", self.band, most=min(self._axes))
        check_count("stride, in pixels,", self.stride)
        if not self.fill or not all(map(isfinite, self.fill)):
            raise InputError(f"expected the colour around a band as a finite number per channel; got {self.fill}")

    @property
    def _axes(self) -> tuple[int, ...]:
        """Lengths of the axes along which only a part is kept."""
        return {"columns": (self.width,), "rows": (self.height,), "blocks": (self.height, self.width)}[self.keep]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is kept, in pixels."""
        return (
            self.height if self.keep == "columns" else self.band,
            self.width if self.keep == "rows" else self.band,
        )

    @property
    def tops(self) -> tuple[int, ...]:
        """First rows of what is kept; draw i keeps that of index i // len(lefts)."""
        return (0,) if self.keep == "columns" else tuple(range(0, self.height, self.stride))

    @property
    def lefts(self) -> tuple[int, ...]:
        """First columns of what is kept; draw i keeps that of index i % len(lefts)."""
        return (0,) if self.keep == "rows" else tuple(range(0, self.width, self.stride))

    @property
    def draws(self) -> int:
        """Number of copies of an image."""
        return len(self.tops) * len(self.lefts)

    def touched(self, patch: tuple[int, int]) -> int:
        """The largest number of draws that keep a pixel of a patch, over all its places.

        A block touches a patch where their rows meet and their columns meet, so the numbers of both axes multiply.

        Arguments:
            patch: Height and width in pixels, no larger than the image.
        """
        (tall, wide), (height, width) = patch, (self.height, self.width)
        down = 1 if self.keep == "columns" else most_touched(height, tall, self.band, self.stride)
        across = 1 if self.keep == "rows" else most_touched(width, wide, self.band, self.stride)
        return down * across

    def __str__(self) -> str:
        size = f"{self.band}×{self.band}" if self.keep == "blocks" else f"{self.band}"
        return f"{self.draws:,} copies of {size} {'pixels' if self.keep == 'blocks' else self.keep} each"


def check_kept(keep: object) -> None:
    """Raises `InputError` unless it is "columns", "rows" or "blocks"."""
    if not isinstance(keep, str) or keep not in KEPT:
        raise InputError(f"expected keep {', '.join(KEPT)}; got {keep!r}")
