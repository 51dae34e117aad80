"""Which question is asked of an image, when the answer may be read, and what it proves.

A plan is fixed before the first draw. It says at which numbers of draws one may look, when the looks so far are
enough, and what they prove; its claims hold with chance at least 1 - alpha however and whenever it stops, because
every bound it uses allows for all its looks.

Two ask for the largest radius; `robustify.certificates.decisions` has those that ask for yes or no.

- `FixedPlan`: from exactly `n` draws, by Clopper-Pearson bounds.
- `AdaptivePlan`: from at most `n` draws, as many as the draws that choose the label make seem worth while.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, final

from robustify.certificates.gaussian import check_budget, check_count, gaussian_radius, rival_bounds, strongest_rival
from robustify.certificates.sequential import geometric_looks
from robustify.errors import InputError

TOLERANCE = 0.02
"""An adaptive plan draws no more than proves all but this share of the radius that all draws would seem to prove."""


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

    @property
    def schedule(self) -> tuple[int, ...]:
        return geometric_looks(self.n)

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
