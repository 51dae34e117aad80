"""The check of a denoiser."""

import torch
from torch import Tensor

from robustify.classifiers.base import check_evaluation_mode
from robustify.denoisers import Denoiser
from robustify.denoisers.base import faults_of
from robustify.errors import InputError, ModelError
from robustify.testing.shared import TOLERANCE, check_fixed, gap_of, require, short
from robustify.types import Pixels


def check_denoiser(denoiser: Denoiser, clean: Pixels, *, sigma: float) -> None:
    """Checks that a denoiser is one fixed function of each image that adds no noise and beats leaving the noise in.

    It keeps shape and dtype, stays within [0, 1], and its mean squared error is below the noise's, which is
    sigma squared. `Identity` leaves the noise in, and fails. A batch of images under noise of two levels is denoised
    as each image is among others of its own level; a denoiser that cannot do that may refuse it with `InputError`.

    Arguments:
        denoiser: A denoiser in evaluation mode.
        clean: Pixels in [0, 1], shape (B, C, H, W); real images that the denoiser should know how to handle.
        sigma: Standard deviation of the noise to be removed, in [0, 1] pixels; choose one that people will use.

    Raises:
        InputError: If `clean` is not in [0, 1], or does not have the denoiser's shape.
        ModelError: If the denoiser breaks its contract.
    """
    _check_clean(denoiser, clean)
    check_evaluation_mode(denoiser)
    _check_description(denoiser, sigma)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(clean)
    noisy = clean + sigma * noise
    with torch.no_grad():
        with faults_of(denoiser.name):
            estimate = denoiser(noisy.clone(), sigma)
        _check_estimate(estimate, noisy, denoiser.name)
        check_fixed(lambda images: denoiser(images, sigma), noisy, denoiser, denoiser.name)
        _check_levels(denoiser, noisy[:1], sigma)
    error, power = (float((images - clean).square().mean()) for images in (estimate, noisy))
    require(
        error < power,
        f"{denoiser.name} is worse than leaving the noise in: mean squared error {error:.4g}, the noise's is "
        f"{power:.4g} (sigma={sigma:g}).\n"
        "  Does it take sigma in [0, 1] pixels, and scale pixels as the network was trained, such as 2x - 1?",
    )


def _check_clean(denoiser: Denoiser, clean: Pixels) -> None:
    _, channels, height, width = clean.shape
    wanted = (denoiser.channels or channels, *(denoiser.size or (height, width)))
    if (channels, height, width) != wanted:
        raise InputError(f"{denoiser.name} works on images of shape {wanted}; got {(channels, height, width)}")
    if not bool((clean >= 0).all() and (clean <= 1).all()):
        raise InputError(f"expected clean pixels in [0, 1]; got {float(clean.min()):.4g} to {float(clean.max()):.4g}")


def _check_description(denoiser: Denoiser, sigma: float) -> None:
    line = denoiser.describe(sigma)
    require(
        isinstance(line, str) and line.strip() != "" and "\n" not in line,
        f"expected describe(sigma) to be one line for the input contract; that of {denoiser.name} is {short(line)}",
    )


def _check_levels(denoiser: Denoiser, image: Pixels, sigma: float) -> None:
    """Checks that a tensor of levels, one for each image, gives what numbers give."""
    levels = torch.tensor([sigma, _other_level(denoiser, sigma), sigma], dtype=torch.float64)
    images = image.repeat(len(levels), 1, 1, 1)
    alone = torch.stack([denoiser(images.clone(), level)[i] for i, level in enumerate(levels.tolist())])
    hint = "  Give levels the dtype, device and axes of pixels, sigma.to(noisy).view(-1, 1, 1, 1), or raise InputError."
    try:
        together = denoiser(images.clone(), levels)
    except InputError:
        return
    except Exception as error:  # whatever a stranger's network makes of a tensor where it expects a number
        raise ModelError(
            f"{denoiser.name} cannot denoise a batch with one sigma for each image ({type(error).__name__}: {error}).\n"
            f"{hint}"
        ) from error
    _check_estimate(together, images, denoiser.name)
    gap = gap_of(alone, together)
    require(
        gap <= TOLERANCE,
        f"{denoiser.name} denoises images of several noise levels differently together and apart, by {gap:.1%} of the "
        f"largest value.\n{hint}",
    )


def _other_level(denoiser: Denoiser, sigma: float) -> float:
    """Another noise level at which it works, or the same where it works at one alone."""
    other = 0.75 * sigma
    try:
        denoiser.describe(other)
    except InputError:
        return sigma
    return other


def _check_estimate(estimate: object, noisy: Pixels, name: str) -> None:
    expected = (tuple(noisy.shape), noisy.dtype)
    found = (tuple(estimate.shape), estimate.dtype) if isinstance(estimate, Tensor) else type(estimate).__name__
    require(
        found == expected,
        f"expected denoised pixels of the same shape and dtype, {expected}; {name} gives {found}",
    )
    low, high = (float(v) for v in torch.aminmax(estimate)) if isinstance(estimate, Tensor) else (0.0, 1.0)
    require(
        low >= 0 and high <= 1,  # also refuses NaN
        f"expected denoised pixels in [0, 1]; {name} gives {low:.4g} to {high:.4g}.\n"
        "  Map the network's own range back, such as (y + 1) / 2, then clamp(0, 1).",
    )
