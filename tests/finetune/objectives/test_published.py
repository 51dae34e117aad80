"""Each objective against its published formula, per image and with nothing taken from losses.py."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustify import SmoothedClassifier
from robustify.finetune.objectives import (
    CATRS,
    FTCADIS,
    MACER,
    Batch,
    Consistency,
    Gaussian,
    GreedyCutout,
    Objective,
    Outcome,
    SmoothAdv,
    SmoothMix,
    Stability,
)
from robustify.finetune.objectives.attacks import kl_noise_pgd, smooth_pgd, smoothmix_path
from robustify.finetune.objectives.base import classify
from robustify.finetune.objectives.shared import uniforms
from tests.finetune.objectives.toys import ALL, ce, kl, scene, slopes, smooth, told


def plain_gaussian(model: SmoothedClassifier, batch: Batch) -> Tensor:
    logits = classify(model, batch.pixels + batch.noise)
    return ce(logits, batch.labels).mean(dim=0)


def plain_stability(model: SmoothedClassifier, batch: Batch) -> Tensor:
    clean, noisy = model.classifier(batch.pixels), classify(model, batch.pixels + batch.noise)
    agree = torch.stack([F.cross_entropy(draw, clean.softmax(1), reduction="none") for draw in noisy])
    return F.cross_entropy(clean, batch.labels, reduction="none") + 2 * agree.mean(dim=0)


def plain_consistency(model: SmoothedClassifier, batch: Batch) -> Tensor:
    logits = classify(model, batch.pixels + batch.noise)
    p = logits.softmax(2)
    mean = p.mean(dim=0)
    return ce(logits, batch.labels).mean(dim=0) + 10 * kl(mean, p).mean(dim=0) - 0.5 * (mean * mean.log()).sum(1)


def plain_macer(model: SmoothedClassifier, batch: Batch) -> Tensor:
    logits = classify(model, batch.pixels + batch.noise).double()
    p, sharp = logits.softmax(2).mean(dim=0), (16 * logits).softmax(2).mean(dim=0)
    a, b = sharp.topk(2, dim=1).values.unbind(1)
    margin = torch.special.ndtri(a) - torch.special.ndtri(b)
    counts = (sharp.argmax(1) == batch.labels) & (margin <= 8)
    hinge = torch.where(counts, 0.125 * (8 - margin), 0.0)
    return F.nll_loss(p.log(), batch.labels, reduction="none") + 12 * hinge


def plain_smoothadv(model: SmoothedClassifier, batch: Batch) -> Tensor:
    epsilon = min(1.0, (int(batch.epoch) + 1) / 10)
    found = smooth_pgd(model, batch.pixels, batch.labels, batch.noise, epsilon=epsilon, steps=10)
    return ce(classify(model, found + batch.noise), batch.labels).mean(dim=0)


def plain_smoothmix(model: SmoothedClassifier, batch: Batch) -> Tensor:
    path = smoothmix_path(model, batch.pixels, batch.labels, batch.noise, step_size=0.5, steps=4)
    mix = uniforms(batch, "smoothmix", 1)[0].float() / 2
    logits = classify(model, batch.pixels + batch.noise)
    mean, part = logits.softmax(2).mean(dim=0), mix[:, None, None, None]
    mixed = classify(model, batch.pixels * (1 - part) + path[-1] * part + batch.noise)
    soft = (1 - mix[:, None]) * mean + mix[:, None] / 3
    penalty = (mean.argmax(1) == batch.labels) * kl(soft, mixed.softmax(2)).mean(dim=0)
    return ce(logits, batch.labels).mean(dim=0) + 5 * min(1.0, (int(batch.epoch) + 1) / 10) * penalty


def plain_catrs(model: SmoothedClassifier, batch: Batch) -> Tensor:
    logits = classify(model, batch.pixels + batch.noise)
    losses, m = ce(logits, batch.labels), len(logits)
    target = logits.softmax(2).mean(dim=0).detach()
    share = (logits.argmax(2) == batch.labels).double().mean(dim=0)
    k = (uniforms(batch, "cat-rs", m) < share).sum(dim=0).clamp(min=1)
    low = torch.stack([column.sort().values[: int(n)].sum() / m for column, n in zip(losses.T, k, strict=True)])
    moved = kl_noise_pgd(model, batch.pixels, batch.noise, target.log(), epsilon=1.0, steps=4)
    worst = kl(target, classify(model, batch.pixels + moved).softmax(2)).max(dim=0).values
    return low + 0.5 * (k == m) * worst


def plain_ftcadis(model: SmoothedClassifier, batch: Batch) -> Tensor:
    logits = classify(model, batch.pixels + batch.noise)
    losses, hit = ce(logits, batch.labels), logits.argmax(2) == batch.labels
    low = torch.stack(
        [(c[h].sum() if h.any() else c.min()) / len(logits) for c, h in zip(losses.T, hit.T, strict=True)]
    )
    target = logits.softmax(2).mean(dim=0)
    moved = kl_noise_pgd(model, batch.pixels, batch.noise, target.detach().log(), epsilon=0.125, steps=4)
    worst = kl(target, classify(model, batch.pixels + moved).softmax(2)).max(dim=0).values
    return low + 4 * hit.all(dim=0) * worst


def plain_greedy_cutout(model: SmoothedClassifier, batch: Batch) -> Tensor:
    copies = [batch.pixels + batch.noise]
    for _ in range(2):
        masked = []
        for top, left in product((0, 2, 4), repeat=2):
            masked.append(copies[-1].clone())
            masked[-1][..., top : top + 2, left : left + 2] = 0.4
        losses = torch.stack([ce(classify(model, found), batch.labels) for found in masked])
        at = losses.argmax(dim=0)[None, :, :, None, None, None].expand(1, *copies[0].shape)
        copies.append(torch.stack(masked).gather(0, at)[0])
    return ce(classify(model, torch.cat(copies)), batch.labels).mean(dim=0)


PUBLISHED: dict[type[Objective], Callable[[SmoothedClassifier, Batch], Tensor]] = {
    Gaussian: plain_gaussian,
    Stability: plain_stability,
    Consistency: plain_consistency,
    MACER: plain_macer,
    SmoothAdv: plain_smoothadv,
    SmoothMix: plain_smoothmix,
    CATRS: plain_catrs,
    FTCADIS: plain_ftcadis,
    GreedyCutout: plain_greedy_cutout,
}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("epoch", [0.0, 4.7, 50.0])
def test_plain_objectives_are_the_published_ones(kind: type[Objective], epoch: float) -> None:
    """In value and in gradient: what is detached, masked or divided otherwise differs in one of them."""
    model = smooth()
    batch = told(model, scene(epoch=epoch))
    outcome, expected = kind()(model, batch), PUBLISHED[kind](model, batch).mean()
    assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    wanted = slopes(Outcome(expected.to(outcome.loss), {}), model)
    assert torch.allclose(slopes(outcome, model), wanted, atol=1e-3 * float(wanted.abs().max()))
