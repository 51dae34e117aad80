"""Small models of transformers, and what transformers itself makes of a picture."""

import torch
from PIL import Image as PILImage
from torch import Tensor, nn
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from robustify.classifiers import ImageClassifier
from robustify.contract import InputContract
from robustify.smoothing.inputs import to_pixels

MEAN, STD = [0.15, 0.45, 0.8], [0.4, 0.2, 0.3]
EDGES = {"height": 32, "width": 32}


FAMILIES = {
    "squash": ("ViTImageProcessor", {"size": EDGES, "image_mean": MEAN, "image_std": STD}),
    "half": ("ViTImageProcessor", {"size": EDGES}),
    "bicubic": ("ViTImageProcessor", {"size": EDGES, "image_mean": MEAN, "image_std": STD, "resample": 3}),
    "clip": ("CLIPImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": EDGES}),
    "imagenet": ("BitImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": EDGES}),
    "crop only": ("BitImageProcessor", {"do_resize": False, "crop_size": EDGES, "image_mean": MEAN}),
    "zero-one": ("ViTImageProcessor", {"size": EDGES, "do_normalize": False}),
    "crop share": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "image_mean": MEAN}),
    "normalises twice": ("EfficientNetImageProcessor", {"size": EDGES, "image_mean": MEAN, "image_std": STD}),
    "normalises, then divides": (
        "EfficientNetImageProcessor",
        {"size": EDGES, "image_std": STD, "rescale_factor": 1 / 127.5, "rescale_offset": True},
    ),
    "divides alone": ("EfficientNetImageProcessor", {"size": EDGES, "image_std": STD, "do_normalize": False}),
    "no top": ("EfficientNetImageProcessor", {"size": EDGES, "image_mean": MEAN, "include_top": False}),
    "blue, green, red": ("MobileViTImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": EDGES}),
    "not flipped": (
        "MobileViTImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": EDGES, "do_flip_channel_order": False},
    ),
    "rescales otherwise": ("ViTImageProcessor", {"size": EDGES, "image_mean": MEAN, "rescale_factor": 1 / 127.5}),
    "does not rescale": ("ViTImageProcessor", {"size": EDGES, "do_rescale": False, "image_mean": [99, 110, 140]}),
    "bytes": ("ViTImageProcessor", {"size": EDGES, "do_rescale": False, "do_normalize": False}),
    "crop beyond the picture": ("CLIPImageProcessor", {"size": {"shortest_edge": 20}, "crop_size": EDGES}),
    "crop, then resize": ("PerceiverImageProcessor", {"size": EDGES, "crop_size": {"height": 40, "width": 40}}),
}


def vit(**changes: object) -> ViTForImageClassification:
    """A small network for 32×32 images."""
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(
        ViTConfig(**{**config, "image_size": 32, "patch_size": 8, "num_labels": 5, **changes})
    )


def resnet(**changes: object) -> ResNetForImageClassification:
    """A small network for images of any size."""
    config = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 5}
    return ResNetForImageClassification(ResNetConfig(**{**config, **changes}))


def logits(classifier: ImageClassifier, picture: PILImage.Image) -> Tensor:
    """Ours: picture to pixels, pixels to logits; sigma is 0 and there is no denoiser."""
    p = classifier.preprocessing
    pixels = to_pixels(picture, p, InputContract(p.channels, *p.size))
    with torch.no_grad():
        return classifier(pixels.unsqueeze(0))


def hf_logits(model: nn.Module, processor: object, picture: PILImage.Image) -> Tensor:
    """transformers': its processor, its model."""
    with torch.no_grad():
        return model(**processor(images=picture, return_tensors="pt")).logits
