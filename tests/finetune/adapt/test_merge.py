"""Merging leaves a plain network that computes the same, or refuses."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from robustify.errors import ModelError
from robustify.finetune.adapt.lora import Lora, adapt
from robustify.finetune.adapt.lora_layers import core
from tests.finetune.adapt.toys import ALL, CLIP, Make, learn, logits, merged, pixels


@pytest.mark.parametrize("name", ALL)
def test_merging_leaves_a_plain_network_with_the_same_logits(name: str, make: Make, tmp_path: Path) -> None:
    classifier = make(name)
    base = deepcopy(classifier)
    keys, untouched = list(classifier.state_dict()), logits(classifier)
    adapt(classifier)
    learn(classifier, steps=4)
    before = logits(classifier) if name != "torch" else classifier(pixels(classifier, 7)).detach()
    plain = merged(classifier, base, tmp_path)
    gap = (logits(plain) - before).abs().max() / before.abs().max()
    assert float(gap) <= 1e-5
    assert not torch.allclose(logits(plain), untouched, rtol=1e-5)
    assert set(plain.state_dict()) == set(keys)
    assert not [m for m in plain.modules() if type(m).__module__.startswith("peft")]
    assert not any(p.requires_grad for p in plain.parameters())
    assert not any(m.training for m in plain.modules())
    assert not hasattr(core(plain.network), "peft_config")
    adapt(plain)


def test_a_merge_that_changes_the_logits_is_refused(make: Make, tmp_path: Path) -> None:
    """An adapter that computes something else than its weights say, by a thousandth."""
    classifier = make("timm ViT")
    base = deepcopy(classifier)
    adapt(classifier)
    learn(classifier, steps=4)
    qkv = base.network.blocks[3].attn.qkv
    qkv.register_forward_hook(lambda _, __, output: 1.001 * output if hasattr(qkv, "moved") else output)
    base.network.blocks[3].register_forward_hook(lambda *_: setattr(qkv, "moved", True))
    with pytest.raises(ModelError, match=r"moved the logits of timm ViT by .* expected at most 1e-05"):
        merged(classifier, base, tmp_path)


def test_infinite_adapters_are_refused(make: Make, tmp_path: Path) -> None:
    classifier = make("timm ViT")
    base = deepcopy(classifier)
    adapt(classifier)
    classifier.network.blocks[3].attn.qkv.lora_B["default"].weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"cannot be merged: NaNs .* did training diverge"):
        merged(classifier, base, tmp_path)


def test_the_update_is_added_once_and_its_slope_is_the_true_one(make: Make, tmp_path: Path) -> None:
    """peft adds that of an attention's `out_proj` twice, without a slope for the second time: it must stay 0."""
    classifier = make(CLIP)
    base = deepcopy(classifier)
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
    after = core(merged(classifier, base, tmp_path).network).state_dict()
    torch.testing.assert_close(after[f"{name}.in_proj_weight"] - before[f"{name}.in_proj_weight"], update)
    assert torch.equal(after[f"{name}.out_proj.weight"], before[f"{name}.out_proj.weight"])
