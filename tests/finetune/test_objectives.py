"""Each objective against its published formula, written again with plain softmaxes, and each known pitfall."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.denoisers import Denoiser
from robustify.errors import InputError
from robustify.finetune.attacks import kl_noise_pgd, smooth_pgd, smoothmix_path
from robustify.finetune.losses import consistency, cross_entropies, macer_hinge
from robustify.finetune.objectives import (
    CATRS,
    FTCADIS,
    MACER,
    Batch,
    Consistency,
    EarlyLearning,
    Gaussian,
    Objective,
    Outcome,
    SmoothAdv,
    SmoothMix,
    Stability,
)
from robustify.finetune.objectives.base import classify
from robustify.finetune.objectives.shared import uniforms, warm_up
from robustify.types import Pixels

SIZE, SIGMA = (6, 6), 0.25
PLAIN = Preprocessing(mean=(0.4,), std=(0.5,), size=SIZE)
ALL = [Gaussian, Stability, Consistency, MACER, SmoothAdv, SmoothMix, CATRS, FTCADIS]


@final
class Halving(Denoiser):
    """Pulls pixels half-way to gray, and counts its calls."""

    name, channels, size, licence = "halving", None, None, None

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.eval()

    def forward(self, noisy: Pixels, sigma: float) -> Pixels:
        self.calls += 1
        return 0.5 + (noisy - 0.5) * (1 - 2 * sigma)

    def describe(self, sigma: float) -> str:
        return f"by {sigma}"


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


def kl(p: Tensor, q: Tensor) -> Tensor:
    return torch.special.xlogy(p, p).sum(-1) - (p * q.log()).sum(-1)


# The published formulas, per image and with nothing taken from losses.py.


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([F.cross_entropy(draw, labels, reduction="none") for draw in logits])


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


PUBLISHED: dict[type[Objective], Callable[[SmoothedClassifier, Batch], Tensor]] = {
    Gaussian: plain_gaussian,
    Stability: plain_stability,
    Consistency: plain_consistency,
    MACER: plain_macer,
    SmoothAdv: plain_smoothadv,
    SmoothMix: plain_smoothmix,
    CATRS: plain_catrs,
    FTCADIS: plain_ftcadis,
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


@pytest.mark.parametrize("kind", ALL)
def test_objectives_say_how_many_copies_are_recognised(kind: type[Objective]) -> None:
    model = smooth()
    batch = told(model, scene())
    outcome = kind()(model, batch)
    if kind is not SmoothAdv:  # its copies are of attacked images
        expected = (classify(model, batch.pixels + batch.noise).argmax(2) == batch.labels).float().mean(dim=0)
        assert torch.equal(outcome.metrics["hit"], expected)
    assert outcome.metrics["hit"].shape == (12,)
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
    model = smooth(Halving(), scale=scale, classes=classes)
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


@pytest.mark.parametrize("kind", ALL)
def test_copies_denoised_before_are_used_where_declared(kind: type[Objective]) -> None:
    model = smooth(Halving())
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
    model = smooth(Halving())
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


# Gaussian, stability


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


# Consistency, MACER


@pytest.mark.parametrize("make", [Consistency, CATRS, FTCADIS, lambda draws: SmoothAdv(draws=draws, weight=1.0)])
def test_one_draw_is_refused_where_it_would_teach_nothing(make: Callable[..., Objective]) -> None:
    assert make(draws=2).draws == 2
    with pytest.raises(InputError, match="draws >= 2; got 1"):
        make(draws=1)


def test_macer_waits_and_knows_sigma() -> None:
    model = smooth()
    batch = told(model, scene(draws=8))
    plain = MACER(weight=0.0)(model, batch).loss.item()
    waiting = MACER(deferred=31)
    assert waiting(model, replace(batch, epoch=30.9)).loss.item() == pytest.approx(plain)
    late = waiting(model, replace(batch, epoch=31.0)).loss.item()
    hinge = macer_hinge(classify(model, batch.copies(model)), batch.labels, sigma=SIGMA, beta=16.0, gamma=8.0)
    assert late == pytest.approx(plain + 12 * hinge.mean().item())
    assert hinge.mean().item() > 0.1


# SmoothAdv, SmoothMix


def test_warm_up_grows_by_whole_epochs() -> None:
    assert [warm_up(epoch, 10) for epoch in (0.0, 0.99, 1.0, 8.5, 9.0, 200.0)] == [0.1, 0.1, 0.2, 0.9, 1.0, 1.0]
    assert warm_up(0.0, 0) == 1


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


# CAT-RS, FT-CADIS


def test_cat_rs_takes_targets_by_row() -> None:
    """Hard votes: exact zeros, and sums that rounding leaves a little off 1."""
    model = smooth()
    batch = told(model, scene())
    generator = torch.Generator().manual_seed(3)
    votes = F.one_hot(torch.randint(3, (100, 10), generator=generator), 3).double().mean(dim=1) * (1 + 1e-7)
    assert bool((votes == 0).any())
    outcome = CATRS(targets=votes)(model, batch)
    target = votes[batch.rows].float()
    logits = classify(model, batch.pixels + batch.noise)
    hit = (logits.argmax(2) == batch.labels).double().mean(dim=0)
    k = (uniforms(batch, "cat-rs", 4) < hit).sum(dim=0).clamp(min=1)
    moved = kl_noise_pgd(model, batch.pixels, batch.noise, target.log(), epsilon=1.0, steps=4)
    worst = kl(target, classify(model, batch.pixels + moved).softmax(2)).max(dim=0).values * (k == 4)
    losses = ce(logits, batch.labels)
    low = torch.stack([c.sort().values[: int(n)].sum() / 4 for c, n in zip(losses.T, k, strict=True)])
    assert outcome.loss.item() == pytest.approx((low + 0.5 * worst).mean().item(), rel=1e-4)
    assert bool(slopes(outcome, model).isfinite().all())


@pytest.mark.parametrize(
    "bad", [torch.tensor([[0.5, 0.6]]), torch.tensor([[1.5, -0.5]]), torch.tensor([[1.0, torch.nan]])]
)
def test_cat_rs_refuses_targets_that_are_no_probabilities(bad: Tensor) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        CATRS(targets=bad)


def test_k_is_binomial_and_ignores_rounding_of_the_share() -> None:
    """Exact law: uniforms are compared with the share; one a little above 1 is no error and always all draws."""
    batch = scene(draws=1, images=20_000)
    numbers = uniforms(batch, "cat-rs", 4)
    assert numbers.shape == (4, 20_000)
    assert int((numbers < 1 + 1e-7).sum(dim=0).min()) == 4
    assert int((numbers < 0).sum()) == 0
    share = torch.bincount((numbers < 0.75).sum(dim=0), minlength=5) / 20_000
    law = torch.distributions.Binomial(4, torch.tensor(0.75)).log_prob(torch.arange(5.0)).exp()
    assert float((share - law).abs().max()) < 5 * (0.25 / 20_000) ** 0.5


def test_random_numbers_are_a_rows_own_in_each_epoch() -> None:
    batch = scene(epoch=3.25)
    numbers = uniforms(batch, "cat-rs", 4)
    assert torch.equal(numbers, uniforms(replace(batch, epoch=3.75), "cat-rs", 4))
    assert torch.equal(numbers[:, [5, 2]], uniforms(parts(batch, torch.tensor([5, 2])), "cat-rs", 4))
    others = (uniforms(replace(batch, epoch=4.0), "cat-rs", 4), uniforms(batch, "smoothmix", 4))
    assert not any(bool((numbers == other).any()) for other in others)
    assert len(numbers.unique()) == numbers.numel()


def test_ft_cadis_learns_adversely_only_where_all_copies_are_recognised() -> None:
    model = smooth()
    batch = told(model, scene())
    hit = FTCADIS()(model, batch).metrics["hit"]
    assert {0.0, 1.0} < set(hit.tolist())
    for image in range(12):
        one = parts(batch, torch.tensor([image]))
        extra = FTCADIS()(model, one).loss - FTCADIS(weight=0.0)(model, one).loss
        assert (extra.item() > 0) == (hit[image].item() == 1)


def test_ft_cadis_of_no_recognised_copy_learns_from_the_best() -> None:
    model, batch = smooth(), scene()
    with torch.no_grad():
        worst = classify(model, batch.pixels + batch.noise).softmax(2).mean(dim=0).argmin(dim=1)
    batch = replace(batch, labels=worst)
    outcome = FTCADIS()(model, batch)
    none = outcome.metrics["hit"] == 0
    assert int(none.sum()) >= 3
    chosen = parts(batch, none.nonzero().squeeze(1))
    losses = ce(classify(model, chosen.pixels + chosen.noise), chosen.labels)
    assert FTCADIS()(model, chosen).loss.item() == pytest.approx((losses.min(dim=0).values / 4).mean().item())


def test_ft_cadis_may_hold_its_target_still() -> None:
    model = smooth()
    batch = told(model, scene())
    free, held = FTCADIS()(model, batch), FTCADIS(detach=True)(model, batch)
    assert free.loss.item() == pytest.approx(held.loss.item())
    assert not torch.allclose(slopes(free, model), slopes(held, model), rtol=1e-2)


def test_the_radius_of_ft_cadis_is_in_unit_pixels() -> None:
    assert FTCADIS().epsilon == 64 / 256 / 2


# Early-learning regularisation


def test_early_learning_remembers_what_was_said() -> None:
    model, batch = smooth(), scene()
    objective = EarlyLearning(Gaussian(draws=4), 100, weight=2.0, memory=0.7)
    p = classify(model, batch.pixels + batch.noise)[0].softmax(1)
    base = Gaussian()(model, batch).loss
    t = torch.zeros(12, 3)
    for _ in range(3):
        outcome = objective(model, batch)
        t = 0.7 * t + 0.3 * p.detach()
        expected = base + 2 * (1 - (p * t).sum(1)).log().mean()
        assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-3)
        assert torch.allclose(slopes(outcome, model), slopes(Outcome(expected, {}), model), atol=1e-3)
    means = objective.state_dict()["means"]
    assert torch.allclose(means[batch.rows], t, atol=1e-3)
    assert float(means.abs().sum(dim=1).count_nonzero()) == 12
    assert outcome.metrics.keys() == {"hit", "agreement"}
    assert objective.draws == 4


def test_early_learning_continues_where_it_was() -> None:
    model, batch = smooth(), scene()
    first = EarlyLearning(Gaussian(), 100)
    assert first.state_dict() == {}
    first(model, batch)
    second = EarlyLearning(Gaussian(), 100)
    second.load_state_dict(first.state_dict())
    saved = first.state_dict()["means"]  # a copy: training goes on while it is written
    assert first(model, batch).loss == second(model, batch).loss
    assert not torch.equal(first.state_dict()["means"], saved)
    with pytest.raises(InputError, match="state of 50 images; got that of 100"):
        EarlyLearning(Gaussian(), 50).load_state_dict(first.state_dict())
    second.load_state_dict({})
    assert second.state_dict() == {}


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_early_learning_is_finite_when_certain(scale: float) -> None:
    model, batch = smooth(scale=scale), scene()
    objective = EarlyLearning(Gaussian(), 100, memory=0.0)
    for _ in range(3):
        outcome = objective(model, batch)
        assert bool(slopes(outcome, model).isfinite().all())


# Settings


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
