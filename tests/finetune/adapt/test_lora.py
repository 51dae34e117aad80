"""Adapters learn and nothing else changes, whatever the backbone; training spares what is frozen."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.errors import InputError, ModelError
from robustify.finetune.adapt.lora import Adaptation, Lora, adapt, train_mode
from robustify.finetune.adapt.lora_layers import core
from tests.finetune.adapt.toys import ALL, CLASSES, CLIP, HALF, Make, learn, logits


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Every tensor that is not an adapter's, by the name it had before."""
    state = network.state_dict()
    return {k.replace(".base_layer", ""): v.clone() for k, v in state.items() if ".lora_" not in k}


@pytest.mark.parametrize("name", ALL)
def test_adapters_learn_and_nothing_else_changes(name: str, make: Make) -> None:
    classifier = make(name)
    before, kind = logits(classifier), type(core(classifier.network))
    frozen = plain_state(core(classifier.network))
    found = adapt(classifier)
    assert type(core(classifier.network)) is kind
    assert not any(module.training for module in classifier.modules())
    torch.testing.assert_close(logits(classifier), before, rtol=1e-5, atol=1e-5)
    learning = {n: p for n, p in core(classifier.network).named_parameters() if p.requires_grad}
    adapters = {n for n in learning if ".lora_" in n}
    homes = {re.sub(r"(\.base_layer\.out_proj)?\.lora_[AB]\.default\.weight", "", n) for n in adapters}
    assert homes == set(found.adapted)
    assert {n.rpartition(".")[0] for n in learning.keys() - adapters} == set(found.head)
    learn(classifier, steps=4)
    assert [n for n, p in learning.items() if p.grad is None or not p.grad.any()] == []
    after = plain_state(core(classifier.network))
    changed = {n for n, tensor in frozen.items() if not torch.equal(tensor, after[n])}
    assert {n.rpartition(".")[0] for n in changed} == set(found.head)
    assert not torch.allclose(logits(classifier), before, rtol=1e-5)


def test_full_fine_tuning(make: Make) -> None:
    classifier = make("timm ResNet")
    found = adapt(classifier, "full")
    assert all(p.requires_grad for p in classifier.parameters())
    assert found == Adaptation("full fine-tuning", (), (), found.total, found.total)


def test_head_only(make: Make) -> None:
    classifier = make("timm Swin")
    found = adapt(classifier, "head")
    assert [n for n, p in classifier.network.named_parameters() if p.requires_grad] == [
        "head.fc.weight",
        "head.fc.bias",
    ]
    assert (found.adapted, found.head) == ((), ("head.fc",))


def test_a_zero_shot_head_cannot_be_trained(make: Make) -> None:
    classifier = make("zoo:open_clip")
    with pytest.raises(ModelError, match=r"(?s)zoo:open_clip has no head.*linear_probe"):
        adapt(classifier, "head")


def test_head_that_peft_would_confuse() -> None:
    """In the file it would be `4`, and so would be every name that ends in 4."""
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(48, 4), nn.Linear(4, 48)) for _ in range(5)))
    network = nn.Sequential(nn.Flatten(), blocks, nn.ReLU(), nn.ReLU(), nn.Linear(48, CLASSES)).eval()
    with pytest.raises(ModelError, match=r"would confuse the head '4' with '1\.4'"):
        adapt(ImageClassifier(network, Preprocessing(HALF, HALF, (4, 4))))


def test_settings_reach_the_adapters(make: Make) -> None:
    classifier = make("timm ViT")
    found = adapt(classifier, Lora(rank=3, alpha=6.0, dropout=0.25, layers="all"))
    layer = classifier.network.blocks[0].attn.qkv
    assert (layer.r["default"], layer.scaling["default"], layer.lora_dropout["default"].p) == (3, 2.0, 0.25)
    assert len(found.adapted) == 24


def test_summary_lists_modules_and_counts(make: Make) -> None:
    classifier = make("timm ViT")
    plain = sum(p.numel() for p in classifier.parameters())
    learning = 6 * 4 * (64 + 192) + 65 * CLASSES
    total = plain + 6 * 4 * (64 + 192)
    assert str(adapt(classifier)) == (
        "LoRA of rank 4, alpha 4\n"
        "  adapted: 6 × blocks.*.attn.qkv\n"
        "  in full: head\n"
        f"  trainable: {learning:,} of {total:,} parameters ({learning / total:.2%})"
    )


def test_one_line_says_what_is_adapted(make: Make) -> None:
    assert adapt(make("timm ViT")).line == "LoRA of rank 4, alpha 4, on 6 × blocks.*.attn.qkv; in full: head"
    assert adapt(make("timm ViT"), "full").line == "full fine-tuning"
    assert adapt(make("timm ViT"), "head").line == "head fine-tuning; in full: head"


def test_adapting_twice_is_refused(make: Make) -> None:
    classifier = make("timm ViT")
    adapt(classifier)
    with pytest.raises(ModelError, match="has adapters already"):
        adapt(classifier)


def test_unknown_way_to_adapt(make: Make) -> None:
    with pytest.raises(InputError, match="expected how="):
        adapt(make("timm ViT"), "lroa")


@pytest.mark.parametrize("change", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}], ids=str)
def test_numbers_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected rank >= 1"):
        Lora(**change)


def test_dropout_that_peft_would_ignore(make: Make) -> None:
    with pytest.raises(InputError, match=r"dropout=0.*resblocks.0.attn"):
        adapt(make(CLIP), Lora(dropout=0.1))


# Training mode


def test_frozen_normalisation_keeps_its_statistics(make: Make) -> None:
    classifier = make("timm ResNet")
    adapt(classifier)
    train_mode(classifier.network)
    norms = [m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert classifier.network.layer1[0].training


def test_normalisation_that_learns_is_trained(make: Make) -> None:
    classifier = make("timm ResNet")
    adapt(classifier, "full")
    classifier.network.layer1.append(nn.BatchNorm2d(32, affine=False).eval())
    train_mode(classifier.network)
    assert classifier.network.bn1.training
    assert not classifier.network.layer1[-1].training


def test_dropout_follows_the_module_around_it() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    network.eval()[0].requires_grad_(False)
    train_mode(network)
    assert [m.training for m in (network[0], network[0][1], network[1], network[1][1])] == [False, False, True, True]
