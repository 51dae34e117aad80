"""Architectures of three libraries behind our boundary: pixels and logits are those of the library's own pipeline.

Weights are random. Each row is a network and how its library preprocesses a picture for it; ours reads both from the
model. The logits may differ by rounding, as the library normalises bytes and we normalise pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image as PILImage
from PIL import ImageFilter
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier
from robustify.classifiers.open_clip import OpenCLIP
from robustify.classifiers.timm import wrap as wrap_timm
from robustify.classifiers.transformers import wrap as wrap_transformers
from tests.toys import Awaken, Tokenize

See: TypeAlias = Callable[[PILImage.Image], Tensor]

PHOTOGRAPHS = {"landscape": (640, 427), "portrait": (333, 500), "smaller than the network": (90, 71)}
CLASSES, TEMPLATES = ["cat", "dog", "ankle boot"], ["a photo of a {}.", "{} in the rain"]

TIMM = [
    "mobilenetv4_conv_small_050",
    "tinynet_e",
    "repvgg_a0",
    "mobilevit_xxs",
    "levit_128s",
    "xcit_nano_12_p16_224",
    "inception_v3",
]

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
TRANSFORMERS = {
    "mobilevit": ("MobileViT", {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32]}, {}),
    "efficientnet": ("EfficientNet", {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320}, {}),
    "convnext at 224": ("ConvNext", STAGES, {"size": {"shortest_edge": 224}}),
    "convnext at 384": ("ConvNext", STAGES, {"size": {"shortest_edge": 384}}),
    "swin": ("Swin", {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "image_size": 224}, {}),
    "beit": ("Beit", {**SMALL, "image_size": 224}, {"size": {"shortest_edge": 256}, "do_center_crop": True}),
    "mobilenet v2": ("MobileNetV2", {"depth_multiplier": 0.35, "finegrained_output": False}, {}),
    "poolformer": ("PoolFormer", STAGES, {"crop_pct": 0.95}),
    "levit": ("Levit", {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}, {}),
}
PROCESSORS = {"Swin": "ViT"}
"""Families that borrow the image processor of another."""

OPEN_CLIP = {
    "residual tower": (
        {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
        {"resize_mode": "shortest", "mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28)},
    ),
    "attention pool": (
        {"image_size": 48, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "attentional_pool": True},
        {"resize_mode": "squash", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    ),
    "tower of timm": (
        {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
        {"resize_mode": "longest", "fill_color": 120, "mean": (0.2, 0.4, 0.7), "std": (0.3, 0.2, 0.25)},
    ),
}
CLIP_TEXT = {
    "context_length": 64,
    "vocab_size": 259,
    "width": 32,
    "heads": 2,
    "layers": 1,
    "pool_type": "last",
}


def photograph(width: int, height: int) -> PILImage.Image:
    """Blurred noise under fine noise, brighter to the right: structure of all sizes, other than when mirrored."""
    generator = np.random.default_rng(0)
    coarse = PILImage.fromarray(generator.integers(0, 256, (height // 9, width // 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), PILImage.Resampling.BICUBIC), dtype=float)
    fine = generator.normal(0, 12, (height, width, 3))
    ramp = np.linspace(-40, 40, width)[None, :, None]
    picture = PILImage.fromarray((smooth + fine + ramp).clip(0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.SHARPEN)


@dataclass(frozen=True)
class Pair:
    """A classifier of ours, and what its library does to a picture and then to the network's input."""

    ours: ImageClassifier
    see: See
    classify: Callable[[Tensor], Tensor]
    flipped: bool = False

    @torch.no_grad()
    def gaps(self, picture: PILImage.Image) -> tuple[int, float]:
        """Largest difference of bytes, and of logits as a share of the largest."""
        preprocessing = self.ours.preprocessing
        seen = self.see(picture)
        pixels = preprocessing.picture_bytes(picture, *preprocessing.size)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
        own = 255 * ((seen.flip(0) if self.flipped else seen) * std + mean)
        expected = self.classify(seen.unsqueeze(0))
        logits = self.ours(pixels.unsqueeze(0).float() / 255)
        assert expected.abs().max() > 1e-3  # no dead network agrees with everything
        bytes_apart = int((own.round() - pixels).abs().max())
        return bytes_apart, float((logits - expected).abs().max() / expected.abs().max())


def of_timm(name: str, awaken: Awaken) -> Pair:
    network = awaken(timm.create_model(name, num_classes=7))
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    return Pair(wrap_timm(network), transform, network)


def of_transformers(row: str, backend: str, awaken: Awaken) -> Pair:
    family, config, options = TRANSFORMERS[row]
    model = awaken(
        getattr(transformers, f"{family}ForImageClassification")(
            getattr(transformers, f"{family}Config")(**config, num_labels=7)
        )
    )
    processor: Any = getattr(transformers, f"{PROCESSORS.get(family, family)}ImageProcessor{backend}")(**options)

    def see(picture: PILImage.Image) -> Tensor:
        found: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return found

    flipped = bool(getattr(processor, "do_flip_channel_order", False))
    return Pair(wrap_transformers(model, processor), see, lambda x: model(pixel_values=x).logits, flipped)


def of_open_clip(row: str, awaken: Awaken, tokenizer: Tokenize) -> Pair:
    vision, preprocessing = OPEN_CLIP[row]
    model = awaken(open_clip.CLIP(embed_dim=16, vision_cfg=dict(vision), text_cfg=dict(CLIP_TEXT)))
    set_model_preprocess_cfg(model, {"size": vision["image_size"], "interpolation": "bicubic", **preprocessing})
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    head = open_clip.build_zero_shot_classifier(model, tokenizer, CLASSES, TEMPLATES)

    def classify(seen: Tensor) -> Tensor:
        scaled: Tensor = model.logit_scale.exp() * model.encode_image(seen, normalize=True) @ head
        return scaled

    return Pair(OpenCLIP(model, tokenizer).classifier(CLASSES, TEMPLATES), transform, classify)


def check(pair: Pair) -> None:
    for size in PHOTOGRAPHS.values():
        bytes_apart, logits_apart = pair.gaps(photograph(*size))
        assert bytes_apart == 0
        assert logits_apart <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, awaken: Awaken) -> None:
    check(of_timm(name, awaken))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["", "Pil"], ids=["torchvision", "pil"])
@pytest.mark.parametrize("row", TRANSFORMERS)
def test_transformers(row: str, backend: str, awaken: Awaken) -> None:
    check(of_transformers(row, backend, awaken))


@pytest.mark.slow
@pytest.mark.parametrize("row", OPEN_CLIP)
def test_open_clip(row: str, awaken: Callable[[nn.Module], nn.Module], clip_tokenizer: Tokenize) -> None:
    check(of_open_clip(row, awaken, clip_tokenizer))
