"""Attacks where gradients are tiny, huge or missing, and in half precision."""

import pytest
import torch

from robustify import SmoothedClassifier
from robustify.finetune.objectives.attacks import kl_noise_pgd, noisy_logits, smooth_pgd, smoothmix_path
from robustify.finetune.objectives.losses import log_mean_softmax, mean_kl, smoothed_nll
from tests.finetune.objectives.attacked import SIZE, attacks, convolutional, linear, scene, smooth


@pytest.fixture
def model() -> SmoothedClassifier:
    return smooth(convolutional())


def test_nothing_moves_where_there_is_no_gradient() -> None:
    pixels, labels, noise = scene()
    model = linear(torch.zeros(3, 36))
    target = torch.full((4, 3), 1 / 3).log()
    assert torch.equal(smooth_pgd(model, pixels, labels, noise, epsilon=0.5, steps=3), pixels)
    assert all(torch.equal(p, pixels) for p in smoothmix_path(model, pixels, labels, noise, step_size=0.5, steps=3))
    found = kl_noise_pgd(model, pixels, noise, target, epsilon=0.5, steps=3)
    assert torch.allclose(found, noise, atol=1e-6)
    still = kl_noise_pgd(model, pixels, 0 * noise, target, epsilon=0.5, steps=3)  # a denoiser that leaves nothing
    assert torch.equal(still, 0 * noise)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e3, 1e6])
def test_tiny_and_huge_gradients_still_give_a_direction(scale: float) -> None:
    """Their squares leave float32."""
    weight = torch.zeros(2, 36)
    weight[1, :2] = torch.tensor([3.0, 4.0]) * scale
    pixels = torch.full((1, 1, *SIZE), 0.01)  # of small logits, so that even the large scale is not saturated
    noise = -pixels.expand(1, 1, 1, *SIZE)
    found = smooth_pgd(linear(weight), pixels, torch.tensor([0]), noise, epsilon=0.1, steps=1)
    assert torch.allclose((found - pixels).flatten()[:2], torch.tensor([0.06, 0.08]), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_attacks_under_autocast_are_finite_for_saturated_predictions(scale: float) -> None:
    model = smooth(convolutional(scale=scale))
    pixels, labels, noise = scene()
    certain = torch.nn.functional.one_hot(labels, 3).float().log()
    with torch.autocast("cpu", torch.bfloat16):
        found = list(attacks(model))
        found.append(kl_noise_pgd(model, pixels, noise, certain, epsilon=0.5, steps=3))
    assert all(bool(f.isfinite().all()) for f in found)
    assert all(f.dtype == torch.float32 for f in found)


def test_training_after_an_attack_under_autocast_still_has_gradients(model: SmoothedClassifier) -> None:
    """Autocast keeps lowered copies of weights; one made while the weight was frozen would pass no gradient."""
    pixels, labels, noise = scene()
    with torch.autocast("cpu", torch.bfloat16):
        smooth_pgd(model, pixels, labels, noise, epsilon=0.5, steps=2)
        loss = smoothed_nll(noisy_logits(model, pixels, noise), labels).mean()
    loss.backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.parameters() if p.ndim > 1)


def test_slopes_do_not_vanish_in_float16() -> None:
    """Where a prediction is nearly certain, they are far below what float16 can say."""
    model = smooth(convolutional(scale=60.0))
    pixels, _, noise = scene()
    with torch.no_grad():
        logits = noisy_logits(model, pixels, noise)
    target = log_mean_softmax(logits)
    assert float(mean_kl(target, logits).min()) < 1e-6
    exact = kl_noise_pgd(model, pixels, noise, target, epsilon=0.5, steps=1)
    with torch.autocast("cpu", torch.float16):
        found = kl_noise_pgd(model, pixels, noise, target, epsilon=0.5, steps=1)
    alike = torch.cosine_similarity((found - noise).flatten(2), (exact - noise).flatten(2), dim=2)
    assert float(alike.min()) > 0.9
