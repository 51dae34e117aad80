"""What one image was asked and answered so far: pure counting, without tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, final, runtime_checkable

from robustify.certificates.decisions import KnownLabelPlan
from robustify.certificates.gaussian import strongest_rival
from robustify.certificates.plans import Look, Plan
from robustify.errors import InputError

SELECTION, ESTIMATION, PREDICTION = 0, 1, 2
"""Stages; their draws are disjoint by construction."""


class Request(NamedTuple):
    """The next so many draws of a stage."""

    stage: int
    draws: int


@runtime_checkable
class Questions(Protocol):
    """Something that asks for draws and is told their votes."""

    classes: int

    @property
    def request(self) -> Request | None:
        """What to draw next; None once nothing more is asked."""

    def answer(self, request: Request, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws requested."""


@final
@dataclass
class Poll:
    """One question: how do `n` draws vote?

    Arguments:
        classes: Number of classes.
        n: Draws.
    """

    classes: int
    n: int
    votes: list[int] = field(init=False, default_factory=list)

    @property
    def request(self) -> Request | None:
        """The draws, once."""
        return None if self.votes else Request(PREDICTION, self.n)

    def answer(self, request: Request, votes: Sequence[int]) -> None:
        """Keeps the votes."""
        del request
        self.votes = list(votes)


@final
@dataclass
class Transcript:
    """The questions that a plan asks of one image, and the votes so far.

    Draws that fail (logits not finite, or tied) vote for nobody and count for the strongest rival.

    Arguments:
        plan: What is asked.
        classes: Number of classes.
        truth: The true label, for a plan that tests it and no other.

    Raises:
        InputError: If the plan tests the true label and there is none, or the other way round.
    """

    plan: Plan
    classes: int
    truth: int | None = None
    selection: list[int] = field(init=False, default_factory=list)
    votes: list[int] = field(init=False)
    looks: list[Look] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.plan, KnownLabelPlan) != (self.truth is not None):
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
    def guess(self) -> int:
        """The class that is tested: the true one, or the one that the selection chose."""
        return self.truth if self.truth is not None else max(range(self.classes), key=self.selection.__getitem__)

    @property
    def request(self) -> Request | None:
        """What to draw next; None once nothing more is asked."""
        if self.plan.selects and not self.selection:
            return Request(SELECTION, self.plan.n0)
        if self.n == self.plan.n or (self.looks and self.plan.decided(self.looks)):
            return None
        return Request(ESTIMATION, self.plan.schedule[len(self.looks)] - self.n)

    def answer(self, request: Request, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws requested."""
        if request.stage == SELECTION:
            self.selection = list(votes)
            self.plan = self.plan.after(self.selection)
            return
        self.votes = [a + b for a, b in zip(self.votes, votes, strict=True)]
        if not self.plan.selects and self.truth is None and not (self.looks and self.plan.claim(self.looks).radius):
            self.selection = list(self.votes)  # the leader is tested, until it has earned a radius
        n = self.n + request.draws
        rival = strongest_rival(self.votes, self.guess, n=n)
        self.looks.append(Look(n, self.votes[self.guess], rival))
