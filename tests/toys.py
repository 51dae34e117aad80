"""Toys that several test files share: small models, denoisers and images."""

from collections.abc import Callable
from typing import TypeAlias, final

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.data import Sample
from robustify.denoisers import Denoiser
from robustify.types import Levels, Pixels

MakePicture: TypeAlias = Callable[..., PILImage.Image]
Awaken: TypeAlias = Callable[[nn.Module], nn.Module]
Tokenize: TypeAlias = Callable[..., Tensor]
MakeModel: TypeAlias = Callable[..., SmoothedClassifier]
Stripes: TypeAlias = tuple[Tensor, Tensor]


@final
class Shrink(Denoiser):
    """Pulls pixels towards gray, and counts its calls."""

    name, channels, size, licence = "shrink", None, None, None

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.eval()

    def forward(self, noisy: Pixels, sigma: Levels) -> Pixels:
        self.calls += 1
        level = sigma.view(-1, 1, 1, 1) if isinstance(sigma, Tensor) else sigma
        return 0.5 + (noisy - 0.5) * (1 - level)

    def describe(self, sigma: float) -> str:
        return f"by {sigma}"


def striped_model(
    *, norm: bool = False, dropout: float = 0.0, classes: int = 3, denoiser: bool = True
) -> SmoothedClassifier:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Dropout(dropout), nn.Flatten(), nn.Linear(4 * 36, classes)).eval()
    preprocessing = Preprocessing(mean=(0.4,), std=(0.5,), size=(6, 6))
    return robustify(network, preprocessing=preprocessing, denoiser=Shrink() if denoiser else None, sigma=0.25)


def stripes() -> Stripes:
    """44 images of bytes, bright in the third of their class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(44) % 3
    images = torch.randint(0, 100, (44, 1, 6, 6), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 2 * label : 2 * label + 2] += 150
    return images.to(torch.uint8), labels


def linear_model() -> SmoothedClassifier:
    """A linear classifier of 1×4×4 pixels with 3 classes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    return robustify(network, preprocessing=Preprocessing((0.5,), (0.5,), (4, 4)), sigma=0.25)


def twelve_samples() -> list[Sample]:
    """Twelve images of 4×4 random bytes, of three classes in turn."""
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
    return [Sample(f"{i:02d}.png", image, i % 3) for i, image in enumerate(images)]
