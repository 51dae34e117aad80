"""Which layers get adapters on every kind of backbone, and which one is the head."""

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import open_clip
import pytest
from timm.layers import StdConv2d
from torch import nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.open_clip import OpenCLIP
from robustify.errors import InputError, ModelError
from robustify.finetune.adapt.lora import adapt
from robustify.finetune.adapt.lora_layers import Targets, blocks, find_head, targets
from tests.finetune.adapt.toys import ALL, BACKBONES, CLASSES, CLIP, HALF, ZOO, Make, timm_network
from tests.toys import Tokenize


def _standardised() -> nn.Module:
    """Convolutions whose weight is normalised before each use."""
    block = nn.Sequential(StdConv2d(3, 3, 3, padding=1), nn.ReLU(), StdConv2d(3, 3, 3, padding=1))
    return nn.Sequential(nn.Sequential(block, deepcopy(block)), nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))


def _in_a_row() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 30), nn.Flatten(), nn.Linear(4, CLASSES))


def expected(name: str) -> tuple[str, int, tuple[str, ...]]:
    if name == CLIP:
        return r"visual\.transformer\.resblocks\.\d\.attn", 1, ()
    return BACKBONES[name][2:] if name in BACKBONES else ZOO[name]


@pytest.mark.parametrize("name", ALL)
def test_targets_are_exactly_the_intended_modules(name: str, make: Make) -> None:
    pattern, count, head = expected(name)
    found = targets(make(name))
    assert [n for n in found.adapted if not re.fullmatch(pattern, n)] == []
    assert len(found.adapted) == count == len(set(found.adapted))
    assert found.head == head


def test_all_layers_of_the_blocks(make: Make) -> None:
    inside = r"blocks\.\d\.(attn\.(qkv|proj)|mlp\.fc[12])"
    assert [n for n in targets(make("timm ViT"), "all").adapted if not re.fullmatch(inside, n)] == []
    assert len(targets(make("timm ViT"), "all").adapted) == 24
    assert len(targets(make("timm Swin"), "all").adapted) == 12  # neither patch embedding nor merging
    assert targets(make(CLIP), "all").adapted == tuple(
        f"visual.transformer.resblocks.0.{layer}" for layer in ("attn", "mlp.c_fc", "mlp.c_proj")
    )


def test_layers_whose_weight_is_used_by_a_function_are_left_out(make: Make) -> None:
    """BEiT's qkv is never called: an adapter around it would get no gradient."""
    assert not [n for n in targets(make("timm BEiT"), "all").adapted if n.endswith("qkv")]


@pytest.mark.parametrize("build", [_standardised, _in_a_row])
def test_nothing_to_adapt(build: Callable[[], nn.Module]) -> None:
    """Weights that are standardised first, and layers in a row without blocks."""
    classifier = ImageClassifier(build().eval(), Preprocessing(HALF, HALF, (32, 32)), name="stubborn")
    with pytest.raises(ModelError, match=r"(?s)stubborn has nothing to adapt.*how='full'.*layers="):
        targets(classifier)


@pytest.mark.parametrize("change", [{"groups": 2}, {"dilation": 2, "padding": 2}, {"padding_mode": "reflect"}], ids=str)
def test_convolutions_that_pefts_own_does_not_equal(change: dict[str, Any]) -> None:
    def block(**options: object) -> nn.Module:
        convolutions = [nn.Conv2d(4, 4, 3, **{"padding": 1, **options}), nn.ReLU(), nn.Conv2d(4, 4, 1)]
        return nn.Sequential(*convolutions)

    network = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.Sequential(block(), block(**change)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, CLASSES),
    )
    classifier = ImageClassifier(network.eval(), Preprocessing(HALF, HALF, (8, 8)))
    assert targets(classifier) == Targets(("1.0.0", "1.0.2", "1.1.2"), ("4",))


def test_targets_by_regular_expression(make: Make) -> None:
    found = targets(make("timm ViT"), (r"blocks\.[12]\.mlp\.fc1", r"patch_embed\.proj"))
    assert found == Targets(("patch_embed.proj", "blocks.1.mlp.fc1", "blocks.2.mlp.fc1"), ("head",))


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("timm ViT", "qkv", r"(?s)'attention', 'all'.*layers=\('qkv',\)"),
        ("timm ViT", ("qkv",), "no module is named 'qkv'"),
        ("timm ViT", ("(",), "not a regular expression"),
        ("timm ViT", ("head",), r"cannot adapt 'head' \(Linear\)"),
        ("timm ViT", (r"blocks\.0\.norm1",), r"cannot adapt 'blocks.0.norm1' \(LayerNorm"),
        ("timm BEiT", (r"blocks\.0\.attn\.qkv",), "cannot adapt 'blocks.0.attn.qkv'"),
        (CLIP, (r".*out_proj",), "cannot adapt '.*out_proj'"),
        ("timm ConvNeXt", (r".*conv_dw",), "cannot adapt '.*conv_dw'"),
    ],
)
def test_unfit_names_of_layers(name: str, layers: str | tuple[str, ...], message: str, make: Make) -> None:
    with pytest.raises(InputError, match=message):
        targets(make(name), layers)


def test_blocks_of_stages_and_of_adapted_networks(make: Make) -> None:
    swin, resnet = make("timm Swin"), make("timm ResNet")
    assert blocks(swin.network) == ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"]
    before = blocks(resnet.network)
    assert before == ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    adapt(resnet)
    assert blocks(resnet.network) == before


def test_small_containers_inside_a_block_do_not_replace_it() -> None:
    """Squeeze-and-excitation is an element with two layers, in a block of five."""
    squeeze = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))
    block = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), squeeze)
    assert blocks(nn.Sequential(block, deepcopy(block))) == ["0", "1"]


def test_projection_with_as_many_outputs_as_classes_is_no_head(clip_model: nn.Module, clip_tokenizer: Tokenize) -> None:
    clip_model.visual = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16)).eval()
    clip_model.visual.preprocess_cfg = {
        "size": 32,
        "mean": HALF,
        "std": HALF,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    classifier = OpenCLIP(clip_model, clip_tokenizer).classifier([str(i) for i in range(16)], "simple")
    assert find_head(classifier) == ()


def test_head_is_what_runs_last() -> None:
    """Layers with one output per class that run earlier are none."""
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(48, CLASSES), nn.ReLU(), nn.Linear(CLASSES, 8), nn.Linear(8, CLASSES)
    )
    assert find_head(ImageClassifier(network.eval(), Preprocessing(HALF, HALF, (4, 4)))) == ("4",)


def test_open_clips_version_of_attention_is_torchs(clip_model: nn.Module) -> None:
    """Should open_clip bring its own, targets need another look."""
    assert type(clip_model.visual.transformer.resblocks[0].attn) is nn.MultiheadAttention
    assert open_clip.__version__


def test_a_hidden_layer_as_wide_as_there_are_classes_is_no_head(make: Make) -> None:
    network = timm_network("vit_tiny_patch16_224", img_size=32, embed_dim=CLASSES, depth=2, num_heads=1).eval()
    classifier = ImageClassifier(network, Preprocessing(HALF, HALF, (32, 32)))
    assert find_head(classifier) == ("head",)
    assert find_head(make("timm DeiT")) == ("head", "head_dist")
