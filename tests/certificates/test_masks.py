"""Sets of masks: some mask covers a patch wherever it is; counts and golden values of the publication."""

from itertools import combinations, product
from typing import Any

import pytest

from robustify.certificates.masks import MOST_DRAWS, Masking, Rectangle, axis_masks
from robustify.errors import InputError
from tests.toys_patches import tiny

GOLDEN = [
    (224, 32, 6, 64, (0, 33, 66, 99, 132, 160), 36, 666),
    (224, 23, 6, 56, (0, 34, 68, 102, 136, 168), 36, 666),
    (224, 39, 6, 69, (0, 31, 62, 93, 124, 155), 36, 666),
    (224, 32, 5, 70, (0, 39, 78, 117, 154), 25, 325),
    (224, 32, 4, 80, (0, 49, 98, 144), 16, 136),
    (224, 32, 3, 96, (0, 65, 128), 9, 45),
    (224, 32, 2, 128, (0, 96), 4, 10),
    (32, 5, 6, 9, (0, 5, 10, 15, 20, 23), 36, 666),
]
"""specs/methods.md, section 1.1: length, patch, masks, size, offsets, masks and draws of a square."""

ONE_PER_CENT = ((5, 224), (12, 83), (23, 38), (39, 20), (84, 12), (224, 5))
"""Shapes that cover every rectangle of 1 % of 224×224 pixels (the same section)."""


@pytest.mark.parametrize(("length", "patch", "k", "size", "offsets", "masks", "draws"), GOLDEN)
def test_masks_are_the_published_ones(
    length: int, patch: int, k: int, size: int, offsets: tuple[int, ...], masks: int, draws: int
) -> None:
    assert axis_masks(length, patch, masks=k) == (size, offsets)
    masking = tiny(length, length, (patch, patch), masks=k)
    assert (masking.first, masking.draws) == (masks, draws)
    assert len(masking.sets) == draws


def covers(length: int, patch: int, size: int, offsets: tuple[int, ...]) -> bool:
    """Whether, at each place of the patch, the last mask that begins no later than it ends no earlier."""
    lasts = (max(offset for offset in offsets if offset <= place) for place in range(length - patch + 1))
    return all(place + patch <= last + size for place, last in enumerate(lasts))


def test_some_mask_covers_the_patch_wherever_it_is() -> None:
    """All lengths up to 24 with all numbers of masks and all strides, by enumeration."""
    for length in range(1, 25):
        for patch, k in product(range(1, length + 1), repeat=2):
            for size, offsets in (axis_masks(length, patch, masks=k), axis_masks(length, patch, stride=k)):
                assert offsets[0] == 0
                assert offsets[-1] + size == length
                assert covers(length, patch, size, offsets), (length, patch, k)
            assert len(axis_masks(length, patch, masks=k).offsets) <= k


@pytest.mark.slow
def test_some_mask_covers_the_patch_in_all_73810_cases_of_the_specification() -> None:
    cases = [(n, patch, k) for n in range(1, 61) for patch, k in product(range(1, n + 1), repeat=2)]
    assert len(cases) == 73_810
    assert all(covers(length, patch, *axis_masks(length, patch, masks=k)) for length, patch, k in cases)


def test_several_shapes_take_the_masks_of_all() -> None:
    masking = tiny(224, 224, *ONE_PER_CENT, masks=None, stride=32)
    assert (masking.first, masking.draws) == (168, 14_196)
    assert Rectangle(0, 0, 36, 224) in masking.rectangles
    widest = {height: max(w for h, w in ONE_PER_CENT if h >= height) for height in range(5, 225)}
    assert all(503 // height <= widest[height] for height in widest)


def test_draws_are_distinct_unions_and_begin_with_the_first_round() -> None:
    masking = tiny(224, 224, (32, 32), masks=5, patches=2)
    assert (masking.first, masking.draws) == (325, 15_275)
    assert len(set(masking.sets)) == masking.draws
    assert {len(found) for found in masking.sets[:325]} == {1, 2}
    small = tiny(6, 6, (2, 2), masks=2)
    assert small.sets == tuple((i,) for i in range(4)) + tuple(combinations(range(4), 2))


def test_unions_are_those_with_every_mask_of_the_first_round() -> None:
    for masking in (tiny(6, 6, (2, 2), masks=3), tiny(6, 6, (2, 2), masks=2, patches=2)):
        for index, mine in enumerate(masking.sets[: masking.first]):
            found = [masking.sets[union] for union in masking.unions(index)]
            assert set(found) == {tuple(sorted({*mine, *other})) for other in masking.sets[: masking.first]}
            assert len(found) == len(set(found))
            assert mine in found


def masking(**changed: Any) -> Masking:  # noqa: ANN401 - settings of several types
    settings: dict[str, Any] = {"height": 8, "width": 8, "shapes": ((2, 2),), "masks": 3, "stride": None}
    return Masking(**{**settings, "patches": 1, "fill": (0.5,), **changed})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"masks": None}, "one of them; got None and None"),
        ({"stride": 2}, "one of them; got 3 and 2"),
        ({"masks": 0}, "expected masks to be a whole number of at least 1; got 0"),
        ({"masks": None, "stride": 0}, "expected stride to be a whole number of at least 1; got 0"),
        ({"masks": 1}, "a mask would cover all 8×8 pixels"),
        ({"masks": None, "stride": 7}, "a mask would cover all 8×8 pixels"),
        ({"shapes": ((9, 2),)}, r"inside the image of 8×8 pixels, as \(height, width\); got \(9, 2\)"),
        ({"shapes": ((2, 2), (3, 2))}, r"\(2, 2\) lies inside one of \(3, 2\)"),
        ({"shapes": ((2, 2), (2, 2))}, "leave it out"),
        ({"shapes": ()}, r"expected patches as \(height, width\) in whole pixels, each at least 1; got \(\)"),
        ({"shapes": ((2, 0),)}, r"each at least 1; got \(\(2, 0\),\)"),
        ({"patches": 3}, "expected patches to be a whole number from 1 to 2; got 3"),
        ({"fill": ()}, "colour of masks"),
        ({"fill": (float("nan"),)}, "colour of masks"),
        ({"masks": None, "stride": 1, "patches": 2}, f"at most {MOST_DRAWS:,} are accepted"),
    ],
)
def test_masks_that_make_no_sense_are_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        masking(**changed)
