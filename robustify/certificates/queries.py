"""Queries ask for the draws of one image and are told their votes; pure counting, without tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, final, runtime_checkable

from robustify.certificates.family import Look, Tally
from robustify.certificates.radii import leading_class, strongest_rival
from robustify.errors import InputError

if TYPE_CHECKING:
    from robustify.certificates.plans import GaussianPlan

SELECTION, ESTIMATION, PREDICTION = "selection", "estimation", "prediction"
"""Stages; draws of different stages are never the same."""


class Ask(NamedTuple):
    """A request for the next draws of one view and stage.

    Arguments:
        view: Index of the view within the plan's `views`.
        stage: Purpose of the draws: "selection", "estimation" or "prediction".
        draws: Number of draws, positive.
        first: Index of the first draw within the stage, where draws of a stage are not alike; None to go on where the
            stage's last ask ended.
    """

    view: int
    stage: str
    draws: int
    first: int | None = None


@runtime_checkable
class Query(Protocol):
    """Questions about one image: `ask` says which draws are needed, `tell` takes their votes."""

    classes: int

    def ask(self) -> Sequence[Ask]:
        """All draws whose number no vote yet unknown can change, the same until votes are told; empty once decided."""

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws that `ask` describes.

        Votes are told in the order of the asks, and all of them before the next `ask`.
        """


@runtime_checkable
class CertifyingQuery(Query, Protocol):
    """A query that keeps the counts from which its plan proves a claim."""

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """All counts so far, in the order in which their stages began; empty before any."""


@final
@dataclass
class PredictQuery:
    """A single question: how do `n` draws vote?

    Arguments:
        classes: Number of classes.
        n: Number of draws, positive.
    """

    classes: int
    n: int
    votes: list[int] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        """All draws at once; nothing once their votes are known."""
        return () if self.votes else (Ask(0, PREDICTION, self.n),)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Keeps the votes."""
        del ask
        self.votes = list(votes)


@final
@dataclass
class CertifyQuery:
    """The draws that a plan of one noise level asks for, for one image, and their votes so far.

    A draw fails where its logits are not finite or two of them tie for the lead. It votes for no class, and counts
    for the strongest rival.

    Arguments:
        plan: The question.
        classes: Number of classes.
        truth: Index of the true label, 0 to classes - 1, for a plan that tests it; None for any other.
        view: Index of the view to draw from, for a plan that is part of one with several views.

    Raises:
        InputError: If `truth` is missing, out of range, or given to a plan that chooses the label itself.
    """

    plan: "GaussianPlan"
    classes: int
    truth: int | None = None
    view: int = 0
    selection: list[int] = field(init=False, default_factory=list)
    votes: list[int] = field(init=False)
    looks: list[Look] = field(init=False, default_factory=list)
    _testing: "GaussianPlan" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.plan.needs_truth != (self.truth is not None):
            needs = "needs the true label of each image" if self.truth is None else "chooses the label itself"
            raise InputError(f"a plan {self.plan.rule!r} {needs}; got {self.truth}")
        if self.truth is not None and not 0 <= self.truth < self.classes:
            raise InputError(f"expected a true label from 0 to {self.classes - 1}; got {self.truth}")
        self.votes = [0] * self.classes
        self._testing = self.plan

    @property
    def n(self) -> int:
        """Number of draws so far that test the label."""
        return self.looks[-1].n if self.looks else 0

    @property
    def label(self) -> int:
        """Index of the class that is tested: the true one, or the one that the selection chose, once it did."""
        return leading_class(self.selection) if self.truth is None else self.truth

    def ask(self) -> Sequence[Ask]:
        """The draws that are needed next, the same until their votes are told; empty once there are enough.

        Those that choose the label come with those that test it, where it is known how many these are.
        """
        selecting = self.plan.label_from == "selection" and not self.selection
        chosen = [Ask(self.view, SELECTION, self.plan.n0)] if selecting else []
        if (selecting and not self.plan.exact) or self._done():
            return chosen
        return [*chosen, Ask(self.view, ESTIMATION, self._testing.schedule[len(self.looks)] - self.n)]

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws that `ask` describes."""
        if ask.stage == SELECTION:
            self.selection = list(votes)
            self._testing = self.plan.after(self.selection)
            return
        self.votes = [a + b for a, b in zip(self.votes, votes, strict=True)]
        if self.plan.label_from == "leader" and not self._proven():
            self.selection = list(self.votes)  # a leader may change until one has earned a radius
        n = self.n + ask.draws
        self.looks.append(Look(n, self.votes[self.label], strongest_rival(self.votes, self.label, n=n)))

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """The votes that chose the label, unless it was known, and then those that test it.

        Where the leading class is tested, the first are the votes at the last look that could change the leader, and
        the second count them again.
        """
        counted = []
        if self.selection:
            counted.append(Tally(self.view, SELECTION, self.plan.n0, tuple(self.selection)))
        if self.looks:
            tested = Tally(self.view, ESTIMATION, self.n, tuple(self.votes), self.label, tuple(self.looks))
            counted.append(tested)
        return tuple(counted)

    def _done(self) -> bool:
        return self.n == self._testing.n or (bool(self.looks) and self._testing.decided(self.looks))

    def _proven(self) -> bool:
        return bool(self.looks) and self.plan.prove(self.looks).radius > 0
