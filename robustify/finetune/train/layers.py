"""Depth of each parameter in the network, for learning rates that fall towards the input.

References:
    ELECTRA, Clark et al., 2020, https://arxiv.org/abs/2003.10555 (layer-wise learning-rate decay)
    BEiT, Bao et al., 2021, https://arxiv.org/abs/2106.08254 (the same for vision transformers)
"""

from torch import nn

from robustify.classifiers.open_clip import ZeroShotNetwork
from robustify.finetune.adapt.lora_layers import blocks, weight_layers


def layer_depths(network: nn.Module) -> dict[str, int]:
    """Depth of every parameter by name, adapters among them: 0 for embeddings and stem, i + 1 for block i.

    What comes after the last block (norm, head) lies one deeper; what stands between two blocks belongs to the
    former. The order is that in which modules were registered, which is that of the forward pass in timm,
    transformers, torchvision and open_clip.

    A network without blocks counts its layers instead.
    """
    places = blocks(network) or [name for name, _ in weight_layers(network)]
    depths: dict[str, int] = {}
    depth = 0
    for name, _ in network.named_parameters():
        inside = next((i for i, place in enumerate(places) if name.startswith(f"{place}.")), None)
        if inside is not None:
            depth = inside + 1
        elif depth == len(places):
            depth += 1
        depths[name] = len(places) + 1 if _is_projection(name, network) else depth
    return depths


def _is_projection(name: str, network: nn.Module) -> bool:
    """Whether it is the last matrix of open_clip, which is registered before the blocks."""
    return isinstance(network, ZeroShotNetwork) and name == "visual.proj"
