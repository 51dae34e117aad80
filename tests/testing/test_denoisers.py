"""The check of a denoiser passes what is right and names what is wrong: each fault is injected once."""

from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor, nn

from robustify.denoisers import Denoiser, Identity
from robustify.errors import InputError, ModelError
from robustify.testing import check_denoiser
from robustify.types import Levels

Function: TypeAlias = Callable[[Tensor], Tensor]
SIGMA = 0.25


class Mean(Denoiser):
    """The mean over a neighbourhood; `after` takes faults."""

    name = "mean"
    channels: int | None = None
    size: tuple[int, int] | None = None
    licence = None

    def __init__(self, after: Function | None = None, line: str = "mean over 3×3 pixels") -> None:
        super().__init__()
        self.after, self.line = after, line
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.eval()

    def forward(self, noisy: Tensor, sigma: float) -> Tensor:
        clean: Tensor = self.pool(noisy).clamp(0, 1)
        return self.after(clean) if self.after else clean

    def describe(self, sigma: float) -> str:
        return self.line


@pytest.fixture
def clean() -> Tensor:
    return torch.stack([ramp := torch.linspace(0, 1, 16).expand(3, 16, 16), ramp.mT]).clone()


@pytest.mark.parametrize("images", [1, 2])
def test_a_denoiser_passes(clean: Tensor, images: int) -> None:
    check_denoiser(Mean(), clean[:images], sigma=SIGMA)


def one_seed(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return (x + 0.01 * torch.randn_like(x)).clamp(0, 1)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (lambda x: x[..., 1:-1, 1:-1], r"the same shape and dtype, .*\(2, 3, 16, 16\).* gives .*\(2, 3, 14, 14\)"),
        (torch.Tensor.double, "the same shape and dtype, .* gives .*float64"),
        (lambda x: (x,), "the same shape and dtype, .* gives tuple"),
        (lambda x: 2 * x - 1, r"in \[0, 1\]; mean gives -"),
        (lambda x: x / 0 * 0, r"in \[0, 1\]; mean gives nan"),
        (lambda x: (x + 0.01 * torch.randn_like(x)).clamp(0, 1), "two answers for the same pixels"),
        (one_seed, "draws random numbers"),
        (lambda x: 0.9 * x + 0.1 * x.mean(), "differ by .* with other images beside them"),
        (lambda x: x if len(x) > 1 else x[0], r"gives shape \(3, 16, 16\) for one image"),
        (lambda x: 1 - x, "worse than leaving the noise in"),
    ],
)
def test_a_faulty_denoiser_is_told_what_is_wrong(clean: Tensor, after: Function, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        check_denoiser(Mean(after), clean, sigma=SIGMA)


class InPlace(Mean):
    def forward(self, noisy: Tensor, sigma: float) -> Tensor:
        return super().forward(noisy.mul_(0.99), sigma)


def test_a_denoiser_that_changes_its_input_is_refused(clean: Tensor) -> None:
    with pytest.raises(ModelError, match="mean changes in place the pixels"):
        check_denoiser(InPlace(), clean, sigma=SIGMA)


def test_leaving_the_noise_in_is_refused() -> None:
    clean = torch.full((1, 1, 8, 8), 0.5)
    with pytest.raises(ModelError, match=r"none is worse than leaving the noise in: mean squared error .*sigma=0.01"):
        check_denoiser(Identity(), clean, sigma=0.01)
    with pytest.raises(ModelError, match=r"in \[0, 1\]; none gives -"):
        check_denoiser(Identity(), clean, sigma=1.0)


def test_a_denoiser_that_fails_is_named(clean: Tensor) -> None:
    def fails(x: Tensor) -> Tensor:
        raise KeyError("mask")

    with pytest.raises(ModelError, match=r"^mean fails: KeyError: 'mask'$"):
        check_denoiser(Mean(fails), clean, sigma=SIGMA)


def test_a_denoiser_in_training_mode_is_refused(clean: Tensor) -> None:
    with pytest.raises(ModelError, match="training mode"):
        check_denoiser(Mean().train(), clean, sigma=SIGMA)


@pytest.mark.parametrize("line", ["", " ", "two\nlines"])
def test_a_denoiser_must_describe_itself_in_one_line(clean: Tensor, line: str) -> None:
    with pytest.raises(ModelError, match="one line for the input contract"):
        check_denoiser(Mean(line=line), clean, sigma=SIGMA)


def test_images_that_the_denoiser_cannot_take_are_the_callers_fault(clean: Tensor) -> None:
    gray = Mean()
    gray.channels, gray.size = 1, (16, 16)
    with pytest.raises(InputError, match=r"works on images of shape \(1, 16, 16\); got \(3, 16, 16\)"):
        check_denoiser(gray, clean, sigma=SIGMA)
    with pytest.raises(InputError, match=r"clean pixels in \[0, 1\]; got -1 to 1"):
        check_denoiser(Mean(), 2 * clean - 1, sigma=SIGMA)


class Shrink(Denoiser):
    """Pulls each pixel towards the image's mean by its level; `factor` takes faults."""

    name, channels, size, licence = "shrink", None, None, None

    def __init__(self, factor: Callable[[Levels, Tensor], Levels], least: float = 0.0) -> None:
        super().__init__()
        self.factor, self.least = factor, least
        self.eval()

    def forward(self, noisy: Tensor, sigma: Levels) -> Tensor:
        mean = noisy.mean(dim=(1, 2, 3), keepdim=True)
        return (mean + (noisy - mean) / (1 + 4 * self.factor(sigma, noisy))).clamp(0, 1)

    def describe(self, sigma: float) -> str:
        if sigma < self.least:
            raise InputError(f"shrink denoises sigma from {self.least}; got {sigma}")
        return f"by {sigma}"


def spread(sigma: Levels, noisy: Tensor) -> Levels:
    return sigma if isinstance(sigma, float) else sigma.to(noisy).view(-1, 1, 1, 1)


def of_numbers_alone(sigma: Levels, noisy: Tensor) -> Levels:
    if isinstance(sigma, Tensor):
        raise InputError("expected one sigma for all images")
    return sigma


def at_one_level_alone(sigma: Levels, noisy: Tensor) -> Levels:
    assert set(torch.as_tensor(sigma).flatten().tolist()) == {SIGMA}
    return spread(sigma, noisy)


@pytest.mark.parametrize(
    ("factor", "least"),
    [(spread, 0.0), (of_numbers_alone, 0.0), (at_one_level_alone, SIGMA)],
    ids=["a level per image", "numbers alone", "one level alone"],
)
def test_a_denoiser_may_take_a_level_for_each_image_or_say_that_it_does_not(
    factor: Callable[[Levels, Tensor], Levels], least: float
) -> None:
    check_denoiser(Shrink(factor, least), torch.full((1, 3, 16, 16), 0.5), sigma=SIGMA)


@pytest.mark.parametrize(
    ("factor", "width", "text"),
    [
        (lambda sigma, _: sigma, 16, r"one sigma for each image \(RuntimeError: .*\n.*sigma\.to\(noisy\)\.view"),
        (lambda sigma, _: sigma, 3, "the same shape and dtype, .* gives .*float64"),
        (lambda sigma, noisy: torch.as_tensor(sigma).to(noisy), 3, "differently together and apart, by .*%"),
        (lambda sigma, noisy: torch.as_tensor(sigma).to(noisy).max(), 16, "differently together and apart, by .*%"),
        (lambda sigma, _: float(sigma), 16, "one sigma for each image"),
    ],
    ids=["no axes", "another dtype", "levels over columns", "largest level", "needs a number"],
)
def test_a_denoiser_that_takes_levels_wrongly_is_told_so(
    factor: Callable[[Levels, Tensor], Levels], width: int, text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        check_denoiser(Shrink(factor), torch.full((1, 3, 16, width), 0.5), sigma=SIGMA)


def test_the_check_leaves_the_global_generator_alone(clean: Tensor) -> None:
    before = torch.get_rng_state()
    check_denoiser(Mean(), clean, sigma=SIGMA)
    assert torch.equal(torch.get_rng_state(), before)
