"""What a run learns: the published step, on exactly the parameters that should learn."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier
from robustify.classifiers import ImageClassifier
from robustify.data import Examples
from robustify.errors import InputError
from robustify.finetune import Lora, Recipe, tune
from robustify.finetune.adapt.lora import adapt
from robustify.finetune.objectives import FTCADIS, Gaussian, SmoothAdv, Stability
from robustify.finetune.train.batches import Batches
from robustify.finetune.train.optimizer import parameter_groups
from tests.finetune.adapt.toys import timm_network
from tests.finetune.train.toys import LOUD, RECIPE, Slope, same, weights
from tests.toys import MakeModel, Shrink, Stripes


def test_it_learns_and_leaves_the_model_as_it_was(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model, untouched = make_model(), make_model()
    result = tune(model, Examples(model, *stripes), replace(RECIPE, epochs=8), out=tmp_path / "run", quiet=True)
    assert same(model, untouched)
    assert not same(result.model, untouched)
    assert not any(module.training for module in result.model.modules())
    assert not any(p.requires_grad for p in result.model.classifier.parameters())
    assert result.model.denoiser is model.denoiser
    assert result.history[0]["noisy_accuracy"] < 0.7
    assert result.history[-1]["noisy_accuracy"] > 0.95
    assert set(result.hallucination) == {"0", "1", "2"}
    assert max(result.hallucination.values()) < 0.2
    assert result.warnings == []
    stored = pq.read_table(tmp_path / "run" / "history.parquet").to_pylist()
    assert stored == result.history
    classes = pq.read_table(tmp_path / "run" / "classes.parquet").to_pylist()
    assert [h["images"] for h in classes if h["epoch"] == 8] == [15, 15, 14]  # no image is left out
    assert {h["class"]: 1 - h["noisy_accuracy"] for h in classes if h["epoch"] == 8} == result.hallucination
    assert (tmp_path / "run" / "training.svg").read_text().startswith("<svg")
    assert result.model.certify(stripes[0][0], n=200, seed=0).label == 0  # type: ignore[union-attr]


def test_a_step_is_the_published_one(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    """One step of SGD by hand: the same images, noise, gradient and weight decay."""
    recipe = Recipe(
        Gaussian(draws=2),
        epochs=1,
        batch=44,
        optimizer="sgd",
        learning_rate=0.1,
        warmup=0.0,
        weight_decay=(0.1, 0.1),
        clip=None,
    )
    model = make_model()
    examples = Examples(model, *stripes)
    tuned = tune(model, examples, recipe, out=tmp_path / "run", quiet=True).model
    (minibatch,) = Batches(examples, recipe, model.sigma).load(0)
    (batch,) = Batches(examples, recipe, model.sigma).parts(minibatch, 0, torch.device("cpu"))
    assert sorted(minibatch.rows) == list(range(44))
    network = model.classifier.network.requires_grad_(True)
    logits = model.logits((batch.pixels + batch.noise).flatten(0, 1))
    loss = nn.functional.cross_entropy(logits, stripes[1][minibatch.rows].repeat(2))
    for p, grad in zip(network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True):
        with torch.no_grad():
            p.sub_(0.1 * (grad + (0.1 * p if p.ndim > 1 else 0)))  # biases do not decay
    for p, q in zip(network.parameters(), tuned.classifier.network.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_step_follows_the_schedules(
    precision: str, make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    """Each step's rate, share by depth, weight decay and clipping, worked out by hand: gradients clip as they are."""
    recipe = Recipe(
        Slope(),
        epochs=2,
        batch=22,
        optimizer="sgd",
        learning_rate=0.1,
        final_learning_rate=0.01,
        warmup=1.0,
        weight_decay=(0.1, 0.5),
        layer_decay=0.5,
        precision=precision,
    )
    model = make_model()
    tuned = tune(model, Examples(model, *stripes), recipe, out=tmp_path / "run", quiet=True).model.classifier.network
    count = sum(p.numel() for p in tuned.parameters())
    for name, start in model.classifier.network.named_parameters():
        p, speed, share = start.detach(), 0.0, 0.5 if name.startswith("0.") else 1.0
        for step in range(4):
            decay = recipe.weight_decay_at(step / 2) if p.ndim > 1 else 0.0
            speed = 0.9 * speed + count**-0.5 + decay * p
            p = p - share * recipe.learning_rate_at(step / 2, step=0.5) * speed
        torch.testing.assert_close(tuned.get_parameter(name).detach(), p)


def test_a_float16_step_that_overflows_is_not_taken(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    """The first gradient overflows at the scale of 65,536 that torch starts with; at half of it none does."""
    model = make_model()
    tuned = tune(model, Examples(model, *stripes), LOUD, out=tmp_path / "run", quiet=True).model
    for p, q in zip(model.classifier.parameters(), tuned.classifier.parameters(), strict=True):
        torch.testing.assert_close(q.detach(), p.detach() - 0.01 * (1 + 1.9 + 2.71))  # three steps with momentum


def test_every_step_of_every_seed_drops_other_units(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model, seeds = make_model(dropout=0.5), []
    examples = Examples(model, *stripes)

    def log(_: object) -> None:
        seeds.append(torch.initial_seed())

    for seed in (0, 1):
        tune(model, examples, replace(RECIPE, seed=seed), out=tmp_path / str(seed), log=log, quiet=True)
    assert len(set(seeds)) == len(seeds) == 2 * 12


def test_what_is_not_recognised_is_counted_by_class(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    """Shares by class, counted by hand, with a rate that changes nothing."""
    recipe = replace(RECIPE, epochs=1, warmup=0.0, learning_rate=1e-12, final_learning_rate=0.0, micro_batch=3)
    model = make_model()
    examples = Examples(model, *stripes)
    result = tune(model, examples, recipe, out=tmp_path / "run", quiet=True)
    hit = torch.zeros(44)
    batches = Batches(examples, recipe, model.sigma)
    for step, minibatch in enumerate(batches.load(0)):
        for batch in batches.parts(minibatch, step, torch.device("cpu")):
            found = model.logits((batch.pixels + batch.noise).flatten(0, 1)).argmax(dim=1).view(2, -1)
            hit[batch.rows] = (found == batch.labels).float().mean(dim=0)
    shares = {str(c): float(hit[stripes[1] == c].mean()) for c in range(3)}
    assert len(set(shares.values())) == 3
    assert {name: 1 - share for name, share in result.hallucination.items()} == pytest.approx(shares)
    assert sum(row["noisy_accuracy"] * row["images"] for row in result.history) / 44 == pytest.approx(float(hit.mean()))


def test_micro_batches_change_memory_and_not_the_result(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model()
    examples = Examples(model, *stripes)
    whole = tune(model, examples, RECIPE, out=tmp_path / "whole", quiet=True).model
    parts = tune(model, examples, replace(RECIPE, micro_batch=3), out=tmp_path / "parts", quiet=True).model
    for a, b in zip(weights(whole).values(), weights(parts).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_callers_random_numbers_are_left_alone(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model(dropout=0.5)
    torch.manual_seed(3)
    tune(model, Examples(model, *stripes), replace(RECIPE, adapt="head"), out=tmp_path / "run", quiet=True)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(3))


def test_label_free_training_and_training_without_a_denoiser(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    model = make_model(denoiser=False)
    unlabelled = Examples(model, stripes[0])
    result = tune(model, unlabelled, replace(RECIPE, objective=Stability()), out=tmp_path / "free", quiet=True)
    assert result.hallucination == {}
    assert not same(result.model, model)
    with pytest.raises(InputError, match=r"Gaussian needs labels; the data has none"):
        tune(model, unlabelled, RECIPE, out=tmp_path / "labels", quiet=True)
    assert not (tmp_path / "labels").exists()


def test_frozen_normalisation_keeps_its_statistics(make_model: MakeModel, stripes: Stripes, tmp_path: Path) -> None:
    model = make_model(norm=True)
    examples = Examples(model, *stripes)
    head = tune(model, examples, replace(RECIPE, adapt="head"), out=tmp_path / "head", quiet=True).model
    full = tune(model, examples, RECIPE, out=tmp_path / "full", quiet=True).model
    changed = {k for k in weights(model) if not torch.equal(weights(head)[k], weights(model)[k])}
    assert changed == {"5.weight", "5.bias"}
    assert not torch.equal(weights(full)["1.running_mean"], weights(model)["1.running_mean"])


def test_lora_on_the_zoo_trains_little_and_merges_exactly(tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    from robustify import robustify
    from robustify.zoo import HELD_OUT

    model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5)
    held_out = load_file(HELD_OUT)
    examples = Examples(model, held_out["images"][:16].view(16, 1, 32, 32), held_out["labels"][:16])
    recipe = Recipe(FTCADIS(draws=2, steps=1), Lora(), epochs=2, batch=8, learning_rate=1e-3, warmup=0.0)
    result = tune(model, examples, recipe, out=tmp_path / "run", quiet=True)
    base = robustify("zoo:timm").classifier.network
    theirs = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    pixels = examples.__getitems__([0, 1]).pixels
    inside = result.model.classifier.preprocessing.network_input(pixels)
    torch.testing.assert_close(theirs(inside), result.model.classifier.network(inside), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.classifier(pixels), result.model.classifier(pixels), atol=1e-3)


def test_layers_near_the_input_learn_more_slowly() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.head = nn.Linear(2, 2)

    scales, groups = parameter_groups(Blocks(), 0.5)
    found = {(scale, group["decays"]) for scale, group in zip(scales, groups, strict=True)}
    assert found == {(0.5**k, decays) for k in range(4) for decays in (True, False)}
    assert all((p.ndim > 1) == group["decays"] for group in groups for p in group["params"])
    scales, groups = parameter_groups(nn.Sequential(nn.Linear(2, 2)), 1.0)
    assert scales == [1.0, 1.0]


def test_weights_of_layers_and_adapters_decay_and_nothing_else() -> None:
    def tiny() -> ImageClassifier:
        network = timm_network("test_vit", img_size=32).eval()
        return ImageClassifier(network, Preprocessing((0.5,) * 3, (0.5,) * 3, (32, 32)))

    def decaying(classifier: ImageClassifier, names: dict[int, str]) -> set[str]:
        _, groups = parameter_groups(classifier.network, 1.0)
        return {names[id(p)] for group in groups if group["decays"] for p in group["params"]}

    full = tiny()
    adapt(full, "full")
    found = decaying(full, {id(p): name for name, p in full.network.named_parameters()})
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"} <= found
    assert not found & {"pos_embed", "cls_token", "norm.weight", "head.bias"}
    lora = tiny()
    adapt(lora, "lora")
    learning = {id(p): name for name, p in lora.network.named_parameters() if p.requires_grad}
    assert decaying(lora, learning) == {n for n in learning.values() if ".lora_" in n or n == "head.weight"}


def test_the_denoiser_keeps_its_precision_and_gets_no_slopes(
    make_model: MakeModel, stripes: Stripes, tmp_path: Path
) -> None:
    """Whatever precision the recipe has: as in certification, and as copies are cached."""
    model = make_model()
    seen = set()

    class Convolving(Shrink):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1).eval()

        def forward(self, noisy: Tensor, sigma: float) -> Tensor:
            shrunk = self.layer(super().forward(noisy, sigma))
            seen.add((shrunk.dtype, any(p.requires_grad for p in self.parameters())))
            return shrunk

    inner = set()
    model.classifier.network[0].register_forward_hook(lambda _, __, output: inner.add(output.dtype))
    smoothed = SmoothedClassifier(model.classifier, Convolving(), sigma=0.25)
    for number, objective in enumerate((Gaussian(), SmoothAdv(draws=2, steps=1), FTCADIS(draws=2, steps=1))):
        recipe = replace(RECIPE, objective=objective, precision="bfloat16", epochs=1)
        seen.clear(), inner.clear()
        tune(smoothed, Examples(smoothed, *stripes), recipe, out=tmp_path / str(number), quiet=True)
        assert seen == {(torch.float32, False)}
        assert torch.bfloat16 in inner
