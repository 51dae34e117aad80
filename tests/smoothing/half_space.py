"""A classifier whose robust radius is known: the distance to the border of a half-space."""

from typing import final

import torch
from torch import Tensor, nn

from robustify import Identity, ImageClassifier, Preprocessing, SmoothedClassifier

SIZE = (4, 4)


PLAIN = Preprocessing(mean=(0.0,), std=(1.0,), size=SIZE)


IMAGE = torch.full((1, *SIZE), 128 / 255)


@final
class HalfSpace(nn.Module):
    """Class 1 where the mean direction exceeds an offset; distances to the border are known exactly."""

    def __init__(self, distance: float) -> None:
        super().__init__()
        direction = torch.ones(16) / 4
        self.weight = nn.Parameter(direction)
        self.offset = float(direction @ IMAGE.flatten()) - distance

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ self.weight - self.offset
        return torch.stack([-margin, margin], dim=1)


def smooth(network: nn.Module, sigma: float = 0.5) -> SmoothedClassifier:
    return SmoothedClassifier(ImageClassifier(network.eval(), PLAIN), Identity(), sigma=sigma)
