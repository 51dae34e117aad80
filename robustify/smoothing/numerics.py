"""How exactly networks compute: the data types in use, and what the process allows for float32 products."""

from types import MappingProxyType

import torch
from torch import nn

_ROUNDING = MappingProxyType({"ieee": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7})
"""Relative rounding of the products of float32 numbers, from fine to coarse."""


def float32_products(device: str) -> str:
    """The coarsest products and convolutions of float32 numbers that the process allows: "ieee", "tf32" or "bf16".

    Arguments:
        device: Type of the device, "cpu" or "cuda".
    """
    b = torch.backends
    if not hasattr(b.cuda.matmul, "fp32_precision"):  # torch before 2.9
        allowed = {"highest": "ieee", "high": "tf32", "medium": "bf16"}[torch.get_float32_matmul_precision()]
        found = {allowed, "tf32" if device == "cuda" and b.cudnn.allow_tf32 else "ieee"}
    elif device == "cuda":
        found = {b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision}  # type: ignore[attr-defined]
    else:
        found = {b.mkldnn.matmul.fp32_precision, b.mkldnn.conv.fp32_precision}  # type: ignore[attr-defined]
    return next(kind for kind in reversed(_ROUNDING) if kind in found or kind == "ieee")


def rounding_of(*modules: nn.Module, lower: torch.dtype | None = None) -> float:
    """Relative rounding of the coarsest arithmetic in use: of weights, autocast to `lower`, float32 products."""
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    kinds = {torch.float32, lower or torch.float32, *(t.dtype for t in tensors)}
    devices = {t.device.type for t in tensors} | {"cpu"}
    return max(*(_ROUNDING[float32_products(device)] for device in devices), *(torch.finfo(kind).eps for kind in kinds))
