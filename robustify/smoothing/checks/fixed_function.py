r"""Is the base classifier one fixed function of each image? Asked before a run and in its batches, at its own shape.

A certificate holds for one function. Batch statistics, dropout, quantisation by a batch's largest value or a random
vector shared by a batch make another function of every batch, and its draws no longer independent. So the whole base
classifier, denoiser and all, is shown eight noisy images, the *probes*, again and again. Their logits may differ by
rounding alone.

**Before a run** one batch holds the probes among copies of the first of them, which must agree at all places. In lower
precision than float32, and where a batch has no room for sixteen images, two more compositions show the probes at other
places: at the end, in reverse order, after bright extremes of all noise levels; and at the beginning, before gray.

The probes are noisy copies of two pictures, as draws are of one: what a network does to images that are alike shows.

**During a run** probes sit among the draws, whose batches they share: one in 32 places of the first batch, later one in
64, at another place each time. So what goes wrong with the draws of a batch shows in the probe beside them, also where
a network changes, by a setting, by the clock or by a coin, long after the first check. No answer is given before the
probes were shown in or after its last batch, and before they were compared three times in all; where too few batches
did it, they are shown alone, among the mates named above.

**The margin.** Rounding may still decide a vote where two classes are nearly level. So a vote counts only if its logit
is ahead by more than a margin. A probe may differ by half of the margin: every function that differs from this one by
no more than that votes the same. Other draws fail, and count as a rival.

The margin is a share of the logits' scale. The scale is the largest logit of the probes, rounded up to a power of two,
or that of the image at hand where it is larger: logits near zero may be differences of large numbers. The share is
:math:`2^{-14}`, 512 float32 roundings, which costs about one draw in 10,000. In lower precision it is at least four
times the largest difference seen before the run, in powers of two, up to 4 roundings of theirs. More is refused. So the
margin follows from the model alone, and the same stack finds it again when rows are repeated.

Networks that draw fresh random numbers for every image could be certified in theory; here they are refused, as their
votes could not be repeated.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from robustify.errors import ModelError
from robustify.smoothing.checks.probes import Probes, difference
from robustify.smoothing.places import PROBES
from robustify.types import Logits

LEAST = 2.0**-14
"""The smallest margin, as a share of the scale."""

_EXACT = 2.0**-23
"""Rounding of float32 arithmetic, whose margin is always the smallest."""

_ROUNDINGS = 4
"""The largest margin, in roundings of the networks' precision, where that is more."""


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


@final
class FixedFunction:
    """The evidence that a base function is one fixed function, and the margin under which it is.

    Costs one forward pass, or three in lower precision than float32; 3 to 24 where a batch has no room for sixteen
    images. During a run a `Watch` shows the probes again.

    Arguments:
        probes: The base function, and the images that it is shown.
        rounding: Relative rounding of the networks' arithmetic; see `rounding_of`.
        thorough: Whether to look before a run at three compositions of a batch, whatever the precision.

    Raises:
        ModelError: If logits are never finite, or the same image's differ by more than rounding explains.
    """

    @torch.inference_mode()
    def __init__(self, probes: Probes, *, rounding: float, thorough: bool = False) -> None:
        self.probes = probes
        self._most = max(LEAST, _ROUNDINGS * rounding) / 2
        self._expected, spread = probes.among_copies()
        self._scale = _scale(self._expected, probes.sigmas)
        differences = [spread]
        if thorough or rounding > _EXACT or probes.batches > 1:
            differences += [difference(self._expected, again()) for again in self._elsewhere]
        seen = max(differences) / self._scale
        if seen > self._most:
            self._refuse(seen, self._most)
        self.margin = Margin(max(LEAST, min(2 * self._most, _power_of_two(4 * seen))), self._scale)
        _check_leads(self._expected, self.margin)
        self.compared, self.refused = len(differences) - 1, False

    @property
    def _elsewhere(self) -> tuple[Callable[[], Logits], ...]:
        """Passes that show all probes among other mates."""
        return self.probes.among_extremes, self.probes.before_gray

    @torch.inference_mode()
    def show_alone(self) -> None:
        """Shows all probes in a batch without draws.

        Raises:
            ModelError: If their logits differ by more than half of the margin.
        """
        self.judge(range(PROBES), self._elsewhere[self.compared % len(self._elsewhere)]())

    def judge(self, which: Sequence[int], logits: Logits) -> None:
        """Compares the logits of some probes with those before the run.

        Raises:
            ModelError: If they differ by more than half of the margin.
        """
        seen = difference(self._expected[list(which)], logits) / self._scale
        if seen > self.margin.share / 2:
            self._refuse(seen, self.margin.share / 2)
        self.compared += 1

    def _refuse(self, seen: float, allowed: float) -> None:
        """Raises, having seen whether the first batch, again, still gives what it gave."""
        self.refused = True
        repeated = difference(self._expected, self.probes.among_copies()[0]) / self._scale
        batch = self.probes.batch
        if repeated > allowed:
            found = f"two passes over the same {batch} noisy images differ by {repeated:.2g} of the largest logit"
            hint = (
                "dropout that ignores eval(), a sampler, noise added inside, a kernel that is not deterministic, or "
                "settings that changed since the model was checked"
            )
        else:
            found = (
                f"the logits of the same noisy images differ by {seen:.2g} of the largest with other images beside "
                f"them in a batch of {batch}"
            )
            hint = "batch statistics, a maximum over the batch, per-tensor quantisation, or experts of limited capacity"
        raise ModelError(
            f"the base function, denoiser and all, is no fixed function of one image: {found}; rounding explains "
            f"{allowed:.2g}. Draws would not be independent and no certificate would hold.\n  Look for {hint}."
        )


def _scale(logits: Logits, sigmas: Sequence[float]) -> float:
    """The largest logit, rounded up to a power of two."""
    finite = logits.isfinite()
    if not bool(finite.any()):
        raise ModelError(
            f"all logits are NaN or infinite for images under noise of sigma = {', '.join(f'{s:g}' for s in sigmas)}: "
            "nothing could be certified.\n"
            "  Look for weights that are not finite, or numbers too large for float16; bfloat16 or float32 has room."
        )
    return _power_of_two(float(logits[finite].abs().max())) or 1.0  # all logits may be 0


def _check_leads(logits: Logits, margin: Margin) -> None:
    """Refuses logits whose leads would all count, were it not for the size of others that do not lead, as masks are.

    Raises:
        ModelError: If so, for no vote could ever count.
    """
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    lead, own = first - second, margin.share * torch.maximum(first.abs(), second.abs())
    if bool(((lead > own) & (lead <= margin.share * margin.scale)).all()):
        raise ModelError(
            f"no vote could count: the leading logits are at most {float(first.abs().max()):.2g} in size, others "
            f"{margin.scale:.2g}, beside which their differences may be rounding.\n"
            "  Where classes are masked by a large negative number, use one such as -100."
        )


def _power_of_two(value: float) -> float:
    """The least that is no smaller; 0 for 0."""
    if value == 0 or math.isinf(value):
        return value
    mantissa, exponent = math.frexp(value)
    return math.ldexp(1.0, exponent - (mantissa == 0.5))
