"""Queries: what is asked of one image, draw by draw, and what was answered. Pure counting, without tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, final, runtime_checkable

from robustify.certificates.family import Look, Tally
from robustify.certificates.radii import strongest_rival
from robustify.errors import InputError

if TYPE_CHECKING:
    from robustify.certificates.plans import GaussianPlan

SELECTION, ESTIMATION, PREDICTION = "selection", "estimation", "prediction"
"""Stages; their draws are disjoint by construction."""


class Ask(NamedTuple):
    """The next so many draws of a view, for a stage."""

    view: int
    stage: str
    draws: int


@runtime_checkable
class Query(Protocol):
    """Something that asks for draws and is told their votes."""

    classes: int

    def ask(self) -> Ask | None:
        """What to draw next; None once nothing more is asked."""

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws asked for."""


@runtime_checkable
class CertifyingQuery(Query, Protocol):
    """A query that keeps what its plan needs to prove a claim."""

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """Everything that was counted."""


@final
@dataclass
class PredictQuery:
    """One question: how do `n` draws vote?

    Arguments:
        classes: Number of classes.
        n: Number of draws.
    """

    classes: int
    n: int
    votes: list[int] = field(init=False, default_factory=list)

    def ask(self) -> Ask | None:
        """The draws, once."""
        return None if self.votes else Ask(0, PREDICTION, self.n)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Keeps the votes."""
        del ask
        self.votes = list(votes)


@final
@dataclass
class CertifyQuery:
    """The questions that a plan of one noise level asks of one image, and the votes so far.

    Draws that fail (logits not finite, or tied) vote for nobody and count for the strongest rival.

    Arguments:
        plan: What is asked.
        classes: Number of classes.
        truth: Index of the true label, for a plan that tests it and no other.
        view: Index of the view to draw from.

    Raises:
        InputError: If the plan tests the true label and there is none, or the other way round.
    """

    plan: "GaussianPlan"
    classes: int
    truth: int | None = None
    view: int = 0
    selection: list[int] = field(init=False, default_factory=list)
    votes: list[int] = field(init=False)
    looks: list[Look] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.plan.needs_truth != (self.truth is not None):
            needs = "needs the true label of each image" if self.truth is None else "chooses the label itself"
            raise InputError(f"a plan {self.plan.rule!r} {needs}; got {self.truth}")
        if self.truth is not None and not 0 <= self.truth < self.classes:
            raise InputError(f"expected a true label from 0 to {self.classes - 1}; got {self.truth}")
        self.votes = [0] * self.classes

    @property
    def n(self) -> int:
        """Draws of the estimation so far."""
        return self.looks[-1].n if self.looks else 0

    @property
    def label(self) -> int:
        """The class that is tested: the true one, or the one that the selection chose."""
        return self.truth if self.truth is not None else max(range(self.classes), key=self.selection.__getitem__)

    def ask(self) -> Ask | None:
        """What to draw next; None once nothing more is asked."""
        if self.plan.label_from == "selection" and not self.selection:
            return Ask(self.view, SELECTION, self.plan.n0)
        if self.n == self.plan.n or (self.looks and self.plan.decided(self.looks)):
            return None
        return Ask(self.view, ESTIMATION, self.plan.schedule[len(self.looks)] - self.n)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws asked for."""
        if ask.stage == SELECTION:
            self.selection = list(votes)
            self.plan = self.plan.after(self.selection)
            return
        self.votes = [a + b for a, b in zip(self.votes, votes, strict=True)]
        if self.plan.label_from == "leader" and not self._proven():
            self.selection = list(self.votes)  # the leader is tested, until it has earned a radius
        n = self.n + ask.draws
        self.looks.append(Look(n, self.votes[self.label], strongest_rival(self.votes, self.label, n=n)))

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """The votes that chose the label, where it was not known, and those that tested it.

        Where whichever class leads is tested, those that chose are the votes of the estimation when the leader was
        last chosen.
        """
        tested = Tally(self.view, ESTIMATION, self.n, tuple(self.votes), self.label, tuple(self.looks))
        if self.plan.label_from == "truth":
            return (tested,)
        return Tally(self.view, SELECTION, self.plan.n0, tuple(self.selection)), tested

    def _proven(self) -> bool:
        return bool(self.looks) and self.plan.prove(self.looks).radius > 0
