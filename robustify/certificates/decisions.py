"""Plans that decide, yes or no, whether a label holds within given radii, by exact group-sequential tests.

- `DecisionPlan` tests the label that separate draws chose.
- `LeaderPlan` tests whichever class leads, without separate draws.
- `KnownLabelPlan` tests the true label, for evaluation.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile
from typing import final

from scipy.special import ndtr

from robustify.certificates.anytime import sequential_lower_bound
from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.family import Look
from robustify.certificates.plans import NOTHING, GaussianPlan, Proof
from robustify.certificates.radii import gaussian_radius
from robustify.certificates.sequential import GroupSequentialTest, geometric_looks, group_sequential_test
from robustify.errors import InputError

RUNNER_UP = 1 / 4
"""Share of alpha that pays for the bounds on label and runner-up, the second route to a yes."""

BETA = 1e-3
"""Chance, at each look and for each of two bounds, that a decision gives up on a label that deserves a yes."""


@dataclass(frozen=True)
class RadiusPlan(GaussianPlan):
    """A decision, yes or no, at each of several radii; a radius is claimed only if all smaller ones are.

    Arguments:
        radii: ℓ2 radii to decide, in [0, 1] pixels, positive and increasing.

    Raises:
        InputError: If a number is out of range, or even equal votes could never certify the largest radius.
    """

    radii: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radii or any(not a < b < math.inf for a, b in pairwise((0.0, *self.radii))):
            raise InputError(f"expected one or more radii to decide, positive and increasing; got {self.radii}")
        if self._threshold(self.radii[-1]) >= 1 or self.tests[-1].boundaries[-1] > self.n:
            raise InputError(
                f"{self.n:,} draws can never certify radius {self.radii[-1]:g} at sigma = {self.sigma:g} and "
                f"alpha = {self.alpha:g}, even if all agree.\n  Use more draws, a larger sigma or a smaller radius."
            )

    @property
    def ceiling(self) -> float:
        return _beyond(self.radii[-1])

    @property
    def schedule(self) -> tuple[int, ...]:
        return geometric_looks(self.n)

    @cached_property
    def tests(self) -> tuple[GroupSequentialTest, ...]:
        """One exact test per radius."""
        return tuple(self._test(self._threshold(radius)) for radius in self.radii)

    def decided(self, looks: Sequence[Look]) -> bool:
        claimed = self._claimed(looks)
        return claimed == len(self.radii) or self._hope(looks[-1]) < self.radii[claimed]

    def prove(self, looks: Sequence[Look]) -> Proof:
        claimed = self._claimed(looks)
        return self._proof_of(claimed - 1, looks) if claimed else NOTHING

    @abstractmethod
    def _test(self, p0: float) -> GroupSequentialTest:
        """The test of whether the label's probability exceeds `p0`."""

    @abstractmethod
    def _claimed(self, looks: Sequence[Look]) -> int:
        """Number of radii, counted from the smallest, that the looks prove."""

    def _proof_of(self, radius: int, looks: Sequence[Look]) -> Proof:
        """The proof of the largest radius claimed, given its index; here it rests on the threshold of its test."""
        del looks
        p_lower = self.tests[radius].p0 - self.slack
        return Proof(_beyond(self.radii[radius]), p_lower, math.nextafter(1 - p_lower, 2.0))

    def _hope(self, look: Look) -> float:
        """A radius that the true one exceeds with small chance only, `BETA` for each of two bounds.

        It is used to give up, which is never a false claim.
        """
        p_lower = min(upper_bound(look.label, look.n, alpha=BETA), 1 - 1e-15)
        p_upper = max(lower_bound(look.rival, look.n, alpha=BETA), 1e-15)
        return gaussian_radius(p_lower, p_upper, sigma=self.sigma)

    def _threshold(self, radius: float) -> float:
        """The probability, under the noise that is drawn, above which the label holds slightly beyond the radius."""
        return math.nextafter(float(ndtr(_beyond(radius) / self.sigma)) * (1 + 1e-15), 2.0) + self.slack

    def __str__(self) -> str:
        radii = ", ".join(f"{radius:g}" for radius in self.radii)
        return f"decided at radius {radii}, n up to {self.n:,}"


@dataclass(frozen=True)
class LabelPlan(RadiusPlan):
    """A decision about one label, which is fixed before the draws that test it.

    Two routes lead to a yes. Most of alpha pays for an exact group-sequential test of whether the label's probability
    exceeds Φ(radius / sigma). The rest pays for bounds on label and runner-up: they certify a label whose probability
    is smaller than that, if no single rival comes near it.
    """

    def _test(self, p0: float) -> GroupSequentialTest:
        return group_sequential_test(p0, alpha=(1 - RUNNER_UP) * self.alpha, looks=self.schedule)

    def _claimed(self, looks: Sequence[Look]) -> int:
        proven = self._runner_up(looks).radius
        counts = [look.label for look in looks]
        routes = (test.crossed(counts) or proven >= _beyond(r) for test, r in zip(self.tests, self.radii, strict=True))
        return sum(1 for _ in takewhile(bool, routes))

    def _proof_of(self, radius: int, looks: Sequence[Look]) -> Proof:
        if self.tests[radius].crossed([look.label for look in looks]):
            return super()._proof_of(radius, looks)
        return self._runner_up(looks)._replace(radius=_beyond(self.radii[radius]))

    def _runner_up(self, looks: Sequence[Look]) -> Proof:
        return self._between(*sequential_bounds(looks, self.schedule, alpha=RUNNER_UP * self.alpha))


@final
@dataclass(frozen=True)
class DecisionPlan(LabelPlan):
    """A decision about the label that `n0` separate draws chose."""

    rule = "decision"


@final
@dataclass(frozen=True)
class KnownLabelPlan(LabelPlan):
    """A decision about the true label, which must be known before the first draw; for evaluation only.

    A yes says that the smoothed classifier's label is the true one within the radius; a no says nothing about other
    labels. No draws choose the label, and sampling stops at once where another class clearly wins.
    """

    rule = "known label"
    label_from = "truth"
    note = "tested the true label"
    remark = (
        "Only the true label was tested: a certificate says that the smoothed classifier's label is the true one "
        "within the radius, an abstention says nothing about other labels."
    )


@final
@dataclass(frozen=True)
class LeaderPlan(RadiusPlan):
    """A decision about the class that leads at each look; the same draws choose it and test it.

    The test spends only the share Φ(radius / sigma) of alpha, which pays for every class that could lead. The class
    that earns the first yes stays the label. Bounds on the runner-up are not used.

    At alpha = .001 this takes about 100 draws per image fewer than `DecisionPlan` with n0 = 100: at a radius of half
    of sigma, 32 instead of 132 for a label that always wins, and about 90 instead of 190 for a label of probability
    .9. It gives up at once on labels that only bounds on the runner-up can certify, such as class probabilities of
    (.67, .17, .16) at that radius.
    """

    rule = "leader"
    label_from = "leader"

    def _test(self, p0: float) -> GroupSequentialTest:
        return group_sequential_test(p0, alpha=self.alpha, looks=self.schedule, selection_free=True)

    def _claimed(self, looks: Sequence[Look]) -> int:
        """Number of radii, counted from the smallest, that the looks prove.

        Each is proven at or after the look that proved the one before: another class may have led earlier.
        """
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
    """Bounds (p_lower, p_upper) on label and strongest rival, jointly at `alpha`, that may be read at every look.

    Arguments:
        looks: Counts at the looks so far, at least one.
        schedule: Numbers of draws at all looks that may come, fixed before the first draw.
        alpha: Allowed chance, in (0, 1), that either bound is wrong at any look.

    Raises:
        InputError: If counts, looks or alpha are impossible.
    """
    p_lower = sequential_lower_bound([look.label for look in looks], schedule, alpha=alpha / 2)
    others = sequential_lower_bound([look.n - look.rival for look in looks], schedule, alpha=alpha / 2)
    return p_lower, math.nextafter(min(1 - others, 1 - p_lower), 2.0)


def _beyond(radius: float) -> float:
    """A radius slightly above the one to decide: a certificate excludes its own radius, a decision includes it."""
    return radius * (1 + 1e-9)
