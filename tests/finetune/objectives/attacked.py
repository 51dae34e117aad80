"""Small models that attacks are tried on."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.finetune.objectives.attacks import kl_noise_pgd, noisy_logits, smooth_pgd, smoothmix_path
from robustify.finetune.objectives.losses import log_mean_softmax

SIZE, SIGMA = (6, 6), 0.25
PLAIN = Preprocessing(mean=(0.0,), std=(1.0,), size=SIZE)


def smooth(network: nn.Module) -> SmoothedClassifier:
    return robustify(network.eval(), preprocessing=PLAIN, denoiser=None, sigma=SIGMA)


def convolutional(seed: int = 0, scale: float = 3.0) -> nn.Module:
    torch.manual_seed(seed)
    head = nn.Linear(4 * 36, 3)
    nn.init.normal_(head.weight, std=scale / 12)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-0.2, 0.2)
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.GELU(), nn.Dropout(0.5), nn.Flatten(), head)


def linear(weight: Tensor) -> SmoothedClassifier:
    layer = nn.Linear(weight.shape[1], len(weight), bias=False)
    layer.weight.data = weight
    return smooth(nn.Sequential(nn.Flatten(), layer))


def scene(draws: int = 3, batch: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(batch, 1, *SIZE, generator=generator)
    noise = SIGMA * torch.randn(draws, batch, 1, *SIZE, generator=generator)
    return pixels, torch.arange(batch) % 3, noise


def norms(change: Tensor) -> Tensor:
    return change.flatten(-3).norm(dim=-1)


def attacks(model: SmoothedClassifier) -> Iterator[Tensor]:
    """The last point of each."""
    pixels, labels, noise = scene()
    target = log_mean_softmax(noisy_logits(model, pixels, noise)).detach()
    yield smooth_pgd(model, pixels, labels, noise, epsilon=0.5, steps=3)
    yield smoothmix_path(model, pixels, labels, noise, step_size=0.3, steps=3)[-1]
    yield kl_noise_pgd(model, pixels, noise, target, epsilon=0.5, steps=3)
