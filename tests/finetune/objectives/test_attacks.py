from itertools import pairwise
from typing import final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustify import SmoothedClassifier
from robustify.finetune.objectives.attacks import frozen, kl_noise_pgd, noisy_logits, smooth_pgd, smoothmix_path, within
from robustify.finetune.objectives.losses import log_mean_softmax, mean_kl, smoothed_nll
from tests.finetune.objectives.attacked import SIZE, attacks, convolutional, linear, norms, scene, smooth


@pytest.fixture
def model() -> SmoothedClassifier:
    return smooth(convolutional())


@final
class Watched(nn.Module):
    """Notes what each call finds: the modes, and whether a parameter wants gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        modes = any(m.training for m in self.modules())
        self.seen.append((modes, any(p.requires_grad for p in self.parameters())))
        return self.network(x)


def test_frozen_restores_each_modes_own_state() -> None:
    network = convolutional()
    network.train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    modes = [m.training for m in network.modules()]
    wanted = [p.requires_grad for p in network.parameters()]
    assert len(set(modes)) == len(set(wanted)) == 2
    with frozen(network):
        assert not any(m.training for m in network.modules())
        assert not any(p.requires_grad for p in network.parameters())
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == wanted
    with pytest.raises(KeyError), frozen(network):
        raise KeyError
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == wanted


def test_attacks_see_a_frozen_model_and_leave_it_as_it_was() -> None:
    watched = Watched(convolutional())
    model = smooth(watched)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pixels, labels, noise = scene()
    target = torch.full((4, 3), 1 / 3).log()
    watched.seen.clear()
    smooth_pgd(model, pixels, labels, noise, epsilon=0.5, steps=2)
    smoothmix_path(model, pixels, labels, noise, step_size=0.3, steps=2)
    kl_noise_pgd(model, pixels, noise, target, epsilon=0.5, steps=2)
    assert watched.seen == [(False, False)] * 6
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_attacks_need_no_gradient_around_them_and_give_none(model: SmoothedClassifier) -> None:
    with torch.no_grad():
        quiet = list(attacks(model))
    for found, expected in zip(quiet, attacks(model), strict=True):
        assert torch.equal(found, expected)
        assert not found.requires_grad


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_smooth_pgd_stays_in_the_ball_and_in_the_unit_range(epsilon: float, steps: int) -> None:
    for seed in range(5):
        pixels, labels, noise = scene(seed=seed)
        pixels[0] = pixels[0].round()  # at the border from the start
        found = smooth_pgd(smooth(convolutional(seed)), pixels, labels, noise, epsilon=epsilon, steps=steps)
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        assert float(norms(found - pixels).max()) <= epsilon * (1 + 1e-5)
        assert float(norms(found - pixels).min()) > 0


def test_smooth_pgd_clamps_before_it_shortens() -> None:
    """The clamp takes away what leaves [0, 1]; shortened first, the rest would be shorter than epsilon."""
    weight = torch.zeros(2, 36)
    weight[1, :2] = torch.tensor([3.0, 4.0])
    pixels = torch.full((1, 1, *SIZE), 0.5)
    pixels[0, 0, 0, 0] = 0.9
    noise = torch.zeros(1, 1, 1, *SIZE)
    found = smooth_pgd(linear(weight), pixels, torch.tensor([0]), noise, epsilon=0.25, steps=1)
    change = torch.tensor([0.1, 0.4])  # a step of 0.5 along (0.6, 0.8), cut at 1
    assert torch.allclose((found - pixels).flatten()[:2], change * 0.25 / change.norm(), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_attacks_on_a_linear_model_have_a_closed_form(steps: int, scale: float) -> None:
    """The larger scale is so certain that float32 loses the direction."""
    weight = scale * torch.randn(2, 36, generator=torch.Generator().manual_seed(1))
    pixels, _, noise = scene()
    pixels = 0.4 + 0.2 * pixels
    labels = torch.tensor([0, 1, 0, 1])
    away = (weight[1] - weight[0]) / (weight[1] - weight[0]).norm()
    away = torch.where(labels == 0, 1.0, -1.0)[:, None] * away
    pgd = smooth_pgd(linear(weight), pixels, labels, noise, epsilon=0.2, steps=steps)
    assert torch.allclose((pgd - pixels).flatten(1), 0.2 * away, atol=1e-5)
    path = smoothmix_path(linear(weight), pixels, labels, noise, step_size=0.05, steps=steps)
    assert len(path) == steps + 1
    for i, point in enumerate(path):
        assert torch.allclose((point - pixels).flatten(1), i * 0.05 * away, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_kl_noise_pgd_has_a_closed_form_on_a_linear_model(scale: float) -> None:
    """Without a mean the direction keeps the mean; the standardisation only scales. Float32 would lose the larger."""
    weight = scale * torch.randn(2, 36, generator=torch.Generator().manual_seed(1))
    weight -= weight.mean(dim=1, keepdim=True)
    pixels, _, noise = scene()
    target = torch.tensor([[1.0, 0.0]] * 4).log()
    away = ((weight[1] - weight[0]) / (weight[1] - weight[0]).norm()).view(1, 1, *SIZE)
    for steps, length in ((1, 0.2), (2, 0.2)):
        found = kl_noise_pgd(linear(weight), pixels, noise, target, epsilon=0.2, steps=steps)
        centred = noise - noise.mean((2, 3, 4), keepdim=True)
        raw = centred + length * away
        if steps == 1:
            scaled = raw * (norms(centred) / norms(raw))[..., None, None, None]
            expected = scaled + noise.mean((2, 3, 4), keepdim=True)
            assert torch.allclose(found, expected, atol=1e-6)
        assert float(((found - noise) * away).sum((2, 3, 4)).min()) > 0.05


def test_kl_noise_pgd_steps_are_as_long_as_said() -> None:
    """Half of them would reach the ball's border: 2 epsilon / steps."""
    weight = torch.randn(2, 36, generator=torch.Generator().manual_seed(1))
    pixels, labels, noise = scene(draws=1)
    trail = []
    for steps in (4, 8):
        watched = Watched(linear(weight).classifier.network)
        inputs: list[Tensor] = []
        watched.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0].detach()))
        model = smooth(watched)
        inputs.clear()
        kl_noise_pgd(model, pixels, noise, torch.tensor([[1.0, 0.0]] * 4).log(), epsilon=0.2, steps=steps)
        assert torch.allclose(inputs[0], pixels + noise[0], atol=1e-6)  # starts at the noise itself
        trail.append(float(norms(inputs[1] - inputs[0]).mean()))
        inputs.clear()
        smooth_pgd(model, 0.5 + 0 * pixels, labels % 2, noise, epsilon=0.2, steps=steps)
        assert torch.allclose(norms(inputs[1] - inputs[0]), torch.tensor(0.4 / steps), atol=1e-5)
        assert torch.allclose(norms(inputs[-1] - inputs[0]), torch.tensor(0.2), atol=1e-5)
    assert trail == pytest.approx([0.1, 0.05], rel=0.1)


def test_each_step_of_a_path_looks_from_where_the_last_one_ended(model: SmoothedClassifier) -> None:
    pixels, labels, noise = scene()
    inputs: list[Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    path = smoothmix_path(model, pixels, labels, noise, step_size=0.5, steps=3)
    for seen, point in zip(inputs, path[:-1], strict=True):
        assert torch.equal(seen.view_as(noise), point + noise)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_kl_noise_pgd_restores_moments_and_stays_near(epsilon: float, offset: float) -> None:
    """Also of a denoiser's residual, whose mean is not 0."""
    for seed in range(3):
        model = smooth(convolutional(seed))
        pixels, _, noise = scene(seed=seed)
        noise = noise + offset
        target = torch.full((4, 3), 1 / 3).log()
        found = kl_noise_pgd(model, pixels, noise, target, epsilon=epsilon, steps=4)
        axes = (2, 3, 4)
        assert torch.allclose(found.mean(axes), noise.mean(axes), atol=1e-6)
        assert torch.allclose(found.square().mean(axes), noise.square().mean(axes), rtol=1e-5)
        centred = norms(noise - noise.mean(axes, keepdim=True))
        # at most epsilon of change, then of length: the standardisation undoes what the first did to the norm
        assert bool((norms(found - noise) <= 2 * epsilon).all())
        assert bool((norms(found - noise) <= epsilon * (1 + 2 * epsilon / centred)).all())


def test_attacks_raise_their_objectives(model: SmoothedClassifier) -> None:
    pixels, labels, noise = scene()
    before = smoothed_nll(noisy_logits(model, pixels, noise), labels)
    pgd = smooth_pgd(model, pixels, labels, noise, epsilon=0.5, steps=4)
    path = smoothmix_path(model, pixels, labels, noise, step_size=0.2, steps=4)
    rising = [before] + [smoothed_nll(noisy_logits(model, point, noise), labels) for point in (path[2], path[4])]
    assert bool((smoothed_nll(noisy_logits(model, pgd, noise), labels) > before + 0.1).all())
    assert all(bool((late > early).all()) for early, late in pairwise(rising))
    logits = noisy_logits(model, pixels, noise)
    target = log_mean_softmax(logits)
    found = kl_noise_pgd(model, pixels, noise, target.detach(), epsilon=0.5, steps=4)
    assert bool((mean_kl(target, noisy_logits(model, pixels, found)) > mean_kl(target, logits) + 0.01).all())


def test_smooth_pgd_raises_the_loss_of_the_mean_prediction_not_the_mean_loss() -> None:
    """One certain draw outweighs the other in the mean of losses, not in the loss of the mean."""
    logits = torch.tensor([[[0.0, 0.0]], [[0.0, 9.0]]]).requires_grad_()
    (slope,) = torch.autograd.grad(smoothed_nll(logits, torch.tensor([0])).sum(), logits)
    assert abs(float(slope[1, 0, 0])) < 0.01 < abs(float(slope[0, 0, 0]))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Tanh(), nn.Linear(20, 3))
    model, (pixels, labels, noise) = smooth(network), scene()
    at = pixels.clone().requires_grad_()
    (slope,) = torch.autograd.grad(smoothed_nll(noisy_logits(model, at, 4 * noise), labels).sum(), at)
    found = smooth_pgd(model, pixels, labels, 4 * noise, epsilon=1e-3, steps=1)
    inside = (found > 0.01) & (found < 0.99)
    step = (found - pixels)[inside] / 1e-3
    assert torch.allclose(step, (slope / norms(slope).view(-1, 1, 1, 1))[inside], atol=1e-3)


@given(epsilon=st.floats(0, 10), seed=st.integers(0, 100))
def test_within_shortens_long_changes_only(epsilon: float, seed: int) -> None:
    change = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    change[0] = 0
    found = within(change, epsilon)
    expected = norms(change).clamp(max=epsilon)
    assert torch.allclose(norms(found), expected, atol=1e-5)
    assert torch.allclose(
        found * norms(change)[:, None, None, None], change * norms(found)[:, None, None, None], atol=1e-4
    )
