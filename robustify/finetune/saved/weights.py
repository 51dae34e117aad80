"""The weights that training changes, apart from those that stay frozen."""

from collections.abc import Mapping

from torch import Tensor, nn

from robustify.errors import RunError


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """Everything that training changes: parameters that learn, and buffers such as running statistics."""
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in frozen}


def restore_trained(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts `trained_state` back.

    Raises:
        RunError: If it belongs to another network.
    """
    own = network.state_dict()
    wrong = sorted(name for name in state if name not in own or own[name].shape != state[name].shape)
    if wrong:
        raise RunError(f"the stored weights are of another network: {len(wrong)} tensors differ, first {wrong[0]!r}")
    network.load_state_dict(dict(state), strict=False)
