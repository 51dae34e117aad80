"""What the weights of a network tell about themselves: whether there are any, and whether they look trained."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustify.errors import ModelError

RANDOM = "random weights"
"""What the name of a model says of weights that nobody trained."""


def check_loaded(network: nn.Module) -> None:
    """Refuses networks whose weights hold no numbers yet.

    Raises:
        ModelError: If a weight is on the meta device, or gets its shape and random numbers at the first forward pass.
    """
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    if empty := [name for name, tensor in tensors.items() if tensor.is_meta]:
        raise ModelError(
            f"the weights hold no numbers: {len(empty)} are on the meta device, first {empty[0]!r}.\n"
            "  Load them first, such as with network.load_state_dict(weights, assign=True)."
        )
    if lazy := [name for name, tensor in tensors.items() if is_lazy(tensor)]:
        raise ModelError(
            f"the weights hold no numbers: {len(lazy)} would get random ones at the first forward pass, first "
            f"{lazy[0]!r}.\n  Run one forward pass, then load the trained weights."
        )


def look_untrained(network: nn.Module) -> bool:
    """Whether the weights of every normalisation layer are constant, as they are before training."""
    norms = [module for module in network.modules() if "norm" in type(module).__name__.lower()]
    found = [getattr(module, "weight", None) for module in norms]
    weights = [weight for weight in found if isinstance(weight, Tensor) and not weight.is_meta]
    return bool(weights) and all(map(_is_constant, weights))


def _is_constant(weight: Tensor) -> bool:
    return torch.equal(weight, weight.flatten()[:1].expand_as(weight))
