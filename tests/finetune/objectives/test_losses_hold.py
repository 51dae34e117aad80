"""Losses agree with their definitions, and stay finite where predictions are saturated."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robustify.finetune.objectives.losses import (
    bottom_k_ce,
    consistency,
    correct,
    cross_entropies,
    log_mean_softmax,
    macer_hinge,
    selective_ce,
    smoothed_nll,
    smoothmix_penalty,
    smoothmix_target,
    stability,
    worst_kl,
)


def _naive_macer(logits: Tensor, y: Tensor) -> Tensor:
    p = (16 * logits).softmax(dim=2).mean(dim=0)
    (a, b), top = p.topk(2, dim=1).values.unbind(1), p.argmax(dim=1)
    normal = torch.distributions.Normal(0.0, 1.0)
    return torch.where(top == y, 0.25 / 2 * (8 - normal.icdf(a) + normal.icdf(b)).clamp(min=0), 0.0)


Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss of logits and labels."""


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "cross-entropy": (
        lambda z, y: cross_entropies(z, y).mean(dim=0),
        lambda z, y: torch.stack([-d.softmax(1)[range(len(y)), y].log() for d in z]).mean(dim=0),
    ),
    "smoothed": (smoothed_nll, lambda z, y: -z.softmax(2).mean(dim=0)[range(len(y)), y].log()),
    "consistency": (
        lambda z, y: consistency(z, weight=10.0, entropy=0.5),
        lambda z, y: sum(
            10 * (m * (m / p).log()).sum(1) / len(z) - 0.5 * (m * m.log()).sum(1) / len(z)
            for p in z.softmax(2)
            for m in [z.softmax(2).mean(dim=0)]
        ),
    ),
    "stability": (
        lambda z, y: stability(z[0], z[1:]),
        lambda z, y: -(z[0].softmax(1) * z[1:].softmax(2).log().mean(dim=0)).sum(1),
    ),
    "macer": (lambda z, y: macer_hinge(z, y, sigma=0.25, beta=16.0, gamma=8.0), _naive_macer),
    "selective": (
        lambda z, y: selective_ce(cross_entropies(z, y), correct(z, y)),
        lambda z, y: torch.stack(
            [
                (ce[right].sum() if right.any() else ce.min()) / len(ce)
                for ce, right in zip(cross_entropies(z, y).T, correct(z, y).T, strict=True)
            ]
        ),
    ),
    "bottom-k": (
        lambda z, y: bottom_k_ce(cross_entropies(z, y), torch.full_like(y, 2)),
        lambda z, y: cross_entropies(z, y).topk(2, dim=0, largest=False).values.sum(dim=0) / len(z),
    ),
    "worst-kl": (
        lambda z, y: worst_kl(log_mean_softmax(z), z),
        lambda z, y: (z.softmax(2).mean(0) * (z.softmax(2).mean(0) / z.softmax(2)).log()).sum(2).max(dim=0).values,
    ),
    "smoothmix": (
        lambda z, y: smoothmix_penalty(smoothmix_target(log_mean_softmax(z), y / (2 * y + 2)), 0.7 * z, y >= 0),
        lambda z, y: (
            (
                (t := (1 - (m := y / (2 * y + 2))[:, None]) * z.softmax(2).mean(0) + m[:, None] / z.shape[2])
                * (t / (0.7 * z).softmax(2)).log()
            )
            .sum(2)
            .mean(dim=0)
        ),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
@given(data=st.data())
def test_losses_agree_with_their_naive_form_on_moderate_logits(name: str, data: st.DataObject) -> None:
    draws, batch, classes = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 4)), data.draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    scale = data.draw(st.sampled_from([0.01, 0.1, 0.3]) if name == "macer" else st.sampled_from([0.1, 1.0, 4.0]))
    logits = scale * torch.randn(draws, batch, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    loss, naive = LOSSES[name]
    assert loss(logits, labels).shape == (batch,)
    assert torch.allclose(loss(logits, labels), naive(logits, labels), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("gap", [0.0, 104.0, 1e4])
def test_losses_and_gradients_are_finite_for_saturated_logits(name: str, classes: int, gap: float) -> None:
    """A gap of 104 underflows a float32 softmax; the published consistency loss is NaN there."""
    winners = torch.tensor([[0, 0, 1], [0, 1, 1], [0, classes - 1, 1]])
    logits = torch.nn.functional.one_hot(winners, classes).float().mul(gap).requires_grad_()
    losses = LOSSES[name][0](logits, torch.tensor([0, 0, 0]))
    (slope,) = torch.autograd.grad(losses.sum(), logits)
    assert bool(losses.isfinite().all())
    assert bool(slope.isfinite().all())


def test_wrong_and_certain_predictions_still_get_a_gradient() -> None:
    """A clamped logarithm has none once the mean probability is below its floor."""
    logits = torch.tensor([[[500.0, 0.0]], [[400.0, 0.0]]]).requires_grad_()
    (slope,) = torch.autograd.grad(smoothed_nll(logits, torch.tensor([1])).sum(), logits)
    assert torch.allclose(slope.sum(dim=(0, 1)), torch.tensor([1.0, -1.0]))
