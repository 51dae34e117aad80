"""Batches: every image once an epoch, noise of its own, copies denoised once."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from robustify import SmoothedClassifier
from robustify.data import Examples
from robustify.errors import InputError
from robustify.finetune import Recipe, tune
from robustify.finetune.seeds import normal
from robustify.finetune.train.augment import augment
from robustify.finetune.train.batches import Batches
from robustify.finetune.train.denoised import DenoisedCopies
from tests.finetune.train.toys import RECIPE, weights
from tests.toys import MakeModel, Shrink, Stripes


def test_noise_is_gaussian_fresh_in_every_epoch_and_owned_by_its_row(make_model: MakeModel) -> None:
    model = make_model()
    examples = Examples(model, np.zeros((400, 1, 6, 6), np.uint8), np.zeros(400, np.int64))
    recipe = replace(RECIPE, batch=100)

    def noise(recipe: Recipe) -> dict[tuple[int, int], Tensor]:
        batches = Batches(examples, recipe, model.sigma)
        found = {}
        for step, minibatch in enumerate(batches.load(0)):
            for batch in batches.parts(minibatch, step, torch.device("cpu")):
                found |= {
                    (step // batches.per_epoch, row): batch.noise[:, i] for i, row in enumerate(batch.rows.tolist())
                }
        return found

    first = noise(recipe)
    every = torch.stack(list(first.values()))
    assert abs(float(every.std()) / 0.25 - 1) < 0.01
    assert abs(float(every.mean())) < 0.002
    assert len({tuple(t.flatten().tolist()) for n in first.values() for t in n}) == 2 * 400 * 2
    other = noise(replace(recipe, batch=64, micro_batch=7))
    assert all(torch.equal(first[key], other[key]) for key in first)
    assert not torch.equal(first[0, 0], noise(replace(recipe, seed=1))[0, 0])


def test_batches_visit_every_image_once_an_epoch_in_new_orders(make_model: MakeModel, stripes: Stripes) -> None:
    model = make_model()
    batches = Batches(Examples(model, *stripes), RECIPE, model.sigma)
    rows = [minibatch.rows for minibatch in batches.load(0)]
    assert [len(r) for r in rows] == [8, 8, 8, 8, 8, 4] * 2
    assert sorted(chain(*rows[:6])) == sorted(chain(*rows[6:])) == list(range(44))
    assert rows[:6] != rows[6:]
    assert [minibatch.rows for minibatch in batches.load(4)] == rows[4:]
    halves = [Batches(Examples(model, *stripes), RECIPE, model.sigma, None, i, 2) for i in (0, 1)]
    shared = [[p.rows for p in half.load(0)] for half in halves]
    assert all(sorted(a + b) == sorted(whole) for a, b, whole in zip(*shared, rows, strict=True))
    with pytest.raises(InputError, match=r"last batch of an epoch has 4 of 44 images: too few for 5 processes"):
        Batches(Examples(model, *stripes), RECIPE, model.sigma, None, 0, 5)


def test_cached_copies_are_the_denoised_ones_and_save_the_denoiser(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    cached, fresh = replace(RECIPE, cache=4), RECIPE
    tune(model, examples, cached, out=tmp_path / "run", quiet=True)
    copies = np.load(tmp_path / "run" / "denoised.npy")
    assert copies.shape == (44, 4, 1, 6, 6)
    batches = Batches(examples, fresh, model.sigma)
    for step, minibatch in enumerate(batches.load(0)):
        for batch in batches.parts(minibatch, step, torch.device("cpu")):
            first = 2 * (step // batches.per_epoch)
            expected = torch.from_numpy(copies[minibatch.rows][:, first : first + 2]).float().transpose(0, 1)
            torch.testing.assert_close(batch.copies(model), expected, atol=2e-3, rtol=0)
    a = tune(model, examples, cached, out=tmp_path / "again", quiet=True).model
    b = tune(model, examples, fresh, out=tmp_path / "fresh", quiet=True).model
    for x, y in zip(weights(a).values(), weights(b).values(), strict=True):
        torch.testing.assert_close(x, y, atol=3e-3, rtol=1e-2)


def test_cached_copies_come_round_each_with_its_own_noise(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples, recipe = Examples(model, *stripes), replace(RECIPE, epochs=3, cache=3, seed=1)
    copies = DenoisedCopies(tmp_path, 44, 3, (1, 6, 6))
    copies.fill(model, examples, seed=1, batch=64, quiet=True)
    batches = Batches(examples, recipe, model.sigma, copies)
    for step, minibatch in enumerate(batches.load(0)):
        first = 2 * (step // batches.per_epoch)
        (batch,) = batches.parts(minibatch, step, torch.device("cpu"))
        assert batch.denoised is not None
        assert torch.equal(batch.denoised, copies.read(minibatch.rows, [first % 3, (first + 1) % 3]))
        noise = model.sigma * normal(1, minibatch.rows, [first % 3, (first + 1) % 3], (1, 6, 6))
        denoised = model.denoiser((batch.pixels + noise).flatten(0, 1), model.sigma)
        torch.testing.assert_close(batch.denoised.flatten(0, 1), denoised, atol=2e-3, rtol=0)


def test_every_epoch_augments_anew(make_model: MakeModel, stripes: Stripes) -> None:
    model = make_model()
    batches = Batches(Examples(model, *stripes), replace(RECIPE, augment="mirror", seed=1), model.sigma)
    for step, minibatch in enumerate(batches.load(0)):
        (batch,) = batches.parts(minibatch, step, torch.device("cpu"))
        epoch = step // batches.per_epoch
        assert torch.equal(batch.pixels, augment(minibatch.pixels, minibatch.rows, "mirror", seed=1, epoch=epoch))
        assert batch.epoch == step / 6


def test_batches_carry_the_seed_and_cached_ones_no_noise(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples, recipe = Examples(model, *stripes), replace(RECIPE, cache=2, seed=5)
    copies = DenoisedCopies(tmp_path, 44, 2, (1, 6, 6))
    copies.fill(model, examples, seed=5, batch=64, quiet=True)
    (minibatch,) = list(Batches(examples, replace(recipe, batch=44, epochs=1), model.sigma).load(0))
    for cached, draws in ((copies, 0), (None, 2)):
        batches = Batches(examples, recipe, model.sigma, cached)
        (batch,) = batches.parts(minibatch, 0, torch.device("cpu"))
        assert batch.seed == 5
        assert batch.noise.shape == (draws, 44, 1, 6, 6)
        assert batch.copies(model).shape == (2, 44, 1, 6, 6)


def test_what_is_denoised_in_lower_precision_comes_back_as_it_went(make_model: MakeModel) -> None:
    class Lower(Shrink):
        def forward(self, noisy: Tensor, sigma: float) -> Tensor:
            return super().forward(noisy, sigma).bfloat16()

    model = SmoothedClassifier(make_model().classifier, Lower(), sigma=0.25, precision="bfloat16")
    assert model.denoise(torch.zeros(1, 1, 6, 6)).dtype == torch.float32
