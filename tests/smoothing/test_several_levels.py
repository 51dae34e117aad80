"""A model of several noise levels is checked, described and fingerprinted at all of them."""

from typing import final

import pytest
import torch
from torch import Tensor

from robustify import Identity, Settings, SmoothedClassifier
from robustify.denoisers import Denoiser
from robustify.errors import InputError, ModelError
from robustify.types import Levels, Pixels
from tests import toys
from tests.toys_family import TwoLevels

IMAGE = torch.full((1, 4, 4), 128, dtype=torch.uint8)


@final
class SharesABatchMean(Denoiser):
    """One fixed function of each image at low noise; above, images of a batch share their mean."""

    name, channels, size, licence = "shares", None, None, None

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    def forward(self, noisy: Pixels, sigma: Levels) -> Pixels:
        if not isinstance(sigma, Tensor):
            return noisy
        high = (sigma > 0.3).view(-1, 1, 1, 1)
        mean = torch.where(high, noisy, 0.0).mean(dim=0, keepdim=True)
        return torch.where(high, noisy - mean, noisy)

    def describe(self, sigma: float) -> str:
        return f"at {sigma}"


def smoothed(denoiser: Denoiser) -> SmoothedClassifier:
    return SmoothedClassifier(toys.linear_model().classifier, denoiser, family=TwoLevels((0.25, 0.5)))


def test_a_fault_at_the_second_level_alone_is_found() -> None:
    with pytest.raises(ModelError, match="no fixed function of one image"):
        smoothed(SharesABatchMean()).certify(IMAGE, n=100, n0=20)


def test_a_sound_model_is_certified_with_votes_of_both_levels() -> None:
    certificate = smoothed(Identity()).certify(IMAGE, n=100, n0=20, seed=1)
    assert [(t.view, t.stage, t.draws) for t in certificate.tallies] == [  # type: ignore[union-attr]
        (0, "selection", 20),
        (0, "estimation", 100),
        (1, "estimation", 100),
    ]


def test_every_level_is_part_of_what_a_model_is() -> None:
    settings = Settings(n=100, n0=20, seed=1)
    one, other = (
        SmoothedClassifier(toys.linear_model().classifier, toys.Shrink(), family=TwoLevels((0.25, high)))
        for high in (0.5, 0.6)
    )
    assert one.provenance(settings).denoiser != other.provenance(settings).denoiser
    assert "TwoLevels(sigmas=(0.25, 0.5)), added to 1×4×4 pixels" in repr(one)


def test_sigma_and_family_exclude_each_other() -> None:
    classifier = toys.linear_model().classifier
    with pytest.raises(InputError, match="give the standard deviation of the noise, sigma, or a family"):
        SmoothedClassifier(classifier, Identity())
    with pytest.raises(InputError, match=r"TwoLevels\(.* has its own settings; leave out sigma=0.25"):
        SmoothedClassifier(classifier, Identity(), sigma=0.25, family=TwoLevels((0.25, 0.5)))
    with pytest.raises(InputError, match="finite sigma > 0"):
        SmoothedClassifier(classifier, Identity(), family=TwoLevels((0.25, 0.0)))
