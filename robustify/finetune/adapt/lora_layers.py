"""The modules of a classifier to adapt, found by their types, their place, and the order in which they run.

Names alone mislead: `proj` may be a patch embedding or an attention's output; BEiT and Swin V2 pass their
`qkv.weight` to a function, so that an adapter around `qkv` would be trained on nothing; so would one around the
`out_proj` of `nn.MultiheadAttention`. Only layers that a forward pass calls are adapted.
"""

import re
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from robustify.classifiers import ImageClassifier
from robustify.classifiers.open_clip import ZeroShotNetwork
from robustify.classifiers.transformers import LogitsOf
from robustify.errors import InputError, ModelError
from robustify.types import Logits

_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
_QUERY_VALUE = re.compile(r"(to_)?(q|v|kv|qv|qkv|query|value|query_key_value)(_proj|_lin|_linear)?|in_proj")


@final
@dataclass(frozen=True)
class Targets:
    """Names of modules, relative to `core` of the classifier's network.

    Arguments:
        adapted: Modules that get an adapter.
        head: Modules that are trained in full; empty where the head is fixed (zero-shot classifiers).
    """

    adapted: tuple[str, ...]
    head: tuple[str, ...]


def core(network: nn.Module) -> nn.Module:
    """The module as its own library knows it, so that names and saved adapters fit it."""
    return network.model if isinstance(network, LogitsOf) else network


def targets(classifier: ImageClassifier, layers: str | tuple[str, ...] = "attention") -> Targets:
    """Finds the modules to adapt and those to train in full, by running two images.

    Arguments:
        classifier: In evaluation mode, without adapters.
        layers: `attention` (queries and values, or what is fused with them; the whole of each
            `nn.MultiheadAttention`; every layer of the blocks where nothing attends), `all` layers of the blocks, or
            regular expressions that match whole module names.

    Raises:
        ModelError: If nothing can be adapted.
        InputError: If a regular expression is broken, matches nothing, or matches what cannot be adapted.
    """
    network = core(classifier.network)
    calls = _calls(classifier)
    head = find_head(classifier, calls)
    if isinstance(layers, tuple):
        return Targets(_matching(network, layers, calls, head), head)
    if layers not in ("attention", "all"):
        raise InputError(
            f"expected layers='attention', 'all' or a tuple of regular expressions; got {layers!r}.\n"
            f"  For the modules of that name: layers=({layers!r},)"
        )
    inside = [name for name, _ in weight_layers(network) if _is_within(name, blocks(network)) and name not in head]
    able = [name for name in inside if name in calls and _is_adaptable(network.get_submodule(name))]
    if not able:
        raise ModelError(
            f"{classifier.name} has nothing to adapt: no plain Linear, ungrouped Conv2d or MultiheadAttention "
            "runs inside a repeated block.\n"
            "  Train it in full, how='full', or name modules: Lora(layers=(r'features\\.\\d+',))."
        )
    return Targets(tuple(_attention(network, inside, able) if layers == "attention" else able), head)


def find_head(classifier: ImageClassifier, calls: list[str] | None = None) -> tuple[str, ...]:
    """The layers that run last and have one output per class; DeiT has two. At most one of them lies in a block.

    Arguments:
        classifier: In evaluation mode.
        calls: Names of its layers in the order in which they run; found by a forward pass where None.
    """
    network = core(classifier.network)
    head: list[str] = []
    units = blocks(network)
    if isinstance(network, ZeroShotNetwork):  # its head is made of texts; what runs last is the image projection
        return ()
    for name in reversed(_calls(classifier) if calls is None else calls):
        module = network.get_submodule(name)
        outputs = module.out_features if isinstance(module, nn.Linear) else getattr(module, "out_channels", None)
        if outputs != len(classifier.labels) or (head and _is_within(name, units)):
            break
        head.insert(0, name)
    return tuple(head)


def blocks(network: nn.Module) -> list[str]:
    """Names of the repeated units, first to last: elements of a container with at least two layers each.

    An element most of whose layers lie in elements of its own is a stage, not a block.
    """
    return _blocks("", network, is_element=False)


def run(classifier: ImageClassifier) -> Logits:
    """Logits of two images of noise in [0, 1], the same each time, computed as in training.

    Without gradients torch's own transformer layers take a short cut around the attention's `forward`.
    """
    p = classifier.preprocessing
    pixels = torch.rand(2, p.channels, *p.size, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    with torch.enable_grad():
        logits: Tensor = classifier(pixels.to(classifier.device).requires_grad_())
    return logits.detach()


def weight_layers(module: nn.Module, name: str = "") -> list[tuple[str, nn.Module]]:
    """Linear, convolution and attention layers by name; what is inside one is part of it."""
    if is_weight_layer(module):
        return [(name, module)]
    return [pair for child, sub in module.named_children() for pair in weight_layers(sub, _join(name, child))]


def is_weight_layer(module: nn.Module) -> bool:
    """Whether it is one layer with a weight, or an adapter around one."""
    return isinstance(module, nn.Linear | _ConvNd | nn.MultiheadAttention) or hasattr(module, "get_base_layer")


def _blocks(name: str, module: nn.Module, *, is_element: bool) -> list[str]:
    if is_weight_layer(module):
        return []
    inner = [
        block
        for child, submodule in module.named_children()
        for block in _blocks(_join(name, child), submodule, is_element=isinstance(module, _CONTAINERS))
    ]
    layers = [layer for layer, _ in weight_layers(module, name)]
    nested = sum(_is_within(layer, inner) for layer in layers)
    return [name] if is_element and len(layers) >= 2 and 2 * nested <= len(layers) else inner


def _calls(classifier: ImageClassifier) -> list[str]:
    """Names of the layers whose `forward` runs, each once, in the order of their last call."""
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in weight_layers(core(classifier.network))
    ]
    try:
        run(classifier)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(reversed(order)))[::-1]


def _attention(network: nn.Module, inside: list[str], able: list[str]) -> list[str]:
    """Queries and values; without them, other layers of attentions; without attentions, all layers that take one."""
    parents = {name.rpartition(".")[0] for name in inside if _QUERY_VALUE.fullmatch(name.rpartition(".")[2])}
    chosen = [
        name
        for name in able
        if isinstance(network.get_submodule(name), nn.MultiheadAttention)
        or _QUERY_VALUE.fullmatch(name.rpartition(".")[2])
    ]
    return chosen or [name for name in able if name.rpartition(".")[0] in parents] or able


def _matching(
    network: nn.Module, patterns: tuple[str, ...], calls: list[str], head: tuple[str, ...]
) -> tuple[str, ...]:
    """Names that the user's regular expressions match, each of which must take an adapter."""
    names = [name for name, _ in network.named_modules() if name]
    matched: set[str] = set()
    for pattern in patterns:
        try:
            found = {name for name in names if re.fullmatch(pattern, name)}
        except re.error as error:
            raise InputError(f"{pattern!r} is not a regular expression: {error}") from error
        if not found:
            raise InputError(
                f"no module is named {pattern!r}; a regular expression must match a whole name, such as {names[-1]!r}"
            )
        matched |= found
    unfit = [n for n in names if n in matched and (n in head or n not in calls or not _is_adaptable(_at(network, n)))]
    if unfit:
        raise InputError(
            f"cannot adapt {unfit[0]!r} ({type(_at(network, unfit[0])).__name__}): expected a Linear, an ungrouped "
            "Conv2d or a whole MultiheadAttention that a forward pass calls, not the head.\n"
            "  Make the regular expression match less."
        )
    return tuple(name for name in names if name in matched)


def _at(network: nn.Module, name: str) -> nn.Module:
    return network.get_submodule(name)


def _is_adaptable(module: nn.Module) -> bool:
    """Whether peft's adapter computes the same before and after it is merged into the weight.

    Not so for layers that do something to their weight or padding first (a subclass's `forward`), nor for
    convolutions with groups, dilation or another padding, which peft's own convolution does not have.
    """
    if is_parametrized(module):
        return False
    if isinstance(module, nn.MultiheadAttention):
        return type(module).forward is nn.MultiheadAttention.forward and module._qkv_same_embed_dim
    if isinstance(module, nn.Conv2d):
        plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
        return type(module).forward is nn.Conv2d.forward and plain
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def _is_within(name: str, places: list[str]) -> bool:
    return any(name.startswith(f"{place}.") for place in places)


def _join(name: str, child: str) -> str:
    return f"{name}.{child}" if name else child
