"""Depths that layer-wise learning rates follow: timm's own where timm knows, the same rule everywhere else."""

from collections import Counter
from collections.abc import Callable

import pytest
import timm
import torch
import transformers
from timm.models import group_parameters
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.open_clip import OpenCLIP
from robustify.finetune.adapt.lora import Lora, adapt
from robustify.finetune.train.layers import layer_depths

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_resnet", "deit3_small_patch16_224"])
def test_depths_are_timms(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3)
    theirs = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    theirs |= {name: max(theirs.values()) for name in theirs if name.startswith("norm.")}  # as BEiT's authors have it
    assert layer_depths(network) == theirs


def test_stages_count_on() -> None:
    """What merges patches between two stages belongs to the block before it."""
    with torch.device("meta"):
        network = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 1, 1, 1))
    depths = layer_depths(network)
    assert [depths[f"layers.{s}.blocks.{b}.attn.qkv.weight"] for s, b in [(0, 0), (0, 1), (1, 0), (3, 0)]] == [
        1,
        2,
        3,
        5,
    ]
    assert depths["patch_embed.proj.weight"] == 0
    assert depths["layers.1.downsample.reduction.weight"] == 2
    assert depths["norm.weight"] == depths["head.fc.weight"] == 6


@pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
def test_transformers(kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(num_labels=3, **SMALL)
    network = getattr(transformers, f"{kind}ForImageClassification")(config)
    depths = layer_depths(network)
    for name, depth in depths.items():
        block = [part for part in name.split(".") if part.isdigit()][:1]
        expected = int(block[0]) + 1 if block else 0 if ".embeddings." in name else 4
        assert depth == expected, name
    assert set(depths.values()) == {0, 1, 2, 3, 4}


def test_open_clip_has_its_projection_last(clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]) -> None:
    network = OpenCLIP(clip_model, clip_tokenizer).classifier(["cat", "dog"], "simple").network
    depths = layer_depths(network)
    assert depths["visual.class_embedding"] == depths["visual.conv1.weight"] == depths["visual.ln_pre.weight"] == 0
    assert depths["visual.transformer.resblocks.0.attn.in_proj_weight"] == 1
    assert depths["visual.ln_post.weight"] == depths["visual.proj"] == 2


def test_adapters_lie_where_their_layer_lies() -> None:
    network = timm.create_model("test_vit", num_classes=3, img_size=32).eval()
    before = layer_depths(network)
    adapt(ImageClassifier(network, Preprocessing((0.5,) * 3, (0.5,) * 3, (32, 32))), Lora(layers="all"))
    after = layer_depths(network)
    assert {n.replace(".base_layer", ""): d for n, d in after.items() if ".lora_" not in n} == before
    adapters = {n: d for n, d in after.items() if ".lora_" in n}
    assert Counter(adapters.values()) == dict.fromkeys(range(1, 7), 8)
    assert all(d == int(n.split(".")[1]) + 1 for n, d in adapters.items())


def test_without_blocks_every_layer_counts() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    assert layer_depths(network) == {
        "0.weight": 1,
        "0.bias": 1,
        "1.weight": 1,
        "1.bias": 1,
        "2.weight": 2,
        "2.bias": 2,
        "4.weight": 3,
        "4.bias": 3,
    }
