"""What an objective does at other than its default settings: draws, schedules, penalties, held targets."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustify.finetune.objectives import MACER, Gaussian, Outcome, SmoothAdv, SmoothMix, Stability
from robustify.finetune.objectives.attacks import smooth_pgd, smoothmix_path
from robustify.finetune.objectives.base import classify
from robustify.finetune.objectives.losses import consistency, cross_entropies, macer_hinge
from robustify.finetune.objectives.shared import ramped, uniforms
from tests.finetune.objectives.toys import SIGMA, scene, slopes, smooth, told


def test_gaussian_takes_several_draws() -> None:
    model, batch = smooth(), scene(draws=3)
    singles = [Gaussian()(model, replace(batch, noise=batch.noise[i : i + 1])).loss.item() for i in range(3)]
    assert Gaussian(draws=3)(model, batch).loss.item() == pytest.approx(sum(singles) / 3)


def test_stability_without_labels_holds_the_clean_prediction_still() -> None:
    model, batch = smooth(), replace(scene(), labels=None)
    outcome = Stability(weight=3.0)(model, batch)
    clean, noisy = model.classifier(batch.pixels), classify(model, batch.pixels + batch.noise)
    expected = 3 * torch.stack([F.cross_entropy(n, clean.softmax(1).detach()) for n in noisy]).mean()
    assert outcome.loss.item() == pytest.approx(expected.item())
    assert torch.allclose(slopes(outcome, model), slopes(Outcome(expected, {}), model), atol=1e-5)


def test_macer_waits_and_knows_sigma() -> None:
    model = smooth()
    batch = told(model, scene(draws=8))
    plain = MACER(weight=0.0)(model, batch).loss.item()
    waiting = MACER(deferred=31.0)
    assert waiting(model, replace(batch, epoch=30.9)).loss.item() == pytest.approx(plain)
    late = waiting(model, replace(batch, epoch=31.0)).loss.item()
    hinge = macer_hinge(classify(model, batch.copies(model)), batch.labels, sigma=SIGMA, beta=16.0, gamma=8.0)
    assert late == pytest.approx(plain + 12 * hinge.mean().item())
    assert hinge.mean().item() > 0.1


# SmoothAdv, SmoothMix


def test_a_ramp_grows_by_whole_epochs() -> None:
    assert [ramped(epoch, 10.0) for epoch in (0.0, 0.99, 1.0, 8.5, 9.0, 200.0)] == [0.1, 0.1, 0.2, 0.9, 1.0, 1.0]
    assert ramped(0.0, 0.0) == 1


def test_smoothadv_with_consistency_adds_the_penalty_at_the_same_images() -> None:
    model, batch = smooth(), scene(epoch=20.0)
    found = smooth_pgd(model, batch.pixels, batch.labels, batch.noise, epsilon=1.0, steps=10)
    logits = classify(model, found + batch.noise)
    expected = cross_entropies(logits, batch.labels).mean() + consistency(logits, weight=2.0, entropy=0.5).mean()
    assert SmoothAdv(weight=2.0, entropy=0.5)(model, batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    only = SmoothAdv(entropy=0.5)(model, batch).loss.item() - SmoothAdv()(model, batch).loss.item()
    assert only == pytest.approx(consistency(logits, weight=0.0, entropy=0.5).mean().item(), rel=1e-3)


@pytest.mark.parametrize(("epoch", "reach"), [(0.0, 0.05), (20.0, 0.5)])
def test_smoothmix_with_a_mix_step_learns_at_the_early_point(epoch: float, reach: float) -> None:
    model, batch = smooth(), scene(epoch=epoch)
    inputs: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    SmoothMix(mix_steps=1)(model, batch)
    clean = (inputs[4].view_as(batch.noise) - batch.noise)[0]
    path = smoothmix_path(model, batch.pixels, batch.labels, batch.noise, step_size=0.5, steps=4)
    length = (path[1] - batch.pixels).flatten(1).norm(dim=1)
    assert torch.allclose((clean - batch.pixels).flatten(1).norm(dim=1), length.clamp(max=reach), atol=1e-4)
    mixed = (inputs[5].view_as(batch.noise) - batch.noise)[0]
    mix = (uniforms(batch, "smoothmix", 1)[0] / 2).float()[:, None, None, None]
    assert torch.allclose(mixed, (1 - mix) * clean + mix * path[4], atol=1e-5)
    assert float(clean.min()) > -1e-6


def test_smoothmix_may_hold_its_target_still() -> None:
    model = smooth()
    batch = told(model, scene(epoch=20.0))
    free, held = SmoothMix()(model, batch), SmoothMix(detach=True)(model, batch)
    assert free.loss.item() == pytest.approx(held.loss.item())
    assert not torch.allclose(slopes(free, model), slopes(held, model), rtol=1e-2)
