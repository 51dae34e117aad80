"""Plans whose pilot chooses the label and the number of other draws, which are then read once.

The pilot's draws and those that test its label are never the same, and how many test it is fixed before the first of
them, so exact bounds hold without a price for looks. Families of several views, such as `Mixed` and `Partition`, say
what the pilot's votes and the others mean.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, final

from robustify.certificates.family import Look, Plan, Tally, refuse_truth
from robustify.certificates.plans import TOLERANCE
from robustify.certificates.queries import ESTIMATION, SELECTION, Ask
from robustify.certificates.radii import check_budget, check_count, strongest_rival
from robustify.certificates.sequential import geometric_looks
from robustify.errors import InputError

Pilot: TypeAlias = Sequence[Sequence[int]]
"""Votes of the pilot, one count per class, for each of its asks."""

HOPELESS = 4
"""Share of the draws, as a divisor, that test a label of which the pilot promises nothing: it may have had bad luck."""


@dataclass(frozen=True)
class PilotPlan(Plan):
    """A question about noise of one standard deviation whose label and number of draws a pilot chooses.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels, positive.
        alpha: Allowed chance of a false claim, in (0, 1).
        n0: Number of draws of a view in the pilot, positive.
        n: Largest number of draws of a view that test the label.
        adaptive: Whether the pilot may choose fewer than `n`.
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise;
            widens every bound.

    Raises:
        InputError: If a number is out of range, or no votes could ever prove a claim.
    """

    sigma: float
    alpha: float
    n0: int
    n: int
    adaptive: bool
    slack: float

    def __post_init__(self) -> None:
        check_budget(n=self.n, alpha=self.alpha)
        check_count("n0", self.n0)
        if not self.slack >= 0:
            raise InputError(f"expected slack, a difference of chances, to be at least 0; got {self.slack}")
        if self.most(self.n) == 0:
            raise InputError(
                f"{self.n:,} draws can never certify at {self}, even if all agree.\n  Use more draws or a larger alpha."
            )

    @property
    def exact(self) -> bool:
        return not self.adaptive

    @property
    def radii(self) -> tuple[float, ...]:
        return ()

    @property
    def most_draws(self) -> int:
        return sum(ask.draws for ask in self.pilot) + self.n * len(self.tested)

    @property
    def ceiling(self) -> float:
        return self.most(self.n)

    @property
    @abstractmethod
    def pilot(self) -> tuple[Ask, ...]:
        """The draws of the pilot."""

    @property
    @abstractmethod
    def tested(self) -> tuple[int, ...]:
        """Indices of the views whose draws test the label."""

    @abstractmethod
    def label(self, pilot: Pilot) -> int:
        """Index of the class that is tested after such a pilot."""

    @abstractmethod
    def most(self, n: int) -> float:
        """The ℓ2 radius that `n` draws of each view prove if all agree, which no other votes exceed."""

    @abstractmethod
    def hoped(self, pilot: Pilot, n: int) -> float:
        """The ℓ2 radius that `n` draws of each view would prove if they split as the pilot did."""

    def worthwhile(self, pilot: Pilot) -> int:
        """Number of draws of each view that test the label.

        For an adaptive plan, about the smallest that promises 98 % of the radius that `n` promise. Where the pilot
        promises none, a quarter of `n`, which still certifies a label whose pilot only had bad luck.
        """
        if not self.adaptive:
            return self.n
        hoped = self.hoped(pilot, self.n)
        if hoped == 0:
            return next(size for size in self._sizes if size >= self.n / HOPELESS)
        enough = bisect_left(self._sizes[:-1], (1 - TOLERANCE) * hoped, key=lambda size: self.hoped(pilot, size))
        return self._sizes[enough]

    def tests(self, pilot: Pilot) -> tuple[Ask, ...]:
        """The draws that test the label."""
        n = self.worthwhile(pilot)
        return tuple(Ask(view, ESTIMATION, n) for view in self.tested)

    def query(self, classes: int, truth: int | None = None) -> "PilotQuery":
        refuse_truth(self, truth)
        return PilotQuery(self, classes)

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self)}

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """Numbers of draws to choose from, increasing; the last is `n`."""
        *fewer, last = geometric_looks(self.n)
        return (*(size for size in fewer if self.most(size) > 0), last)

    def __str__(self) -> str:
        return f"n up to {self.n:,}" if self.adaptive else f"n = {self.n:,}"


@final
@dataclass
class PilotQuery:
    """The draws of one image: a pilot, then those that test the label that it chose.

    A draw fails where its logits are not finite or two of them tie for the lead. It votes for no class, and counts
    for the strongest rival.

    Arguments:
        plan: The question.
        classes: Number of classes.
    """

    plan: PilotPlan
    classes: int
    _told: list[tuple[Ask, tuple[int, ...]]] = field(init=False, default_factory=list)
    _tests: tuple[Ask, ...] = field(init=False, default=())

    def ask(self) -> Sequence[Ask]:
        """The pilot, with the draws that test its label where it does not choose their number; then these."""
        if not self._told:
            return (*self.plan.pilot, *(self.plan.tests(()) if self.plan.exact else ()))
        return self._tests if len(self._told) == len(self.plan.pilot) else ()

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws that `ask` describes."""
        self._told.append((ask, tuple(votes)))
        if len(self._told) == len(self.plan.pilot):
            self._tests = self.plan.tests(self.pilot)

    @property
    def pilot(self) -> Pilot:
        """Votes of the pilot, as far as they were told."""
        return [votes for ask, votes in self._told if ask.stage == SELECTION]

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """Votes of the pilot, then those that test the label."""
        return tuple(self._tally(ask, votes) for ask, votes in self._told)

    def _tally(self, ask: Ask, votes: tuple[int, ...]) -> Tally:
        if ask.stage == SELECTION:
            return Tally(ask.view, ask.stage, ask.draws, votes)
        label = self.plan.label(self.pilot)
        look = Look(ask.draws, votes[label], strongest_rival(votes, label, n=ask.draws))
        return Tally(ask.view, ask.stage, ask.draws, votes, label, (look,))


def split(tallies: Sequence[Tally]) -> tuple[Pilot, tuple[Tally, ...]]:
    """Votes of the pilot, and the tallies that test its label."""
    tested = tuple(tally for tally in tallies if tally.stage == ESTIMATION)
    return [tally.votes for tally in tallies if tally.stage == SELECTION], tested
