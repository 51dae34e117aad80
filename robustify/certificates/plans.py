"""Which question is asked of an image, when the answer may be read, and what it proves.

A plan is fixed before the first draw. It says at which numbers of draws one may look, when the looks so far are
enough, and what they prove; its claims hold with chance at least 1 - alpha however and whenever it stops, because
every bound it uses allows for all its looks.

- `FixedPlan`: the largest radius from exactly `n` draws, by Clopper-Pearson bounds.
- `AdaptivePlan`: the largest radius from at most `n` draws, as many as the draws that choose the label make seem
  worth while.
- `DecisionPlan`: yes or no at one or several radii, by exact group-sequential tests of the label that draws of their
  own chose.
- `LeaderPlan`: the same of whichever class leads, without draws that choose.
- `KnownLabelPlan`: the same of the true label, for evaluation.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import ClassVar, NamedTuple, final

from scipy.special import ndtr

from robustify.certificates.anytime import sequential_lower_bound
from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.radius import check_budget, check_count, gaussian_radius, rival_bounds, strongest_rival
from robustify.certificates.sequential import GroupSequentialTest, geometric_looks, group_sequential_test
from robustify.errors import InputError

TOLERANCE = 0.02
"""An adaptive plan draws no more than proves all but this share of the radius that all draws would seem to prove."""

RUNNER_UP = 1 / 4
"""Share of alpha with which a decision also tries the runner-up's bound."""

BETA = 1e-3
"""Chance, at each look and side, with which a decision may give up on a label that deserves the certificate."""


class Look(NamedTuple):
    """What was found after `n` draws: votes for the label and for its strongest rival, failed draws being one."""

    n: int
    label: int
    rival: int


class Claim(NamedTuple):
    """What looks prove: the radius is ℓ2, in [0, 1] pixels, and 0 where they prove none.

    Arguments:
        radius: No change of a smaller norm changes the label.
        p_lower: Lower bound on the label's probability.
        p_upper: Upper bound on any other's.
    """

    radius: float
    p_lower: float
    p_upper: float


@dataclass(frozen=True)
class Plan(ABC):
    """One question.

    Arguments:
        sigma: Of the noise, in [0, 1] pixels.
        alpha: Allowed chance of a false claim.
        n0: Draws that choose the label, disjoint from those that test it; 0 where nothing needs to be chosen.
        n: Draws that test it, at most.
        slack: Chance by which a vote may differ from a vote under ideal noise; widens every bound.

    Raises:
        InputError: If nothing could ever be claimed so.
    """

    rule: ClassVar[str]
    """Names the kind of plan in stored rows."""

    selects: ClassVar[bool] = True
    """Whether draws of their own choose the label."""

    sigma: float
    alpha: float
    n0: int
    n: int
    slack: float = 0.0

    def __post_init__(self) -> None:
        check_budget(n=self.n, alpha=self.alpha)
        if self.selects:
            check_count("n0", self.n0)
        elif self.n0 != 0:
            raise InputError(f"a plan {self.rule!r} draws nothing to choose a label; got n0 = {self.n0}")

    @property
    @abstractmethod
    def schedule(self) -> tuple[int, ...]:
        """Numbers of draws at which one may look, increasing, the last being `n`."""

    def after(self, selection: Sequence[int]) -> "Plan":
        """The plan for the draws that test the label, once others have chosen it with these votes."""
        del selection
        return self

    @abstractmethod
    def decided(self, looks: Sequence[Look]) -> bool:
        """Whether more draws are not worth it."""

    @abstractmethod
    def claim(self, looks: Sequence[Look]) -> Claim:
        """What the looks so far prove; at least one."""

    @abstractmethod
    def __str__(self) -> str:
        """The guarantee, in a few words."""

    def _claim(self, p_lower: float, p_upper: float) -> Claim:
        p_lower, p_upper = max(0.0, p_lower - self.slack), min(1.0, p_upper + self.slack)
        return Claim(gaussian_radius(p_lower, p_upper, sigma=self.sigma), p_lower, p_upper)


@final
@dataclass(frozen=True)
class FixedPlan(Plan):
    """The classical certificate: one look, at exactly `n` draws."""

    rule = "fixed"

    @property
    def schedule(self) -> tuple[int, ...]:
        return (self.n,)

    def decided(self, looks: Sequence[Look]) -> bool:
        del looks
        return False

    def claim(self, looks: Sequence[Look]) -> Claim:
        look = looks[-1]
        return self._claim(*rival_bounds(look.label, look.rival, n=look.n, alpha=self.alpha))

    def __str__(self) -> str:
        return f"n = {self.n:,}"


@final
@dataclass(frozen=True)
class AdaptivePlan(Plan):
    """The largest radius from at most `n` draws, fewer where more would gain little.

    The draws that choose the label also say how many others are worth while: the least number that would prove all
    but 2 % of the radius, if votes went on as they have begun. Those are fresh, and their number is fixed before the
    first of them, so that Clopper-Pearson bounds hold at full alpha. The radius is read once, at the end; before,
    one may only give up.
    """

    rule = "adaptive"

    @cached_property
    def _looks(self) -> tuple[int, ...]:
        return geometric_looks(self.n)

    @property
    def schedule(self) -> tuple[int, ...]:
        return self._looks

    def after(self, selection: Sequence[int]) -> Plan:
        label = max(range(len(selection)), key=selection.__getitem__)
        begun = Look(self.n0, selection[label], strongest_rival(selection, label, n=self.n0))
        if (hoped := self._hoped(begun, self.n)) == 0:
            return self
        enough = (1 - TOLERANCE) * hoped
        return replace(self, n=next(n for n in self.schedule if self._hoped(begun, n) >= enough))

    def decided(self, looks: Sequence[Look]) -> bool:
        look = looks[-1]
        lost = 16 if look.label < look.rival else 4  # more draws make sure that it is not bad luck
        return look.n >= self.n / lost and self._hoped(look, self.n) == 0

    def claim(self, looks: Sequence[Look]) -> Claim:
        look = looks[-1]
        if look.n < self.n:
            return Claim(0.0, 0.0, 1.0)
        return self._claim(*rival_bounds(look.label, look.rival, n=look.n, alpha=self.alpha))

    def _hoped(self, look: Look, n: int) -> float:
        """What `n` draws would prove if they voted like these."""
        label, rival = (round(votes * n / look.n) for votes in (look.label, look.rival))
        return gaussian_radius(*rival_bounds(label, rival, n=n, alpha=self.alpha), sigma=self.sigma)

    def __str__(self) -> str:
        return f"n up to {self.n:,}"


@dataclass(frozen=True)
class RadiusPlan(Plan):
    """Yes or no at each of some radii; a radius counts only if all smaller ones do.

    Arguments:
        radii: In [0, 1] pixels, positive.
    """

    radii: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radii or min(self.radii) <= 0 or not math.isfinite(max(self.radii)):
            raise InputError(f"expected positive radii to decide; got {self.radii}")
        object.__setattr__(self, "radii", tuple(sorted(set(map(float, self.radii)))))
        if self._threshold(self.radii[-1]) >= 1 or self.tests[-1].boundaries[-1] > self.n:
            raise InputError(
                f"{self.n:,} draws can never certify radius {self.radii[-1]:g} at sigma = {self.sigma:g} and "
                f"alpha = {self.alpha:g}, even if all agree.\n  Use more draws, a larger sigma or a smaller radius."
            )

    @cached_property
    def _looks(self) -> tuple[int, ...]:
        return geometric_looks(self.n)

    @property
    def schedule(self) -> tuple[int, ...]:
        return self._looks

    @cached_property
    def tests(self) -> tuple[GroupSequentialTest, ...]:
        """One exact test a radius."""
        return tuple(self._test(self._threshold(radius)) for radius in self.radii)

    def decided(self, looks: Sequence[Look]) -> bool:
        claimed = self._claimed(looks)
        return claimed == len(self.radii) or self._hope(looks[-1]) < self.radii[claimed]

    def claim(self, looks: Sequence[Look]) -> Claim:
        claimed = self._claimed(looks)
        if claimed == 0:
            return Claim(0.0, 0.0, 1.0)
        return self._proof(claimed - 1, looks)

    @abstractmethod
    def _test(self, p0: float) -> GroupSequentialTest:
        """The test of one threshold."""

    @abstractmethod
    def _claimed(self, looks: Sequence[Look]) -> int:
        """How many of the radii are certain."""

    def _proof(self, radius: int, looks: Sequence[Look]) -> Claim:
        """The claim that the last radius claimed rests on: here, its test's threshold."""
        del looks
        p_lower = self.tests[radius].p0 - self.slack
        return Claim(_beyond(self.radii[radius]), p_lower, math.nextafter(1 - p_lower, 2.0))

    def _hope(self, look: Look) -> float:
        """A radius that is surely not exceeded, up to a chance of `BETA` a side; giving up is never a false claim."""
        p_lower = min(upper_bound(look.label, look.n, alpha=BETA), 1 - 1e-15)
        p_upper = max(lower_bound(look.rival, look.n, alpha=BETA), 1e-15)
        return gaussian_radius(p_lower, p_upper, sigma=self.sigma)

    def _threshold(self, radius: float) -> float:
        """The probability above which the label holds at the radius and a little beyond it."""
        return math.nextafter(float(ndtr(_beyond(radius) / self.sigma)) * (1 + 1e-15), 2.0) + self.slack

    def __str__(self) -> str:
        radii = ", ".join(f"{radius:g}" for radius in self.radii)
        return f"decided at radius {radii}, n up to {self.n:,}"


@dataclass(frozen=True)
class LabelPlan(RadiusPlan):
    """A decision about one label, fixed before the draws that test it.

    Two routes lead to a yes. Most of alpha pays for an exact group-sequential test that the label's probability
    exceeds Φ(radius / sigma); the rest for bounds on label and runner-up, which certify labels whose
    votes are short of that while no single rival comes near.
    """

    def _test(self, p0: float) -> GroupSequentialTest:
        return group_sequential_test(p0, alpha=(1 - RUNNER_UP) * self.alpha, looks=self.schedule)

    def _claimed(self, looks: Sequence[Look]) -> int:
        proven = self._runner_up(looks).radius
        counts = [look.label for look in looks]
        routes = (test.crossed(counts) or proven >= _beyond(r) for test, r in zip(self.tests, self.radii, strict=True))
        return sum(1 for _ in takewhile(bool, routes))

    def _proof(self, radius: int, looks: Sequence[Look]) -> Claim:
        if self.tests[radius].crossed([look.label for look in looks]):
            return super()._proof(radius, looks)
        return self._runner_up(looks)._replace(radius=_beyond(self.radii[radius]))

    def _runner_up(self, looks: Sequence[Look]) -> Claim:
        return self._claim(*sequential_bounds(looks, self.schedule, alpha=RUNNER_UP * self.alpha))


@final
@dataclass(frozen=True)
class DecisionPlan(LabelPlan):
    """A decision about the label that `n0` draws of their own chose."""

    rule = "decision"


@final
@dataclass(frozen=True)
class KnownLabelPlan(LabelPlan):
    """A decision about the true label, which must be known before the first draw: for evaluation only.

    A yes says that the smoothed classifier's label is the true one within the radius; a no says nothing about other
    labels. It saves the draws that choose, and stops at once where another class clearly wins.
    """

    rule = "known label"
    selects = False


@final
@dataclass(frozen=True)
class LeaderPlan(RadiusPlan):
    """A decision about the class that leads, at each look, on the very draws that test it; no other draws choose.

    The test spends only Φ(radius / sigma) of alpha, which pays for all classes that could lead at once. From the
    first yes on, the class that earned it stays. There is no route by the runner-up.

    With alpha .001 it takes about 100 draws fewer an image than `DecisionPlan` with n0 = 100: 32 instead of 132 at
    half of sigma for a label that always wins, some 90 instead of 190 for one of probability .9. It gives up at once on
    labels that only the runner-up's route certifies: at half of sigma (.67, .17, .16), say.
    """

    rule = "leader"
    selects = False

    def _test(self, p0: float) -> GroupSequentialTest:
        return group_sequential_test(p0, alpha=self.alpha, looks=self.schedule, selection_free=True)

    def _claimed(self, looks: Sequence[Look]) -> int:
        """Each radius by a look from that of the radius before on: only from there on is it surely the same class."""
        start = 0
        for claimed, test in enumerate(self.tests):
            crossings = (k for k in range(start, len(looks)) if looks[k].label >= test.boundaries[k])
            if (crossing := next(crossings, None)) is None:
                return claimed
            start = crossing
        return len(self.tests)

    def _hope(self, look: Look) -> float:
        return super()._hope(look._replace(rival=look.n - look.label))


def sequential_bounds(looks: Sequence[Look], schedule: tuple[int, ...], *, alpha: float) -> tuple[float, float]:
    """Bounds (p_lower, p_upper) on label and strongest rival, jointly at `alpha`, that may be read at every look."""
    p_lower = sequential_lower_bound([look.label for look in looks], schedule, alpha=alpha / 2)
    others = sequential_lower_bound([look.n - look.rival for look in looks], schedule, alpha=alpha / 2)
    return p_lower, math.nextafter(min(1 - others, 1 - p_lower), 2.0)


def plan_of(
    rule: str, *, sigma: float, alpha: float, n0: int, n: int, slack: float, radii: Sequence[float] = ()
) -> Plan:
    """The plan that a stored row describes.

    Raises:
        InputError: If there is no such rule.
    """
    for decision in (DecisionPlan, LeaderPlan, KnownLabelPlan):
        if rule == decision.rule:
            return decision(sigma, alpha, n0, n, slack, tuple(radii))
    for plan in (FixedPlan, AdaptivePlan):
        if rule == plan.rule:
            return plan(sigma, alpha, n0, n, slack)
    raise InputError(f"expected the rule fixed, adaptive, decision, leader or known label; got {rule!r}")


def _beyond(radius: float) -> float:
    """A little more than the radius asked for: certificates are exclusive, the answer at the radius is not."""
    return radius * (1 + 1e-9)
