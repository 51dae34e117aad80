"""Wrapping of denoisers that are already in memory."""

from robustify.denoisers.base import Denoiser
from robustify.denoisers.diffusion import DiffusionDenoiser, from_pipeline
from robustify.errors import InputError


def wrap(denoiser: object) -> Denoiser:
    """Wraps a diffusers pipeline, or a pair (network, scheduler), as a one-step denoiser; a `Denoiser` stays as it is.

    Raises:
        InputError: If it is none of these.
        ModelError: If the network cannot denoise pixels.
    """
    if isinstance(denoiser, Denoiser):
        return denoiser
    if hasattr(denoiser, "components") and hasattr(denoiser, "scheduler"):
        return from_pipeline(denoiser, name=type(denoiser).__name__)
    if isinstance(denoiser, tuple) and len(denoiser) == 2:
        network, scheduler = denoiser
        return DiffusionDenoiser(network, scheduler, name=type(network).__name__)
    raise InputError(
        f"expected a reference 'source:name', a folder, a Denoiser, a diffusers pipeline or (network, scheduler); "
        f"got {type(denoiser).__name__}"
    )
