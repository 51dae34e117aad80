"""A vision transformer that denoises by itself: it is told the noise level, and one pass is all that a draw takes.

Loaded from folders: `noise-conditioned:/folder`, or the folder by itself.

From the paper are the network (a token for the noise level beside the class token, and the scaling of its input), and
its objective, consistency without a denoiser. Ours are the exact noise level in place of the nearest of a grid, and
folders; the contrastive pre-training along the noise trajectory, which takes 8 to 32 GPUs, is left to its authors.

References:
    Robust Representation Consistency Model via Contrastive Denoising, Lei et al., 2025,
    https://arxiv.org/abs/2501.13094
"""

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robustify.classifiers.base import ImageClassifier
from robustify.classifiers.preprocessing import Preprocessing
from robustify.errors import InputError
from robustify.folders import disk, make_folder, write_whole
from robustify.model_folders import NOISE_CONDITIONED
from robustify.types import Logits, NetworkInput

_LEAST = 0.002
"""Smallest noise level of the published grid, in [-1, 1] pixels, which stands for clean images too."""

_WEIGHTS = "model.safetensors"


@final
class NoiseConditionedViT(nn.Module):
    r"""A vision transformer whose second token says how much noise there is.

    Noise of standard deviation :math:`\sigma` in [0, 1] pixels is :math:`t = 2 \sigma` in its input, in [-1, 1]. Input
    is scaled by :math:`(t^2 + 1/4)^{-1/2}`, and the token is a sinusoid of :math:`250 \ln t`. Below .002, the smallest
    t of the published grid, t counts as that.

    Published sizes: width 768, depth 12, 12 heads; and 512, 6, 8; of patches of 16 pixels for ImageNet, 4 for CIFAR-10.

    Arguments:
        classes: Number of classes.
        size: Height and width of the input, multiples of the patch.
        channels: 1 for gray pictures, 3 for colour.
        patch: Side of a patch, in pixels.
        width: Length of a token, a multiple of 2 and of the heads.
        depth: Number of blocks.
        heads: Attention heads of each block.

    Raises:
        InputError: If a number is not positive, or two do not fit each other.
    """

    def __init__(
        self,
        *,
        classes: int,
        size: tuple[int, int],
        channels: int = 3,
        patch: int = 4,
        width: int = 512,
        depth: int = 6,
        heads: int = 8,
    ) -> None:
        from timm.layers import PatchEmbed
        from timm.models.vision_transformer import Block, init_weights_vit_timm

        super().__init__()
        numbers = {"classes": classes, "channels": channels, "patch": patch, "width": width, "depth": depth}
        self.settings: dict[str, Any] = {**numbers, "heads": heads, "size": list(size)}
        _check(self.settings)
        self.patch_embed = PatchEmbed(tuple(size), patch, channels, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 2 + self.patch_embed.num_patches, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.apply(init_weights_vit_timm)

    @property
    def preprocessing(self) -> Preprocessing:
        """Pixels in [0, 1] become pixels in [-1, 1], at the size of the network."""
        half = (0.5,) * self.settings["channels"]
        height, width = self.settings["size"]
        return Preprocessing(half, half, (height, width))

    def forward(self, noisy: NetworkInput, sigma: Float[Tensor, " batch"]) -> Logits:
        """Logits of shape (B, classes).

        Arguments:
            noisy: Images under noise in [-1, 1] pixels, shape (B, channels, *size).
            sigma: Standard deviation of the noise of each, in [0, 1] pixels: half of what it is in `noisy`.
        """
        level = (2 * sigma).clamp(min=_LEAST)
        scale = (level.square() + 0.25).rsqrt().to(noisy.dtype)
        patches = self.patch_embed(noisy * scale.view(-1, 1, 1, 1))
        time = _sinusoid(250 * level.log(), patches.shape[-1]).to(patches.dtype)
        first = self.cls_token.to(patches.dtype).expand(len(patches), -1, -1)
        tokens = torch.cat([first, time.unsqueeze(1), patches], dim=1) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
        return logits


def wrap(network: NoiseConditionedViT, *, name: str | None = None) -> ImageClassifier:
    """Wraps a network that is in memory.

    Raises:
        ModelError: If it is in training mode.
    """
    own = name or type(network).__name__
    return ImageClassifier(network, network.preprocessing, name=own, noise_conditioned=True)


def load(name: str, /) -> ImageClassifier:
    """Loads the classifier that `save_classifier` wrote into a folder.

    Raises:
        InputError: If the folder holds none.
    """
    folder = Path(name)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        settings = config[NOISE_CONDITIONED]
        network = NoiseConditionedViT(**{**settings, "size": tuple(settings["size"])})
        network.load_state_dict(load_file(folder / _WEIGHTS))
        classifier = wrap(network.eval(), name=f"noise-conditioned:{name}")
        classifier.set_labels(config["labels"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"expected the folder of a noise-conditioned ViT, with config.json and {_WEIGHTS}; got {name!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    classifier.licence = config.get("licence")
    return classifier


def names(pattern: str = "*", /) -> list[str]:
    """No names: this source loads folders."""
    del pattern
    return []


def save_classifier(classifier: ImageClassifier, folder: str | PathLike[str]) -> None:
    """Writes weights, settings and labels of a classifier whose network is a `NoiseConditionedViT`, for `load`.

    Raises:
        InputError: If its network is another.
        RunError: If the folder cannot be written.
    """
    network = classifier.network
    if not isinstance(network, NoiseConditionedViT):
        raise InputError(f"expected a NoiseConditionedViT to save; got {type(network).__name__}")
    config = {
        NOISE_CONDITIONED: network.settings,
        "labels": list(classifier.labels),
        "licence": classifier.licence,
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with disk(Path(folder), "Files written before"):
        make_folder(Path(folder))
        write_whole(Path(folder) / "config.json", json.dumps(config, indent=2).encode())
        write_whole(Path(folder) / _WEIGHTS, save(state))


def _sinusoid(time: Float[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """Cosines, then sines, of a time at wavelengths from 2 pi to 20,000 pi; computed in float32."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=time.device) / (width // 2))
    angles = time.float().unsqueeze(1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _check(settings: dict[str, Any]) -> None:
    """Raises `InputError` where settings of a network do not fit each other."""
    numbers = [number for name, number in settings.items() if name != "size"]
    size, patch, width, heads = (settings[name] for name in ("size", "patch", "width", "heads"))
    if not all(isinstance(number, int) and number > 0 for number in [*numbers, *size]):
        raise InputError(f"expected positive whole numbers; got {settings}")
    if size[0] % patch or size[1] % patch:
        raise InputError(f"expected a size in whole patches of {patch}×{patch} pixels; got {size[0]}×{size[1]}")
    if width % 2 or width % heads:
        raise InputError(f"expected an even width that {heads} heads share equally; got {width}")
