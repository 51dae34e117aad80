r"""Is the base classifier one fixed function of each image? Asked before a run, at its own forward shape.

A certificate holds for one function. Batch statistics, dropout, quantisation by a batch's largest value or a random
vector shared by a batch make another function of every batch, and its draws no longer independent. So the whole base
classifier, denoiser and all, sees eight noisy images three times at the batch size of the run: spread over a batch
whose every other place holds a copy of the first of them; at the end of a batch, in reverse order, after bright
extremes of all noise levels; and at the beginning, before gray. The logits of an image may differ by rounding alone,
also among all places that hold the same image.

**The margin.** Rounding may still decide a vote where two classes are nearly level. So a vote counts only if its logit
is ahead by more than a margin, at least twice the largest difference seen: then every function that differs from this
one by no more than half of the margin votes the same. Other draws fail, and count as a rival.

The margin is a share of the logits' scale. The scale is the largest logit of the eight images, rounded up to a power of
two, or that of the image at hand where it is larger: logits near zero may be differences of large numbers. The share is
:math:`2^{-14}`, 512 float32 roundings, which costs about one draw in 10,000; where networks compute in fewer bits it
grows with what was seen, in powers of two, up to 4 roundings of theirs. More is refused. So the margin follows from the
model alone, and the same stack finds it again when rows are repeated.

Networks that draw fresh random numbers for every image could be certified in theory; here they are refused, as their
votes could not be repeated.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustify.errors import ModelError
from robustify.types import Levels, Logits, Pixels

Answer: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A batch and the noise level of each image, to the logits of the batch."""

PROBES = 8
"""Images whose logits are compared."""

LEAST = 2.0**-14
"""The smallest margin, as a share of the scale."""

_ROUNDINGS = 4
"""The largest margin, in roundings of the networks' precision, where that is more."""

_TF32 = 2.0**-10
"""Relative rounding of float32 products on a GPU, where convolutions may drop bits."""

_PRIMITIVE = (bool, int, float, str, type(None))


@final
@dataclass(frozen=True)
class Margin:
    """The lead that a logit needs over the second for its vote to count.

    Arguments:
        share: The margin as a share of the scale.
        scale: Least size that logits are taken to have.
    """

    share: float
    scale: float

    def of(self, logits: Logits) -> Tensor:
        """The margin of each image, shape (B)."""
        return self.share * logits.abs().amax(dim=1).clamp(min=self.scale)


@torch.inference_mode()
def probe(
    base: Callable[[Pixels, Levels], Logits],
    shape: tuple[int, int, int],
    *,
    sigmas: Sequence[float],
    batch: int,
    rounding: float,
    device: torch.device | None = None,
) -> Margin:
    """The margin under which `base` is one fixed function of each image.

    Costs three forward passes; more where a batch has no room for sixteen images, 24 at most.

    Arguments:
        base: Noisy pixels and their noise level to logits of shape (B, classes).
        shape: Shape of an image.
        sigmas: Standard deviations of the noise, in [0, 1] pixels. Several share the batches, as a level per image.
        batch: Images per forward pass.
        rounding: Relative rounding of the networks' arithmetic; see `rounding_of`.
        device: Device of the pixels.

    Raises:
        ModelError: If logits are never finite, or the same image's differ by more than rounding explains.
    """

    def answer(pixels: Pixels, levels: Tensor) -> Tensor:
        return base(pixels, levels if len(sigmas) > 1 else sigmas[0])

    levels = torch.tensor([sigmas[i % len(sigmas)] for i in range(PROBES)], dtype=torch.float64)
    images = torch.stack([_noisy(i, shape, float(levels[i])) for i in range(PROBES)]).to(device)
    room = min(PROBES, (batch + 1) // 2)
    groups = [_Group(images[i : i + room], levels[i : i + room], batch) for i in range(0, PROBES, room)]
    copies = [_among_copies(answer, group) for group in groups]
    expected = torch.cat([logits for logits, _ in copies])
    finite = expected.isfinite()
    if not bool(finite.any()):
        raise ModelError(
            f"all logits are NaN or infinite for images under noise of sigma = {', '.join(f'{s:g}' for s in sigmas)}: "
            "nothing could be certified.\n"
            "  Look for weights that are not finite, or numbers too large for float16; bfloat16 or float32 has room."
        )
    scale = _power_of_two(float(expected[finite].abs().max())) or 1.0  # all logits may be 0
    among_others = [
        torch.cat([elsewhere(answer, group, sigmas) for group in groups])
        for elsewhere in (_among_extremes, _before_gray)
    ]
    differences = [_difference(expected, again) for again in among_others]
    seen = max(*differences, *(spread for _, spread in copies)) / scale
    share = max(LEAST, _power_of_two(2 * seen))
    if share > max(LEAST, _ROUNDINGS * rounding):
        repeated = torch.cat([_among_copies(answer, group)[0] for group in groups])
        raise ModelError(_refusal(seen, _difference(expected, repeated) / scale, batch, rounding))
    return Margin(share, scale)


def rounding_of(*modules: nn.Module, lower: torch.dtype | None = None) -> float:
    """Relative rounding of the coarsest arithmetic in use: that of weights, of autocast to `lower`, of a GPU."""
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    kinds = {torch.float32, lower or torch.float32, *(t.dtype for t in tensors)}
    on_gpu = any(t.device.type == "cuda" for t in tensors)
    return max(_TF32 if on_gpu else 0.0, *(torch.finfo(kind).eps for kind in kinds))


def state(*modules: nn.Module) -> Hashable:
    """Changes when a module, a tensor, a setting or a hook does; not when a tensor is changed by its `.data`."""
    return tuple(part for module in modules for part in _state(module))


def _state(root: nn.Module) -> Iterator[Hashable]:
    for module in root.modules():
        yield type(module).forward
        for name, value in vars(module).items():
            yield name, value if isinstance(value, _PRIMITIVE) else id(value)
        yield from (id(hook) for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))
    for tensor in (*root.parameters(), *root.buffers()):
        version = None if tensor.is_inference() else tensor._version
        yield id(tensor), version, tensor.data_ptr(), tensor.dtype, tensor.device


def _noisy(index: int, shape: tuple[int, int, int], sigma: float) -> Tensor:
    """A smooth image under noise, the same each time."""
    generator = torch.Generator().manual_seed(index)
    channels, height, width = shape
    smooth = F.interpolate(torch.rand(1, channels, 3, 3, generator=generator), (height, width), mode="bilinear")[0]
    return smooth + sigma * torch.randn(shape, generator=generator)


@final
@dataclass(frozen=True)
class _Group:
    """Images that go through one batch together, with their noise levels."""

    images: Tensor
    levels: Tensor
    batch: int

    def placed(self, answer: Answer, places: Tensor, mates: Tensor, mates_levels: Tensor) -> Tensor:
        """Logits of a whole batch of mates with the images at these places."""
        pixels = mates.clone()
        pixels[places] = self.images
        levels = mates_levels.clone()
        levels[places.cpu()] = self.levels
        return answer(pixels, levels)


def _among_extremes(answer: Answer, group: _Group, sigmas: Sequence[float]) -> Tensor:
    """Logits of the images at the end of a batch, in reverse order, after mates far beyond black and white.

    The mates are of all noise levels in turn.
    """
    batch, device = group.batch, group.images.device
    generator = torch.Generator().manual_seed(PROBES)
    mates = 4 - 8 * torch.rand(batch, *group.images.shape[1:], generator=generator).to(device)
    levels = torch.tensor([sigmas[i % len(sigmas)] for i in range(batch)], dtype=torch.float64)
    places = torch.arange(batch - 1, batch - 1 - len(group.images), -1, device=device)
    return group.placed(answer, places, mates, levels)[places]


def _before_gray(answer: Answer, group: _Group, sigmas: Sequence[float]) -> Tensor:
    """Logits of the images at the beginning of a batch, gray after them, as the last batch of a run is filled."""
    images, batch = group.images, group.batch
    gray = torch.full_like(images[:1], 0.5).expand(batch, *images.shape[1:])
    levels = torch.full((batch,), sigmas[0], dtype=torch.float64)
    places = torch.arange(len(images), device=images.device)
    return group.placed(answer, places, gray, levels)[places]


def _among_copies(answer: Answer, group: _Group) -> tuple[Tensor, float]:
    """Logits of the images, spread over copies of the first; and the largest difference among those copies."""
    images, batch = group.images, group.batch
    places = torch.linspace(0, batch - 1, len(images), device=images.device).round().long().roll(1)
    mates, levels = images[:1].expand(batch, *images.shape[1:]), group.levels[:1].expand(batch)
    logits = group.placed(answer, places, mates, levels)
    same = torch.ones(batch, dtype=torch.bool, device=images.device)
    same[places[1:]] = False
    copies = logits[same]
    return logits[places], _difference(copies, copies[:1].expand_as(copies))


def _difference(one: Logits, other: Logits) -> float:
    """The largest; infinite where one logit is finite and the other is not."""
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return math.inf
    return float((one - other)[finite].abs().max()) if bool(finite.any()) else 0.0


def _power_of_two(value: float) -> float:
    """The least that is no smaller; 0 for 0."""
    if value == 0 or math.isinf(value):
        return value
    mantissa, exponent = math.frexp(value)
    return math.ldexp(1.0, exponent - (mantissa == 0.5))


def _refusal(seen: float, repeated: float, batch: int, rounding: float) -> str:
    allowed = max(LEAST, _ROUNDINGS * rounding) / 2
    if repeated > allowed:
        found = f"two passes over the same {batch} noisy images differ by {repeated:.2g} of the largest logit"
        hint = "dropout that ignores eval(), a sampler, noise added inside, or a kernel that is not deterministic"
    else:
        found = (
            f"the logits of the same noisy images differ by {seen:.2g} of the largest with other images beside them "
            f"in a batch of {batch}"
        )
        hint = "batch statistics, a maximum over the batch, per-tensor quantisation, or experts of limited capacity"
    return (
        f"the base function, denoiser and all, is no fixed function of one image: {found}; rounding explains "
        f"{allowed:.2g}. Draws would not be independent and no certificate would hold.\n  Look for {hint}."
    )
