from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from robustify.certificates.queries import ESTIMATION, PREDICTION, SELECTION
from robustify.errors import InputError
from robustify.smoothing.noise import BLOCK, NoiseAddress, NoiseStream, Soundness, fresh_seed

SHAPE = (1, 8, 8)


def draws(address: NoiseAddress, *sizes: int) -> torch.Tensor:
    stream = NoiseStream(address, SHAPE)
    return torch.cat([stream.take(size) for size in sizes])


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


@pytest.mark.parametrize("size", [1, 7, 32, 64, 100])
def test_how_draws_are_taken_never_changes_them(size: int) -> None:
    address = NoiseAddress(seed=5, sample="a", stage=ESTIMATION)
    taken = draws(address, *[size] * (100 // size), 100 % size)
    assert torch.equal(taken, draws(address, 100))
    assert torch.equal(taken[:40], draws(address, 333)[:40])


def test_noise_is_gaussian() -> None:
    noise = draws(NoiseAddress(11, "a", ESTIMATION), 4_000).numpy()
    # 256,000 fixed numbers: the test can only change when the generator does
    assert kstest(noise.ravel(), norm.cdf).pvalue > 1e-3
    assert noise.std() == pytest.approx(1, rel=5 / np.sqrt(2 * noise.size))
    flat = noise.reshape(4_000, -1)
    serial = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(serial) < 5 / np.sqrt(noise.size)


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_float_noise_has_exactly_sigma(sigma: float) -> None:
    normal = draws(NoiseAddress(11, "a", ESTIMATION), 64)
    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    noisy = Soundness.FLOAT.add(image, normal, sigma)
    assert noisy.dtype == torch.float32
    assert torch.allclose(noisy - image, (sigma * normal).float(), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_grid_noise_is_the_ideal_noisy_image_rounded(sigma: float) -> None:
    normal = draws(NoiseAddress(11, "a", ESTIMATION), 64)
    steps = torch.randint(0, 256, SHAPE, generator=torch.Generator().manual_seed(0))
    noisy = Soundness.GRID.add(steps / 255, normal, sigma)
    ideal = (255 * (steps.double() / 255 + sigma * normal)).round()
    assert torch.equal((255 * noisy.double()).round(), ideal)
    assert torch.equal(noisy, ideal.float() / 255)


def test_grid_noise_looks_the_same_on_every_8_bit_image() -> None:
    """What float noise does not do: the set of values that the network can see does not tell the images apart."""
    normal = draws(NoiseAddress(11, "a", ESTIMATION), 200)
    for level in (0, 1, 200, 255):
        seen = Soundness.GRID.add(torch.full(SHAPE, level / 255), normal, 0.5)
        assert torch.equal(seen, (255 * seen).round() / 255)


@pytest.mark.parametrize("image", [torch.full(SHAPE, 0.5), torch.rand(SHAPE)])
def test_only_8_bit_images_get_grid_noise(image: torch.Tensor) -> None:
    with pytest.raises(InputError, match="expected an 8-bit image"):
        Soundness.GRID.check(image)
    assert torch.equal(Soundness.FLOAT.check(image), image)


def test_every_8_bit_level_is_recognised() -> None:
    levels = torch.arange(256, dtype=torch.uint8).float() / 255
    assert torch.equal(Soundness.GRID.check(levels.view(1, 16, 16)).flatten(), levels)
    assert torch.equal(Soundness.GRID.check((levels.double() + 1e-7).float().view(1, 16, 16)).flatten(), levels)


def test_a_uniform_of_zero_still_gives_finite_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def __init__(self, _: object) -> None: ...

        def random(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.zeros(shape)

    monkeypatch.setattr(np.random, "Generator", Zeros)
    assert NoiseAddress(0, "a", 0).block(0, SHAPE).isfinite().all()


def test_fresh_seeds_differ() -> None:
    assert len({fresh_seed() for _ in range(100)}) == 100
