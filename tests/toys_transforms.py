"""Families of certificates against parameter transforms, registered, and linear classifiers whose margins are known."""

from typing import final

import torch
from torch import Tensor, nn

from robustify import Identity, ImageClassifier, Preprocessing, SmoothedClassifier
from robustify.certificates.brightness import Brightness
from robustify.certificates.contrast import Contrast
from robustify.certificates.family import CERTIFICATES, Family
from robustify.certificates.grid import Grid
from robustify.certificates.translation import Translation

SIZE = (4, 4)
PLAIN = Preprocessing(mean=(0.0,), std=(1.0,), size=SIZE)

for family in (Brightness, Contrast, Translation, Grid):
    if family.name not in CERTIFICATES.names():
        CERTIFICATES.register(family.name, family)


@final
class Linear(nn.Module):
    """Class 1 where a linear function of 1×4×4 pixels is positive."""

    def __init__(self, weight: Tensor, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1) @ self.weight + self.offset
        return torch.stack([-value, value], dim=1)


def smooth(network: nn.Module, family: Family) -> SmoothedClassifier:
    """The classifier of 1×4×4 pixels, behind a family's draws."""
    return SmoothedClassifier(ImageClassifier(network.eval(), PLAIN), Identity(), family=family)


def random_bytes(seed: int) -> Tensor:
    """An image of 1×4×4 bytes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, *SIZE), generator=generator, dtype=torch.uint8)
