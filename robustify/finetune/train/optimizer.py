"""The optimizer of a recipe: which parameters decay, rates by depth, schedules, and the scale of float16 gradients."""

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from robustify.finetune.adapt.lora_layers import weight_layers
from robustify.finetune.recipe import Recipe
from robustify.finetune.train.layers import layer_depths

_MAKE: dict[str, Any] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9),
}


@final
class RecipeOptimizer:
    """Steps of the recipe's optimizer at the recipe's rates.

    Arguments:
        network: Its parameters that require gradients learn.
        recipe: How to train.
        device: Where the network computes.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.learning = [p for p in network.parameters() if p.requires_grad]
        self._recipe = recipe
        self._scales, groups = parameter_groups(network, recipe.layer_decay)
        self._optimizer: torch.optim.Optimizer = _MAKE[recipe.optimizer](groups)
        self._scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")

    def set_rates(self, epoch: float, *, step: float) -> float:
        """Sets learning rates and weight decay of a step. Returns the rate of the last layers.

        Arguments:
            epoch: Epochs so far, with a fraction.
            step: Length of the step in epochs.
        """
        rate = self._recipe.learning_rate_at(epoch, step=step)
        decay = self._recipe.weight_decay_at(epoch)
        for group, scale in zip(self._optimizer.param_groups, self._scales, strict=True):
            group["lr"] = rate * scale
            group["weight_decay"] = decay if group["decays"] else 0.0
        return rate

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of the loss, scaled in float16, to that of the parameters."""
        torch.autograd.backward(self._scaler.scale(loss))

    def unscale(self) -> None:
        """Divides the gradients by the scale of float16; once, before they are looked at."""
        self._scaler.unscale_(self._optimizer)

    def skips_overflow(self) -> bool:
        """Whether a gradient that is not finite is due to the scale: the step is then left out and the scale halved."""
        return self._scaler.is_enabled() and self._scaler.get_scale() >= 1

    def steepest(self) -> float:
        """The largest absolute entry of the gradient; NaN where one is NaN."""
        slopes = [torch.linalg.vector_norm(p.grad, math.inf) for p in self.learning if p.grad is not None]
        return float(torch.stack(slopes).amax()) if slopes else 0.0

    def step(self) -> None:
        """Clips the gradients, moves the parameters and clears the gradients."""
        if self._recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.learning, self._recipe.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """Everything needed to continue."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def parameter_groups(network: nn.Module, layer_decay: float) -> tuple[list[float], list[dict[str, Any]]]:
    """Parameters that learn, grouped by depth and by whether they decay.

    Weights of layers decay, and adapters; biases, norms, tokens, positions and scales do not.

    Arguments:
        network: Its parameters that require gradients are grouped.
        layer_decay: Learning rate of a layer, divided by that of the layer after it.

    Returns:
        For each group its share of the learning rate, and the groups as torch takes them.
    """
    depths = layer_depths(network) if layer_decay < 1 else {}
    last = max(depths.values(), default=0)
    weights = {id(p) for _, layer in weight_layers(network) for p in layer.parameters() if p.ndim > 1}
    found: dict[tuple[int, bool], list[Tensor]] = {}
    for name, p in network.named_parameters():
        if p.requires_grad:
            found.setdefault((depths.get(name, 0), id(p) in weights), []).append(p)
    scales = [layer_decay ** (last - depth) for depth, _ in found]
    return scales, [{"params": params, "decays": decays} for (_, decays), params in found.items()]
