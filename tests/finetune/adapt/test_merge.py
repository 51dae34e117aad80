"""Merging leaves a plain network that computes the same, or refuses."""

import pytest
import torch

from robustify.errors import ModelError
from robustify.finetune.adapt.lora import Lora, adapt, merge
from robustify.finetune.adapt.modules import core
from tests.finetune.adapt.conftest import ALL, CLIP, Make, learn, logits, pixels


@pytest.mark.parametrize("name", ALL)
def test_merging_leaves_a_plain_network_with_the_same_logits(name: str, make: Make) -> None:
    classifier = make(name)
    keys, untouched = list(classifier.state_dict()), logits(classifier)
    adapt(classifier)
    learn(classifier, steps=4)
    before = logits(classifier) if name != "torch" else classifier(pixels(classifier, 7)).detach()
    merge(classifier)
    gap = (logits(classifier) - before).abs().max() / before.abs().max()
    assert float(gap) <= 1e-5
    assert not torch.allclose(logits(classifier), untouched, rtol=1e-5)
    assert set(classifier.state_dict()) == set(keys)
    assert not [m for m in classifier.modules() if type(m).__module__.startswith("peft")]
    assert not any(p.requires_grad for p in classifier.parameters())
    assert not any(m.training for m in classifier.modules())
    assert not hasattr(core(classifier.network), "peft_config")
    adapt(classifier)


def test_merging_without_adapters_only_freezes(make: Make) -> None:
    classifier = make("timm ResNet")
    adapt(classifier, "full")
    learn(classifier)
    before = logits(classifier)
    merge(classifier)
    assert torch.equal(logits(classifier), before)
    assert not any(p.requires_grad for p in classifier.parameters())


def test_a_merge_that_changes_the_logits_is_refused(make: Make) -> None:
    """An adapter that computes something else than its weights say, by a thousandth."""
    classifier = make("timm ViT")
    adapt(classifier)
    classifier.network.blocks[3].attn.qkv.register_forward_hook(lambda _, __, output: 1.001 * output)
    with pytest.raises(ModelError, match=r"moved the logits of timm ViT by .* expected at most 1e-05"):
        merge(classifier)


def test_infinite_adapters_are_refused(make: Make) -> None:
    classifier = make("timm ViT")
    adapt(classifier)
    classifier.network.blocks[3].attn.qkv.lora_B["default"].weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match="diverge"):
        merge(classifier)


def test_the_update_is_added_once_and_its_slope_is_the_true_one(make: Make) -> None:
    """peft adds that of an attention's `out_proj` twice, without a slope for the second time: it must stay 0."""
    classifier = make(CLIP)
    before = {name: tensor.clone() for name, tensor in core(classifier.network).state_dict().items()}
    adapt(classifier, Lora(rank=2, alpha=6.0))
    learn(classifier, steps=3, rate=0.05)
    name = "visual.transformer.resblocks.0.attn"
    attention = core(classifier.network).get_submodule(name)
    a, b = attention.lora_A["default"].weight, attention.lora_B["default"].weight
    loss = classifier(pixels(classifier)).square().sum()
    (slope,) = torch.autograd.grad(loss, b)
    direction = torch.randn(b.shape, generator=torch.Generator().manual_seed(0))
    ends = []
    for step in (-1e-2, 1e-2):
        with torch.no_grad():
            b.add_(step * direction)
            ends.append(classifier(pixels(classifier)).double().square().sum())
            b.sub_(step * direction)
    assert float(ends[1] - ends[0]) / 2e-2 == pytest.approx(float((slope * direction).sum()), rel=0.02)
    update = 3.0 * b @ a
    merge(classifier)
    after = core(classifier.network).state_dict()
    torch.testing.assert_close(after[f"{name}.in_proj_weight"] - before[f"{name}.in_proj_weight"], update)
    assert torch.equal(after[f"{name}.out_proj.weight"], before[f"{name}.out_proj.weight"])
