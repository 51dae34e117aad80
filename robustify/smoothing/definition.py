"""What modules compute by, besides their tensors: code, attributes and hooks, as text, the same in every process.

The text of the user's own classes and functions is their source, with what it refers to. A library's next version may
change code that computes the same, so of a library's parts only names, plain attributes and functions count, which
somebody may have changed by hand.
"""

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType
from typing import TypeAlias, final, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

Plain: TypeAlias = str | bytes | int | float | complex | None

_FIXED = (*get_args(Plain), tuple, type, FunctionType, MethodType, partial, Tensor, np.ndarray)
"""What a function may refer to that is part of what it computes."""

_NO_SETTINGS = {"training", "name_or_path"} | set(vars(nn.Module()))
"""Attributes that say in which mode a module is, where it came from, or are torch's own."""

_LIBRARIES = (*map(Path, sysconfig.get_paths().values()), Path(__file__).parents[1])


@final
class Definition:
    """The text of one network."""

    def __init__(self) -> None:
        # Values are kept beside their text, so that no other object gets the id of one.
        self._found: dict[int, tuple[object, str]] = {}

    def of_network(self, network: nn.Module) -> Iterator[str]:
        """The text of each layer, after that of hooks on all modules."""
        for hooks in (torch_modules._global_forward_pre_hooks, torch_modules._global_forward_hooks):
            yield from map(self.of, hooks.values())
        for name, layer in network.named_modules():
            yield name
            yield from self.of_layer(layer)

    def of_layer(self, layer: nn.Module) -> Iterator[str]:
        """The text of a module without its tensors and layers."""
        yield self.of(type(layer))
        yield from (f"{name}={text}" for name, text in self.settings_of(layer))
        for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
            yield from (f"hook {self.of(hook)}" for hook in hooks.values())

    def settings_of(self, layer: nn.Module) -> Iterator[tuple[str, str]]:
        """The name and the text of each attribute that counts."""
        own = not _of_a_library(type(layer))
        for name, value in sorted(vars(layer).items()):
            if name in _NO_SETTINGS:
                continue
            plain = isinstance(value, Plain) or callable(value)
            if own or (plain and not name.startswith("_") and not isinstance(value, nn.Module)):
                yield name, self.of(value)

    def of(self, value: object) -> str:
        """The text of any value."""
        if isinstance(value, Plain):
            return repr(value)
        if id(value) not in self._found:
            self._found[id(value)] = value, f"{type(value).__qualname__} around this"  # where it contains itself
            self._found[id(value)] = value, self._of_new(value)
        return self._found[id(value)][1]

    def _of_new(self, value: object) -> str:
        if isinstance(value, Tensor | np.ndarray):
            return _of_numbers(value)
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, FunctionType | MethodType | partial):
            return self._of_function(value)
        if isinstance(value, nn.Module):
            return "; ".join([*self.of_network(value), *(self.of(tensor) for tensor in tensors_of(value).values())])
        return self._of_collection(value)

    def _of_collection(self, value: object) -> str:
        kind = type(value).__qualname__
        if isinstance(value, Mapping):
            return f"{kind}({', '.join(sorted(f'{self.of(key)}: {self.of(item)}' for key, item in value.items()))})"
        if isinstance(value, Set):
            return f"{kind}({', '.join(sorted(map(self.of, value)))})"
        if isinstance(value, Sequence):
            return f"{kind}({', '.join(map(self.of, value))})"
        attributes = vars(value) if hasattr(value, "__dict__") else {}
        if _of_a_library(type(value)):
            attributes = {k: v for k, v in attributes.items() if isinstance(v, Plain) and k not in _NO_SETTINGS}
        described = ", ".join(f"{name}={self.of(item)}" for name, item in sorted(attributes.items()))
        return f"{_name(type(value))}({described})"

    def _of_function(self, value: "FunctionType | MethodType | partial[object]") -> str:
        if isinstance(value, partial):
            return f"partial({self.of(value.func)}, {self.of(value.args)}, {self.of(value.keywords)})"
        if isinstance(value, MethodType):
            return f"{self.of(value.__func__)} of {self.of(value.__self__)}"
        if _of_a_library(value):
            return _name(value)
        # A list, set or mapping that a function closes over is usually where it records.
        cells = [held for held in map(_held, value.__closure__ or ()) if isinstance(held, _FIXED)]
        settings = [cells, value.__defaults__, value.__kwdefaults__]
        return f"{_source(value)} {self.of(settings)} {self._of_globals(value)}"

    def _of_class(self, value: type) -> str:
        kinds = [kind for kind in value.__mro__ if not _of_a_library(kind)]
        methods = [f for kind in kinds for f in vars(kind).values() if isinstance(f, FunctionType)]
        bases = [_name(kind) for kind in value.__mro__ if _of_a_library(kind)]
        return " ".join([*map(_source, kinds), *bases, *map(self._of_globals, methods)])

    def _of_globals(self, function: FunctionType) -> str:
        """The text of numbers, functions and classes of its module that a function refers to."""
        found = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
        named = {k: v for k, v in found.items() if isinstance(v, _FIXED)}
        return ", ".join(f"{name}={self.of(item)}" for name, item in sorted(named.items()))


def tensors_of(module: nn.Module) -> dict[str, object]:
    """The state dictionary, and the buffers that are not stored there, by name."""
    return dict(sorted({**dict(module.named_buffers()), **module.state_dict()}.items()))


def _of_numbers(value: "Tensor | np.ndarray") -> str:
    """Type, shape and hash."""
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()}"
    return f"tensor {value.dtype} {tuple(value.shape)} {hashlib.sha256(bytes_of(value)).hexdigest()}"


def bytes_of(value: Tensor) -> memoryview:
    """All numbers of a tensor, those that a sparse one does not store too."""
    numbers = value.detach().cpu()
    numbers = numbers.dequantize() if numbers.is_quantized else numbers
    numbers = numbers if numbers.layout is torch.strided else numbers.to_dense()
    found: memoryview = numbers.contiguous().flatten().view(torch.uint8).numpy().data
    return found


def _held(cell: CellType) -> object:
    """What a cell of a closure holds; None before anything is put there."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _names(code: CodeType) -> set[str]:
    """Global names in a function's code and in the functions inside it."""
    inside = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inside)


def _source(part: object) -> str:
    """The source of a class or function; its name where none is kept, as in a console."""
    try:
        return inspect.getsource(part)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return _name(part)


def _name(part: object) -> str:
    return f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', type(part).__qualname__)}"


def _of_a_library(part: object) -> bool:
    """Whether a class or function is of this package, of Python or of an installed distribution."""
    module = sys.modules.get(str(getattr(part, "__module__", None)))
    file = getattr(module, "__file__", None)
    if file is None:
        return module is not None and module.__name__ != "__main__"  # built in
    return any(Path(file).is_relative_to(folder) for folder in _LIBRARIES)
