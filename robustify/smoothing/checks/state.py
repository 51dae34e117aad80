"""What tells that a model may compute another function than when it was checked."""

from collections.abc import Hashable, Iterator

import torch
from torch import nn

_PRIMITIVE = (bool, int, float, str, type(None))


def state(*modules: nn.Module) -> Hashable:
    """Changes when a module, a tensor, a setting or a hook does, or which kernels the process prefers.

    It does not change when a tensor is changed by its `.data`, or when an object that a setting refers to changes
    inside: the probes among the draws find these.
    """
    return _process(), tuple(part for module in modules for part in _state(module))


def _process() -> Hashable:
    """Settings of the process that choose kernels."""
    cudnn = torch.backends.cudnn
    return cudnn.deterministic, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()


def _state(root: nn.Module) -> Iterator[Hashable]:
    for module in root.modules():
        yield getattr(type(module), "forward", id(module))
        for name, value in vars(module).items():
            yield name, value if isinstance(value, _PRIMITIVE) else id(value)
        yield from (id(hook) for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))
    for tensor in (*root.parameters(), *root.buffers()):
        version = None if tensor.is_inference() else tensor._version
        yield id(tensor), version, tensor.data_ptr(), tensor.dtype, tensor.device
