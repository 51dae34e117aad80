"""What families of certificates against patches share: the shapes of patches, and the questions that they answer."""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt
from typing import Any, TypeAlias

from robustify.certificates.bounds import is_number
from robustify.certificates.masks import check_shapes
from robustify.certificates.question import Question
from robustify.contract import InputContract
from robustify.errors import InputError

AXIS = "patches, of the size that was asked about"
"""What the radius of certificates against patches measures."""

Patch: TypeAlias = float | tuple[int, int] | Sequence[tuple[int, int]]
"""A share of the image's area, a height and width in pixels, or several of those."""


def shapes_of(patch: Patch, contract: InputContract) -> tuple[tuple[int, int], ...]:
    """The heights and widths of patches, in pixels, in images of a size.

    A share of the image's area is a square, whose side is rounded up.

    Raises:
        InputError: If it is neither a share nor shapes in whole pixels, or a shape lies in another.
    """
    given: Any = patch
    if is_number(given):
        if not (isinstance(given, float) and 0 < given < 1):
            raise InputError(
                f"expected patch as a share of the image's area, above 0 and below 1, or as (height, width) in "
                f"pixels; got {given!r}"
            )
        side = _side(Fraction(repr(float(given))) * contract.height * contract.width)
        return ((side, side),)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InputError(f"expected patch as a share, (height, width) in pixels, or several such; got {given!r}")
    several = given if given and all(isinstance(shape, Sequence) for shape in given) else [given]
    check_shapes(several)
    return tuple((height, width) for height, width in several)


def check_about_patches(question: Question, name: str, patches: int) -> None:
    """Refuses what a proof without chance, about a number of patches, does not answer.

    Arguments:
        question: The user's question.
        name: Name of the family.
        patches: Number of patches that it is about.

    Raises:
        InputError: If a number of draws, known labels or another radius is asked for.
    """
    if question.n is not None:
        raise InputError(f"{name} takes a fixed number of draws, which its own settings say; leave out n=")
    if question.known_label:
        raise InputError(f"{name} needs no true labels; leave out known_label=")
    if question.radii not in ((), (float(patches),)):
        raise InputError(
            f"the radius of {name} is its number of patches, {patches}: leave out radius=; got "
            f"{', '.join(f'{radius:g}' for radius in question.radii)}"
        )


def _side(area: Fraction) -> int:
    """The side of the smallest square of whole pixels that is no smaller than an area."""
    side = isqrt(-(-area.numerator // area.denominator))
    return side if side * side >= area else side + 1
