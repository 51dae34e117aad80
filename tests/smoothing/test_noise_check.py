import math
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from robustify.smoothing.noise import NoiseAddress
from robustify.smoothing.noise_check import (
    NoiseCheck,
    _divergence,
)

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fed(normal: Tensor, sigma: float, *, grid: bool, seed: int = 0) -> Tensor:
    """Noise as a network sees it: the noisy pixels of a random image minus the clean ones, float32."""
    image = torch.randint(0, 256, normal.shape[1:], generator=torch.Generator().manual_seed(seed)).float()
    if grid:
        return (image + (255 * sigma * normal).round().float()) / 255 - image / 255
    return image / 255 + sigma * normal.float() - image / 255


def checked(batches: Iterator[Tensor] | list[Tensor], sigma: float, *, grid: bool) -> NoiseCheck:
    check = NoiseCheck(sigma, grid=grid)
    for noise in batches:
        check.add(noise)
    return check


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_accepts_true_noise(shape: tuple[int, int, int], grid: bool) -> None:
    """As it comes from its source; 200 seeds in all: a failure has a chance of 2e-4, once and for all."""
    for seed in range(25):
        sigma = float(np.geomspace(0.12, 1, 25)[seed])
        address = NoiseAddress(seed, "a", 1)
        blocks = (fed(address.block(i, shape).double(), sigma, grid=grid) for i in range(4))
        check = checked(blocks, sigma, grid=grid)
        check.verify()
        assert check.sampled >= min(128 * math.prod(shape), 8_192) - 512


@pytest.mark.parametrize(("grid", "sigma"), product([False, True], [1e-3, 0.01, 0.12, 1.0, 20.0]))
def test_accepts_much_true_noise(grid: bool, sigma: float) -> None:
    """At the most values that are ever sampled, small errors of the check itself would show."""
    check = NoiseCheck(sigma, grid=grid)
    normal = gaussian(7, 1, 400, 3, 32, 32)[0]
    while check.sampled < 300_000:
        normal = normal.flatten().roll(1).view_as(normal)  # cheap new draws: other pixels in every window
        check.add(fed(normal, sigma, grid=grid))
    # the same numbers were seen again and again, up to 40 times, but each in the right proportion
    assert _divergence(*_small(check)) < 34 * 40


def _small(check: NoiseCheck) -> tuple[np.ndarray, np.ndarray]:
    return check._cells.reshape(32, -1).sum(axis=1), np.full(32, 1 / 32)
