"""Transforms that are enumerated: against numpy, against SciPy, and exact where they can be."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import rotate

from robustify.certificates.exhaustive import Transform, Transforms
from robustify.certificates.views import Change, View
from robustify.errors import InputError
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress, NoiseStream, accepted
from robustify.smoothing.transforms import brighter, mean_colour, shifted, transformed, turned

COLOUR = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def by_padding(image: np.ndarray, down: int, right: int, fill: Sequence[int]) -> np.ndarray:
    """A shift, pixel by pixel."""
    moved = np.empty_like(image)
    channels, height, width = image.shape
    for c, y, x in np.ndindex(channels, height, width):
        inside = 0 <= y - down < height and 0 <= x - right < width
        moved[c, y, x] = image[c, y - down, x - right] if inside else fill[c]
    return moved


@given(down=st.integers(-4, 4), right=st.integers(-6, 6))
def test_shifts_are_those_of_single_pixels(down: int, right: int) -> None:
    image = COLOUR.numpy()
    means = [int(channel.astype(int).mean() + 0.5) for channel in image]
    for fill, colour in (("black", [0, 0, 0]), ("mean", means)):
        expected = by_padding(image, down, right, colour)
        assert np.array_equal(shifted(COLOUR, down, right, fill).numpy(), expected)
    assert np.array_equal(shifted(COLOUR, down, right, "cyclic").numpy(), np.roll(image, (down, right), (1, 2)))
    assert torch.equal(shifted(shifted(COLOUR, down, right, "cyclic"), -down, -right, "cyclic"), COLOUR)


def test_the_mean_of_bytes_is_a_byte_and_halves_go_up() -> None:
    assert mean_colour(torch.tensor([[[1, 2]], [[0, 254]]], dtype=torch.uint8)).flatten().tolist() == [2, 127]
    assert float(mean_colour(torch.tensor([[[0.25, 0.5]]]))) == 0.375


@given(steps=st.integers(-255, 255))
def test_brightness_is_clipped(steps: int) -> None:
    expected = np.clip(COLOUR.numpy().astype(int) + steps, 0, 255)
    assert np.array_equal(brighter(COLOUR, steps).numpy(), expected)
    assert brighter(COLOUR, steps).dtype == torch.uint8
    assert np.allclose(brighter(COLOUR / 255, steps).numpy(), expected / 255, atol=1e-6)


@pytest.mark.parametrize("quarters", [-40, -3, 1, 8, 90, 300, 720])
def test_turns_are_those_of_scipy(quarters: int) -> None:
    """Places are rounded to 1/512 pixel along each axis, so bytes differ by at most 255/256 before they are rounded."""
    image = torch.randint(0, 256, (1, 9, 9), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    expected = rotate(image[0].numpy().astype(float), quarters / 4, reshape=False, order=1, mode="grid-constant")
    assert np.abs(turned(image, quarters, "black")[0].numpy() - expected).max() <= 1.5
    assert np.abs(turned(image / 255, quarters, "black")[0].numpy() - expected / 255).max() <= 1.01 / 255


@pytest.mark.parametrize("size", [4, 5])
def test_right_angles_move_pixels_alone(size: int) -> None:
    image = torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    for turns in (-1, 1, 2):
        assert torch.equal(turned(image, 360 * turns, "black"), torch.rot90(image, turns, (1, 2)))


def test_an_even_image_stays_even_under_its_mean() -> None:
    even = torch.full((1, 6, 6), 77, dtype=torch.uint8)
    assert torch.equal(turned(even, 100, "mean"), even)
    assert int(turned(even, 100, "black").min()) < 77


def test_turns_come_first_then_shifts_then_brightness() -> None:
    found = transformed(COLOUR, Transform(8, 1, -2, 30), "black")
    assert torch.equal(found, brighter(shifted(turned(COLOUR, 8, "black"), 1, -2, "black"), 30))


@given(shift=st.integers(0, 2), brightness=st.integers(0, 3), step=st.integers(1, 5), quarters=st.integers(0, 2))
def test_a_grid_holds_every_combination_once_and_begins_with_the_image(
    shift: int, brightness: int, step: int, quarters: int
) -> None:
    grid = Transforms(shift, "black", brightness, step, quarters)
    listed = [t for ring in grid.rings for t in ring]
    assert listed[0] == Transform()
    assert len(set(listed)) == len(listed) == (2 * shift + 1) ** 2 * (2 * brightness + 1) * (2 * quarters + 1)
    assert {t.steps for t in listed} == {step * k for k in range(-brightness, brightness + 1)}
    for size, ring in enumerate(grid.rings):
        assert all(max(abs(t.quarters), abs(t.down), abs(t.right), abs(t.steps) // step) == size for t in ring)
    assert grid.totals == tuple(sum(map(len, grid.rings[: k + 1])) for k in range(grid.size + 1))


@pytest.mark.parametrize("soundness", ["grid", "float"])
def test_the_law_enumerates_the_grid(soundness: str) -> None:
    grid = Transforms(1, "mean", 1, 9, 1)
    law = law_of(View(0.0, change=grid), soundness)
    assert (law.alike, law.sigma, law.evidence()) == (False, 0.0, None)
    image = accepted(COLOUR, soundness)
    stream = NoiseStream(law, image, NoiseAddress(0, "a", 0, "estimation"))
    listed = [t for ring in grid.rings for t in ring]
    drawn = torch.cat([stream.take(5), stream.take(len(listed) - 5)])
    for draw, t in zip(drawn, listed, strict=True):
        expected = transformed(image, t, "mean")
        assert torch.equal(draw, expected / 255 if soundness == "grid" else expected)
    assert torch.equal(drawn[0], COLOUR / 255)


def test_another_change_is_refused() -> None:
    class Other(Change):
        law = Transforms.law

    with pytest.raises(InputError, match="expected a view of transforms"):
        law_of(View(0.0, change=Other()), "grid")
