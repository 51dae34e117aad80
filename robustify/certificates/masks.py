r"""Mask sets in which some mask covers a patch wherever it is; geometry only.

Along an axis of n pixels, for a patch of p, masks of :math:`m = \min(p + s - 1, n)` pixels are s pixels apart, and the
last one ends where the axis ends. Each of the n - p + 1 places of the patch is then inside a mask, as neighbours share
at least p - 1 pixels. Of k masks, :math:`s = \lceil (n - p + 1) / k \rceil`.

References:
    PatchCleanser: Certifiably Robust Defense against Adversarial Patches for Any Image Classifier, Xiang, Mahloujifar,
    Mittal, 2022, https://arxiv.org/abs/2108.09135
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, product
from math import comb, isfinite
from typing import NamedTuple, final

from robustify.certificates.radii import check_count
from robustify.certificates.views import Change
from robustify.errors import InputError

MOST_DRAWS = 200_000
"""The most masked copies of one image that are accepted: hours of most networks."""


class Rectangle(NamedTuple):
    """A part of an image, in whole pixels.

    Arguments:
        top, left: Its first row and column.
        height, width: Its size, positive.
    """

    top: int
    left: int
    height: int
    width: int


class Masks(NamedTuple):
    """Masks of one axis.

    Arguments:
        size: Pixels of each.
        offsets: First pixel of each, increasing.
    """

    size: int
    offsets: tuple[int, ...]


def axis_masks(length: int, patch: int, *, masks: int | None = None, stride: int | None = None) -> Masks:
    """Masks of an axis of which one covers the patch wherever it is.

    Arguments:
        length: Pixels of the axis.
        patch: Pixels of the patch along it, 1 to `length`.
        masks: Number of masks; there are never more, and fewer where as many are not needed.
        stride: Pixels from a mask to the next, instead of their number.

    Raises:
        InputError: If a number is out of range, or not exactly one of masks and stride is given.
    """
    if (masks is None) == (stride is None):
        raise InputError(f"give the number of masks of an axis or their stride, one of them; got {masks} and {stride}")
    check_count("the length of an axis", length)
    check_count("the side of a patch", patch, most=length)
    if stride is None:
        check_count("masks", masks)  # type: ignore[arg-type]  # one of them is given
        stride = -(-(length - patch + 1) // masks)  # type: ignore[operator]
    check_count("stride", stride)
    size = min(patch + stride - 1, length)
    last = length - size
    return Masks(size, tuple(dict.fromkeys((*range(0, last + 1, stride), last))))


@final
@dataclass(frozen=True)
class Masking(Change):
    """Copies of an image with masks over it: each draw hides the union of a set of rectangles.

    There are rectangles for each shape of a patch; the patches lie in as many of them. A set of up to that many is a
    mask of the first round. The union of any two such masks is a set of up to twice as many.

    Arguments:
        height, width: Size of the image in pixels.
        shapes: Heights and widths of the patches in pixels; each covers all shapes inside it, so none lies in another.
        masks: Number of masks of each axis and shape; None where `stride` says it.
        stride: Pixels from a mask to the next; None where `masks` says it.
        patches: Number of patches, 1 or 2.
        fill: Colour of the masks, in [0, 1] pixels, one number per channel.

    Raises:
        InputError: If a patch does not fit into the image or lies in another one, a number is out of range, a mask
            would cover all of the image, or the copies of one image would be more than `MOST_DRAWS`.
    """

    law = "robustify.smoothing.masks:Masked"

    height: int
    width: int
    shapes: tuple[tuple[int, int], ...]
    masks: int | None
    stride: int | None
    patches: int
    fill: tuple[float, ...]

    def __post_init__(self) -> None:
        check_count("patches", self.patches, most=2)
        check_shapes(self.shapes)
        if wrong := [(h, w) for h, w in self.shapes if h > self.height or w > self.width]:
            raise InputError(
                f"expected patches inside the image of {self.height}×{self.width} pixels, as (height, width); "
                f"got {wrong[0]}"
            )
        if not self.fill or not all(map(isfinite, self.fill)):
            raise InputError(f"expected the colour of masks as a finite number for each channel; got {self.fill}")
        if any(r.height == self.height and r.width == self.width for r in self.rectangles):
            raise InputError(
                f"a mask would cover all {self.height}×{self.width} pixels: nothing of the image would be seen.\n"
                "  Use more masks, a smaller stride or a smaller patch."
            )
        if self.draws > MOST_DRAWS:
            raise InputError(
                f"{self.patches} of these patches take {self.draws:,} masked copies of each image; at most "
                f"{MOST_DRAWS:,} are accepted.\n  Use fewer masks, a larger stride or fewer shapes."
            )

    @cached_property
    def rectangles(self) -> tuple[Rectangle, ...]:
        """The masks of all shapes, row by row, each once."""
        return tuple(dict.fromkeys(chain.from_iterable(map(self._of_shape, self.shapes))))

    def _of_shape(self, shape: tuple[int, int]) -> list[Rectangle]:
        (height, tops), (width, lefts) = (
            axis_masks(length, patch, masks=self.masks, stride=self.stride)
            for length, patch in zip((self.height, self.width), shape, strict=True)
        )
        return [Rectangle(top, left, height, width) for top, left in product(tops, lefts)]

    @property
    def first(self) -> int:
        """Number of masks of the first round, with which the draws begin."""
        return self._sets_up_to(self.patches)

    @property
    def draws(self) -> int:
        """Number of all masked copies of an image."""
        return self._sets_up_to(2 * self.patches)

    def _sets_up_to(self, size: int) -> int:
        return sum(comb(len(self.rectangles), together) for together in range(1, size + 1))

    @cached_property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the rectangles that each draw hides, increasing; smaller sets come first."""
        sizes = range(1, 2 * self.patches + 1)
        return tuple(chain.from_iterable(combinations(range(len(self.rectangles)), size) for size in sizes))

    @cached_property
    def _number(self) -> dict[tuple[int, ...], int]:
        """Index of the draw that hides a set."""
        return {together: index for index, together in enumerate(self.sets)}

    def unions(self, index: int) -> tuple[int, ...]:
        """Indices of the draws that hide a mask of the first round with each of them, itself included; each once.

        Arguments:
            index: Index of a draw of the first round.
        """
        mine = self.sets[index]
        both = (tuple(sorted({*mine, *other})) for other in self.sets[: self.first])
        return tuple(dict.fromkeys(self._number[together] for together in both))

    def __str__(self) -> str:
        return " or ".join(f"{height}×{width}" for height, width in self.shapes)


def check_shapes(shapes: Sequence[Sequence[object]]) -> None:
    """Raises `InputError` unless each shape is a height and a width of whole pixels, and none lies in another."""
    if not shapes or not all(len(shape) == 2 and all(map(_is_side, shape)) for shape in shapes):
        raise InputError(f"expected patches as (height, width) in whole pixels, each at least 1; got {shapes}")
    for (i, inner), (j, outer) in product(enumerate(shapes), repeat=2):
        if i != j and all(a <= b for a, b in zip(inner, outer, strict=True)):  # type: ignore[operator]  # whole numbers
            raise InputError(
                f"a patch of {tuple(inner)} lies inside one of {tuple(outer)}, which covers it: leave it out"
            )


def _is_side(side: object) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and side >= 1
