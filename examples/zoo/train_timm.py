"""Trains the zoo's timm classifier: a slim ResNet-18-D, saved as a timm local folder.

Its stem divides the size by four, which Fashion-MNIST's coarse shapes survive, so one noisy vote is cheap.

References:
    Bag of Tricks for Image Classification with Convolutional Neural Networks, He et al., 2018,
    https://arxiv.org/abs/1812.01187
"""

from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import training
from robustify.zoo import fashion_mnist
from training import Recipe

ARCHITECTURE = "resnet18d"
ARGUMENTS = {"in_chans": 1, "channels": (48, 64, 96, 128), "stem_width": 16}
RECIPE = Recipe(epochs=16, learning_rate=3e-3)


def build(mean: float, std: float) -> nn.Module:
    """The untrained network, 1.1 million parameters, for pixels normalised by `mean` and `std`."""
    network: nn.Module = timm.create_model(
        ARCHITECTURE,
        num_classes=len(fashion_mnist.CLASSES),
        pretrained_cfg_overlay={
            "tag": "fashion_mnist",
            "input_size": (1, 32, 32),
            "pool_size": (1, 1),
            "mean": (mean,),
            "std": (std,),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "license": "mit",
        },
        **ARGUMENTS,
    )
    return network


def load(folder: Path) -> training.Scores:
    """The saved classifier, as a map from pixels in [0, 1] to logits."""
    network = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True).eval()
    card = timm.data.resolve_model_data_config(network)
    (mean,), (std,) = card["mean"], card["std"]

    def scores(pixels: Tensor) -> Tensor:
        logits: Tensor = network((pixels - mean) / std)
        return logits

    return scores


def train(data: Path, out: Path, *, seed: int = 0, recipe: Recipe = RECIPE) -> dict[str, object]:
    """Trains on the training split alone, saves the folder and returns its record."""
    torch.manual_seed(seed)
    split = fashion_mnist.read("train", data)
    mean, std = training.pixel_statistics(split[0])
    network = build(mean, std)

    def loss(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(network((pixels - mean) / std), labels, label_smoothing=0.05)

    seconds = training.fit(network, loss, split, recipe, seed=seed)
    timm.models.save_for_hf(
        network, str(out), model_config={"label_names": list(fashion_mnist.CLASSES)}, safe_serialization=True
    )
    return {
        **training.report(f"timm {ARCHITECTURE}, slim", network, recipe, seconds=seconds, seed=seed),
        "accuracy": training.accuracies(load(out), fashion_mnist.read("test", data)),
    }
