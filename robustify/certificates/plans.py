"""Which question is asked of an image, when the answer may be read, and what it proves.

A plan is fixed before the first draw. It says at which numbers of draws one may look, when the looks so far are
enough, and what they prove; its claims hold with chance at least 1 - alpha however and whenever it stops, because
every bound it uses allows for all its looks.

- `FixedPlan`: the largest radius from exactly `n` draws, by Clopper-Pearson bounds.
- `AdaptivePlan`: the largest radius from at most `n` draws; stops once more draws would gain little.
- `DecisionPlan`: yes or no at one or several radii, by exact group-sequential tests.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import ClassVar, NamedTuple, final

from scipy.special import ndtr

from robustify.certificates.anytime import sequential_lower_bound
from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.radius import check_budget, gaussian_radius, rival_bounds
from robustify.certificates.sequential import GroupSequentialTest, geometric_looks, group_sequential_test
from robustify.errors import InputError

TOLERANCE = 0.02
"""An adaptive plan stops once it has all but this share of the radius that all draws would seem to prove."""

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
        n0: Draws that choose the label, disjoint from those that test it.
        n: Draws that test it, at most.
        slack: Chance by which a vote may differ from a vote under ideal noise; widens every bound.

    Raises:
        InputError: If nothing could ever be claimed so.
    """

    rule: ClassVar[str]
    """Names the kind of plan in stored rows."""

    sigma: float
    alpha: float
    n0: int
    n: int
    slack: float = 0.0

    def __post_init__(self) -> None:
        check_budget(n=self.n, n0=self.n0, alpha=self.alpha)

    @property
    @abstractmethod
    def schedule(self) -> tuple[int, ...]:
        """Numbers of draws at which one may look, increasing, the last being `n`."""

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
    """The largest radius from at most `n` draws, stopping early where more would gain little.

    Both bounds may be read at every look; at the last, for probabilities up to .999, they prove a radius within
    .003 sigma of Clopper-Pearson's.
    """

    rule = "adaptive"

    @cached_property
    def _looks(self) -> tuple[int, ...]:
        return geometric_looks(self.n, first=min(128, self.n), ratio=1.25)

    @property
    def schedule(self) -> tuple[int, ...]:
        return self._looks

    def decided(self, looks: Sequence[Look]) -> bool:
        look = looks[-1]
        scale = self.n / look.n
        expected = round(look.label * scale), round(look.rival * scale)
        hoped = gaussian_radius(*rival_bounds(*expected, n=self.n, alpha=self.alpha), sigma=self.sigma)
        if hoped == 0:  # as it looks, not even all draws would do; more looks make sure that it is not bad luck
            return look.n >= self.n / 4 or look.label < look.rival
        return self.claim(looks).radius >= (1 - TOLERANCE) * hoped

    def claim(self, looks: Sequence[Look]) -> Claim:
        return self._claim(*sequential_bounds(looks, self.schedule, alpha=self.alpha))

    def __str__(self) -> str:
        return f"n up to {self.n:,}, valid at every look"


@final
@dataclass(frozen=True)
class DecisionPlan(Plan):
    """Yes or no at each of some radii; a radius counts only if all smaller ones do.

    Two routes lead to a yes. Most of alpha pays for an exact group-sequential test that the label's probability
    exceeds Φ(radius / sigma); the rest for bounds on label and runner-up, which certify labels whose
    votes are short of that while no single rival comes near.

    Arguments:
        radii: In [0, 1] pixels, positive.
    """

    rule = "decision"

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
        alpha = (1 - RUNNER_UP) * self.alpha
        return tuple(
            group_sequential_test(self._threshold(radius), alpha=alpha, looks=self.schedule) for radius in self.radii
        )

    def _threshold(self, radius: float) -> float:
        """The probability above which the label holds at the radius and a little beyond it."""
        return math.nextafter(float(ndtr(_beyond(radius) / self.sigma)) * (1 + 1e-15), 2.0) + self.slack

    def decided(self, looks: Sequence[Look]) -> bool:
        claimed = self._claimed(looks)
        if claimed == len(self.radii):
            return True
        look = looks[-1]
        hope = gaussian_radius(
            min(upper_bound(look.label, look.n, alpha=BETA), 1 - 1e-15),
            max(lower_bound(look.rival, look.n, alpha=BETA), 1e-15),
            sigma=self.sigma,
        )
        return hope < self.radii[claimed]

    def claim(self, looks: Sequence[Look]) -> Claim:
        claimed = self._claimed(looks)
        if claimed == 0:
            return Claim(0.0, 0.0, 1.0)
        if self.tests[claimed - 1].crossed([look.label for look in looks]):
            p_lower = self.tests[claimed - 1].p0 - self.slack
            return Claim(_beyond(self.radii[claimed - 1]), p_lower, math.nextafter(1 - p_lower, 2.0))
        return self._runner_up(looks)._replace(radius=_beyond(self.radii[claimed - 1]))

    def _claimed(self, looks: Sequence[Look]) -> int:
        """How many of the radii are certain."""
        proven = self._runner_up(looks).radius
        counts = [look.label for look in looks]
        routes = (test.crossed(counts) or proven >= _beyond(r) for test, r in zip(self.tests, self.radii, strict=True))
        return sum(1 for _ in takewhile(bool, routes))

    def _runner_up(self, looks: Sequence[Look]) -> Claim:
        return self._claim(*sequential_bounds(looks, self.schedule, alpha=RUNNER_UP * self.alpha))

    def __str__(self) -> str:
        radii = ", ".join(f"{radius:g}" for radius in self.radii)
        return f"decided at radius {radii}, n up to {self.n:,}"


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
    if rule == DecisionPlan.rule:
        return DecisionPlan(sigma, alpha, n0, n, slack, tuple(radii))
    for plan in (FixedPlan, AdaptivePlan):
        if rule == plan.rule:
            return plan(sigma, alpha, n0, n, slack)
    raise InputError(f"expected the rule fixed, adaptive or decision; got {rule!r}")


def _beyond(radius: float) -> float:
    """A little more than the radius asked for: certificates are exclusive, the answer at the radius is not."""
    return radius * (1 + 1e-9)
