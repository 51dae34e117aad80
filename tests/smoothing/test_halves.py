"""Halves: each sees its own pixels alone, under noise of the right law, and whatever breaks that is refused."""

import pytest
import torch

from robustify import SmoothedClassifier
from robustify.certificates.partition import Half, Partition, halves
from robustify.certificates.views import View
from robustify.errors import InputError, ModelError
from robustify.smoothing.halves import kept, law
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress, NoiseLaw, NoiseStream, accepted
from robustify.types import Pixels
from tests.toys import Shrink, linear_model

SHAPES = [(1, 6, 6), (3, 5, 7), (2, 1, 9)]


def drawn(noise: NoiseLaw, image: torch.Tensor, draws: int = 4, soundness: str = "float") -> Pixels:
    """Some draws of an image."""
    return NoiseStream(noise, accepted(image, soundness), NoiseAddress(1, "x", 0, "estimation")).take(draws)


def picture(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("soundness", ["grid", "float"])
def test_a_half_sees_its_own_pixels_alone(shape: tuple[int, int, int], soundness: str) -> None:
    for view in halves(0.36):
        assert isinstance(view.change, Half)
        noise, mask = law_of(view, soundness), kept(torch.empty(shape), view.change.parity)
        image, other = picture(shape), picture(shape, 1)
        first = drawn(noise, image)
        mixed = torch.where(mask, image, other)
        assert torch.equal(drawn(noise, mixed), first)
        assert (first[..., ~mask] == 0.5).all()
        whole = drawn(law_of(View(0.36), soundness), image)
        assert torch.equal(first[..., mask], whole[..., mask])
        assert not torch.equal(drawn(noise, torch.where(mask, other, image))[..., mask], first[..., mask])


@pytest.mark.parametrize("shape", SHAPES)
def test_halves_are_disjoint_and_cover_all_pixels(shape: tuple[int, int, int]) -> None:
    one, other = (kept(torch.empty(shape), parity) for parity in (0, 1))
    assert torch.equal(one, ~other)
    assert one[0, 0]
    assert not (one[:, 1:] & one[:, :-1]).any()
    assert not (one[1:] & one[:-1]).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("soundness", ["grid", "float"])
def test_true_noise_of_a_half_passes(shape: tuple[int, int, int], soundness: str) -> None:
    for view in halves(0.36):
        noise = law_of(view, soundness)
        evidence = noise.evidence()
        assert evidence is not None
        image = accepted(picture(shape), soundness)
        evidence.add(drawn(noise, image, 3_000, soundness), image.expand(3_000, *shape))
        evidence.verify()
        assert evidence.sampled > 5_000


@pytest.mark.parametrize("factor", [0.0, 0.8, 1.2])
def test_wrong_noise_of_a_half_is_refused(factor: float) -> None:
    noise = law_of(halves(0.36)[0], "float")
    evidence = noise.evidence()
    assert evidence is not None
    clean = accepted(picture((1, 6, 6)), "float").expand(3_000, 1, 6, 6)
    fed = drawn(noise, clean[0], 3_000)
    mask = kept(fed, 0)
    fed[..., mask] = (clean + factor * (fed - clean))[..., mask]
    evidence.add(fed, clean)
    with pytest.raises(ModelError, match="not fed independent"):
        evidence.verify()


def test_a_pixel_of_the_other_half_is_refused() -> None:
    noise = law_of(halves(0.36)[1], "float")
    evidence = noise.evidence()
    assert evidence is not None
    image = accepted(picture((1, 6, 6)), "float")
    fed = drawn(noise, image, 3_000)
    fed[7, 0, 0, 0] = 0.25
    evidence.add(fed, torch.stack([image] * 3_000))
    with pytest.raises(ModelError, match="1 pixels outside of the half were not gray"):
        evidence.verify()


def test_other_views_are_refused() -> None:
    with pytest.raises(InputError, match="expected a view of a half"):
        law(View(0.3), "grid")


def test_the_denoiser_is_shown_half_images() -> None:
    """Changes of one half leave the votes of the other as they are, bit by bit."""
    model = SmoothedClassifier(linear_model().classifier, Shrink(), family=Partition(0.25))
    image = picture((1, 4, 4))
    mask = kept(image, 0)
    changed = torch.where(mask, image, picture((1, 4, 4), 1))
    one, other = (model.certify(x, n=300, n0=20, seed=4).tallies for x in (image, changed))
    assert [tally.view for tally in one] == [0, 1, 0, 1]
    assert one[2].votes == other[2].votes
    assert one[3].votes != other[3].votes
