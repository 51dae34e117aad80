"""OpenAI's diffusion U-Net, written from its architecture, with random checkpoints of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor

from robustify.denoisers.convert.checkpoints import FAMILIES
from robustify.denoisers.convert.layout import (
    Layout,
)

TIMES = torch.tensor([3.0, 250.25, 999.0])
"""What the networks see: never the default 0, once between two steps."""


@dataclass(frozen=True)
class Flags:
    """A U-Net in the words of the flags that its repository's README lists."""

    image_size: int
    num_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    resblock_updown: bool
    num_heads: int | None = None
    num_head_channels: int | None = None


ADM = Flags(256, 256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8), resblock_updown=True, num_head_channels=64)
CIFAR = Flags(32, 128, (1, 2, 2, 2), 3, (16, 8), resblock_updown=False, num_heads=4)
PUBLISHED = [("guided-diffusion", ADM, 552_814_086), ("improved-diffusion", CIFAR, 52_546_438)]

NARROW_ADM = replace(ADM, num_channels=32, num_head_channels=16)
NARROW = replace(FAMILIES["guided-diffusion"].layout, channels=32, head_channels=16)
"""All levels, blocks and heads of the published network, at an eighth (heads: a quarter) of its width."""

TINY = Layout(size=8, channels=32, multipliers=(1, 2), blocks=1, head_channels=32, attention_levels=(1,), updown=False)
TINY_FLAGS = Flags(8, 32, (1, 2), 1, (4,), resblock_updown=False, num_head_channels=32)


class Weights(dict[str, Tensor]):
    """A checkpoint in which each tensor is drawn when the reference first asks for it."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device = device
        self.generator = torch.Generator().manual_seed(0)

    def take(self, key: str, *shape: int) -> Tensor:
        if key not in self:
            self[key] = torch.empty(shape, device="meta") if self.device == "meta" else self._draw(key, *shape)
        assert self[key].shape == shape
        return self[key]

    def _draw(self, key: str, *shape: int) -> Tensor:
        noise = torch.randn(shape, generator=self.generator)
        if len(shape) > 1:
            return noise * math.prod(shape[1:]) ** -0.5
        return 0.3 * noise + (1 if key.endswith("weight") else 0)


class Reference:
    """The forward pass of OpenAI's U-Net, written from its architecture, on OpenAI's own keys.

    References:
        Diffusion Models Beat GANs on Image Synthesis, Dhariwal, Nichol, 2021, section 3,
        https://arxiv.org/abs/2105.05233
    """

    def __init__(self, flags: Flags, weights: Weights) -> None:
        self.flags, self.weights = flags, weights

    def __call__(self, x: Tensor, times: Tensor) -> Tensor:
        flags, width = self.flags, self.flags.num_channels
        self.embedding = self.embed(times)
        x = self.conv("input_blocks.0.0", x, width)
        skips, number = [x], 0
        for level, mult in enumerate(flags.channel_mult):
            for _ in range(flags.num_res_blocks):
                number += 1
                x = self.residual(f"input_blocks.{number}.0", x, mult * width)
                x = self.maybe_attend(f"input_blocks.{number}.1", x)
                skips.append(x)
            if level + 1 < len(flags.channel_mult):
                number += 1
                x = self.down(f"input_blocks.{number}.0", x)
                skips.append(x)
        x = self.residual("middle_block.0", x, x.shape[1])
        x = self.attend("middle_block.1", x)
        x = self.residual("middle_block.2", x, x.shape[1])
        number = -1
        for level, mult in reversed(list(enumerate(flags.channel_mult))):
            for last in [*[False] * flags.num_res_blocks, True]:
                number += 1
                x = torch.cat([x, skips.pop()], dim=1)
                x = self.residual(f"output_blocks.{number}.0", x, mult * width)
                attends = x.shape[-1] in self.flags.attention_resolutions
                x = self.maybe_attend(f"output_blocks.{number}.1", x)
                if last and level:
                    x = self.up(f"output_blocks.{number}.{2 if attends else 1}", x)
        assert not skips
        return self.conv("out.2", F.silu(self.norm("out.0", x)), 6)

    def affine(self, key: str, out: int, *rest: int) -> tuple[Tensor, Tensor]:
        return self.weights.take(f"{key}.weight", out, *rest), self.weights.take(f"{key}.bias", out)

    def linear(self, key: str, x: Tensor, out: int) -> Tensor:
        return F.linear(x, *self.affine(key, out, x.shape[-1]))

    def norm(self, key: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, *self.affine(key, x.shape[1]))

    def conv(self, key: str, x: Tensor, out: int, kernel: int = 3, stride: int = 1) -> Tensor:
        weight, bias = self.affine(key, out, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, bias, stride=stride, padding=kernel // 2)

    def embed(self, times: Tensor) -> Tensor:
        width = self.flags.num_channels
        frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2)).to(times.device)
        angles = times[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.linear("time_embed.2", F.silu(self.linear("time_embed.0", waves, 4 * width)), 4 * width)

    def residual(self, key: str, x: Tensor, out: int, resample: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        inner = resample(F.silu(self.norm(f"{key}.in_layers.0", x)))
        inner = self.conv(f"{key}.in_layers.2", inner, out)
        modulation = self.linear(f"{key}.emb_layers.1", F.silu(self.embedding), 2 * out)[:, :, None, None]
        scale, shift = modulation[:, :out], modulation[:, out:]
        inner = self.norm(f"{key}.out_layers.0", inner) * (1 + scale) + shift
        inner = self.conv(f"{key}.out_layers.3", F.silu(inner), out)
        x = resample(x)
        return inner + (x if x.shape[1] == out else self.conv(f"{key}.skip_connection", x, out, kernel=1))

    def down(self, key: str, x: Tensor) -> Tensor:
        if self.flags.resblock_updown:
            return self.residual(key, x, x.shape[1], lambda x: F.avg_pool2d(x, 2))
        return self.conv(f"{key}.op", x, x.shape[1], stride=2)

    def up(self, key: str, x: Tensor) -> Tensor:
        if self.flags.resblock_updown:
            return self.residual(key, x, x.shape[1], lambda x: F.interpolate(x, scale_factor=2.0))
        return self.conv(f"{key}.conv", F.interpolate(x, scale_factor=2.0), x.shape[1])

    def maybe_attend(self, key: str, x: Tensor) -> Tensor:
        return self.attend(key, x) if x.shape[-1] in self.flags.attention_resolutions else x

    def attend(self, key: str, x: Tensor) -> Tensor:
        """Legacy attention: heads are split off first, then query, key and value."""
        batch, channels, height, width = x.shape
        heads = self.flags.num_heads or channels // self.flags.num_head_channels
        flat = self.norm(f"{key}.norm", x).flatten(2)
        qkv = F.conv1d(flat, *self.affine(f"{key}.qkv", 3 * channels, channels, 1))
        q, k, v = qkv.reshape(batch * heads, 3 * channels // heads, -1).chunk(3, dim=1)
        attention = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(channels / heads), dim=2)
        mixed = (v @ attention.transpose(1, 2)).reshape(batch, channels, -1)
        mixed = F.conv1d(mixed, *self.affine(f"{key}.proj_out", channels, channels, 1))
        return x + mixed.reshape(batch, channels, height, width)


@dataclass(frozen=True)
class Example:
    """A random checkpoint with an input and the output that the reference computes from them."""

    state: Weights
    x: Tensor
    y: Tensor

    def error_of(self, network: UNet2DModel) -> float:
        """Relative l2 error of a network on the input."""
        with torch.no_grad():
            y = network(self.x, TIMES).sample
        return float((y - self.y).norm() / self.y.norm())


def example(flags: Flags, size: int) -> Example:
    state = Weights()
    x = torch.randn(len(TIMES), 3, size, size, generator=torch.Generator().manual_seed(1))
    return Example(state, x, Reference(flags, state)(x, TIMES))


def meta_state(flags: Flags) -> Weights:
    """All keys and shapes that the reference asks for, at any width, without computing."""
    state = Weights("meta")
    image = torch.empty(1, 3, flags.image_size, flags.image_size, device="meta")
    Reference(flags, state)(image, torch.empty(1, device="meta"))
    return state
