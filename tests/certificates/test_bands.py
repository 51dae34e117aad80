"""Geometry of bands: how many a patch touches, against pixels and against specs/methods.md, section 1.2."""

import math
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustify.certificates.bands import KEPT, Bands, most_touched
from robustify.errors import InputError
from tests.toys_bands import kept


def bands(**changed: object) -> Bands:
    settings: dict[str, Any] = {"height": 6, "width": 8, "keep": "columns", "band": 2, "stride": 1, "fill": (0.5,)}
    return Bands(**{**settings, **changed})


@pytest.mark.parametrize(
    ("length", "patch", "band", "stride", "published", "true"),
    [
        (224, 32, 19, 10, 5, 6),
        (224, 32, 19, 5, 10, 11),
        (224, 32, 37, 10, 7, 8),
        (224, 32, 19, 1, 50, 50),
        (224, 32, 19, 16, 4, 4),
        (32, 5, 4, 1, 8, 8),
    ],
)
def test_the_published_number_is_too_small_where_the_stride_does_not_divide_the_axis(
    length: int, patch: int, band: int, stride: int, published: int, true: int
) -> None:
    assert math.ceil((patch + band - 1) / stride) == published
    assert most_touched(length, patch, band, stride) == true


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, object], tuple[int, int]]:
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    keep = draw(st.sampled_from(KEPT))
    sides = {"columns": width, "rows": height, "blocks": min(height, width)}
    band, stride = draw(st.integers(1, sides[keep])), draw(st.integers(1, 4))
    patch = draw(st.integers(1, height)), draw(st.integers(1, width))
    return {"height": height, "width": width, "keep": keep, "band": band, "stride": stride}, patch


@given(case=cases())
def test_as_many_are_touched_as_keep_a_pixel_of_the_patch(case: tuple[dict[str, object], tuple[int, int]]) -> None:
    settings, (tall, wide) = case
    found = bands(**settings)
    shown = [kept(found, i) for i in range(found.draws)]
    most = 0
    for top, left in product(range(found.height - tall + 1), range(found.width - wide + 1)):
        patch = set(product(range(top, top + tall), range(left, left + wide)))
        most = max(most, sum(bool(patch & pixels) for pixels in shown))
    assert found.touched((tall, wide)) == most


def test_blocks_at_the_published_size() -> None:
    assert bands(height=32, width=32, keep="blocks", band=4).touched((5, 5)) == 64
    assert bands(height=32, width=32, keep="blocks", band=4).draws == 1024
    uneven = bands(height=224, width=224, keep="blocks", band=19, stride=10)
    assert (uneven.touched((32, 32)), uneven.draws) == (36, 23**2)


def test_bands_say_what_they_keep() -> None:
    assert (bands(stride=3).lefts, bands(stride=3).tops, bands().size) == ((0, 3, 6), (0,), (6, 2))
    assert (bands(keep="rows").lefts, bands(keep="rows").size) == ((0,), (2, 8))
    assert bands(keep="blocks").size == (2, 2)
    assert str(bands()) == "8 copies of 2 columns each"
    assert str(bands(keep="blocks", stride=2)) == "12 copies of 2×2 pixels each"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keep": "column"}, "expected keep columns, rows, blocks; got 'column'"),
        ({"band": 0}, "expected band, in pixels, to be a whole number from 1 to 8; got 0"),
        ({"band": 9}, "from 1 to 8; got 9"),
        ({"keep": "blocks", "band": 7}, "from 1 to 6; got 7"),
        ({"stride": 0}, "expected stride, in pixels, to be a whole number of at least 1; got 0"),
        ({"fill": ()}, "colour around a band"),
        ({"fill": (math.nan,)}, "colour around a band"),
    ],
)
def test_what_is_no_band_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bands(**changed)
