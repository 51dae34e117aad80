r"""Mixtures of a smoothed classifier with the classifier alone: clean accuracy for some of the radius.

With the weight :math:`a > 1/2`, the mixture answers the class with the largest

.. math:: h_c(x) = (1 - a) s_c(x) + a v_c(x),

where :math:`v_c` is the chance that the pipeline votes for c under the noise, and s is the vote of the classifier alone
on the image as it is: 1 for its class, 0 for all others, and 0 everywhere where it does not vote. Nothing is known of
s around an image, but :math:`s_c - s_A \le 1`. So A is answered wherever
:math:`v_A - v_c > \tau = (1 - a) / a` for every other c. Under changes of ℓ2 norm r, :math:`v_A` falls to
:math:`\Phi(\Phi^{-1}(p_A) - r / \sigma)` at the worst and :math:`v_c` rises to
:math:`\Phi(\Phi^{-1}(p_B) + r / \sigma)`. Hence the radius is the root of

.. math:: \Phi(\Phi^{-1}(p_A) - r / \sigma) - \Phi(\Phi^{-1}(p_B) + r / \sigma) = \tau.

With :math:`p_B = 1 - p_A` it is :math:`\sigma (\Phi^{-1}(p_A) - \Phi^{-1}(1 / 2a))`; with a = 1 it is Cohen's.

A classifier that is silent where it is not confident is covered too: where s is 0, the votes alone decide, as if the
weight were 1 there.

References:
    Improving the Accuracy-Robustness Trade-Off of Classifiers via Adaptive Smoothing, Bai, Anderson, Kim, Sojoudi,
    2023, https://arxiv.org/abs/2301.12554 (mixtures; the radius here is larger than theirs, and exact)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

from scipy.special import ndtr, ndtri

from robustify.certificates.bounds import is_number, lower_bound
from robustify.certificates.family import Bound, Claim, Family, Subject, Tally
from robustify.certificates.gaussian import check_sigma
from robustify.certificates.pilot import Pilot, PilotPlan, split
from robustify.certificates.queries import SELECTION, Ask
from robustify.certificates.question import Question
from robustify.certificates.radii import leading_class, rival_bounds, strongest_rival
from robustify.certificates.stored import settings_of
from robustify.certificates.sums import SumPoll
from robustify.certificates.views import ALONE, PIPELINE, View
from robustify.errors import InputError
from robustify.options import check_flags

CONFIDENT = "robustify.smoothing.alone:confident"
"""Name of the base function that is the classifier alone, silent where it is not confident."""


@final
@dataclass(frozen=True)
class MixedPlan(PilotPlan):
    """The largest radius of a mixture; where none is proven, the mixture's answer without a proof.

    The label is the leading class of the pilot's votes under noise: no other can be certified. The radius rests on
    bounds on label and strongest rival at alpha / 2 each, or on one bound on the label at alpha: the pilot says which
    of them promises more.

    Arguments:
        weight: Weight of the votes under noise, above 1/2, at most 1.
        confidence: Least softmax probability at which the classifier alone votes; None where it always does.
    """

    family = "mixed"
    rule = "mixture"

    weight: float
    confidence: float | None = None

    @property
    def views(self) -> tuple[View, ...]:
        return View(self.sigma), View(0.0, base_of(self.confidence))

    @property
    def slacks(self) -> tuple[float, ...]:
        return self.slack, 0.0

    @property
    def pilot(self) -> tuple[Ask, ...]:
        return Ask(0, SELECTION, self.n0), Ask(1, SELECTION, 1)

    @property
    def tested(self) -> tuple[int, ...]:
        return (0,)

    def label(self, pilot: Pilot) -> int:
        return leading_class(pilot[0])

    def most(self, n: int) -> float:
        return self._radius(self._bound(n, 0, n, single=True))

    def hoped(self, pilot: Pilot, n: int) -> float:
        return max(self._hoped(pilot, n, single=single) for single in (True, False))

    def single(self, pilot: Pilot, n: int) -> bool:
        """Whether one bound at full alpha promises at least as much, from `n` draws, as two at half of it."""
        return 0 < self._hoped(pilot, n, single=True) >= self._hoped(pilot, n, single=False)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        pilot, tested = split(tallies)
        if not tested or tested[0].label is None:
            return Claim(None, 0.0, (Bound(0.0, 1.0),))
        (look,) = tested[0].looks
        bound = self._bound(look.label, look.rival, look.n, single=self.single(pilot, look.n))
        if (radius := self._radius(bound)) > 0:
            return Claim(tested[0].label, radius, (bound,))
        return Claim(None, 0.0, (bound,), blend(tested[0].votes, pilot[1], n=look.n, weight=self.weight))

    def statement(self, radius: str, where: str) -> str:
        return f"no ℓ2 change below {radius} of its {where} changes the mixture's prediction"

    @property
    def remark(self) -> str:
        return (
            f"Predictions are of a mixture: weight {self.weight:g} for the votes under noise, the rest for the "
            "classifier alone. Where nothing is proven, the mixture's answer is given without a certificate."
        )

    def _bound(self, label: int, rival: int, n: int, *, single: bool) -> Bound:
        """Bounds on label and strongest rival, widened by the slack."""
        if single:
            p_lower = lower_bound(label, n, alpha=self.alpha)
            p_upper = math.nextafter(1 - p_lower, 2.0)
        else:
            p_lower, p_upper = rival_bounds(label, rival, n=n, alpha=self.alpha)
        return Bound(max(0.0, p_lower - self.slack), min(1.0, p_upper + self.slack))

    def _radius(self, bound: Bound) -> float:
        return mixture_radius(*bound, sigma=self.sigma, weight=self.weight)

    def _hoped(self, pilot: Pilot, n: int, *, single: bool) -> float:
        label = self.label(pilot)
        rival = strongest_rival(pilot[0], label, n=self.n0)
        likely, unlikely = (round(votes * n / self.n0) for votes in (pilot[0][label], rival))
        return self._radius(self._bound(likely, unlikely, n, single=single))

    def __str__(self) -> str:
        return f"{super().__str__()}, weight {self.weight:g}"


@final
@dataclass(frozen=True)
class Mixed(Family):
    """Certificates of a mixture of the smoothed classifier with the classifier alone.

    It keeps more of the clean accuracy: where nothing is certain it answers the mixture's class, uncertified, instead
    of abstaining. The price is radius, at most sigma times 0.066, 0.140 and 0.319 for the weights 0.95, 0.9 and 0.8.
    The classifier alone takes part with its vote, one of all classes, not with its probabilities: so whatever is
    claimed follows from counts.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels, positive.
        weight: Weight of the votes under noise, above 1/2, at most 1; the rest is that of the classifier alone.
        confidence: Softmax probability, in [0, 1), above which the classifier alone votes; elsewhere the votes under
            noise decide alone. None where it always votes.

    Raises:
        InputError: If a setting is out of range.
    """

    name = "mixed"
    checker = "robustify.verify.mixed_family:problems"

    sigma: float
    weight: float = 0.9
    confidence: float | None = None

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        check_weight(self.weight)
        if self.confidence is not None and not (is_number(self.confidence) and 0 <= self.confidence < 1):
            raise InputError(f"expected confidence, a softmax probability, in [0, 1); got {self.confidence!r}")
        if self.confidence is not None and self.weight == 1:
            raise InputError("with weight = 1 the classifier alone takes no part; leave out its confidence")

    @property
    def bases(self) -> tuple[str, ...]:
        return PIPELINE, base_of(self.confidence)

    @property
    def levels(self) -> tuple[float, ...]:
        return (self.sigma,)

    def plan(self, question: Question, subject: Subject) -> MixedPlan:
        question.check_largest("a mixture")
        n = question.n_max if question.n is None else question.n
        slack = subject.slack(View(self.sigma))
        votes = float(self.sigma), question.alpha, question.n0, n, question.n is None, slack
        return MixedPlan(*votes, float(self.weight), self.confidence)

    def poll(self, n: int, alpha: float, subject: Subject) -> SumPoll:
        views = View(self.sigma), View(0.0, base_of(self.confidence))
        return SumPoll(views, (self.weight, 1 - self.weight), n, alpha, subject.slack(views[0]))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> MixedPlan:
        settings = settings_of(stored, MixedPlan.rule, MixedPlan)
        cls(settings["sigma"], settings["weight"], settings["confidence"])  # raises where it is no mixture
        check_flags(adaptive=settings["adaptive"])
        return MixedPlan(**settings)

    def __str__(self) -> str:
        sure = "" if self.confidence is None else f", confidence = {self.confidence:g}"
        return f"sigma = {self.sigma:g}, weight = {self.weight:g}{sure}"


def base_of(confidence: float | None) -> str:
    """The base function of the classifier alone that votes above this confidence."""
    return ALONE if confidence is None else f"{CONFIDENT}:{float(confidence)!r}"


def check_weight(weight: object) -> None:
    """Raises `InputError` unless it is a weight with which a mixture can be certified."""
    if not (is_number(weight) and 0.5 < weight <= 1):
        raise InputError(
            f"expected weight (mix), that of the votes under noise, above 1/2 and at most 1; got {weight!r}.\n"
            "  At 1/2 or below, the classifier alone, of which nothing is known around an image, could decide."
        )


def blend(votes: Sequence[int], alone: Sequence[int], *, n: int, weight: float) -> int:
    """Index of the class with the largest share of the mixture, by counts; the classifier alone wins a tie.

    Arguments:
        votes: Votes under noise, one count per class.
        alone: The vote of the classifier alone, one count per class; all 0 where it does not vote.
        n: Number of draws under noise.
        weight: Weight of the votes under noise.
    """
    leader = leading_class(votes)
    if not any(alone):
        return leader
    own, a = leading_class(alone), Fraction(weight)
    return own if (1 - a) * n >= a * (votes[leader] - votes[own]) else leader


def mixture_radius(p_lower: float, p_upper: float, *, sigma: float, weight: float) -> float:
    """The ℓ2 radius of a mixture that two bounds prove, in the unit of sigma; 0 where they prove none.

    It is found by bisection, and is the lower end of the last bracket. The difference must exceed its threshold by
    more than all rounding: quantiles are off by at most 3e-16 (1 + |z|), their shifts by 2e-16 (|z| + r), and the
    distribution function, whose slope is at most 0.4, by 3e-15 of its own.

    Arguments:
        p_lower: Lower bound on the probability of the label, in [0, 1].
        p_upper: Upper bound on the probability of every other class, in [0, 1].
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        weight: Weight of the votes under noise, above 1/2, at most 1.

    Raises:
        InputError: If a bound is no probability, or proves an infinite radius, or the weight is out of range.
    """
    check_weight(weight)
    if not (0 <= p_lower <= 1 and 0 <= p_upper <= 1):
        raise InputError(f"expected probabilities; got {p_lower} and {p_upper}")
    threshold = (1 - weight) / weight
    if p_lower - p_upper <= threshold:
        return 0.0
    if p_lower == 1 or p_upper == 0:
        raise InputError("a bound of exactly 0 or 1 has no finite radius; no finite sample proves it")
    above, below = float(ndtri(p_lower)), float(ndtri(p_upper))
    low, high = 0.0, (above - below) / 2
    error = 1e-14 + 1e-15 * (abs(above) + abs(below) + 2 * high)
    while low < (middle := (low + high) / 2) < high:
        beyond = ndtr(above - middle) - ndtr(below + middle) > threshold + error
        low, high = (middle, high) if beyond else (low, middle)
    return math.nextafter(sigma * low, 0.0) if low > 0 else 0.0
