import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

from robustify.errors import InputError, ModelError
from robustify.smoothing.checks import chances, finding
from robustify.smoothing.checks import noise_law as noise_check
from robustify.smoothing.checks.extremes import Extremes
from robustify.smoothing.checks.noise_law import NoiseCheck
from robustify.smoothing.noise import NoiseAddress, NoiseStream, accepted, noise_law

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)]


SIGMAS = [0.12, 0.25, 0.5, 1.0]


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fed(normal: Tensor, sigma: float, *, grid: bool) -> Tensor:
    """Noise as a network sees it: the noisy pixels of an image minus the clean ones, float32."""
    image = torch.randint(0, 256, normal.shape[1:], generator=torch.Generator().manual_seed(0)).float()
    if grid:
        return (image + (255 * sigma * normal).round().float()) / 255 - image / 255
    return image / 255 + sigma * normal.float() - image / 255


def feed(check: NoiseCheck, noise: Tensor) -> None:
    """Shows the check noise on black images."""
    check.add(noise, torch.zeros_like(noise))


def checked(batches: Iterable[Tensor], sigma: float, *, grid: bool) -> NoiseCheck:
    check = NoiseCheck(sigma, grid=grid)
    for noise in batches:
        feed(check, noise)
    return check


def refused(check: NoiseCheck) -> set[str]:
    return {finding.test for finding in check.findings() if finding.refused}


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_accepts_true_noise(shape: tuple[int, int, int], grid: bool) -> None:
    """Noise as its own source draws it, on an image; 200 seeds in all."""
    soundness = "grid" if grid else "float"
    image = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for seed, sigma in enumerate(np.geomspace(0.12, 1, 25).tolist()):
        law, check = noise_law(soundness, sigma), NoiseCheck(sigma, grid=grid)
        stream = NoiseStream(law, accepted(image, soundness), NoiseAddress(seed, "a", 0, "estimation"))
        for _ in range(4):
            noisy = stream.take(32)
            check.add(noisy, stream.image.expand(noisy.shape))
        check.verify()
        assert check.sampled >= 7_500


def test_noise_below_the_grid_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"expected sigma >= 0.001 for 8-bit images: .* got 1e-09"):
        NoiseCheck(1e-9, grid=True)
    NoiseCheck(1e-9, grid=False)


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.12, 1.0, 20.0])
def test_accepts_much_true_noise(grid: bool, sigma: float) -> None:
    """Where many values are sampled, small errors of the check itself would show."""
    check = NoiseCheck(sigma, grid=grid)
    for seed in range(15):
        noise = fed(gaussian(seed, 20, 1, 32, 32), sigma, grid=grid)
        check._sample(noise, torch.zeros_like(noise), noise.numel())
    check.verify()


def test_chances_are_chances() -> None:
    """A test finds a chance below 5 % in at most 5 % of cases of true noise, and not much more rarely."""
    found = []
    for seed in range(60):
        grid = bool(seed % 2)
        noise = fed(gaussian(seed, 40, 3, 8, 8), 0.12, grid=grid)
        found += [finding.chance for finding in checked([noise], 0.12, grid=grid).findings()[2:-1]]
    low = sum(chance < 0.05 for chance in found)
    # nearly independent: coins are fair whatever the others show
    assert len(found) == 780
    assert 0.02 * len(found) < low < 0.07 * len(found)


def uniform(normal: Tensor) -> Tensor:
    return torch.special.ndtr(normal)


def truncated(normal: Tensor, at: float) -> Tensor:
    low = float(torch.special.ndtr(torch.tensor(-at, dtype=torch.float64)))
    return torch.special.ndtri(low + (1 - 2 * low) * uniform(normal))


def laplace(normal: Tensor) -> Tensor:
    centred = uniform(normal) - 0.5
    return -centred.sign() * (1 - 2 * centred.abs()).log() / math.sqrt(2)


def correlated(normal: Tensor, axis: int) -> Tensor:
    """Each value shares half of its variance with its neighbour."""
    return (normal + normal.roll(1, axis)) / math.sqrt(2)


DEFECTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "scale * .9": (lambda z: 0.9 * z, "scale"),
    "scale * 1.1": (lambda z: 1.1 * z, "scale"),
    "shifted": (lambda z: z + 0.12, "centre"),
    "uniform": (lambda z: math.sqrt(12) * (uniform(z) - 0.5), "shape"),
    "laplace": (laplace, "shape"),
    "cut off at 3 sigma": (lambda z: truncated(z, 3), "largest value"),
    "clipped at 3 sigma": (lambda z: z.clamp(-3, 3), "largest value"),
    "clipped below": (lambda z: z.clamp(min=-3), "smallest value"),
    "one value too large": (lambda z: z.where(torch.arange(z.numel()).view(z.shape) != 4_321, 9.0), "largest value"),
    "truncated": (lambda z: truncated(z, 2), "shape"),
    "truncated, rescaled": (lambda z: truncated(z, 2) / 0.879626, "tails"),
    "same in channels": (lambda z: z[:, :1].expand_as(z), "sign of neighbouring channels"),
    "same in a batch": (lambda z: z[:1].expand_as(z), "repetition"),
    "same in a batch's halves": (lambda z: z[: len(z) // 2].repeat(2, 1, 1, 1), "repetition"),
    "mirrored": (lambda z: torch.cat([z[: len(z) // 2], -z[: len(z) // 2]]), "repetition"),
    "alternating": (
        lambda z: z[::2].repeat_interleave(2, 0) * torch.tensor([1, -1] * (len(z) // 2)).view(-1, 1, 1, 1),
        "sign of consecutive draws",
    ),
    "drifting": (lambda z: correlated(z, 0), "sign of consecutive draws"),
    "channels alike": (lambda z: correlated(z, 1), "sign of neighbouring channels"),
    "rows alike": (lambda z: correlated(z, 2), "sign of neighbouring rows"),
    "columns alike": (lambda z: correlated(z, 3), "sign of neighbouring columns"),
    "equal signs": (lambda z: z.abs() * z[:, :, :, :1].sign(), "sign of neighbouring columns"),
    "equal sizes": (lambda z: z[:, :, :, :1].abs() * z.sign(), "size of neighbouring columns"),
}


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("defect", DEFECTS)
def test_refuses_other_noise(defect: str, sigma: float, grid: bool) -> None:
    break_it, test = DEFECTS[defect]
    batches = [fed(break_it(gaussian(seed, 64, 3, 32, 32)), sigma, grid=grid) for seed in (1, 2)]
    check = checked(batches, sigma, grid=grid)
    assert test in refused(check)
    with pytest.raises(ModelError, match=rf"sigma = {sigma:g}: no certificate would hold(.|\n)*{test}: found"):
        check.verify()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_sees_a_tenth_of_scale_in_as_many_draws_as_it_says(shape: tuple[int, int, int], factor: float) -> None:
    draws = -(-5_000 // math.prod(shape))
    found = 0
    for seed in range(40):
        noise = fed(factor * gaussian(seed, draws, *shape), 0.25, grid=True)
        check = checked([noise], 0.25, grid=True)
        found += "scale" in refused(check)
    # 99 % of 40; fewer than 36 have chance 7e-5 or less
    assert found >= 36


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("grid", [False, True])
def test_refuses_the_other_kind(sigma: float, grid: bool) -> None:
    check = checked([fed(gaussian(1, 1, 1, 8, 8), sigma, grid=not grid)], sigma, grid=grid)
    assert refused(check) == {"grid"}


@pytest.mark.parametrize("grid", [False, True])
def test_refuses_a_batch_that_is_fed_twice(grid: bool) -> None:
    batch = fed(gaussian(1, 32, 1, 8, 8), 0.25, grid=grid)
    others = [fed(gaussian(seed, 32, 1, 8, 8), 0.25, grid=grid) for seed in (2, 3, 4)]
    checked([batch, *others], 0.25, grid=grid).verify()
    with pytest.raises(ModelError, match="found 32 of 160 draws that repeat"):
        checked([batch, *others, batch], 0.25, grid=grid).verify()


def test_remembers_later_draws_where_they_are_sampled() -> None:
    batches = [fed(gaussian(seed, 128, 1, 32, 64), 0.25, grid=True) for seed in range(12)]
    check = checked(batches, 0.25, grid=True)
    assert noise_check._ALL_REMEMBERED < check._remembered < 12 * 128
    assert "repetition" not in refused(check)
    for _ in range(8):  # one of two or three is sampled
        feed(check, batches[-1])
    assert "repetition" in refused(check)


def test_no_sample_fits_better_than_equal_cells() -> None:
    check = NoiseCheck(0.5, grid=True)
    check._cells += 10**6
    check.sampled = int(check._cells.sum())
    assert {finding.chance for finding in check.findings() if finding.test != "grid"} == {1.0}


def test_remembers_some_of_all_draws_but_no_more_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_check, "_REMEMBERED", 100)
    check = checked((fed(gaussian(seed, 64, 1, 8, 8), 0.5, grid=True) for seed in range(3)), 0.5, grid=True)
    assert check._remembered == 100
    check.verify()


def test_samples_less_the_more_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = fed(gaussian(1, 128, 1, 64, 64), 0.5, grid=True)
    check = NoiseCheck(0.5, grid=True)
    seen = []
    for _ in range(20):
        feed(check, noise)
        seen.append(check.sampled)
    assert seen[0] <= 8_192 + noise.numel() // 256
    assert 0.5 < (seen[-1] - seen[0]) / (19 * noise.numel() / 256) < 1.1
    monkeypatch.setattr(noise_check, "_TOTAL", check.sampled)
    feed(check, noise)
    assert check.sampled == seen[-1]


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (1, 1, 1, 1), (1, 3, 1, 1), (2, 1, 1, 1), (1, 1, 1, 9), (5, 7, 2, 3)])
@pytest.mark.parametrize("grid", [False, True])
def test_few_values_are_never_refused(shape: tuple[int, int, int, int], grid: bool) -> None:
    NoiseCheck(0.5, grid=grid).verify()
    for seed in range(20):
        check = checked([fed(gaussian(seed, *shape), 0.5, grid=grid)], 0.5, grid=grid)
        check.verify()
        assert 0.3 * math.prod(shape) <= check.sampled <= math.prod(shape)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("grid", [False, True])
def test_refuses_what_is_not_finite(bad: float, grid: bool) -> None:
    noise = fed(gaussian(0, 4, 1, 4, 4), 0.5, grid=grid)
    noise[2, 0, 1, 1] = bad
    with pytest.raises(ModelError, match="found 1 values that are not finite"):
        checked([noise], 0.5, grid=grid).verify()


@pytest.mark.parametrize("grid", [False, True])
def test_survives_absurd_noise(grid: bool) -> None:
    for value in (0.0, 1e30, -3e38):
        check = checked([torch.full((100, 1, 8, 8), value)], 0.5, grid=grid)
        with pytest.raises(ModelError):
            check.verify()


def test_touches_nothing() -> None:
    noise = fed(gaussian(0, 64, 3, 32, 32), 0.5, grid=True)
    copy, before, legacy = noise.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (checked([noise], 0.5, grid=True).findings() for _ in range(2))
    assert torch.equal(noise, copy)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(legacy, np.random.get_state()[1])
    assert first == second


def test_takes_noise_of_other_modes() -> None:
    with torch.inference_mode():
        checked([fed(gaussian(0, 64, 3, 8, 8), 0.5, grid=True)], 0.5, grid=True).verify()
    checked([fed(gaussian(0, 64, 3, 8, 8), 0.5, grid=False).requires_grad_()], 0.5, grid=False).verify()
    checked([0.5 * gaussian(0, 64, 3, 8, 8).transpose(2, 3)], 0.5, grid=False).verify()


@pytest.mark.parametrize("sigma", [0.0, -0.5, math.nan, math.inf, 101.0])
def test_refuses_an_impossible_sigma(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma"):
        NoiseCheck(sigma, grid=True)


@pytest.mark.parametrize(("cut", "values"), [(3, 12_800), (4, 546_000)])
def test_a_cut_is_refused_from_as_many_values_as_it_says(cut: float, values: int) -> None:
    def refused_after(n: int) -> bool:
        extremes = Extremes(0.25, grid=False)
        extremes._fed, extremes._high = n, 0.25 * cut
        return extremes.findings()[1].refused

    assert refused_after(values)
    assert not refused_after(round(0.99 * values))


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("n", [1, 30, 100_000])
def test_the_extremes_keep_their_level(n: int, grid: bool) -> None:
    """The chance of every value that the largest of n can take, from its exact law."""
    sigma, found = 0.25, []
    law = chances.rounded_gaussian(255 * sigma)
    below = np.append(0.0, law.cumsum().clip(max=1)) ** n
    largest = np.diff(below)
    reach = len(law) // 2
    for step in range(-reach, reach + 1):
        extremes = Extremes(sigma, grid=grid)
        extremes._fed, extremes._high = n, step / 255
        found.append(extremes.findings()[1].chance)
    found = np.array(found)
    for level in (0.5, 0.05, 1e-3, finding.LEVEL):
        if grid:
            assert largest[found < level].sum() <= level * (1 + 1e-9)
        assert np.any(found < level)
    assert found.max() > 0.5
