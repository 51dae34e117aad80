"""Attacks on smoothed classifiers that objectives train against: noise is drawn once and stays the same.

While an attack runs, the model is in evaluation mode and its parameters need no gradient. Steps go along the gradient
of each image, divided by its l2 norm; an image without gradient stays where it is. Objectives are computed in float64:
where a prediction is nearly certain, float32 would round parts of the direction away.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustify.finetune.objectives.losses import DrawLogits, Labels, LogProbabilities, PerImage, mean_kl, smoothed_nll
from robustify.smoothing import SmoothedClassifier
from robustify.types import Pixels

_PULL = 16.0
"""Largest entry of slopes in the logits: far from both ends of the range of float16."""

Copies: TypeAlias = Float[Tensor, "draws batch channels height width"]
"""Several versions of each image of a batch: its noise, or its noisy or denoised copies."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters; each module's and parameter's own state comes back after."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for module, _ in modes:
            module.training = False  # not eval(): some layers change their weights when their mode is set
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, want in wanted:
            parameter.requires_grad_(want)


def noisy_logits(model: SmoothedClassifier, pixels: Pixels, noise: Copies) -> DrawLogits:
    """Logits of images behind noise and denoiser, differentiable in the pixels."""
    logits: Tensor = model.classifier(model.denoise((pixels + noise).flatten(0, 1)), model.sigma)
    return logits.view(*noise.shape[:2], -1)


def smooth_pgd(
    model: SmoothedClassifier, pixels: Pixels, labels: Labels, noise: Copies, *, epsilon: float, steps: int
) -> Pixels:
    """Images in [0, 1] within `epsilon` of `pixels` on which the soft smoothed classifier is wrong.

    Each of the steps is 2 epsilon / steps long; then the image is clamped to [0, 1], then the change is shortened to
    epsilon, which keeps it in [0, 1].

    References:
        Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers, Salman, Yang, Li, Zhang, Zhang,
        Razenshteyn, Bubeck, 2019, https://arxiv.org/abs/1906.04584

    Arguments:
        noise: Noise that stays the same in all steps.
        epsilon: Radius in l2, in [0, 1] pixels.
    """
    change = torch.zeros_like(pixels)
    with frozen(model):
        for _ in range(steps):
            slope = _image_slope(model, pixels + change, labels, noise)
            change = (pixels + change + 2 * epsilon / steps * _unit(slope)).clamp(0, 1) - pixels
            change = within(change, epsilon)
    return (pixels + change).clamp(0, 1)  # sums round


def smoothmix_path(
    model: SmoothedClassifier, pixels: Pixels, labels: Labels, noise: Copies, *, step_size: float, steps: int
) -> list[Pixels]:
    """The steps + 1 images of an attack that only [0, 1] limits, the clean ones first.

    References:
        SmoothMix: Training Confidence-calibrated Smoothed Classifiers for Certified Robustness, Jeong, Park, Kim, Lee,
        Kim, Shin, 2021, https://arxiv.org/abs/2111.09277

    Arguments:
        noise: Noise that stays the same in all steps.
        step_size: Length of a step in l2, in [0, 1] pixels.
    """
    path = [pixels]
    with frozen(model):
        for _ in range(steps):
            slope = _image_slope(model, path[-1], labels, noise)
            path.append((path[-1] + step_size * _unit(slope)).clamp(0, 1))
    return path


def kl_noise_pgd(
    model: SmoothedClassifier,
    pixels: Pixels,
    noise: Copies,
    log_target: LogProbabilities,
    *,
    epsilon: float,
    steps: int,
) -> Copies:
    """Noise near `noise` with which the classifier's predictions are far from a target, in mean KL divergence.

    Each of the steps is 2 epsilon / steps long; then the change is shortened to epsilon, then each copy gets its first
    mean and root mean square back, so that it still looks like noise. Nothing is clamped. The classifier sees
    `pixels + noise` without a denoiser: where there is one, `noise` is what it left.

    The published code of CAT-RS divides by the root mean square where standard deviations are needed; for noise, whose
    mean is near 0, that is almost the same.

    References:
        Confidence-aware Training of Smoothed Classifiers for Certified Robustness, Jeong, Kim, Shin, 2023,
        https://arxiv.org/abs/2212.09000

    Arguments:
        log_target: Logarithms of probabilities; -inf where a class has none.
        epsilon: Radius in l2 for each copy, in [0, 1] pixels.
    """
    mean, deviation = _moments(noise)

    def logits(now: Copies) -> DrawLogits:
        found: Tensor = model.classifier((pixels + now).flatten(0, 1), model.sigma)
        return found.view(*noise.shape[:2], -1)

    moved = noise
    with frozen(model):
        for _ in range(steps):
            slope = _slope(logits, lambda found: mean_kl(log_target.double(), found), moved, each=(2,))
            step = _unit(slope.flatten(0, 1)).view_as(noise)
            change = moved + 2 * epsilon / steps * step - noise
            moved = noise + within(change.flatten(0, 1), epsilon).view_as(noise)
            now_mean, now_deviation = _moments(moved)
            moved = mean + (moved - now_mean) * (deviation / now_deviation.clamp(min=_tiny(noise)))
    return moved


def within(change: Pixels, epsilon: float) -> Pixels:
    """Each change, shortened to an l2 norm of `epsilon` where it is longer."""
    norm = change.flatten(1).norm(dim=1).clamp(min=_tiny(change))
    shorter: Tensor = change * (epsilon / norm).clamp(max=1).view(-1, 1, 1, 1)
    return shorter


def _image_slope(model: SmoothedClassifier, pixels: Pixels, labels: Labels, noise: Copies) -> Pixels:
    """Slope of the soft smoothed classifier's loss, up to a positive factor for each image."""
    return _slope(
        lambda now: noisy_logits(model, now, noise), lambda found: smoothed_nll(found, labels), pixels, each=(0, 2)
    )


@torch.enable_grad()
def _slope(
    logits_at: Callable[[Tensor], DrawLogits],
    error: Callable[[DrawLogits], PerImage],
    at: Tensor,
    each: tuple[int, ...],
) -> Tensor:
    """Slope of the error, up to a positive factor for each image or copy, whose axes of the logits are `each`.

    The slope in the logits is found in float64 and scaled to `_PULL` before it passes the network: where a prediction
    is nearly certain, it would vanish in float16.
    """
    at = at.detach().requires_grad_()
    logits = logits_at(at)
    exact = logits.detach().double().requires_grad_()
    (pull,) = torch.autograd.grad(error(exact).sum(), exact)
    pull = _PULL * pull / pull.abs().amax(each, keepdim=True).clamp(min=_tiny(pull))
    (slope,) = torch.autograd.grad(logits, at, pull.to(logits.dtype))
    return slope


def _unit(slope: Pixels) -> Pixels:
    """The slope of each image with norm 1, or 0 where it is 0.

    It is divided by its largest entry first, whose square may underflow.
    """
    flat = slope.flatten(1)
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp(min=_tiny(flat))
    unit: Tensor = flat / flat.norm(dim=1, keepdim=True).clamp(min=_tiny(flat))
    return unit.view_as(slope)


def _moments(noise: Copies) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each copy."""
    axes = (2, 3, 4)
    return noise.mean(axes, keepdim=True), noise.std(axes, correction=0, keepdim=True)


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny
