"""Merging leaves a plain network that computes the same, or refuses."""

import pytest
import torch

from robustify.errors import ModelError
from robustify.finetune.lora import adapt, merge
from robustify.finetune.targets import core
from tests.finetune.lora.conftest import ALL, Make, learn, logits, pixels


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
