"""Plans for one noise level: when the votes may be read, and what they prove.

A plan fixes the numbers of draws after which the votes may be read, decides when they suffice, and says what they
prove. Its claims are false with chance at most alpha, however and whenever it stops, because every bound allows for
all of its looks.

The two plans in this file seek the largest radius; `robustify.certificates.decisions` has those that answer yes or no.

- `FixedPlan`: exactly `n` draws, with Clopper-Pearson bounds.
- `AdaptivePlan`: at most `n` draws; the draws that choose the label also predict how many are worthwhile.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, final

from robustify.certificates.family import Bound, Claim, Look, Plan, Tally
from robustify.certificates.queries import ESTIMATION, SELECTION, CertifyQuery
from robustify.certificates.radii import (
    check_budget,
    check_count,
    gaussian_radius,
    leading_class,
    rival_bounds,
    strongest_rival,
)
from robustify.certificates.sequential import geometric_looks
from robustify.certificates.views import View
from robustify.errors import InputError

TOLERANCE = 0.02
"""Share of the radius that an adaptive plan gives up to save draws, if votes go on as the selection began."""


class Proof(NamedTuple):
    """What the looks at one label prove.

    Arguments:
        radius: ℓ2 radius in [0, 1] pixels: no change of a smaller norm changes the label. 0 where none is proven.
        p_lower: Lower bound on the label's probability.
        p_upper: Upper bound on the probability of every other class.
    """

    radius: float
    p_lower: float
    p_upper: float


NOTHING = Proof(0.0, 0.0, 1.0)
"""The proof of nothing: radius 0, and bounds that always hold."""


@dataclass(frozen=True)
class GaussianPlan(Plan):
    """A question about the base function under Gaussian noise of one standard deviation.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels, positive.
        alpha: Allowed chance of a false claim, in (0, 1).
        n0: Number of draws that choose the label, separate from those that test it; 0 where no draws choose it.
        n: Largest number of draws that test the label.
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise;
            widens every bound.

    Raises:
        InputError: If a number is out of range, or no votes could ever prove a claim.
    """

    family: ClassVar[str] = "gaussian"

    label_from: ClassVar[Literal["selection", "truth", "leader"]] = "selection"
    """Source of the label that is tested: separate draws, the data set, or the lead among the draws that test it."""

    sigma: float
    alpha: float
    n0: int
    n: int
    slack: float = 0.0

    def __post_init__(self) -> None:
        check_budget(n=self.n, alpha=self.alpha)
        if not 0 < self.sigma < math.inf:
            raise InputError(f"expected sigma, the standard deviation of the noise, to be positive; got {self.sigma}")
        if not self.slack >= 0:
            raise InputError(f"expected slack, a difference of chances, to be at least 0; got {self.slack}")
        if self.label_from == "selection":
            check_count("n0", self.n0)
        elif self.n0 != 0:
            raise InputError(
                f"a plan {self.rule!r} chooses no label by draws of its own; expected n0 = 0, got n0 = {self.n0}"
            )

    @property
    def needs_truth(self) -> bool:
        return self.label_from == "truth"

    @property
    def views(self) -> tuple[View, ...]:
        return (View(self.sigma),)

    @property
    def slacks(self) -> tuple[float, ...]:
        return (self.slack,)

    @property
    def most_draws(self) -> int:
        return self.n0 + self.n

    @property
    def radii(self) -> tuple[float, ...]:
        return ()

    @property
    def ceiling(self) -> float:
        return self._between(*rival_bounds(self.n, 0, n=self.n, alpha=self.alpha)).radius

    @property
    @abstractmethod
    def schedule(self) -> tuple[int, ...]:
        """Numbers of draws after which the votes may be read, increasing; the last is `n`."""

    def after(self, selection: Sequence[int]) -> "GaussianPlan":
        """The plan of the draws that test the label, given the votes, one count per class, that chose it."""
        del selection
        return self

    @abstractmethod
    def decided(self, looks: Sequence[Look]) -> bool:
        """Whether the query should stop, given at least one look: the answer is clear, or certain not to come."""

    @abstractmethod
    def prove(self, looks: Sequence[Look]) -> Proof:
        """What the looks so far, at least one, prove about the label."""

    def query(self, classes: int, truth: int | None = None, *, view: int = 0) -> CertifyQuery:
        return CertifyQuery(self, classes, truth, view)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        stages = {tally.stage: tally for tally in tallies}
        chosen, tested = stages.get(SELECTION), stages.get(ESTIMATION)
        plan = self.after(chosen.votes) if chosen else self
        proof = plan.prove(tested.looks) if tested else NOTHING
        label = tested.label if tested and proof.radius > 0 else None
        return Claim(label, proof.radius, (Bound(proof.p_lower, proof.p_upper),))

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self)}

    def _between(self, p_lower: float, p_upper: float) -> Proof:
        """The radius that two bounds prove once they are widened by the slack, and those wider bounds."""
        low = max(0.0, p_lower - self.slack)
        high = min(1.0, p_upper + self.slack)
        return Proof(gaussian_radius(low, high, sigma=self.sigma), low, high)


@final
@dataclass(frozen=True)
class FixedPlan(GaussianPlan):
    """The classical certificate: one look, after exactly `n` draws."""

    rule = "fixed"
    exact = True

    @property
    def schedule(self) -> tuple[int, ...]:
        return (self.n,)

    def decided(self, looks: Sequence[Look]) -> bool:
        del looks
        return False

    def prove(self, looks: Sequence[Look]) -> Proof:
        look = looks[-1]
        return self._between(*rival_bounds(look.label, look.rival, n=look.n, alpha=self.alpha))

    def __str__(self) -> str:
        return f"n = {self.n:,}"


@final
@dataclass(frozen=True)
class AdaptivePlan(GaussianPlan):
    """The largest radius from at most `n` draws, and from fewer where more would gain little.

    The draws that choose the label also predict how many others are worthwhile: the smallest number that would prove
    98 % of the radius that `n` draws would prove, if the votes kept their shares. The draws that test the label are
    fresh, and their number is fixed before the first of them, so Clopper-Pearson bounds hold at full alpha. The radius
    is read once, at the end; earlier looks can only give up.
    """

    rule = "adaptive"

    @property
    def schedule(self) -> tuple[int, ...]:
        return geometric_looks(self.n)

    def after(self, selection: Sequence[int]) -> "AdaptivePlan":
        label = leading_class(selection)
        begun = Look(self.n0, selection[label], strongest_rival(selection, label, n=self.n0))
        if (hoped := self._hoped(begun, self.n)) == 0:
            return self
        enough = (1 - TOLERANCE) * hoped
        return replace(self, n=next(n for n in self.schedule if self._hoped(begun, n) >= enough))

    def decided(self, looks: Sequence[Look]) -> bool:
        look = looks[-1]
        lost = 16 if look.label < look.rival else 4  # a label that still leads may only have had bad luck: wait longer
        return look.n >= self.n / lost and self._hoped(look, self.n) == 0

    def prove(self, looks: Sequence[Look]) -> Proof:
        look = looks[-1]
        if look.n < self.n:
            return NOTHING
        return self._between(*rival_bounds(look.label, look.rival, n=look.n, alpha=self.alpha))

    def _hoped(self, look: Look, n: int) -> float:
        """The radius that `n` draws would prove if they split like those of the look."""
        label, rival = (round(votes * n / look.n) for votes in (look.label, look.rival))
        return gaussian_radius(*rival_bounds(label, rival, n=n, alpha=self.alpha), sigma=self.sigma)

    def __str__(self) -> str:
        return f"n up to {self.n:,}"
