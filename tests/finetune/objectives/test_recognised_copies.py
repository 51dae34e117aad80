"""CAT-RS and FT-CADIS: which copies an image learns from, and what it is held to."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustify.errors import InputError
from robustify.finetune.objectives import CATRS, FTCADIS
from robustify.finetune.objectives.attacks import kl_noise_pgd
from robustify.finetune.objectives.base import classify
from robustify.finetune.objectives.shared import uniforms
from tests.finetune.objectives.toys import ce, kl, parts, scene, slopes, smooth, told

# CAT-RS


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


# FT-CADIS


def test_ft_cadis_learns_adversely_only_where_all_copies_are_recognised() -> None:
    model = smooth()
    batch = told(model, scene())
    hit = FTCADIS()(model, batch).metrics["noisy_accuracy"]
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
    none = outcome.metrics["noisy_accuracy"] == 0
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


def test_random_numbers_depend_on_the_seed_and_lie_where_the_images_are() -> None:
    batch = scene()
    assert not bool((uniforms(batch, "cat-rs", 4) == uniforms(replace(batch, seed=1), "cat-rs", 4)).any())
    elsewhere = replace(batch, pixels=batch.pixels.to("meta"))
    assert uniforms(elsewhere, "cat-rs", 4).device.type == "meta"
