"""A tiny classifier of every kind of backbone, and what the tests do with one."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import timm
import torch
import transformers
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier
from robustify.classifiers.transformers import LogitsOf
from robustify.finetune.adapt.lora import train_mode
from robustify.finetune.saved.adapter import load_adapter, save_adapter

Make: TypeAlias = Callable[[str], ImageClassifier]

CLASSES = 5
HALF = (0.5, 0.5, 0.5)
SWIN = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 12, "depths": (2, 1), "num_heads": (2, 2)}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def timm_network(name: str, **options: object) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES, **options)


def _transformers(kind: str, **options: object) -> nn.Module:
    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **options)
    return LogitsOf(getattr(transformers, f"{kind}ForImageClassification")(config))


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
    "timm ViT": (lambda: timm_network("test_vit", img_size=32), 32, r"blocks\.\d\.attn\.qkv", 6, ("head",)),
    "timm Swin": (
        lambda: timm_network("swin_tiny_patch4_window7_224", **SWIN),
        32,
        r"layers\.\d\.blocks\.\d\.attn\.qkv",
        3,
        ("head.fc",),
    ),
    "timm ConvNeXt": (
        lambda: timm_network("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)),
        32,
        r"stages\.\d\.blocks\.\d\.mlp\.fc\d",
        8,
        ("head.fc",),
    ),
    "timm ConvNeXt of convolutions": (
        lambda: timm_network("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), conv_mlp=True),
        32,
        r"stages\.\d\.blocks\.\d\.mlp\.fc\d",
        8,
        ("head.fc",),
    ),
    "timm ResNet": (
        lambda: timm_network("test_resnet"),
        32,
        r"layer\d\.\d\.(conv\d|downsample\.1)",
        12,
        ("fc",),
    ),
    "timm ResNeXt": (
        lambda: timm_network("resnext50_32x4d", layers=(1, 1, 1, 1), base_width=1),
        32,
        r"layer\d\.\d\.(conv[13]|downsample\.0)",
        12,
        ("fc",),
    ),
    "timm BEiT": (
        lambda: timm_network("beit_base_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2),
        32,
        r"blocks\.\d\.attn\.proj",
        2,
        ("head",),
    ),
    "timm DeiT": (
        lambda: timm_network("deit_tiny_distilled_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2),
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
# likewise, without network and size
ZOO = {
    "zoo:timm": (r"layer\d\.\d\.(conv\d|downsample\.1)", 20, ("fc",)),
    "zoo:transformers": (r"resnet\.encoder\.stages\.\d\.layers\.\d\..*convolution", 19, ("classifier.1",)),
    "zoo:open_clip": (r"visual\.trunk\.layer\d\.\d\.(conv\d|downsample\.1)", 12, ()),
}
CLIP = "open_clip ViT"
ALL = [*BACKBONES, CLIP, *ZOO]


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


def merged(adapted: ImageClassifier, base: ImageClassifier, folder: Path) -> ImageClassifier:
    """The base with what the adapted classifier learned, by way of the disk, as `load_tuned` makes it."""
    save_adapter(adapted, folder / "adapter", base=base.name)
    load_adapter(base, folder / "adapter")
    return base
