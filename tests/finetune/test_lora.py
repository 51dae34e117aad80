"""Adapters go where they should on every kind of backbone, learn, merge without a trace, and load in plain peft."""

import re
import shutil
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from peft import PeftModel
from timm.layers import StdConv2d
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.classifiers.open_clip import OpenCLIP
from robustify.classifiers.transformers import LogitsOf
from robustify.errors import InputError, ModelError, RunError
from robustify.finetune.adapters import FILES, load_adapter, save_adapter
from robustify.finetune.lora import Adaptation, Lora, adapt, merge, train_mode
from robustify.finetune.targets import Targets, blocks, core, find_head, targets
from robustify.registry import CLASSIFIERS

Awaken = Callable[[nn.Module], nn.Module]
CLASSES = 5
HALF = (0.5, 0.5, 0.5)
SWIN = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 12, "depths": (2, 1), "num_heads": (2, 2)}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def _timm(name: str, **options: object) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES, **options)


def _transformers(kind: str, **options: object) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **options)
    return LogitsOf(getattr(transformers, f"{kind}ForImageClassification")(config))


def _standardised() -> nn.Module:
    """Convolutions whose weight is normalised before each use."""
    block = nn.Sequential(StdConv2d(3, 3, 3, padding=1), nn.ReLU(), StdConv2d(3, 3, 3, padding=1))
    return nn.Sequential(nn.Sequential(block, deepcopy(block)), nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES))


def _in_a_row() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 30), nn.Flatten(), nn.Linear(4, CLASSES))


class Encoder(nn.Module):
    """A transformer of torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x).flatten(2).mT).mean(1))


# name: (network, size, what `attention` adapts as a regular expression and how often, head)
BACKBONES: dict[str, tuple[Callable[[], nn.Module], int, str, int, tuple[str, ...]]] = {
    "timm ViT": (lambda: _timm("test_vit", img_size=32), 32, r"blocks\.\d\.attn\.qkv", 6, ("head",)),
    "timm Swin": (
        lambda: _timm("swin_tiny_patch4_window7_224", **SWIN),
        32,
        r"layers\.\d\.blocks\.\d\.attn\.qkv",
        3,
        ("head.fc",),
    ),
    "timm ConvNeXt": (
        lambda: _timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
        32,
        r"stages\.\d\.blocks\.\d\.mlp\.fc\d",
        8,
        ("head.fc",),
    ),
    "timm ConvNeXt of convolutions": (
        lambda: _timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), conv_mlp=True),
        32,
        r"stages\.\d\.blocks\.\d\.mlp\.fc\d",
        8,
        ("head.fc",),
    ),
    "timm ResNet": (
        lambda: _timm("test_resnet"),
        32,
        r"layer\d\.\d\.(conv\d|downsample\.1)",
        12,
        ("fc",),
    ),
    "timm ResNeXt": (
        lambda: _timm("resnext50_32x4d", layers=(1, 1, 1, 1), base_width=1),
        32,
        r"layer\d\.\d\.(conv[13]|downsample\.0)",
        12,
        ("fc",),
    ),
    "timm BEiT": (
        lambda: _timm("beit_base_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2),
        32,
        r"blocks\.\d\.attn\.proj",
        2,
        ("head",),
    ),
    "timm DeiT": (
        lambda: _timm("deit_tiny_distilled_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2),
        32,
        r"blocks\.\d\.attn\.qkv",
        2,
        ("head", "head_dist"),
    ),
    "transformers ViT": (
        lambda: _transformers("ViT", intermediate_size=24, **SMALL),
        16,
        r"vit\.layers\.\d\.attention\.[qv]_proj",
        4,
        ("classifier",),
    ),
    "transformers DINOv2": (
        lambda: _transformers("Dinov2", **SMALL),
        16,
        r"dinov2\..*\.\d\.attention\.[qv]_proj",
        4,
        ("classifier",),
    ),
    "transformers Swin": (
        lambda: _transformers(
            "Swin", image_size=32, patch_size=4, window_size=4, embed_dim=12, depths=[2, 1], num_heads=[2, 2]
        ),
        32,
        r"swin\.encoder\.layers\.\d\.blocks\.\d\.attention\.(self\.)?[qv]_proj",
        6,
        ("classifier",),
    ),
    "transformers CLIP": (
        lambda: _transformers("CLIP", vision_config={**SMALL, "intermediate_size": 24}),
        16,
        r"vision_model\.encoder\.layers\.\d\.self_attn\.[qv]_proj",
        4,
        ("classifier",),
    ),
    "torch": (Encoder, 16, r"encoder\.layers\.\d\.self_attn", 2, ("head",)),
}
ZOO = {
    "zoo:timm": (r"layer\d\.\d\.(conv\d|downsample\.1)", 20, ("fc",)),
    "zoo:transformers": (r"resnet\.encoder\.stages\.\d\.layers\.\d\..*convolution", 19, ("classifier.1",)),
    "zoo:open_clip": (r"visual\.trunk\.layer\d\.\d\.(conv\d|downsample\.1)", 12, ()),
}
CLIP = "open_clip ViT"
ALL = [*BACKBONES, CLIP, *ZOO]


@pytest.fixture
def make(
    awaken: Awaken, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]
) -> Callable[[str], ImageClassifier]:
    """A classifier of that kind, with weights that all matter."""

    def _make(name: str) -> ImageClassifier:
        if name in BACKBONES:
            build, size, *_ = BACKBONES[name]
            return ImageClassifier(awaken(build()), Preprocessing(HALF, HALF, (size, size)), name=name)
        if name == CLIP:
            return OpenCLIP(clip_model, clip_tokenizer).classifier(["cat", "dog", "fox"], "simple")
        found = CLASSIFIERS.load(name)
        if not isinstance(found, ImageClassifier):
            found = found.classifier(["cat", "dog", "fox"], "simple")
        return found

    return _make


def expected(name: str) -> tuple[str, int, tuple[str, ...]]:
    if name == CLIP:
        return r"visual\.transformer\.resblocks\.\d\.attn", 1, ()
    return BACKBONES[name][2:] if name in BACKBONES else ZOO[name]


def pixels(classifier: ImageClassifier, seed: int = 1, count: int = 3) -> Tensor:
    p = classifier.preprocessing
    return torch.rand(count, p.channels, *p.size, generator=torch.Generator().manual_seed(seed))


def learn(classifier: ImageClassifier, steps: int = 2, rate: float = 0.5) -> None:
    """A few steps of plain gradient descent; leaves the gradients of the last."""
    learning = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=rate)
    train_mode(classifier.network)
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(pixels(classifier, step)), torch.arange(3) % 2).backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        if step + 1 < steps:
            optimizer.step()
    classifier.eval()


@torch.no_grad()
def logits(classifier: ImageClassifier) -> Tensor:
    return classifier(pixels(classifier, 7))


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Every tensor that is not an adapter's, by the name it had before."""
    state = network.state_dict()
    return {k.replace(".base_layer", ""): v.clone() for k, v in state.items() if ".lora_" not in k}


class TestTargets:
    @pytest.mark.parametrize("name", ALL)
    def test_are_exactly_the_intended_modules(self, name: str, make: Callable[[str], ImageClassifier]) -> None:
        pattern, count, head = expected(name)
        found = targets(make(name))
        assert [n for n in found.adapted if not re.fullmatch(pattern, n)] == []
        assert len(found.adapted) == count == len(set(found.adapted))
        assert found.head == head

    def test_all_layers_of_the_blocks(self, make: Callable[[str], ImageClassifier]) -> None:
        inside = r"blocks\.\d\.(attn\.(qkv|proj)|mlp\.fc[12])"
        assert [n for n in targets(make("timm ViT"), "all").adapted if not re.fullmatch(inside, n)] == []
        assert len(targets(make("timm ViT"), "all").adapted) == 24
        assert len(targets(make("timm Swin"), "all").adapted) == 12  # neither patch embedding nor merging
        assert targets(make(CLIP), "all").adapted == tuple(
            f"visual.transformer.resblocks.0.{layer}" for layer in ("attn", "mlp.c_fc", "mlp.c_proj")
        )

    def test_layers_whose_weight_is_used_by_a_function_are_left_out(
        self, make: Callable[[str], ImageClassifier]
    ) -> None:
        """BEiT's qkv is never called: an adapter around it would get no gradient."""
        assert not [n for n in targets(make("timm BEiT"), "all").adapted if n.endswith("qkv")]

    @pytest.mark.parametrize("build", [_standardised, _in_a_row])
    def test_nothing_to_adapt(self, build: Callable[[], nn.Module]) -> None:
        """Weights that are standardised first, and layers in a row without blocks."""
        classifier = ImageClassifier(build().eval(), Preprocessing(HALF, HALF, (32, 32)), name="stubborn")
        with pytest.raises(ModelError, match=r"(?s)stubborn has nothing to adapt.*how='full'.*layers="):
            targets(classifier)

    @pytest.mark.parametrize(
        "change", [{"groups": 2}, {"dilation": 2, "padding": 2}, {"padding_mode": "reflect"}], ids=str
    )
    def test_convolutions_that_pefts_own_does_not_equal(self, change: dict[str, Any]) -> None:
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

    def test_by_regular_expression(self, make: Callable[[str], ImageClassifier]) -> None:
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
    def test_unfit_names(
        self, name: str, layers: str | tuple[str, ...], message: str, make: Callable[[str], ImageClassifier]
    ) -> None:
        with pytest.raises(InputError, match=message):
            targets(make(name), layers)

    def test_blocks_of_stages_and_of_adapted_networks(self, make: Callable[[str], ImageClassifier]) -> None:
        swin, resnet = make("timm Swin"), make("timm ResNet")
        assert blocks(swin.network) == ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"]
        before = blocks(resnet.network)
        assert before == ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]
        adapt(resnet)
        assert blocks(resnet.network) == before

    def test_small_containers_inside_a_block_do_not_replace_it(self) -> None:
        """Squeeze-and-excitation is an element with two layers, in a block of five."""
        squeeze = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4))
        block = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), squeeze)
        assert blocks(nn.Sequential(block, deepcopy(block))) == ["0", "1"]


class TestAdapt:
    @pytest.mark.parametrize("name", ALL)
    def test_adapters_learn_and_nothing_else_changes(self, name: str, make: Callable[[str], ImageClassifier]) -> None:
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
        assert not torch.allclose(logits(classifier), before, rtol=1e-4)

    def test_full(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm ResNet")
        found = adapt(classifier, "full")
        assert all(p.requires_grad for p in classifier.parameters())
        assert found == Adaptation("full fine-tuning", (), (), found.total, found.total)

    def test_head_only(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm Swin")
        found = adapt(classifier, "head")
        assert [n for n, p in classifier.network.named_parameters() if p.requires_grad] == [
            "head.fc.weight",
            "head.fc.bias",
        ]
        assert (found.adapted, found.head) == ((), ("head.fc",))

    def test_a_zero_shot_head_cannot_be_trained(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("zoo:open_clip")
        with pytest.raises(ModelError, match=r"(?s)zoo:open_clip has no head.*linear_probe"):
            adapt(classifier, "head")

    def test_projection_with_as_many_outputs_as_classes_is_no_head(
        self, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor]
    ) -> None:
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

    def test_head_is_what_runs_last(self) -> None:
        """Layers with one output per class that run earlier are none."""
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(48, CLASSES), nn.ReLU(), nn.Linear(CLASSES, 8), nn.Linear(8, CLASSES)
        )
        assert find_head(ImageClassifier(network.eval(), Preprocessing(HALF, HALF, (4, 4)))) == ("4",)

    def test_head_that_peft_would_confuse(self) -> None:
        """In the file it would be `4`, and so would be every name that ends in 4."""
        blocks = nn.Sequential(*(nn.Sequential(nn.Linear(48, 4), nn.Linear(4, 48)) for _ in range(5)))
        network = nn.Sequential(nn.Flatten(), blocks, nn.ReLU(), nn.ReLU(), nn.Linear(48, CLASSES)).eval()
        with pytest.raises(ModelError, match=r"could not tell the head '4' from '1\.4'"):
            adapt(ImageClassifier(network, Preprocessing(HALF, HALF, (4, 4))))

    def test_settings_reach_the_adapters(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm ViT")
        found = adapt(classifier, Lora(rank=3, alpha=6.0, dropout=0.25, layers="all"))
        layer = classifier.network.blocks[0].attn.qkv
        assert (layer.r["default"], layer.scaling["default"], layer.lora_dropout["default"].p) == (3, 2.0, 0.25)
        assert len(found.adapted) == 24

    def test_summary_lists_modules_and_counts(self, make: Callable[[str], ImageClassifier]) -> None:
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

    def test_twice_is_refused(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm ViT")
        adapt(classifier)
        with pytest.raises(ModelError, match="has adapters already"):
            adapt(classifier)

    def test_unknown_way(self, make: Callable[[str], ImageClassifier]) -> None:
        with pytest.raises(InputError, match="expected how="):
            adapt(make("timm ViT"), "lroa")

    @pytest.mark.parametrize("change", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}], ids=str)
    def test_numbers_out_of_range(self, change: dict[str, Any]) -> None:
        with pytest.raises(InputError, match="expected rank >= 1"):
            Lora(**change)

    def test_dropout_that_peft_would_ignore(self, make: Callable[[str], ImageClassifier]) -> None:
        with pytest.raises(InputError, match=r"dropout=0.*resblocks.0.attn"):
            adapt(make(CLIP), Lora(dropout=0.1))


class TestTrainMode:
    def test_frozen_normalisation_keeps_its_statistics(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm ResNet")
        adapt(classifier)
        train_mode(classifier.network)
        norms = [m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert not any(m.training for m in norms)
        assert classifier.network.layer1[0].training

    def test_normalisation_that_learns_is_trained(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm ResNet")
        adapt(classifier, "full")
        classifier.network.layer1.append(nn.BatchNorm2d(32, affine=False).eval())
        train_mode(classifier.network)
        assert classifier.network.bn1.training
        assert not classifier.network.layer1[-1].training

    def test_dropout_follows_the_module_around_it(self) -> None:
        network = nn.Sequential(
            nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        )
        network.eval()[0].requires_grad_(False)
        train_mode(network)
        assert [m.training for m in (network[0], network[0][1], network[1], network[1][1])] == [
            False,
            False,
            True,
            True,
        ]


class TestMerge:
    @pytest.mark.parametrize("name", ALL)
    def test_leaves_a_plain_network_with_the_same_logits(
        self, name: str, make: Callable[[str], ImageClassifier]
    ) -> None:
        classifier = make(name)
        keys, untouched = list(classifier.state_dict()), logits(classifier)
        adapt(classifier)
        learn(classifier, steps=4)
        before = logits(classifier) if name != "torch" else classifier(pixels(classifier, 7)).detach()
        merge(classifier)
        gap = (logits(classifier) - before).abs().max() / before.abs().max()
        assert float(gap) <= 1e-5
        assert not torch.allclose(logits(classifier), untouched, rtol=1e-4)
        assert set(classifier.state_dict()) == set(keys)
        assert not [m for m in classifier.modules() if type(m).__module__.startswith("peft")]
        assert not any(p.requires_grad for p in classifier.parameters())
        assert not any(m.training for m in classifier.modules())
        assert not hasattr(core(classifier.network), "peft_config")
        adapt(classifier)

    def test_without_adapters_only_freezes(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm ResNet")
        adapt(classifier, "full")
        learn(classifier)
        before = logits(classifier)
        merge(classifier)
        assert torch.equal(logits(classifier), before)
        assert not any(p.requires_grad for p in classifier.parameters())

    def test_a_merge_that_changes_the_logits_is_refused(self, make: Callable[[str], ImageClassifier]) -> None:
        """An adapter that computes something else than its weights say, by a thousandth."""
        classifier = make("timm ViT")
        adapt(classifier)
        classifier.network.blocks[3].attn.qkv.register_forward_hook(lambda _, __, output: 1.001 * output)
        with pytest.raises(ModelError, match=r"moved the logits of timm ViT by .* expected at most 1e-05"):
            merge(classifier)

    def test_infinite_adapters_are_refused(self, make: Callable[[str], ImageClassifier]) -> None:
        classifier = make("timm ViT")
        adapt(classifier)
        classifier.network.blocks[3].attn.qkv.lora_B["default"].weight.data[0, 0] = torch.nan
        with pytest.raises(ModelError, match="diverge"):
            merge(classifier)


class TestFiles:
    @pytest.mark.parametrize("name", ["timm ViT", "timm ResNet", "transformers ViT", "transformers Swin", CLIP, *ZOO])
    def test_plain_peft_gives_the_same_logits(
        self, name: str, make: Callable[[str], ImageClassifier], tmp_path: Path
    ) -> None:
        classifier = make(name)
        base, again = deepcopy(core(classifier.network)), deepcopy(classifier)
        adapt(classifier)
        learn(classifier, steps=4)
        save_adapter(classifier, tmp_path / "adapter", base="org/base")
        before = logits(classifier)
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # peft's use of transformers
            plain = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        assert plain.peft_config["default"].base_model_name_or_path == "org/base"
        with torch.no_grad():
            output = plain(classifier.preprocessing.network_input(pixels(classifier, 7)))
        torch.testing.assert_close(getattr(output, "logits", output), before, rtol=1e-6, atol=1e-6)
        load_adapter(again, tmp_path / "adapter")
        torch.testing.assert_close(logits(again), before, rtol=1e-5, atol=1e-5)
        merge(classifier)
        torch.testing.assert_close(logits(again), logits(classifier), rtol=0, atol=0)
        assert set(again.state_dict()) == set(classifier.state_dict())
        assert not any(p.requires_grad or m.training for m in again.modules() for p in m.parameters())

    def test_fits_the_whole_open_clip_model_and_leaves_its_text_tower(
        self, clip_model: nn.Module, clip_tokenizer: Callable[..., Tensor], tmp_path: Path
    ) -> None:
        whole = deepcopy(clip_model)
        classifier = OpenCLIP(clip_model, clip_tokenizer).classifier(["cat", "dog"], "simple")
        adapt(classifier)
        learn(classifier, steps=4)
        save_adapter(classifier, tmp_path / "adapter", base="org/clip")
        plain = PeftModel.from_pretrained(whole, tmp_path / "adapter").eval()
        homes = {n.partition(".lora_")[0] for n, _ in plain.named_parameters() if ".lora_" in n}
        assert all(".visual." in home for home in homes)
        images = classifier.preprocessing.network_input(pixels(classifier))
        with torch.no_grad():
            torch.testing.assert_close(plain.base_model.model.encode_image(images), classifier.network.visual(images))

    @pytest.mark.parametrize("fails", ["save_file", "rename"])
    def test_failed_write_leaves_the_older_adapter(
        self, fails: str, make: Callable[[str], ImageClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        classifier, folder = make("timm ViT"), tmp_path / "adapter"
        adapt(classifier)
        save_adapter(classifier, folder, base="first")
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
        rename = Path.rename

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        def rename_once(self: Path, target: Path) -> Path:
            return full() if self.name == "new" else rename(self, target)  # type: ignore[return-value]

        with monkeypatch.context() as patch:
            if fails == "rename":
                patch.setattr(Path, "rename", rename_once)
            else:
                patch.setattr("safetensors.torch.save_file", full)
            with pytest.raises(RunError, match="No space left"):
                save_adapter(classifier, folder, base="second")
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
        assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
        save_adapter(classifier, folder, base="second")
        assert '"second"' in (folder / FILES[0]).read_text()
        assert [p.name for p in tmp_path.iterdir()] == ["adapter"]

    def test_other_files_are_not_replaced(self, make: Callable[[str], ImageClassifier], tmp_path: Path) -> None:
        classifier = make("timm ViT")
        adapt(classifier)
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(RunError, match="holds more than an adapter"):
            save_adapter(classifier, tmp_path, base="base")
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]

    def test_nothing_to_save(self, make: Callable[[str], ImageClassifier], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no adapters to save"):
            save_adapter(make("timm ViT"), tmp_path / "adapter", base="base")

    def test_loading_checks_folder_and_fit(self, make: Callable[[str], ImageClassifier], tmp_path: Path) -> None:
        classifier, folder = make("timm ViT"), tmp_path / "adapter"
        with pytest.raises(InputError, match=r"lacks adapter_config\.json"):
            load_adapter(classifier, tmp_path)
        adapt(classifier)
        save_adapter(classifier, folder, base="base")
        with pytest.raises(ModelError, match="has adapters already"):
            load_adapter(classifier, folder)
        with pytest.raises(InputError, match="does not fit timm Swin"):
            load_adapter(make("timm Swin"), folder)
        shallow = ImageClassifier(
            _timm("test_vit", img_size=32, depth=5).eval(), Preprocessing(HALF, HALF, (32, 32)), name="shallow"
        )
        with pytest.raises(InputError, match=r"(?s)does not fit shallow.*blocks\.5.*load it anew"):
            load_adapter(shallow, folder)
        shutil.copy(folder / FILES[0], folder / FILES[1])
        with pytest.raises(InputError, match="does not fit timm ViT"):
            load_adapter(make("timm ViT"), folder)


def test_open_clips_version_of_attention_is_torchs(clip_model: nn.Module) -> None:
    """Should open_clip bring its own, targets need another look."""
    assert type(clip_model.visual.transformer.resblocks[0].attn) is nn.MultiheadAttention
    assert open_clip.__version__
