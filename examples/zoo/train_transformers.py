"""Trains the zoo's transformers classifier: a small ResNet, saved with its image processor.

References:
    Deep Residual Learning for Image Recognition, He et al., 2015, https://arxiv.org/abs/1512.03385
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessor,
)

import training
from robustify.zoo import fashion_mnist
from training import Recipe

RECIPE = Recipe(epochs=12, learning_rate=3e-3)


def build() -> ResNetForImageClassification:
    """The untrained network, 1.0 million parameters."""
    names = dict(enumerate(fashion_mnist.CLASSES))
    config = ResNetConfig(
        num_channels=1,
        embedding_size=32,
        hidden_sizes=[32, 64, 96, 128],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label=names,
        label2id={name: label for label, name in names.items()},
    )
    return ResNetForImageClassification(config)


def build_processor(mean: float, std: float) -> ViTImageProcessor:
    """Resizes to 32×32, which leaves a 32×32 image as it is, then normalises its one channel."""
    return ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[mean], image_std=[std])


def load(folder: Path) -> training.Scores:
    """The saved classifier, as a map from pixels in [0, 1] to logits."""
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="torchvision")
    (mean,), (std,) = processor.image_mean, processor.image_std

    def scores(pixels: Tensor) -> Tensor:
        logits: Tensor = network((pixels - mean) / std).logits
        return logits

    return scores


def train(data: Path, out: Path, *, seed: int = 0, recipe: Recipe = RECIPE) -> dict[str, object]:
    """Trains on the training split alone, saves the folder and returns its record."""
    torch.manual_seed(seed)
    split = fashion_mnist.read("train", data)
    mean, std = training.pixel_statistics(split[0])
    network = build()

    def loss(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = network((pixels - mean) / std).logits
        return F.cross_entropy(logits, labels, label_smoothing=0.05)

    seconds = training.fit(network, loss, split, recipe, seed=seed)
    network.save_pretrained(out)
    build_processor(mean, std).save_pretrained(out)
    return {
        **training.report("transformers ResNet, basic blocks", network, recipe, seconds=seconds, seed=seed),
        "accuracy": training.accuracies(load(out), fashion_mnist.read("test", data)),
    }
