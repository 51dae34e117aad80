"""Crops that content chooses: the same for every circular shift, to the bit, whatever the image."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from robustify import Identity, ImageClassifier, Preprocessing, Settings, SmoothedClassifier
from robustify.certificates.translation import Translation
from robustify.classifiers.crops import CropByContent, crop_by_content
from robustify.errors import InputError


def convolutional(seed: int) -> ImageClassifier:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 3)]
    preprocessing = Preprocessing(mean=(0.4, 0.5, 0.3), std=(0.3, 0.2, 0.25), size=(6, 6))
    return ImageClassifier(nn.Sequential(*layers).eval(), preprocessing, labels=("a", "b", "c"))


def kinds() -> dict[str, Tensor]:
    """Images of 3×9×8 pixels, on most of which many responses tie."""
    g = torch.Generator().manual_seed(0)
    tile = torch.rand(3, 3, 2, generator=g)
    spots = torch.zeros(3, 9, 8)
    spots[:, 1, 1] = spots[:, 6, 5] = 1.0
    spots[0, 7, 3] = 0.5
    return {
        "random": torch.rand(3, 9, 8, generator=g),
        "two values": torch.randint(0, 2, (3, 9, 8), generator=g).float(),
        "periodic": tile.repeat(1, 3, 4),
        "half white": torch.cat([torch.zeros(3, 5, 8), torch.ones(3, 4, 8)], dim=1),
        "even": torch.full((3, 9, 8), 0.3),
        "two spots": spots,
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_circular_shift_has_the_same_crop(kind: str) -> None:
    image = kinds()[kind]
    network = crop_by_content(convolutional(0), (9, 8)).network
    assert isinstance(network, CropByContent)
    moved = torch.stack([image.roll(shift, dims=(1, 2)) for shift in product(range(9), range(8))])
    crops = network.crops(moved)
    assert crops.shape == (72, 3, 6, 6)
    assert torch.equal(crops, crops[:1].expand_as(crops))
    doubled = torch.cat([image, image], dim=1).repeat(1, 1, 2)
    inside = [torch.equal(doubled[:, y : y + 6, x : x + 6], crops[0]) for y, x in product(range(9), range(8))]
    assert any(inside)  # it is a part of the image


def test_ties_are_broken_by_content_and_not_by_place() -> None:
    """Two equal spots, one with a faint mark that only crops see; three largest weights of the filter, so six ties."""
    network = CropByContent(nn.Identity(), (9, 9))
    image = torch.zeros(1, 16, 16)
    image[0, 4, 4] = image[0, 12, 12] = 1.0
    image[0, 4, 10] = 0.1
    moved = torch.stack([image.roll(shift, dims=(1, 2)) for shift in product(range(0, 16, 3), repeat=2)])
    responses = network._responses(moved).flatten(1)
    assert ((responses == responses.amax(dim=1, keepdim=True)).sum(dim=1) == 6).all()
    crops = network.crops(moved)
    assert torch.equal(crops, crops[:1].expand_as(crops))


def test_an_even_area_is_never_chosen_beside_another() -> None:
    network = CropByContent(nn.Identity(), (3, 3))
    assert int(network.weights.sum()) == 0
    image = torch.ones(1, 1, 16, 16)
    image[..., 8, 8] = 0.0
    assert float(network.crops(image).min()) == 0.0


def test_all_circular_shifts_are_certified_and_other_classifiers_are_not_so_steady() -> None:
    images = [(255 * torch.rand(3, 9, 8, generator=torch.Generator().manual_seed(i))).byte() for i in range(6)]
    steady = SmoothedClassifier(crop_by_content(convolutional(1), (9, 8)), Identity(), family=Translation(4, "cyclic"))
    assert [round(c.radius) for c in steady.certify(images, batch=81, seed=1)] == [4] * 6  # type: ignore[union-attr]
    plain = SmoothedClassifier(convolutional(1), Identity(), family=Translation(2, "cyclic"))
    small = [image[:, :6, :6] for image in images]
    assert min(round(c.radius) for c in plain.certify(small, seed=1)) == 0  # type: ignore[union-attr]


def test_it_is_a_classifier_like_others() -> None:
    found = crop_by_content(convolutional(0), (9, 8))
    assert (found.labels, found.preprocessing.size) == (("a", "b", "c"), (9, 8))
    assert "crop by content" in found.name
    assert "size=(6, 6)" in repr(found.network)
    model = SmoothedClassifier(found, Identity(), sigma=0.25)
    image = torch.randint(0, 256, (3, 9, 8), dtype=torch.uint8)
    assert model.certify(image, **vars(Settings(n=100, n0=10, seed=1))).n == 100  # type: ignore[union-attr]
    with pytest.raises(InputError, match="at least 6×6 pixels, the crop's; got 9×5"):
        crop_by_content(convolutional(0), (9, 5))
