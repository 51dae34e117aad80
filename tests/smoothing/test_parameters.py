"""Draws that change all of an image by one number: exact sums, the law of the numbers, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from robustify.certificates.brightness import BrightnessNoise
from robustify.certificates.contrast import ContrastNoise
from robustify.certificates.parameters import view_of
from robustify.certificates.views import Change, View
from robustify.errors import InputError, ModelError
from robustify.smoothing.checks.parameter_law import ParameterCheck
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import GridNoise, NoiseAddress, NoiseLaw, NoiseStream, accepted
from tests.toys_transforms import random_bytes

ADDRESS = NoiseAddress(7, "a", 0, "estimation")
BRIGHT, CONTRAST = view_of(BrightnessNoise(0.2)), view_of(ContrastNoise(0.3))
LAWS = [(BRIGHT, "grid"), (BRIGHT, "float"), (CONTRAST, "float")]


def taken(law: NoiseLaw, image: Tensor) -> Tensor:
    """The image as the law takes it."""
    return accepted(image, "grid" if isinstance(getattr(law, "_number", None), GridNoise) else "float")


def fed(law: NoiseLaw, image: Tensor, numbers: np.ndarray) -> Tensor:
    out = torch.empty(len(numbers), *image.shape)
    law.add(taken(law, image), numbers, out)
    return out


@given(shift=st.integers(-100, 100), seed=st.integers(0, 1_000))
def test_a_brighter_8_bit_image_gets_the_same_draws_as_noise_of_another_mean(shift: int, seed: int) -> None:
    """T_b(T_a(x)) = T_{a+b}(x), to the bit, wherever T_a(x) is an 8-bit image: the theorem needs no more."""
    image = random_bytes(seed) % 56 + 100
    numbers = law_of(BRIGHT, "grid").block(ADDRESS, 0, (1, 4, 4))[:50]
    brighter = (image.int() + shift).to(torch.uint8)
    law = law_of(BRIGHT, "grid")
    assert torch.equal(fed(law, brighter, numbers), fed(law, image, numbers + np.int16(shift)))


@given(factor=st.floats(0.2, 5.0), seed=st.integers(0, 1_000))
def test_factors_multiply(factor: float, seed: int) -> None:
    image = random_bytes(seed).float() / 255
    law = law_of(CONTRAST, "float")
    numbers = law.block(ADDRESS, 0, (1, 4, 4))[:50]
    found, expected = fed(law, factor * image, numbers), fed(law, image, numbers + math.log(factor))
    assert torch.allclose(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("view", "soundness"), LAWS)
def test_one_number_of_the_law_changes_all_pixels(view: View, soundness: str) -> None:
    law, image = law_of(view, soundness), random_bytes(1)
    shape = (1, 4, 4)
    numbers = np.concatenate([law.block(ADDRESS, i, shape) for i in range(2)]).astype(np.float64)
    assert numbers.shape == (2 * (131_072 // 16),)
    sigma = view.change.sigma * (255 if soundness == "grid" else 1)  # type: ignore[union-attr]
    shaken = numbers + (np.random.default_rng(0).random(len(numbers)) - 0.5) * (soundness == "grid")
    assert kstest(shaken / sigma, "norm").pvalue > 1e-6
    draws = fed(law, image, law.block(ADDRESS, 0, shape)[:100]).double()
    clean = taken(law, image).double() / (255 if soundness == "grid" else 1)
    change = draws / clean if view is CONTRAST else draws - clean
    change = change[:, clean > 0]
    assert torch.allclose(change, change[:, :1].expand_as(change), atol=1e-6, rtol=1e-6)
    own = change[:, 0].log() if view is CONTRAST else change[:, 0]
    assert np.allclose(own, numbers[:100] / (255 if soundness == "grid" else 1), atol=1e-6)


@pytest.mark.parametrize(("view", "soundness"), LAWS)
def test_draws_depend_on_their_address_alone(view: View, soundness: str) -> None:
    law = law_of(view, soundness)
    image = taken(law, random_bytes(2))
    whole = NoiseStream(law, image, ADDRESS).take(9_000)
    parts = NoiseStream(law, image, ADDRESS)
    parts.skip(8_500)
    assert torch.equal(parts.take(500), whole[8_500:])
    assert not torch.equal(NoiseStream(law, image, NoiseAddress(8, "a", 0, "estimation")).take(50), whole[:50])
    assert not torch.equal(whole[:800], whole[8_192:8_992])


def shown(law: NoiseLaw, image: Tensor, draws: Tensor) -> ParameterCheck:
    """The law's own evidence, of these draws."""
    check = law.evidence()
    assert isinstance(check, ParameterCheck)
    clean = taken(law, image)
    for part in draws.split(1_000):
        check.add(part, clean.expand(len(part), *clean.shape))
    return check


@pytest.mark.parametrize(("view", "soundness"), LAWS)
def test_true_numbers_are_believed(view: View, soundness: str) -> None:
    law = law_of(view, soundness)
    for seed in range(5):
        stream = NoiseStream(law, taken(law, random_bytes(seed)), NoiseAddress(seed, "a", 0, "estimation"))
        check = shown(law, random_bytes(seed), stream.take(6_000))
        check.verify()
        assert check.sampled == 6_000


FAULTS = {
    "a larger scale": ("scale", lambda law, image, numbers: fed(law, image, (1.15 * numbers).astype(numbers.dtype))),
    "another mean": ("centre", lambda law, image, numbers: fed(law, image, numbers + numbers.std().astype("i2"))),
    "one number for two draws": ("consecutive draws", lambda law, image, n: fed(law, image, n[np.arange(6_000) // 2])),
    "a cut": ("largest", lambda law, image, n: fed(law, image, np.minimum(n, (1.5 * n.std()).astype(n.dtype)))),
    "clipped pixels": ("unevenly", lambda law, image, numbers: fed(law, image, numbers).clamp(0, 1)),
    "no number": ("unevenly", lambda law, image, numbers: fed(law, image, numbers) * math.nan),
    "noise of pixels": (
        "unevenly",
        lambda law, image, numbers: fed(law, image, numbers) + torch.randn(6_000, 1, 4, 4) / 1_000,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("view", "soundness"), LAWS)
def test_other_numbers_are_refused(view: View, soundness: str, fault: str) -> None:
    torch.manual_seed(0)
    law, image = law_of(view, soundness), random_bytes(3)
    told, change = FAULTS[fault]
    numbers = law.block(ADDRESS, 0, (1, 4, 4))[:6_000]
    if fault == "another mean" and soundness == "float":
        numbers = numbers + 0.1
    with pytest.raises(ModelError, match=f"not fed independent Gaussian changes of (?s:.*){told}"):
        shown(law, image, change(law, image, numbers)).verify()  # type: ignore[no-untyped-call]


def test_black_images_tell_no_factor_and_are_not_refused() -> None:
    law, black = law_of(CONTRAST, "float"), torch.zeros(1, 4, 4, dtype=torch.uint8)
    check = shown(law, black, NoiseStream(law, taken(law, black), ADDRESS).take(100))
    check.verify()
    assert check.sampled == 0


def test_a_view_of_another_change_is_refused() -> None:
    class Other(Change):
        law = BrightnessNoise.law

    with pytest.raises(InputError, match="expected a view that changes images by one random number"):
        law_of(View(0.0, change=Other()), "float")
    with pytest.raises(InputError, match="soundness='float'"):
        law_of(CONTRAST, "grid")
