"""Correspondence of the parameters of OpenAI's U-Nets and of diffusers' `UNet2DModel`.

Everything here is a function of a `Layout`, so that tests map small networks by the same code as the published ones.
Apart from names, one thing differs: OpenAI keeps query, key and value of an attention block in one convolution of width
1, whose rows are ordered by head; diffusers keeps them in three linear layers.

References:
    Diffusion Models Beat GANs on Image Synthesis, Dhariwal, Nichol, 2021, https://arxiv.org/abs/2105.05233
    (the original names: https://github.com/openai/guided-diffusion)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from diffusers import UNet2DModel
from torch import Tensor

from robustify.errors import InputError

_Block: TypeAlias = tuple[str, str, Mapping[str, str]]
"""A block: its name in diffusers, its name at OpenAI, and the names of its parts, likewise."""

_SHOWN = 3
"""Number of keys of each kind that an error text shows."""

_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_QKV = ("to_q", "to_k", "to_v")
_ATTENTION = {"group_norm": "norm", **dict.fromkeys(_QKV, "qkv"), "to_out.0": "proj_out"}


@dataclass(frozen=True)
class Layout:
    """Shape of an OpenAI U-Net for RGB images that predicts noise and variance (6 channels).

    Arguments:
        size: Height and width of the training images, in pixels.
        channels: Width of the first level, a multiple of 32 (the number of normalisation groups).
        multipliers: Width of each level as a multiple of `channels`, from the finest level to the coarsest.
        blocks: Residual blocks in each level on the way down; there is one more on the way up.
        head_channels: Width of one attention head.
        attention_levels: Levels, counted from 0, with attention after every residual block.
        updown: Whether residual blocks change the resolution (`resblock_updown`), rather than convolutions.
    """

    size: int
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    head_channels: int
    attention_levels: tuple[int, ...]
    updown: bool


def empty_network(layout: Layout) -> UNet2DModel:
    """The diffusers network of a layout on the meta device, with names and shapes but without values."""
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if layout.updown else ("DownBlock2D", "UpBlock2D")
    attentive = ("AttnDownBlock2D", "AttnUpBlock2D")
    levels = [attentive if i in layout.attention_levels else plain for i in range(len(layout.multipliers))]
    with torch.device("meta"):
        return UNet2DModel(
            sample_size=layout.size,
            in_channels=3,
            out_channels=6,
            block_out_channels=tuple(layout.channels * multiplier for multiplier in layout.multipliers),
            layers_per_block=layout.blocks,
            down_block_types=tuple(down for down, _ in levels),
            up_block_types=tuple(up for _, up in reversed(levels)),
            downsample_type="resnet" if layout.updown else "conv",
            upsample_type="resnet" if layout.updown else "conv",
            attention_head_dim=layout.head_channels,
            attn_norm_num_groups=32,
            resnet_time_scale_shift="scale_shift",
        )


def _level(ours: str, theirs: str, first: int, *, blocks: int, attends: bool) -> Iterator[_Block]:
    """The residual and attention blocks of one level, whose first block has the number `first` at OpenAI."""
    for i in range(blocks):
        yield f"{ours}.resnets.{i}", f"{theirs}.{first + i}.0", _RESNET
        if attends:
            yield f"{ours}.attentions.{i}", f"{theirs}.{first + i}.1", _ATTENTION


def _blocks(layout: Layout) -> Iterator[_Block]:
    """Every block of the network, in the order of evaluation."""
    blocks, coarsest = layout.blocks, len(layout.multipliers) - 1
    for level in range(coarsest + 1):
        ours, first = f"down_blocks.{level}", 1 + level * (blocks + 1)
        attends = level in layout.attention_levels
        yield from _level(ours, "input_blocks", first, blocks=blocks, attends=attends)
        if level < coarsest:
            parts = _RESNET if layout.updown else {"conv": "op"}
            yield f"{ours}.downsamplers.0", f"input_blocks.{first + blocks}.0", parts
    yield "mid_block.resnets.0", "middle_block.0", _RESNET
    yield "mid_block.attentions.0", "middle_block.1", _ATTENTION
    yield "mid_block.resnets.1", "middle_block.2", _RESNET
    for level in range(coarsest, -1, -1):
        ours, first = f"up_blocks.{coarsest - level}", (coarsest - level) * (blocks + 1)
        attends = level in layout.attention_levels
        yield from _level(ours, "output_blocks", first, blocks=blocks + 1, attends=attends)
        if level > 0:  # upsampling has the number of the level's last block, after its other parts
            parts = _RESNET if layout.updown else {"conv": "conv"}
            yield f"{ours}.upsamplers.0", f"output_blocks.{first + blocks}.{1 + attends}", parts


def parameter_names(layout: Layout) -> dict[str, str]:
    """The checkpoint's name for each parameter of the diffusers network; query, key and value share one name."""
    modules = dict(_ENDS)
    for ours, theirs, parts in _blocks(layout):
        modules |= {f"{ours}.{ours_part}": f"{theirs}.{theirs_part}" for ours_part, theirs_part in parts.items()}
    split = (name.rpartition(".") for name in empty_network(layout).state_dict())
    return {f"{module}.{leaf}": f"{modules[module]}.{leaf}" for module, _, leaf in split}


def checkpoint_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """All keys of the checkpoint of a layout, with the shapes of their tensors."""
    names = parameter_names(layout)
    shapes: dict[str, tuple[int, ...]] = {}
    for ours, tensor in empty_network(layout).state_dict().items():
        theirs, shape = names[ours], tuple(tensor.shape)
        rows = 3 * shape[0] if ".qkv." in theirs else shape[0]
        width = (1,) if theirs.endswith(("qkv.weight", "proj_out.weight")) else ()  # a width-1 convolution
        shapes[theirs] = (rows, *shape[1:], *width)
    return shapes


def split_qkv(rows: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each of shape (C, ...), from OpenAI's legacy order of shape (3C, ...).

    There, the rows of head 0 (its query, then its key, then its value) are followed by those of head 1, and so on; in
    diffusers, each of the three has the rows of all heads.
    """
    query, key, value = rows.reshape(heads, 3, -1, *rows.shape[1:]).unbind(1)
    return query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)


def _convert_tensor(name: str, tensor: Tensor, head_channels: int) -> Tensor:
    """The diffusers parameter `name` in float32, from the checkpoint's tensor that holds it."""
    part = name.split(".")[-2]
    if part in _QKV:
        tensor = split_qkv(tensor, tensor.shape[0] // (3 * head_channels))[_QKV.index(part)]
    if tensor.shape[2:] == (1,):  # a width-1 convolution; only attention has them
        tensor = tensor.squeeze(-1)
    return tensor.float()


def _some(names: list[str]) -> str:
    """The first names of a list, and how many there are in all."""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"


def _check_state(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError unless the checkpoint has exactly these keys and shapes."""
    problems = {
        "missing keys": [key for key in shapes if key not in state],
        "unexpected keys": [key for key in state if key not in shapes],
        "keys of another shape": [
            f"{key}: got {tuple(state[key].shape)}, expected {shape}"
            for key, shape in shapes.items()
            if key in state and tuple(state[key].shape) != shape
        ],
    }
    found = [f"{what}: {_some(names)}" for what, names in problems.items() if names]
    if found:
        summary = f"expected the {len(shapes)} keys of this U-Net, got {len(state)} keys"
        raise InputError("\n  ".join([summary, *found]))


def map_state_dict(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The state dict of `empty_network(layout)` from an OpenAI one, all of whose keys are used.

    Raises:
        InputError: If a key is missing, unexpected, or of another shape.
    """
    _check_state(state, checkpoint_shapes(layout))
    names = parameter_names(layout)
    return {ours: _convert_tensor(ours, state[theirs], layout.head_channels) for ours, theirs in names.items()}
