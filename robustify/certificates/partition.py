r"""Partitions: each half of the pixels is smoothed alone, and the two halves vote together.

The pixels form a chessboard. A *half* is the pixels of one colour, under noise; all others are gray, so a half sees
nothing of the other. The partition answers the class with the largest sum of the chances of a vote,
:math:`l_c(x) + r_c(x)`. If A has at least the chances :math:`p_l` and :math:`p_r`, then A is answered as long as their
sum exceeds 1: every other class has at most the sum :math:`2 - p_l - p_r`.

A change of the image is a change of each half, of norms :math:`d_l` and :math:`d_r`, whose squares add up. So A keeps
at least :math:`\Phi(\Phi^{-1}(p_l) - d_l / \sigma) + \Phi(\Phi^{-1}(p_r) - d_r / \sigma)`, which exceeds 1 while
:math:`d_l + d_r < \sigma (\Phi^{-1}(p_l) + \Phi^{-1}(p_r))`. As :math:`d_l + d_r \le \sqrt 2 d`, the radius is

.. math:: R = \frac{\sigma}{\sqrt 2} (\Phi^{-1}(p_l) + \Phi^{-1}(p_r)).

One of the two terms may be negative. The rule :math:`\sqrt{R_l^2 + R_r^2}` of the published program is larger, and
wrong: two equal changes of :math:`1 / \sqrt 2` of it each may already turn the sum.

References:
    Mitigating the Curse of Dimensionality for Certified Robustness via Dual Randomized Smoothing, Xia, Yu, Jiang, Ding,
    2024, https://arxiv.org/abs/2404.09586
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from scipy.special import ndtri

from robustify.certificates.bounds import lower_bound
from robustify.certificates.family import Bound, Claim, Family, Subject, Tally
from robustify.certificates.gaussian import check_sigma
from robustify.certificates.pilot import Pilot, PilotPlan, split
from robustify.certificates.queries import SELECTION, Ask
from robustify.certificates.question import Question
from robustify.certificates.radii import leading_class
from robustify.certificates.stored import settings_of
from robustify.certificates.sums import SumPoll
from robustify.certificates.views import Change, View
from robustify.errors import InputError
from robustify.options import check_flags


@final
@dataclass(frozen=True)
class Half(Change):
    """Noise on the pixels of one colour of a chessboard, gray on the others; in all channels alike.

    Arguments:
        parity: Sum of row and column of the pixels that are kept, modulo 2.
    """

    law = "robustify.smoothing.halves:law"

    parity: int


@final
@dataclass(frozen=True)
class PartitionPlan(PilotPlan):
    """The largest radius of a partition, from `n` draws of each half.

    The label is the class with the most votes of both pilots together. Each half's bound has alpha / 2.
    """

    family = "partition"
    rule = "halves"

    @property
    def views(self) -> tuple[View, ...]:
        return halves(self.sigma)

    @property
    def slacks(self) -> tuple[float, ...]:
        return self.slack, self.slack

    @property
    def pilot(self) -> tuple[Ask, ...]:
        return Ask(0, SELECTION, self.n0), Ask(1, SELECTION, self.n0)

    @property
    def tested(self) -> tuple[int, ...]:
        return 0, 1

    def label(self, pilot: Pilot) -> int:
        return leading_class([left + right for left, right in zip(*pilot, strict=True)])

    def most(self, n: int) -> float:
        return self._radius((n, n), n)

    def hoped(self, pilot: Pilot, n: int) -> float:
        label = self.label(pilot)
        return self._radius([round(votes[label] * n / self.n0) for votes in pilot], n)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        _, tested = split(tallies)
        counts = [look.label for tally in tested for look in tally.looks] or [0, 0]
        n = tested[0].draws if tested else 1
        radius = self._radius(counts, n)
        bounds = tuple(Bound(low, min(1.0, math.nextafter(1 - low, 2.0))) for low in self._bounds(counts, n))
        return Claim(tested[0].label if radius > 0 else None, radius, bounds)

    def statement(self, radius: str, where: str) -> str:
        return f"no ℓ2 change below {radius} of its {where} changes the partition's prediction"

    @property
    def remark(self) -> str:
        return "Predictions are those of two halves of the pixels, smoothed alone, whose shares of votes are added."

    def _bounds(self, counts: Sequence[int], n: int) -> list[float]:
        """Lower bounds on the label's chance in each half, under ideal noise."""
        return [max(0.0, lower_bound(count, n, alpha=self.alpha / 2) - self.slack) for count in counts]

    def _radius(self, counts: Sequence[int], n: int) -> float:
        left, right = self._bounds(counts, n)
        return partition_radius(left, right, sigma=self.sigma)

    def __str__(self) -> str:
        return f"{super().__str__()} in each half"


@final
@dataclass(frozen=True)
class Partition(Family):
    """Certificates of two halves of the pixels that are smoothed alone and vote together.

    With the same chances of a vote, radii are 1.41 times those of whole images under the same noise. It takes twice the
    draws, and a denoiser and a classifier that know half images: those trained on whole ones lose more than is gained.

    Arguments:
        sigma: Standard deviation of the noise in each half, in [0, 1] pixels, positive.

    Raises:
        InputError: If sigma is not positive.
    """

    name = "partition"
    checker = "robustify.verify.partition_family:problems"

    sigma: float

    def __post_init__(self) -> None:
        check_sigma(self.sigma)

    @property
    def levels(self) -> tuple[float, ...]:
        return (self.sigma,)

    def plan(self, question: Question, subject: Subject) -> PartitionPlan:
        question.check_largest("a partition")
        self._check(subject)
        n = question.n_max if question.n is None else question.n
        slack = subject.slack(View(self.sigma))
        return PartitionPlan(float(self.sigma), question.alpha, question.n0, n, question.n is None, slack)

    def poll(self, n: int, alpha: float, subject: Subject) -> SumPoll:
        self._check(subject)
        return SumPoll(halves(self.sigma), (1.0, 1.0), n, alpha, subject.slack(View(self.sigma)))

    def _check(self, subject: Subject) -> None:
        if (subject.contract.height, subject.contract.width) == (1, 1):
            raise InputError(f"a partition needs at least two pixels; got {subject.contract}")

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> PartitionPlan:
        settings = settings_of(stored, PartitionPlan.rule, PartitionPlan)
        cls(settings["sigma"])  # raises
        check_flags(adaptive=settings["adaptive"])
        return PartitionPlan(**settings)

    def __str__(self) -> str:
        return f"sigma = {self.sigma:g} in halves"


def halves(sigma: float) -> tuple[View, View]:
    """The views of both halves."""
    return View(sigma, change=Half(0)), View(sigma, change=Half(1))


def partition_radius(left: float, right: float, *, sigma: float) -> float:
    """The ℓ2 radius that lower bounds on the label's chance in two halves prove, in the unit of sigma; 0 for none.

    It is rounded down by more than the error of `ndtri`, at most 3e-16 (1 + |quantile|), and of the sum.

    Arguments:
        left: Lower bound on the label's chance in one half, in [0, 1].
        right: That in the other half.
        sigma: Standard deviation of the noise in each half, in [0, 1] pixels.

    Raises:
        InputError: If a bound is no probability, or proves an infinite radius.
    """
    if not (0 <= left <= 1 and 0 <= right <= 1):
        raise InputError(f"expected probabilities; got {left} and {right}")
    if left + right <= 1:
        return 0.0
    if max(left, right) == 1:
        raise InputError("a bound of exactly 1 has no finite radius; no finite sample proves it")
    one, other = float(ndtri(left)), float(ndtri(right))
    error = 2e-15 * (1 + abs(one) + abs(other))
    return max(0.0, sigma * math.sqrt(0.5) * (one + other - error) * (1 - 1e-15))
