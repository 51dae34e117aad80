"""A small classifier, batches for it, and the plain terms of the published formulas."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.denoisers import Denoiser
from robustify.finetune.objectives import (
    CATRS,
    FTCADIS,
    MACER,
    Batch,
    Consistency,
    Gaussian,
    GreedyCutout,
    Outcome,
    SmoothAdv,
    SmoothMix,
    Stability,
)
from robustify.finetune.objectives.base import classify

SIZE, SIGMA = (6, 6), 0.25
PLAIN = Preprocessing(mean=(0.4,), std=(0.5,), size=SIZE)
ALL = [Gaussian, Stability, Consistency, MACER, SmoothAdv, SmoothMix, CATRS, FTCADIS, GreedyCutout]


def smooth(
    denoiser: Denoiser | None = None, *, scale: float = 3.0, classes: int = 3, seed: int = 0
) -> SmoothedClassifier:
    torch.manual_seed(seed)
    head = nn.Linear(4 * 36, classes)
    nn.init.normal_(head.weight, std=scale / 12)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-0.2, 0.2)
    norm.running_var.uniform_(0.5, 2)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.GELU(), nn.Flatten(), head)
    return robustify(network.eval(), preprocessing=PLAIN, denoiser=denoiser, sigma=SIGMA)


def scene(draws: int = 4, images: int = 12, seed: int = 0, epoch: float = 0.0, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        pixels=torch.rand(images, 1, *SIZE, generator=generator),
        labels=torch.randint(classes, (images,), generator=generator),
        noise=SIGMA * torch.randn(draws, images, 1, *SIZE, generator=generator),
        rows=torch.arange(images) * 7,
        epoch=epoch,
    )


def parts(batch: Batch, rows: Tensor) -> Batch:
    """Some of the images, in any order."""
    labels = None if batch.labels is None else batch.labels[rows]
    return replace(batch, pixels=batch.pixels[rows], labels=labels, noise=batch.noise[:, rows], rows=batch.rows[rows])


def told(model: SmoothedClassifier, batch: Batch) -> Batch:
    """Labelled by the model's own mean prediction, but for the last third of the images: all cases occur."""
    with torch.no_grad():
        best = classify(model, batch.copies(model)).softmax(2).mean(dim=0).argmax(dim=1)
    labels = torch.where(torch.arange(len(best)) < 2 * len(best) // 3, best, (best + 1) % len(model.labels))
    return replace(batch, labels=labels)


def slopes(outcome: Outcome, model: SmoothedClassifier) -> Tensor:
    found = torch.autograd.grad(outcome.loss, list(model.classifier.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in found])


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([F.cross_entropy(draw, labels, reduction="none") for draw in logits])


def kl(p: Tensor, q: Tensor) -> Tensor:
    return torch.special.xlogy(p, p).sum(-1) - (p * q.log()).sum(-1)
