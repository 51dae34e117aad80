"""What holds for every objective, and each known pitfall of several."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import final

import pytest
import torch
from torch import Tensor

from robustify.denoisers import Denoiser
from robustify.errors import InputError
from robustify.finetune.objectives import (
    CATRS,
    FTCADIS,
    MACER,
    Consistency,
    EarlyLearning,
    Gaussian,
    Objective,
    SmoothAdv,
    SmoothMix,
    Stability,
)
from robustify.finetune.objectives.attacks import smooth_pgd, smoothmix_path
from robustify.finetune.objectives.base import classify
from robustify.types import Pixels
from tests.finetune.objectives.toys import ALL, SIGMA, parts, scene, slopes, smooth, told
from tests.toys import Shrink


@pytest.mark.parametrize("kind", ALL)
def test_objectives_say_how_many_copies_are_recognised(kind: type[Objective]) -> None:
    model = smooth()
    batch = told(model, scene())
    outcome = kind()(model, batch)
    if kind is not SmoothAdv:  # its copies are of attacked images
        expected = (classify(model, batch.pixels + batch.noise).argmax(2) == batch.labels).float().mean(dim=0)
        assert torch.equal(outcome.metrics["noisy_accuracy"], expected)
    assert outcome.metrics["noisy_accuracy"].shape == (12,)
    assert not any(m.requires_grad for m in outcome.metrics.values())


@pytest.mark.parametrize("kind", ALL)
def test_objectives_are_constants_with_defaults(kind: type[Objective]) -> None:
    objective = kind()
    assert kind() == objective
    with pytest.raises(FrozenInstanceError):
        objective.draws = 3  # type: ignore[misc]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_for_any_confidence(kind: type[Objective], classes: int, scale: float) -> None:
    """A softmax that underflows makes the published consistency NaN, and a zero head has no gradient to attack."""
    model = smooth(Shrink(), scale=scale, classes=classes)
    outcome = kind()(model, scene(classes=classes, epoch=20.0))
    assert bool(outcome.loss.isfinite())
    assert bool(slopes(outcome, model).isfinite().all())


@pytest.mark.parametrize("kind", ALL)
def test_objectives_do_not_depend_on_the_batch_an_image_is_in(kind: type[Objective]) -> None:
    """Neither on the order, nor on how many processes share it; K and lambda are an image's own."""
    model = smooth()
    batch = told(model, scene())
    whole = kind()(model, batch).loss
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    pieces = [kind()(model, parts(batch, rows)).loss for rows in (order[:3], order[3:9], order[9:])]
    together = (3 * pieces[0] + 6 * pieces[1] + 3 * pieces[2]) / 12
    assert together.item() == pytest.approx(whole.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_objectives_leave_no_trace(kind: type[Objective]) -> None:
    """Modes and wishes for gradient come back, running statistics move with training passes alone."""
    model = smooth()
    batch = told(model, scene())
    model.classifier.train()
    model.classifier.network[0].bias.requires_grad_(False)
    state = torch.get_rng_state()
    kind()(model, batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.classifier.network.training
    assert not model.training
    assert [p.requires_grad for p in model.classifier.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.classifier.parameters())
    passes = {SmoothMix: 2, CATRS: 2, FTCADIS: 2}.get(kind, 1)
    assert int(model.classifier.network[1].num_batches_tracked) == passes


@pytest.mark.parametrize("kind", ALL)
def test_only_stability_does_without_labels(kind: type[Objective]) -> None:
    batch = replace(scene(), labels=None)
    assert kind.needs_labels == (kind is not Stability)
    if kind is Stability:
        assert kind()(smooth(), batch).metrics == {}
    else:
        with pytest.raises(InputError, match="the data has none"):
            kind()(smooth(), batch)


# Behind a denoiser


@pytest.mark.parametrize("kind", ALL)
def test_copies_denoised_before_are_used_where_declared(kind: type[Objective]) -> None:
    model = smooth(Shrink())
    batch = told(model, scene())
    denoised = model.denoiser((batch.pixels + batch.noise).flatten(0, 1), SIGMA).view_as(batch.noise)
    fresh = kind()(model, batch)
    model.denoiser.calls = 0
    cached = kind()(model, replace(batch, denoised=denoised))
    assert kind.cacheable == (kind not in (SmoothAdv, SmoothMix))
    assert (model.denoiser.calls == 0) == kind.cacheable
    assert cached.loss.item() == pytest.approx(fresh.loss.item(), rel=1e-5)
    if kind.cacheable:  # what the denoiser left is all that counts
        left = kind()(smooth(), replace(batch, noise=denoised - batch.pixels))
        assert fresh.loss.item() == pytest.approx(left.loss.item(), rel=1e-3)
        assert fresh.loss.item() != pytest.approx(kind()(smooth(), batch).loss.item(), rel=1e-2)


@pytest.mark.parametrize("kind", [SmoothAdv, SmoothMix])
def test_attacks_on_images_go_through_the_denoiser(kind: type[Objective]) -> None:
    """The denoiser's own steepness is part of the direction: one that forgets a pixel gets no change there."""

    @final
    class Forgetting(Denoiser):
        name, channels, size, licence = "forgetting", None, None, None

        def forward(self, noisy: Pixels, sigma: float) -> Pixels:
            return torch.cat([torch.full_like(noisy[..., :3], 0.5), noisy[..., 3:]], dim=3)

        def describe(self, sigma: float) -> str:
            return "half"

    model = smooth(Forgetting().eval())
    batch = scene()
    noise, labels = batch.noise, batch.labels
    found = smooth_pgd(model, batch.pixels, labels, noise, epsilon=0.5, steps=2)
    if kind is SmoothMix:
        found = smoothmix_path(model, batch.pixels, labels, noise, step_size=0.5, steps=2)[-1]
    moved = (found - batch.pixels).abs().amax(dim=(0, 1, 2))
    assert (moved > 0).tolist() == [False] * 3 + [True] * 3
    assert bool(kind()(model, batch).loss.isfinite())


@pytest.mark.parametrize("kind", [CATRS, FTCADIS])
def test_attacks_on_noise_start_at_what_the_denoiser_left(kind: type[Objective]) -> None:
    model = smooth(Shrink())
    batch = told(model, scene())
    inputs: list[Tensor] = []
    model.classifier.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    kind()(model, batch)
    copies, first, second = inputs[0], inputs[1], inputs[2]
    assert len(inputs) == 1 + 4 + 1  # copies, attack, attacked copies
    assert torch.allclose(first, copies, atol=1e-5)
    assert float((second - first).abs().max()) > 1e-3
    far = (inputs[-1] - copies).flatten(1).norm(dim=1) * 0.5  # back in pixels: std is 0.5
    radius = kind().epsilon
    assert 0.5 * radius < float(far.max()) < 1.3 * radius


# Settings


@pytest.mark.parametrize("make", [Consistency, CATRS, FTCADIS, lambda draws: SmoothAdv(draws=draws, weight=1.0)])
def test_one_draw_is_refused_where_it_would_teach_nothing(make: Callable[..., Objective]) -> None:
    assert make(draws=2).draws == 2
    with pytest.raises(InputError, match="draws >= 2; got 1"):
        make(draws=1)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Gaussian(draws=0), "draws > 0"),
        (lambda: Stability(draws=0), "draws > 0"),
        (lambda: MACER(draws=0), "draws > 0"),
        (lambda: MACER(beta=-1.0), "beta > 0"),
        (lambda: MACER(gamma=31.0), "gamma <= 30"),
        (lambda: SmoothAdv(epsilon=0.0), "epsilon > 0"),
        (lambda: SmoothAdv(steps=0), "steps > 0"),
        (lambda: SmoothMix(step_size=0.0), "step_size > 0"),
        (lambda: SmoothMix(mix_steps=5), "mix_steps from 0 to steps = 4; got 5"),
        (lambda: CATRS(epsilon=-1.0), "epsilon > 0"),
        (lambda: FTCADIS(steps=0), "steps > 0"),
        (lambda: EarlyLearning(Gaussian(), 3, memory=1.0), "memory from 0 to below 1"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Objective], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()
