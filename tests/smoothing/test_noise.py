from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from robustify.smoothing.engine import noisy_batches
from robustify.smoothing.noise import BLOCK, ESTIMATION, PREDICTION, SELECTION, NoiseAddress, fresh_seed

SHAPE = (1, 8, 8)


def draws(address: NoiseAddress, *, n: int, batch: int, sigma: float = 1.0) -> torch.Tensor:
    batches = noisy_batches(torch.zeros(SHAPE), address, sigma=sigma, n=n, batch=batch)
    return torch.cat([noisy[:counted] for noisy, counted in batches])


def test_an_address_is_a_draw() -> None:
    address = NoiseAddress(seed=5, sample="a", stage=SELECTION)
    assert torch.equal(address.block(3, SHAPE), address.block(3, SHAPE))


def test_every_part_of_an_address_matters() -> None:
    addresses = product((0, 1, 2**100), ("a", "b", "1|a"), (SELECTION, ESTIMATION, PREDICTION), (0, 1, 2))
    blocks = [NoiseAddress(s, name, k).block(b, SHAPE).flatten() for s, name, k, b in addresses]
    correlations = np.corrcoef(torch.stack(blocks).numpy())
    off_diagonal = correlations[~np.eye(len(blocks), dtype=bool)]
    # 2,048 numbers a block: |r| beyond 6 / sqrt(2048) has chance 2e-9 for each of 3,240 pairs
    assert np.abs(off_diagonal).max() < 6 / np.sqrt(BLOCK * 64)


@pytest.mark.parametrize("batch", [1, 7, 32, 64, 100])
def test_the_batch_size_never_changes_a_draw(batch: int) -> None:
    address = NoiseAddress(seed=5, sample="a", stage=ESTIMATION)
    assert torch.equal(draws(address, n=100, batch=batch), draws(address, n=100, batch=100))


def test_fewer_draws_are_a_prefix_of_more() -> None:
    address = NoiseAddress(seed=5, sample="a", stage=ESTIMATION)
    assert torch.equal(draws(address, n=40, batch=16), draws(address, n=333, batch=16)[:40])


def test_every_batch_has_the_same_shape() -> None:
    batches = list(noisy_batches(torch.zeros(SHAPE), NoiseAddress(1, "a", SELECTION), sigma=1.0, n=70, batch=32))
    assert [tuple(noisy.shape) for noisy, _ in batches] == [(32, *SHAPE)] * 3
    assert [counted for _, counted in batches] == [32, 32, 6]


@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_noise_is_gaussian_with_exactly_sigma(sigma: float) -> None:
    noise = draws(NoiseAddress(11, "a", ESTIMATION), n=4_000, batch=500, sigma=sigma).numpy()
    # 256,000 fixed numbers: the test can only change when the generator does
    assert kstest(noise.ravel(), norm(scale=sigma).cdf).pvalue > 1e-3
    assert noise.std() == pytest.approx(sigma, rel=5 / np.sqrt(2 * noise.size))
    flat = noise.reshape(4_000, -1)
    serial = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(serial) < 5 / np.sqrt(noise.size)


def test_a_uniform_of_zero_still_gives_finite_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def __init__(self, _: object) -> None: ...

        def random(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.zeros(shape)

    monkeypatch.setattr(np.random, "Generator", Zeros)
    assert NoiseAddress(0, "a", 0).block(0, SHAPE).isfinite().all()


def test_fresh_seeds_differ() -> None:
    assert len({fresh_seed() for _ in range(100)}) == 100
