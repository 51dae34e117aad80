"""Golden values: the reference formulas in float64, `logits[i, b, c] = a sin(1 + 7i + 3b + c)`."""

import math

import pytest
import torch
from scipy.special import ndtri_exp
from torch import Tensor

from robustify.finetune.objectives.losses import (
    bottom_k_ce,
    consistency,
    correct,
    cross_entropies,
    entropy_from_logs,
    kl_from_logs,
    log_mean_softmax,
    macer_hinge,
    mean_kl,
    selective_ce,
    smoothed_nll,
    smoothmix_penalty,
    smoothmix_target,
    stability,
    worst_kl,
)

Y = torch.tensor([0, 1, 2])


TARGETS = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.2, 0.5, 0.2, 0.1], [0.25] * 4]).double()


def golden(draws: int = 2, a: float = 2.0) -> Tensor:
    i, b, c = (torch.arange(n, dtype=torch.float64) for n in (draws, 3, 4))
    return a * torch.sin(1 + 7 * i[:, None, None] + 3 * b[:, None] + c)


def close(found: Tensor, expected: float | list[float], tolerance: float = 1e-9) -> bool:
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


def test_the_golden_logits_are_the_published_ones() -> None:
    assert close(golden()[0, 0], [1.68294197, 1.81859485, 0.28224002, -1.51360499], 1e-8)


def test_cross_entropies() -> None:
    losses = cross_entropies(golden(), Y)
    assert losses.shape == (2, 3)
    assert close(losses.mean(), 2.143633796)
    assert torch.equal(losses[1], cross_entropies(golden()[1:], Y)[0])


def test_log_mean_softmax() -> None:
    assert close(log_mean_softmax(golden())[0].exp(), [0.567727146, 0.349571287, 0.067517790, 0.015183777])


def test_smoothed_nll() -> None:
    assert close(smoothed_nll(golden(), Y).mean(), 2.069320632)


@pytest.mark.parametrize(
    ("weight", "entropy", "expected"),
    [(10.0, 0.0, 0.473341292), (10.0, 0.5, 0.924262683), (10.0, 10.0, 9.491769109)],
    ids=["kl", "default", "cross-entropy"],
)
def test_consistency(weight: float, entropy: float, expected: float) -> None:
    assert close(consistency(golden(), weight=weight, entropy=entropy).mean(), expected)


def test_consistency_of_equal_predictions_is_their_entropy() -> None:
    logits = golden(1).expand(5, -1, -1)
    expected = torch.distributions.Categorical(logits=logits[0]).entropy()
    assert float(consistency(logits, weight=10.0, entropy=0.0).abs().max()) < 1e-14
    assert torch.allclose(consistency(logits, weight=10.0, entropy=2.0), 2 * expected)


def test_consistency_lets_gradient_flow_into_the_mean() -> None:
    """The published gradient; with a detached mean it would be another one."""
    logits = golden().requires_grad_()
    (found,) = torch.autograd.grad(consistency(logits, weight=1.0, entropy=0.0).sum(), logits)
    p = logits.softmax(dim=2)
    mean = p.mean(dim=0)
    (naive,) = torch.autograd.grad((mean * (mean.log() - p.log())).sum() / 2, logits, retain_graph=True)
    (detached,) = torch.autograd.grad((mean.detach() * -p.log()).sum() / 2, logits)
    assert torch.allclose(found, naive, atol=1e-12)
    assert not torch.allclose(found, detached, atol=1e-3)


def test_stability() -> None:
    clean, noisy = golden()
    assert close(cross_entropies(clean.unsqueeze(0), Y).mean(), 2.043174381)
    assert close(stability(clean, noisy.unsqueeze(0)).mean(), 1.118553060)
    assert close(
        (cross_entropies(clean.unsqueeze(0), Y)[0] + 2 * stability(clean, noisy.unsqueeze(0))).mean(), 4.280280501
    )


def test_stability_averages_over_draws_and_moves_both_sides() -> None:
    clean, noisy = golden(1)[0].requires_grad_(), golden(3).requires_grad_()
    loss = stability(clean, noisy)
    singles = torch.stack([stability(clean, draw.unsqueeze(0)) for draw in noisy])
    assert torch.allclose(loss, singles.mean(dim=0))
    assert all(float(g.abs().max()) > 1e-3 for g in torch.autograd.grad(loss.sum(), [clean, noisy]))


MACER_Y = torch.tensor([0, 3, 0])


@pytest.mark.parametrize(
    ("beta", "robust", "total", "margins"),
    [
        (1.0, 2.711571589, 11.413870651, [1.002235, 0.474818, 0.830374]),
        (16.0, 2.631261295, 11.092629476, [1.499247, 0.101675, 1.348988]),
    ],
)
def test_macer(beta: float, robust: float, total: float, margins: list[float]) -> None:
    logits = golden(4)
    ce = smoothed_nll(logits, MACER_Y)
    hinge = macer_hinge(logits, MACER_Y, sigma=0.25, beta=beta, gamma=8.0)
    assert close(ce.sum(), 1.702752888)
    assert close(hinge.sum(), robust)
    assert close((ce + 12 * hinge).mean(), total)
    assert close(8 - hinge / 0.125, margins, 1e-6)


def test_macer_leaves_wrong_images_and_large_radii_alone() -> None:
    wrong = macer_hinge(golden(4), torch.tensor([1, 3, 1]), sigma=0.25, beta=16.0, gamma=8.0)
    assert (wrong > 0).tolist() == [False, True, False]
    logits = golden(4).requires_grad_()
    hinge = macer_hinge(logits, MACER_Y, sigma=0.25, beta=1.0, gamma=0.6)
    assert (hinge > 0).tolist() == [False, True, False]
    (slope,) = torch.autograd.grad(hinge.sum(), logits)
    assert (slope.abs().amax(dim=(0, 2)) > 0).tolist() == [False, True, False]


@pytest.mark.parametrize("gap", [3.0, 20.0, 60.0, 150.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_macer_margins_of_confident_images_are_exact(gap: float, classes: int) -> None:
    """In float32 probabilities the larger one is 1 from a gap of 17, and the image would be dropped."""
    log_b = -gap - math.log1p((classes - 1) * math.exp(-gap))
    expected = -ndtri_exp(log_b + math.log(classes - 1)) - ndtri_exp(log_b)
    logits = torch.zeros(2, 1, classes).index_fill(2, torch.tensor([1]), gap).requires_grad_()
    hinge = macer_hinge(logits, torch.tensor([1]), sigma=2.0, beta=1.0, gamma=40.0)
    assert 40 - hinge.item() == pytest.approx(expected, rel=1e-5)
    (slope,) = torch.autograd.grad(hinge.sum(), logits)
    assert float(slope[0, 0, 1]) < -1e-4


def test_macer_of_two_equal_classes_grows_the_margin() -> None:
    logits = torch.zeros(2, 1, 2).requires_grad_()
    label = logits[0].argmax(dim=1)
    hinge = macer_hinge(logits, label, sigma=2.0, beta=1.0, gamma=8.0)
    assert hinge.item() == 8
    (slope,) = torch.autograd.grad(hinge.sum(), logits)
    assert float(slope[0, 0, label]) == pytest.approx(-0.5 * math.sqrt(2 * math.pi) / 2, rel=1e-5)


def test_hits_are_shares_of_draws() -> None:
    assert correct(golden(4), Y).double().mean(dim=0).tolist() == [0.75, 0, 0]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [0.056508627, 0.275863021, 0.445931859]),
        (2, [0.137120685, 0.844274447, 1.175792612]),
        (4, [0.548964827, 2.553561046, 2.830303076]),
    ],
)
def test_bottom_k_ce(k: int, expected: list[float]) -> None:
    assert close(bottom_k_ce(cross_entropies(golden(4), Y), torch.full((3,), k)), expected)


def test_bottom_k_ce_has_its_own_k_for_each_image_and_teaches_the_smallest_only() -> None:
    losses = torch.tensor([[3.0, 1.0], [1.0, math.inf], [2.0, 4.0]]).requires_grad_()
    total = bottom_k_ce(losses, torch.tensor([2, 1]))
    assert total.tolist() == pytest.approx([3 / 3, 1 / 3])
    (slope,) = torch.autograd.grad(total.sum(), losses)
    assert torch.allclose(slope, torch.tensor([[0.0, 1], [1, 0], [1, 0]]) / 3)


def test_selective_ce_counts_recognised_copies_and_else_the_best() -> None:
    losses = torch.tensor([[3.0, 1.0, 5.0], [1.0, 7.0, 2.0], [2.0, 4.0, 6.0]]).requires_grad_()
    right = torch.tensor([[True, True, False], [False, True, False], [True, True, False]])
    total = selective_ce(losses, right)
    assert total.tolist() == pytest.approx([5 / 3, 12 / 3, 2 / 3])
    (slope,) = torch.autograd.grad(total.sum(), losses)
    assert torch.allclose(slope, torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 1, 0]]) / 3)


def test_selective_ce_is_not_that_of_the_smallest_losses() -> None:
    """A recognised copy may have a larger loss than one that is not."""
    logits = torch.tensor([[[0.30, 0.29, 0.28, 0.27]], [[2.0, 2.1, -9.0, -9.0]]])
    losses, right = cross_entropies(logits, torch.tensor([0])), correct(logits, torch.tensor([0]))
    assert right[:, 0].tolist() == [True, False]
    assert losses[0, 0] > losses[1, 0]
    assert selective_ce(losses, right)[0] == losses[0, 0] / 2


def test_worst_kl() -> None:
    assert close(worst_kl(TARGETS.log(), golden(4)), [0.394676933, 1.656943649, 0.971788528])
    worst = worst_kl(TARGETS.log(), golden())
    reference = torch.nn.functional.kl_div(golden().log_softmax(2), TARGETS.expand(2, -1, -1), reduction="none").sum(2)
    assert torch.allclose(worst, reference.max(dim=0).values)
    assert torch.allclose(mean_kl(TARGETS.log(), golden()), reference.mean(dim=0))


def test_kl_has_the_target_first() -> None:
    p, q = TARGETS[0].log(), golden()[0, 0].log_softmax(0)
    assert not math.isclose(float(kl_from_logs(p, q)), float(kl_from_logs(q, p)), rel_tol=0.1)
    assert float(kl_from_logs(p, q)) == pytest.approx(float((p.exp() * (p - q)).sum()))


def test_classes_without_votes_count_as_zero() -> None:
    votes = torch.tensor([[0.75, 0.25, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5]], dtype=torch.float64)
    logits = golden().requires_grad_()
    worst = worst_kl(votes.log(), logits)
    expected = torch.nn.functional.kl_div(logits.log_softmax(2), votes.expand(2, -1, -1), reduction="none").sum(2)
    assert torch.allclose(worst, expected.max(dim=0).values)
    assert torch.allclose(entropy_from_logs(votes.log())[1:], torch.tensor([0, math.log(2)], dtype=torch.float64))
    (slope,) = torch.autograd.grad(worst.sum(), logits)
    assert bool(slope.isfinite().all())


MIX = torch.tensor([0.1, 0.25, 0.5], dtype=torch.float64)


def test_smoothmix() -> None:
    log_mean = log_mean_softmax(golden())
    target = smoothmix_target(log_mean, MIX)
    assert close(target[1].exp(), [0.085265671, 0.087087339, 0.195016994, 0.632629996])
    penalty = smoothmix_penalty(target, golden(a=1.5), torch.tensor([True, False, False]))
    assert penalty[1:].tolist() == [0, 0]
    assert close(penalty.mean(), 0.011216043)


def test_smoothmix_without_mixing_is_self_consistency() -> None:
    log_mean = log_mean_softmax(golden())
    target = smoothmix_target(log_mean, torch.zeros(3, dtype=torch.float64))
    penalty = smoothmix_penalty(target, golden(), torch.ones(3, dtype=torch.bool))
    assert torch.allclose(penalty, consistency(golden(), weight=1.0, entropy=0.0))
