import multiprocessing
from hashlib import sha256
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import kstest, norm

from robustify.certificates.queries import ESTIMATION, PREDICTION, SELECTION
from robustify.errors import InputError
from robustify.smoothing.background import background
from robustify.smoothing.noise import (
    BLOCK,
    FloatNoise,
    GridNoise,
    NoiseAddress,
    NoiseStream,
    accepted,
    noise_law,
    per_block,
)
from robustify.smoothing.settings import Sampling

SHAPE = (1, 8, 8)
LARGE = (3, 224, 224)
ADDRESS = NoiseAddress(seed=5, sample="a", view=0, stage=ESTIMATION)
IMAGE = torch.randint(0, 256, SHAPE, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def draws(law: GridNoise | FloatNoise, *sizes: int, address: NoiseAddress = ADDRESS) -> torch.Tensor:
    stream = NoiseStream(law, accepted(IMAGE, "grid" if isinstance(law, GridNoise) else "float"), address)
    return torch.cat([stream.take(size) for size in sizes])


def test_every_part_of_an_address_matters() -> None:
    addresses = product((0, 1, 2**100), ("a", "b", "1|a"), (0, 1), (SELECTION, ESTIMATION, PREDICTION), (0, 1, 2))
    blocks = [GridNoise(0.25).block(NoiseAddress(*rest), b, SHAPE)[:64].ravel() for *rest, b in addresses]
    correlations = np.corrcoef(np.stack(blocks))
    off_diagonal = correlations[~np.eye(len(blocks), dtype=bool)]
    # 4,096 numbers a block: |r| beyond 6.5 / 64 has chance 8e-11 for each of 13,041 pairs
    assert np.abs(off_diagonal).max() < 6.5 / 64


def test_no_two_addresses_are_written_alike() -> None:
    with pytest.raises(InputError, match="expected a stage without"):
        NoiseAddress(1, "c", 0, "a|b")


def test_words_of_the_reserved_range_are_others() -> None:
    assert not np.isin(ADDRESS.words(0, 1_000), ADDRESS.words(0, 1_000, reserved=True)).any()


@pytest.mark.parametrize("law", [GridNoise(0.25), FloatNoise(0.25)])
@pytest.mark.parametrize("size", [1, 7, 32, 64, 100])
def test_how_draws_are_taken_never_changes_them(law: GridNoise | FloatNoise, size: int) -> None:
    taken = draws(law, *[size] * (100 // size), 100 % size)
    assert torch.equal(taken, draws(law, 100))
    assert torch.equal(taken[:40], draws(law, 5_000)[:40])


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), max_size=8))
@settings(max_examples=25)
def test_drawing_ahead_never_changes_a_draw(steps: list[tuple[bool, int]]) -> None:
    shape = (3, 100, 100)  # four draws a block
    law = GridNoise(0.25)
    stream = NoiseStream(law, torch.zeros(shape, dtype=torch.uint8), ADDRESS)
    taken = []
    for ahead, size in steps:
        if ahead:
            stream.ahead(size)
        else:
            taken.append(stream.take(size))
    found = torch.cat(taken) if taken else torch.empty(0, *shape)
    expected = np.concatenate([law.block(ADDRESS, b, shape) for b in range(1 + len(found) // 4)])
    assert torch.equal((255 * found).round().to(torch.int16), torch.from_numpy(expected[: len(found)]))


def test_no_more_is_drawn_ahead_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    block = GridNoise.block
    monkeypatch.setattr(GridNoise, "block", lambda self, a, i, shape: drawn.append(i) or block(self, a, i, shape))
    stream = NoiseStream(GridNoise(0.25), torch.zeros(LARGE, dtype=torch.uint8), ADDRESS)
    for _ in range(3):
        stream.ahead(5)
    assert len(stream.take(4)) == 4
    stream.ahead(2)
    stream.take(2)
    assert drawn == [0, 1, 2, 3, 4, 5]


def test_what_fails_in_the_background_is_raised_where_draws_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no random bits")

    stream = NoiseStream(GridNoise(0.25), IMAGE, ADDRESS)
    monkeypatch.setattr(GridNoise, "block", broken)
    stream.ahead(5)
    with pytest.raises(RuntimeError, match="no random bits"):
        stream.take(5)


def _draw_ahead(_: int) -> int:
    stream = NoiseStream(GridNoise(0.25), IMAGE, ADDRESS)
    stream.ahead(5_000)
    return len(stream.take(5_000))


def test_a_forked_process_has_a_thread_of_its_own() -> None:
    background.submit(lambda: None).result()  # this process has one
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(_draw_ahead, [0]).get(timeout=60) == [5_000]


def test_the_bits_of_a_block_are_known() -> None:
    """The same on every machine and with every version of the libraries; another value makes old runs unrepeatable."""
    block = GridNoise(0.25).block(NoiseAddress(1234, "golden", 0, ESTIMATION), 7, LARGE)
    assert block.dtype == np.int16
    assert block.shape == (1, *LARGE)
    assert sha256(block.astype("<i2").tobytes()).hexdigest()[:32] == "84c6616e5982ecb5383ea324ed4546d2"


def test_blocks_hold_many_small_images_or_one_large_one() -> None:
    assert per_block(SHAPE) == BLOCK // 64
    assert per_block(LARGE) == 1
    assert len(GridNoise(0.25).block(ADDRESS, 0, SHAPE)) == BLOCK // 64


@pytest.mark.parametrize("law", [GridNoise(0.5), FloatNoise(0.5)])
def test_noise_is_gaussian(law: GridNoise | FloatNoise) -> None:
    clean = accepted(IMAGE, "grid" if isinstance(law, GridNoise) else "float").float() / (
        255 if isinstance(law, GridNoise) else 1
    )
    noise = (draws(law, 4_000) - clean).numpy().astype(float)
    # 256,000 fixed numbers: the test can only change when the generator does
    assert (
        kstest(noise.ravel() / 0.5 + np.random.default_rng(0).uniform(-1, 1, noise.size) / 255, norm.cdf).pvalue > 1e-3
    )
    assert noise.std() == pytest.approx(0.5, rel=5 / np.sqrt(2 * noise.size))
    flat = noise.reshape(4_000, -1)
    serial = np.corrcoef(flat[:-1].ravel(), flat[1:].ravel())[0, 1]
    assert abs(serial) < 5 / np.sqrt(noise.size)


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_float_noise_has_exactly_sigma(sigma: float) -> None:
    noisy = draws(FloatNoise(sigma), 64)
    uniform = (ADDRESS.words(0, BLOCK) >> np.uint64(11)) * 2.0**-53
    expected = torch.from_numpy(sigma * ndtri(uniform)).view(-1, *SHAPE)[:64]
    assert noisy.dtype == torch.float32
    assert torch.allclose((noisy - IMAGE.float() / 255).double(), expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
def test_grid_noise_is_whole_steps_divided_once(sigma: float) -> None:
    law = GridNoise(sigma)
    noisy = draws(law, 64)
    steps = torch.from_numpy(law.block(ADDRESS, 0, SHAPE)[:64].astype(np.int64))
    assert noisy.dtype == torch.float32
    assert torch.equal(noisy, (IMAGE.long() + steps).float() / 255)
    assert float(noisy.min()) < 0 or sigma < 0.2
    assert steps.double().std() == pytest.approx(255 * sigma, rel=5 / np.sqrt(2 * steps.numel()))


def test_grid_noise_looks_the_same_on_every_8_bit_image() -> None:
    """What float noise does not do: the set of values that the network can see does not tell the images apart."""
    steps = GridNoise(0.5).block(ADDRESS, 0, SHAPE)
    for level in (0, 1, 200, 255):
        seen = torch.empty(steps.shape)
        GridNoise(0.5).add(torch.full(SHAPE, level, dtype=torch.uint8), steps, seen)
        assert torch.equal(seen, (255 * seen).round() / 255)


def test_both_ways_of_adding_are_the_same_to_the_bit() -> None:
    """On the CPU numpy adds, elsewhere torch does."""
    steps = GridNoise(0.5).block(ADDRESS, 0, SHAPE)
    elsewhere = (torch.from_numpy(steps) + IMAGE).float() / 255
    here = torch.empty(steps.shape)
    GridNoise(0.5).add(IMAGE, steps, here)
    assert torch.equal(here, elsewhere)


@pytest.mark.parametrize("value", [float("nan"), -1 / 255, 256 / 255])
def test_values_beyond_8_bits_are_refused(value: float) -> None:
    """As bytes they would wrap around in silence."""
    with pytest.raises(InputError, match="expected an 8-bit image"):
        accepted(torch.full(SHAPE, value), "grid")


@pytest.mark.parametrize("image", [torch.full(SHAPE, 0.5), torch.rand(SHAPE), torch.full(SHAPE, (128 + 2e-4) / 255)])
def test_only_8_bit_images_get_grid_noise(image: torch.Tensor) -> None:
    with pytest.raises(InputError, match="expected an 8-bit image"):
        accepted(image, "grid")
    assert torch.equal(accepted(image, "float"), image)


def test_every_8_bit_level_is_recognised() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(accepted(levels, "grid"), levels)
    assert torch.equal(accepted(levels.float() / 255, "grid"), levels)
    assert torch.equal(accepted((levels.double() / 255 + 1e-7).float(), "grid"), levels)
    assert torch.equal(accepted(levels, "float"), levels.float() / 255)


def test_a_uniform_of_zero_still_gives_finite_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoiseAddress, "words", lambda self, block, count: np.zeros(count, np.uint64))
    assert np.isfinite(FloatNoise(0.5).block(ADDRESS, 0, SHAPE)).all()


def test_there_are_two_laws() -> None:
    assert noise_law("grid", 0.5) == GridNoise(0.5)
    assert noise_law("float", 0.5) == FloatNoise(0.5)
    with pytest.raises(InputError, match="expected soundness 'grid' or 'float'; got 'double'"):
        noise_law("double", 0.5)


def test_noise_beyond_the_table_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(InputError, match="expected 0 < sigma < 14"):
        noise_law("grid", 14.0)
    assert noise_law("float", 14.0) == FloatNoise(14.0)


def test_fresh_seeds_differ() -> None:
    assert len({Sampling().entropy() for _ in range(100)}) == 100
