r"""Losses of smoothed classifiers, each a pure function of logits.

Logits have shape (draws, batch, classes): :math:`F_i = \mathrm{softmax}(f(x + \delta_i))` is the prediction for draw i
of an image, and :math:`\bar F = \frac1m \sum_i F_i` the soft smoothed classifier. Everything is computed from
logarithms: :math:`\bar F` underflows for confident classifiers, and the gradient of :math:`t \log t` at 0 is NaN.
Losses are per image. Labels are class indices.
"""

import math
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustify.types import Logits

DrawLogits: TypeAlias = Float[Tensor, "draws batch classes"]
"""Logits of several copies of each image."""

LogProbabilities: TypeAlias = Float[Tensor, "batch classes"]
"""Natural logarithms; minus infinity where a class has no chance."""

Labels: TypeAlias = Int64[Tensor, " batch"]
PerDraw: TypeAlias = Float[Tensor, "draws batch"]
PerImage: TypeAlias = Float[Tensor, " batch"]

_LEAST = -690.0
"""Logarithm of the least probability whose normal quantile is finite in float64; that quantile is below -37."""


def log_mean_softmax(logits: DrawLogits) -> LogProbabilities:
    r""":math:`\log \bar F`, finite for finite logits."""
    mean: Tensor = logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))
    return mean


def kl_from_logs(log_p: Float[Tensor, "*#n classes"], log_q: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n"]:
    r""":math:`\mathrm{KL}(p \| q)` over the last axis; classes without a chance under p count as 0."""
    gap = torch.where(log_p.isneginf(), 0.0, log_p) - log_q
    return (log_p.exp() * gap).sum(dim=-1)


def entropy_from_logs(log_p: LogProbabilities) -> PerImage:
    """Shannon entropy in nats."""
    return -(log_p.exp() * torch.where(log_p.isneginf(), 0.0, log_p)).sum(dim=-1)


def correct(logits: DrawLogits, labels: Labels) -> Bool[Tensor, "draws batch"]:
    """Which copies are classified as their label, shape (draws, batch)."""
    return logits.argmax(dim=-1) == labels


def cross_entropies(logits: DrawLogits, labels: Labels) -> PerDraw:
    """Cross-entropy of each copy, shape (draws, batch)."""
    index = labels.expand(len(logits), -1).unsqueeze(-1)
    return -logits.log_softmax(dim=-1).gather(-1, index).squeeze(-1)


def smoothed_nll(logits: DrawLogits, labels: Labels) -> PerImage:
    r""":math:`-\log \bar F_y`: what attacks on the soft smoothed classifier raise."""
    return -log_mean_softmax(logits).gather(1, labels.unsqueeze(1)).squeeze(1)


def mean_kl(log_target: LogProbabilities, logits: DrawLogits) -> PerImage:
    r""":math:`\frac1m \sum_i \mathrm{KL}(t \| F_i)`."""
    return kl_from_logs(log_target.unsqueeze(0), logits.log_softmax(dim=-1)).mean(dim=0)


def worst_kl(log_target: LogProbabilities, logits: DrawLogits) -> PerImage:
    r""":math:`\max_i \mathrm{KL}(t \| F_i)`."""
    return kl_from_logs(log_target.unsqueeze(0), logits.log_softmax(dim=-1)).max(dim=0).values


def stability(clean: Logits, noisy: DrawLogits) -> PerImage:
    """Cross-entropy of noisy predictions to the clean one, averaged over draws; gradient flows into both.

    References:
        Certified Adversarial Robustness with Additive Noise, Li, Chen, Wang, Carin, 2019,
        https://arxiv.org/abs/1809.03113
    """
    return -(clean.softmax(dim=-1) * noisy.log_softmax(dim=-1).mean(dim=0)).sum(dim=-1)


def consistency(logits: DrawLogits, *, weight: float, entropy: float) -> PerImage:
    r""":math:`\lambda \frac1m \sum_i \mathrm{KL}(\bar F \| F_i) + \eta H(\bar F)`; gradient flows into both arguments.

    References:
        Consistency Regularization for Certified Robustness of Smoothed Classifiers, Jeong, Shin, 2020,
        https://arxiv.org/abs/2006.04062

    Arguments:
        weight: :math:`\lambda`.
        entropy: :math:`\eta`.
    """
    log_mean = log_mean_softmax(logits)
    return weight * mean_kl(log_mean, logits) + entropy * entropy_from_logs(log_mean)


def macer_hinge(logits: DrawLogits, labels: Labels, *, sigma: float, beta: float, gamma: float) -> PerImage:
    r"""Shortfall of the certified radius from :math:`\sigma\gamma/2`; 0 for images classified wrongly.

    With :math:`a \ge b` the two largest entries of the mean softmax of :math:`\beta f`, the radius is
    :math:`\frac\sigma2 (\Phi^{-1}(a) - \Phi^{-1}(b))`. Both quantiles are taken from the smaller tail, in float64.

    References:
        MACER: Attack-free and Scalable Robust Training via Maximizing Certified Radius, Zhai, Dan, He, Zhang, Gong,
        Ravikumar, Hsieh, Wang, 2020, https://arxiv.org/abs/2001.02378

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        beta: Inverse temperature of the softmax.
        gamma: Images with more than this many sigma / 2 are left alone; at most 30.
    """
    log_mean = log_mean_softmax(beta * logits.double())
    (log_a, log_b), top = (part.unbind(dim=1) for part in log_mean.topk(2, dim=1))
    log_rest = log_mean.scatter(1, top[0].unsqueeze(1), -math.inf).logsumexp(dim=1)
    upper = log_a > log_rest
    tail = _quantile(torch.where(upper, log_rest, log_a))
    margin = torch.where(upper, -tail, tail) - _quantile(log_b)
    shortfall = sigma / 2 * (gamma - margin).clamp(min=0)
    return torch.where(top[0] == labels, shortfall, 0.0).to(logits.dtype)


def _quantile(log_p: PerImage) -> PerImage:
    """Quantile of the standard normal, at probabilities up to 1/2 given by their logarithms."""
    quantile: Tensor = torch.special.ndtri(log_p.clamp(min=_LEAST).exp())
    return quantile


def bottom_k_ce(losses: PerDraw, k: Int64[Tensor, " batch"]) -> PerImage:
    """Sum of the k smallest losses of each image, divided by the number of draws.

    References:
        Confidence-aware Training of Smoothed Classifiers for Certified Robustness, Jeong, Kim, Shin, 2023,
        https://arxiv.org/abs/2212.09000
    """
    ranks = torch.arange(len(losses), device=losses.device).unsqueeze(1)
    return torch.where(ranks < k, losses.sort(dim=0).values, 0.0).sum(dim=0) / len(losses)


def selective_ce(losses: PerDraw, right: Bool[Tensor, "draws batch"]) -> PerImage:
    """Sum of the losses of correct copies, divided by the number of draws; the smallest loss where none is correct.

    References:
        Confidence-aware Denoised Fine-tuning of Off-the-shelf Models for Certified Robustness, Jang, Kim, Shin,
        Jeong, 2024, https://arxiv.org/abs/2411.08933
    """
    least = torch.zeros_like(right).scatter(0, losses.argmin(dim=0, keepdim=True), value=True)
    selected = torch.where(right.any(dim=0), right, least)
    return torch.where(selected, losses, 0.0).sum(dim=0) / len(losses)


def smoothmix_target(log_mean: LogProbabilities, mix: PerImage) -> LogProbabilities:
    """Logarithm of `log_mean`'s probabilities mixed with `mix` parts of uniform ones.

    References:
        SmoothMix: Training Confidence-calibrated Smoothed Classifiers for Certified Robustness, Jeong, Park, Kim, Lee,
        Kim, Shin, 2021, https://arxiv.org/abs/2111.09277
    """
    share = mix.unsqueeze(1)
    uniform = share.log() - math.log(log_mean.shape[1])
    return torch.logaddexp(log_mean + torch.log1p(-share), uniform.expand_as(log_mean))


def smoothmix_penalty(log_target: LogProbabilities, mixed: DrawLogits, correct: Bool[Tensor, " batch"]) -> PerImage:
    """`mean_kl` of the mixed images to their targets; 0 where the smoothed prediction at the clean end is wrong."""
    return torch.where(correct, mean_kl(log_target, mixed), 0.0)
