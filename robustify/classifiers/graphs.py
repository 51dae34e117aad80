"""Networks whose mode is no setting: graphs of torch.export, quantised layers, frozen TorchScript.

A graph of `torch.export` does what it did when it was exported, and refuses `eval()`. So its operations are asked
instead of its layers.
"""

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, fx, nn

from robustify.errors import ModelError

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
"""Packages of layers that compute the same in every mode."""

_MODES = ("train", "training")
"""Arguments of torch's operations that switch to batch statistics or dropout."""

BATCH_HINT = "Export it for batches of any size: dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)."
"""Advice where a graph takes only the batch size that it was exported with."""


@final
class Exported(nn.Module):
    """A graph of torch.export as a layer: it stays in the mode that it was exported in."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph
        self.training = False

    def train(self, mode: bool = True) -> "Exported":
        """Changes nothing, since the graph cannot change."""
        del mode
        return self

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Tensor = self.graph(*inputs)
        return output


def as_layer(network: nn.Module) -> nn.Module:
    """The network; a graph of torch.export as an `Exported`, since the mode of layers above it may be set.

    Raises:
        ModelError: If there is such a graph inside the network.
    """
    if is_exported(network):
        return Exported(network)
    inside = [name for name, module in network.named_modules() if is_exported(module)]
    if inside and not isinstance(network, Exported):
        raise ModelError(
            f"the layer {inside[0]!r} is a graph of torch.export, which refuses eval(), and so does every module "
            "around it.\n  Export the whole network instead."
        )
    return network


def is_exported(module: nn.Module) -> bool:
    """Whether it is what `ExportedProgram.module()` gives: a graph whose own `eval` replaces that of modules."""
    return isinstance(module, fx.GraphModule) and "eval" in vars(module)


def in_training_mode(network: nn.Module) -> list[str]:
    """Names of the layers in training mode, and of the operations of exported graphs that were exported in it."""
    graphs = {name: m for name, m in network.named_modules() if isinstance(m, fx.GraphModule) and is_exported(m)}
    operations = [f"{name}.{node}".lstrip(".") for name, graph in graphs.items() for node in _training(graph)]
    layers = [name or type(module).__name__ for name, module in _with_modes(network, graphs) if _trains(module)]
    return [*layers, *operations]


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a layer is a batch normalisation; TorchScript keeps only the name of the class that it was."""
    name = getattr(module, "original_name", "") if isinstance(module, torch.jit.ScriptModule) else ""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or "BatchNorm" in name


def _with_modes(network: nn.Module, graphs: dict[str, fx.GraphModule]) -> Iterator[tuple[str, nn.Module]]:
    """The layers that are not part of a graph, with their names."""
    for name, module in network.named_modules():
        if not any(graph in ("", name) or name.startswith(f"{graph}.") for graph in graphs):
            yield name, module


def _trains(module: nn.Module) -> bool:
    """Whether a layer is in training mode; frozen TorchScript has none, and to quantised layers it means nothing."""
    return getattr(module, "training", False) and not type(module).__module__.startswith(_QUANTISED)


def _training(graph: fx.GraphModule) -> Iterator[str]:
    """Names of the operations that dropout or batch statistics were switched on for."""
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for place, argument in enumerate(schema.arguments if schema else ()):
            value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            if argument.name in _MODES and value is True:
                yield str(node.name)
