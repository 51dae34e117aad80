"""A small classifier behind a blur, with room for faults in either; and the faults."""

import math
from collections.abc import Callable
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustify import Certificate, ImageClassifier, Preprocessing, SmoothedClassifier
from robustify.certificates.views import PIPELINE
from robustify.denoisers import Denoiser
from robustify.smoothing.checks.fixed_function import FixedFunction
from robustify.types import Pixels

Fault: TypeAlias = Callable[[Tensor], Tensor]

SHAPE = (1, 4, 4)
PLAIN = Preprocessing(mean=(0.0,), std=(1.0,), size=(4, 4))
IMAGE = torch.full(SHAPE, 128 / 255)


def healthy(x: Tensor) -> Tensor:
    return x


@final
class Classifier(nn.Module):
    """Linear, with room for a fault before it that comes after the model was built."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Fault = healthy
        self.extra = nn.Sequential()
        self.linear = nn.Linear(16, 3)
        weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
        self.linear.weight.data, self.linear.bias.data = weight, torch.tensor([1.0, 0.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.extra(self.fault(x)).flatten(1))
        return logits


@final
class Blur(Denoiser):
    """A little local averaging, with room for the same faults."""

    name = "blur"
    channels = size = licence = None

    def __init__(self) -> None:
        super().__init__()
        self.fault: Fault = healthy
        self.extra = nn.Sequential()
        self.eval()

    def forward(self, noisy: Pixels, sigma: float) -> Pixels:
        del sigma
        blurred: Tensor = self.extra(self.fault(F.avg_pool2d(noisy, 3, stride=1, padding=1)))
        return blurred

    def describe(self, sigma: float) -> str:
        return f"blur at {sigma}"


def build(precision: str = "float32") -> tuple[SmoothedClassifier, Classifier, Blur]:
    network, denoiser = Classifier().eval(), Blur()
    model = SmoothedClassifier(ImageClassifier(network, PLAIN), denoiser, sigma=0.25, precision=precision)
    return model, network, denoiser


def certify(model: SmoothedClassifier, n: int = 500, batch: int = 64, image: Tensor = IMAGE) -> Certificate:
    certificate = model.certify(image, n=n, batch=batch, seed=3)
    assert isinstance(certificate, Certificate)
    return certificate


def counting(sizes: list[int]) -> Fault:
    """Notes the size of every batch that passes."""

    def note(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    return note


def shared_vector(x: Tensor) -> Tensor:
    return x + 0.3 * torch.randn_like(x[:1])


def seeded_by_the_batch(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(int(1000 * x.abs().sum()))
    return x + 0.3 * torch.randn(x[:1].shape, generator=generator)


def per_tensor_quantisation(x: Tensor) -> Tensor:
    scale = x.abs().max() / 127
    return (x / scale).round() * scale


def crowded_experts(x: Tensor) -> Tensor:
    """Bright and dark images go to two experts, each with room for a quarter of the batch."""
    bright = x.mean(dim=(1, 2, 3)) > 0.5
    place = torch.where(bright, bright.cumsum(0), (~bright).cumsum(0))
    served: Tensor = (place <= max(1, len(x) // 4)).view(-1, 1, 1, 1)
    return x * served


def only_the_last_differs(x: Tensor) -> Tensor:
    return torch.cat([x[:-1], 1.01 * x[-1:]])


def only_the_middle_differs(x: Tensor) -> Tensor:
    middle = len(x) // 2
    return torch.cat([x[: middle - 8], 1.01 * x[middle - 8 : middle + 8], x[middle + 8 :]])


def nan_beside_bright(x: Tensor) -> Tensor:
    return x if float(x.max()) < 1.15 else x * math.nan


DEPENDENT: dict[str, Fault] = {
    "batch mean": lambda x: x - x.mean(dim=0),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "a neighbour": lambda x: x + 0.1 * x.roll(1, dims=0),
    "batch maximum": lambda x: x / x.abs().max(),
    "place": lambda x: x + 0.01 * torch.arange(len(x)).view(-1, 1, 1, 1),
    "the last place": only_the_last_differs,
    "the middle": only_the_middle_differs,
    "randomness seeded by the batch": seeded_by_the_batch,
    "per-tensor quantisation": per_tensor_quantisation,
    "crowded experts": crowded_experts,
}

RANDOM: dict[str, Fault] = {
    "shared vector": shared_vector,
    "dropout": lambda x: F.dropout(x, 0.1),
    "shared dropout": lambda x: x * F.dropout(torch.ones_like(x[:1]), 0.1),
}


def consensus(logits: Tensor) -> Tensor:
    """Answers of a batch drawn to those that resemble them."""
    alike = F.normalize(logits - logits.mean(dim=1, keepdim=True), dim=1)
    weights = (alike @ alike.T > 0.5).float()
    return weights @ logits / weights.sum(dim=1, keepdim=True)


def as_in_a_video(logits: Tensor) -> Tensor:
    """Each answer drawn to the one before, unless the scene changes."""
    smooth = [logits[0]]
    for now in logits[1:]:
        before = smooth[-1]
        smooth.append(0.5 * before + 0.5 * now if float((now - before).abs().max()) < 2 else now)
    return torch.stack(smooth)


ALIKE: dict[str, Fault] = {"consensus": consensus, "video": as_in_a_video}

WHERE = ["classifier", "denoiser"]


def broken(fault: Fault, where: str, precision: str = "float32") -> SmoothedClassifier:
    model, network, denoiser = build(precision)
    part = network if where == "classifier" else denoiser
    part.fault = fault
    return model


def checked(model: SmoothedClassifier) -> FixedFunction:
    """What was found about the model's base function."""
    found = model._channels._checked.get(PIPELINE)
    assert found is not None
    return found[1]
