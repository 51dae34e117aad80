"""Helpers that the checks of several kinds share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustify.errors import ModelError
from robustify.smoothing.checks.fixed_function import FixedFunction
from robustify.smoothing.checks.probes import Probes
from robustify.smoothing.numerics import rounding_of
from robustify.types import Pixels

TOLERANCE = 1e-3
"""Largest difference between two outputs that mean the same, relative to their largest value."""

BATCH = 16
"""Images per forward pass when a function is probed."""


def check_fixed(function: Callable[[Tensor], Tensor], images: Pixels, module: nn.Module, name: str) -> None:
    """Checks that it is one fixed function of each image alone, draws nothing, and leaves its input as it was."""
    given = images.clone()
    output = function(given)
    require(
        torch.equal(given, images),
        f"{name} changes in place the pixels that it is given.\n  Look for operations such as x.sub_(…) or x -= ….",
    )
    require(
        torch.equal(function(images.clone()), output),
        f"{name} gives two answers for the same pixels: a certificate is about one fixed function.\n"
        "  Look for added noise, a sampler, or dropout that ignores eval(); the smoother alone adds noise.",
    )
    _check_draws_nothing(function, images, name)
    alone = function(images[:1].clone())
    require(
        alone.shape == output[:1].shape,
        f"{name} gives shape {tuple(alone.shape)} for one image, {tuple(output.shape)} for {len(images)}.\n"
        "  Look for squeeze() without a dimension.",
    )
    channels, height, width = images.shape[1:]
    probes = Probes.make(
        lambda noisy, _: function(noisy).flatten(1),
        (channels, height, width),
        sigmas=(1.0,),
        batch=BATCH,
        device=images.device,
    )
    FixedFunction(probes, rounding=rounding_of(module), thorough=True)


def _check_draws_nothing(function: Callable[[Tensor], Tensor], images: Pixels, name: str) -> None:
    """Checks that the generators of torch are left as they were."""
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.rand(1, device=images.device)  # to a state in which no seed inside the function would leave it
        before = _random_state(images.device)
        function(images.clone())
        after = _random_state(images.device)
    require(
        all(map(torch.equal, before, after)),
        f"{name} draws random numbers: the smoother alone adds noise, exactly sigma.\n"
        "  Return the mean, not a sample. Seeding inside does not help: it changes the noise of others.",
    )


def _random_state(device: torch.device) -> list[Tensor]:
    """The state of every generator of torch that a forward pass could draw from unasked."""
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def gap_of(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-6))


def short(value: object, length: int = 200) -> str:
    """The value as text of limited length."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def require(holds: bool, otherwise: str) -> None:
    """Raises `ModelError` with the text unless it holds."""
    if not holds:
        raise ModelError(otherwise)
