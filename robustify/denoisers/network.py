"""Networks of diffusers that a denoiser can use: what their configuration must say, and one call of theirs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robustify.denoisers.base import faults_of
from robustify.errors import ModelError

_IMAGES = (1, 3)
"""Numbers of channels that images have."""

_CALL = (
    "\n  Expected a network that is called as network(images, timesteps) and returns an object with `sample`, as "
    "diffusers' UNet2DModel."
)

_CONDITIONS = ("num_class_embeds", "class_embed_type", "cross_attention_dim")


def config_of(network: object) -> Mapping[str, Any]:
    """The configuration of a network that denoises pixels, by itself and in one call.

    Raises:
        ModelError: If the network is in training mode, latent, conditional or of another kind.
    """
    config = getattr(network, "config", None)
    name = type(network).__name__
    if not isinstance(network, nn.Module) or not isinstance(config, Mapping) or "in_channels" not in config:
        raise ModelError(f"expected a diffusers network with config.in_channels; got {name}")
    _check_kind(network)
    if any(module.training for module in network.modules()):
        raise ModelError("the denoiser is in training mode: its output would be random. Call .eval() first.")
    if any(config.get(key) for key in _CONDITIONS):
        raise ModelError(f"expected an unconditional network; {name} needs classes or text")
    _check_channels(config)
    _check_input(config, name)
    return config


def size_of(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the images that the network was trained on; None where it does not say."""
    sample_size = config.get("sample_size")
    if sample_size is None:
        return None
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    return int(height), int(width)


def dtype_of(network: nn.Module) -> torch.dtype:
    """Data type of the network's parameters; float32 where it has none."""
    return next((parameter.dtype for parameter in network.parameters()), torch.float32)


def predict(network: nn.Module, y_t: Tensor, times: Tensor, name: str) -> Tensor:
    """The network's prediction in float32, without a learned variance: shape (B, C, H, W) as `y_t`.

    Arguments:
        network: A network that `config_of` accepts.
        y_t: Noisy images as the network was trained on, shape (B, C, H, W).
        times: Timesteps, shape (B).
        name: Name of the denoiser in error texts.

    Raises:
        ModelError: If the network fails, or returns another shape.
    """
    with faults_of(f"the network of {name}, given images of shape {tuple(y_t.shape)} and timesteps,", _CALL):
        predicted: object = network(y_t.to(dtype_of(network)), times).sample
    if not isinstance(predicted, Tensor) or not _fits(predicted.shape, y_t.shape):
        found = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
        raise ModelError(f"expected a prediction of shape {tuple(y_t.shape)}; the network of {name} gives {found}")
    return predicted.float()[:, : y_t.shape[1]]


def _fits(found: torch.Size, wanted: torch.Size) -> bool:
    """Whether a prediction has the shape of its images, but for channels of a learned variance."""
    return len(found) == len(wanted) and found[1] >= wanted[1] and (found[:1], found[2:]) == (wanted[:1], wanted[2:])


def _check_kind(network: nn.Module) -> None:
    """Refuses models of diffusers other than `UNet2DModel`; networks from elsewhere are known by what they return."""
    kinds = {kind.__name__ for kind in type(network).__mro__}
    if "ModelMixin" in kinds and "UNet2DModel" not in kinds:
        raise ModelError(
            f"expected a diffusers UNet2DModel, which maps noisy pixels and timesteps to a prediction; got "
            f"{type(network).__name__}.\n"
            "  Autoencoders, transformers, and networks of latents, text, sound or video cannot denoise pixels alone."
        )


def _check_channels(config: Mapping[str, Any]) -> None:
    channels, out = config["in_channels"], config.get("out_channels")
    if out is None or out not in (channels, 2 * channels):
        raise ModelError(
            f"expected as many output channels as input channels, or twice as many (learned variance); "
            f"got {channels} in, {out} out"
        )
    if channels not in _IMAGES:
        raise ModelError(
            f"expected a network of pixels, with 1 or 3 channels; got {channels} channels: it works on latents or on "
            "several images at once"
        )


def _check_input(config: Mapping[str, Any], name: str) -> None:
    """Refuses networks whose input is not y_t in [-1, 1] with a timestep between two whole numbers."""
    if config.get("center_input_sample"):
        raise ModelError(
            f"expected a network of pixels scaled to [-1, 1]; {name} has center_input_sample=True: it scales pixels "
            "from [0, 1] itself, and knows noise of another size"
        )
    meanings = {
        "fourier": "the network takes noise levels, not timesteps",
        "learned": "the network knows whole timesteps alone, and the noise of sigma lies between two of them",
    }
    if (embedding := config.get("time_embedding_type", "positional")) != "positional":
        meaning = meanings.get(embedding, "what the network takes as its time is not known")
        raise ModelError(f"expected time_embedding_type='positional'; {name} has {embedding!r}: {meaning}")
