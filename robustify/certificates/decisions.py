"""Plans that answer yes or no at one or several radii, by exact group-sequential tests.

- `DecisionPlan`: of the label that draws of their own chose.
- `LeaderPlan`: of whichever class leads, without draws that choose.
- `KnownLabelPlan`: of the true label, for evaluation.
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
"""Share of alpha with which a decision also tries the runner-up's bound."""

BETA = 1e-3
"""Chance, at each look and side, with which a decision may give up on a label that deserves the certificate."""


@dataclass(frozen=True)
class RadiusPlan(GaussianPlan):
    """Yes or no at each of some radii; a radius counts only if all smaller ones do.

    Arguments:
        radii: ℓ2 radii to decide, in [0, 1] pixels, positive and increasing.
    """

    radii: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radii or any(not a < b < math.inf for a, b in pairwise((0.0, *self.radii))):
            raise InputError(f"expected positive, increasing radii to decide; got {self.radii}")
        if self._threshold(self.radii[-1]) >= 1 or self.tests[-1].boundaries[-1] > self.n:
            raise InputError(
                f"{self.n:,} draws can never certify radius {self.radii[-1]:g} at sigma = {self.sigma:g} and "
                f"alpha = {self.alpha:g}, even if all agree.\n  Use more draws, a larger sigma or a smaller radius."
            )

    @property
    def schedule(self) -> tuple[int, ...]:
        return geometric_looks(self.n)

    @cached_property
    def tests(self) -> tuple[GroupSequentialTest, ...]:
        """One exact test a radius."""
        return tuple(self._test(self._threshold(radius)) for radius in self.radii)

    def decided(self, looks: Sequence[Look]) -> bool:
        claimed = self._claimed(looks)
        return claimed == len(self.radii) or self._hope(looks[-1]) < self.radii[claimed]

    def prove(self, looks: Sequence[Look]) -> Proof:
        claimed = self._claimed(looks)
        return self._proof_of(claimed - 1, looks) if claimed else NOTHING

    @abstractmethod
    def _test(self, p0: float) -> GroupSequentialTest:
        """The test of one threshold."""

    @abstractmethod
    def _claimed(self, looks: Sequence[Look]) -> int:
        """How many of the radii are certain."""

    def _proof_of(self, radius: int, looks: Sequence[Look]) -> Proof:
        """What the radius at this index, the last one claimed, rests on: here, its test's threshold."""
        del looks
        p_lower = self.tests[radius].p0 - self.slack
        return Proof(_beyond(self.radii[radius]), p_lower, math.nextafter(1 - p_lower, 2.0))

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

    def _proof_of(self, radius: int, looks: Sequence[Look]) -> Proof:
        if self.tests[radius].crossed([look.label for look in looks]):
            return super()._proof_of(radius, looks)
        return self._runner_up(looks)._replace(radius=_beyond(self.radii[radius]))

    def _runner_up(self, looks: Sequence[Look]) -> Proof:
        return self._between(*sequential_bounds(looks, self.schedule, alpha=RUNNER_UP * self.alpha))


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
    label_from = "truth"
    needs_truth = True
    note = "tested the true label"
    remark = (
        "Only the true label was tested: a certificate says that the smoothed classifier's label is the true one "
        "within the radius, an abstention says nothing of other labels."
    )


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
    label_from = "leader"

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


def _beyond(radius: float) -> float:
    """A little more than the radius asked for: certificates are exclusive, the answer at the radius is not."""
    return radius * (1 + 1e-9)
