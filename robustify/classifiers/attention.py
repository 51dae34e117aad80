r"""Attention at another temperature: vision transformers that a single patch captures less easily.

Attention is :math:`\mathrm{softmax}(q k^\top / (T \sqrt d))`. A temperature T above 1 flattens it, so that one patch
cannot draw all of it to itself; clean accuracy suffers where T is large. It is a part of the network, so certificates
are for the network at this temperature.

References:
    Are Vision Transformers Robust to Patch Perturbations?, Gu, Tresp, Qin, 2022, https://arxiv.org/abs/2111.10659
"""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from robustify.classifiers.base import ImageClassifier
from robustify.errors import InputError, ModelError


def with_attention_temperature(classifier: ImageClassifier, temperature: float) -> ImageClassifier:
    """A copy of a classifier whose attention has another temperature; its weights are those of a plain network.

    Arguments:
        classifier: Its network is a VisionTransformer of timm.
        temperature: Number by which attention logits are divided, positive; 1 changes nothing. The temperature of a
            copy of a copy is the product of both.

    Raises:
        InputError: If the temperature is no finite number above 0.
        ModelError: If the network has no such attention.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise InputError(f"expected a temperature of attention, a finite number above 0; got {temperature!r}")
    network = deepcopy(classifier.network)
    with torch.no_grad():
        for attention in _attentions(network):
            _divide_queries(attention, temperature)
    return ImageClassifier(
        network,
        classifier.preprocessing,
        labels=classifier.labels,
        name=f"{classifier.name}, attention at temperature {temperature:g}",
        licence=classifier.licence,
    )


def _attentions(network: nn.Module) -> list[Any]:
    """The attention of each block.

    Raises:
        ModelError: If the network is no VisionTransformer of timm, or has a block with other attention.
    """
    from timm.layers import Attention
    from timm.models import VisionTransformer

    found = [module for module in network.modules() if type(module) is Attention]
    if not isinstance(network, VisionTransformer) or len(found) != len(network.blocks):
        raise ModelError(
            "expected a VisionTransformer of timm whose blocks have timm's Attention; got a "
            f"{type(network).__name__} in which {len(found)} do: the temperature of its attention cannot be changed."
        )
    return found


def _divide_queries(attention: Any, temperature: float) -> None:  # noqa: ANN401 - timm has no types
    """Divides queries, on which attention logits depend linearly, where they are made last."""
    if isinstance(attention.q_norm, nn.Identity):
        queries = attention.qkv.out_features // 3
        parts = [attention.qkv.weight[:queries]]
        parts += [] if attention.qkv.bias is None else [attention.qkv.bias[:queries]]
    else:
        parts = list(attention.q_norm.parameters())
    if not parts:
        raise ModelError(
            f"{type(attention.q_norm).__name__} normalises queries and has no weights: the temperature of attention "
            "cannot be changed."
        )
    for part in parts:
        part.div_(temperature)
