"""Plans of one noise level: when the votes may be read, and what they prove.

A plan says at which numbers of draws one may look, when the looks so far are enough, and what they prove; its claims
hold with chance at least 1 - alpha however and whenever it stops, because every bound allows for all its looks.

Two ask for the largest radius; `robustify.certificates.decisions` has those that ask for yes or no.

- `FixedPlan`: from exactly `n` draws, by Clopper-Pearson bounds.
- `AdaptivePlan`: from at most `n` draws, as many as the draws that choose the label make seem worth while.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, final

from robustify.certificates.family import Bound, Claim, Look, Plan, Tally, View
from robustify.certificates.queries import CertifyQuery
from robustify.certificates.radii import check_budget, check_count, gaussian_radius, rival_bounds, strongest_rival
from robustify.certificates.sequential import geometric_looks
from robustify.errors import InputError

TOLERANCE = 0.02
"""An adaptive plan draws no more than proves all but this share of the radius that all draws would seem to prove."""


class Proof(NamedTuple):
    """What looks at one label prove.

    Arguments:
        radius: ℓ2, in [0, 1] pixels; no change of a smaller norm changes the label. 0 where none is proven.
        p_lower: Lower bound on the label's probability.
        p_upper: Upper bound on the probability of every other class.
    """

    radius: float
    p_lower: float
    p_upper: float


NOTHING = Proof(0.0, 0.0, 1.0)
"""What no look proves."""


@dataclass(frozen=True)
class GaussianPlan(Plan):
    """A question about the base classifier under Gaussian noise of one level.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        alpha: Allowed chance of a false claim.
        n0: Draws that choose the label, disjoint from those that test it; 0 where nothing needs to be chosen.
        n: Draws that test it, at most.
        slack: Chance by which a vote may differ from a vote under ideal noise; widens every bound.

    Raises:
        InputError: If nothing could ever be claimed so.
    """

    family: ClassVar[str] = "gaussian"

    label_from: ClassVar[Literal["selection", "truth", "leader"]] = "selection"
    """What gives the label that is tested: draws of its own, the data, or the lead among the draws that test it."""

    sigma: float
    alpha: float
    n0: int
    n: int
    slack: float = 0.0

    def __post_init__(self) -> None:
        check_budget(n=self.n, alpha=self.alpha)
        if self.label_from == "selection":
            check_count("n0", self.n0)
        elif self.n0 != 0:
            raise InputError(f"a plan {self.rule!r} draws nothing to choose a label; got n0 = {self.n0}")

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
    @abstractmethod
    def schedule(self) -> tuple[int, ...]:
        """Numbers of draws at which one may look, increasing, the last being `n`."""

    def after(self, selection: Sequence[int]) -> "GaussianPlan":
        """The plan for the draws that test the label, once others have chosen it with these votes."""
        del selection
        return self

    @abstractmethod
    def decided(self, looks: Sequence[Look]) -> bool:
        """Whether more draws are not worth it."""

    @abstractmethod
    def prove(self, looks: Sequence[Look]) -> Proof:
        """What the looks so far prove; at least one."""

    def query(self, classes: int, truth: int | None = None, *, view: int = 0) -> CertifyQuery:
        return CertifyQuery(self, classes, truth, view)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        *chosen, tested = tallies
        plan = self.after(chosen[0].votes) if chosen else self
        proof = plan.prove(tested.looks)
        label = tested.label if proof.radius > 0 else None
        return Claim(label, proof.radius, (Bound(proof.p_lower, proof.p_upper),))

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self)}

    def _between(self, p_lower: float, p_upper: float) -> Proof:
        """The radius between two bounds, which are first widened by the slack."""
        low = max(0.0, p_lower - self.slack)
        high = min(1.0, p_upper + self.slack)
        return Proof(gaussian_radius(low, high, sigma=self.sigma), low, high)


def leading(votes: Sequence[int]) -> int:
    """The class with most votes; the first of those that have as many."""
    return max(range(len(votes)), key=votes.__getitem__)


@final
@dataclass(frozen=True)
class FixedPlan(GaussianPlan):
    """The classical certificate: one look, at exactly `n` draws."""

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

    def after(self, selection: Sequence[int]) -> "AdaptivePlan":
        label = leading(selection)
        begun = Look(self.n0, selection[label], strongest_rival(selection, label, n=self.n0))
        if (hoped := self._hoped(begun, self.n)) == 0:
            return self
        enough = (1 - TOLERANCE) * hoped
        return replace(self, n=next(n for n in self.schedule if self._hoped(begun, n) >= enough))

    def decided(self, looks: Sequence[Look]) -> bool:
        look = looks[-1]
        lost = 16 if look.label < look.rival else 4  # more draws make sure that it is not bad luck
        return look.n >= self.n / lost and self._hoped(look, self.n) == 0

    def prove(self, looks: Sequence[Look]) -> Proof:
        look = looks[-1]
        if look.n < self.n:
            return NOTHING
        return self._between(*rival_bounds(look.label, look.rival, n=look.n, alpha=self.alpha))

    def _hoped(self, look: Look, n: int) -> float:
        """The radius that `n` draws would prove if they voted like these."""
        label, rival = (round(votes * n / look.n) for votes in (look.label, look.rival))
        return gaussian_radius(*rival_bounds(label, rival, n=n, alpha=self.alpha), sigma=self.sigma)

    def __str__(self) -> str:
        return f"n up to {self.n:,}"
