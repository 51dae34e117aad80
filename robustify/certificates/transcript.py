"""What one image was asked and answered so far: pure counting, without tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, final, runtime_checkable

from robustify.certificates.plans import Look, Plan
from robustify.certificates.radius import strongest_rival

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

    Draws that fail (logits not finite, or tied) vote for nobody and count as one more rival.

    Arguments:
        plan: What is asked.
        classes: Number of classes.
    """

    plan: Plan
    classes: int
    selection: list[int] = field(init=False, default_factory=list)
    votes: list[int] = field(init=False)
    looks: list[Look] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.votes = [0] * self.classes

    @property
    def n(self) -> int:
        """Draws of the estimation so far."""
        return self.looks[-1].n if self.looks else 0

    @property
    def guess(self) -> int:
        """The class that the selection chose."""
        return max(range(self.classes), key=self.selection.__getitem__)

    @property
    def request(self) -> Request | None:
        """What to draw next; None once nothing more is asked."""
        if not self.selection:
            return Request(SELECTION, self.plan.n0)
        if self.n == self.plan.n or (self.looks and self.plan.decided(self.looks)):
            return None
        return Request(ESTIMATION, self.plan.schedule[len(self.looks)] - self.n)

    def answer(self, request: Request, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws requested."""
        if request.stage == SELECTION:
            self.selection = list(votes)
            return
        self.votes = [a + b for a, b in zip(self.votes, votes, strict=True)]
        n = self.n + request.draws
        rival = strongest_rival(self.votes, self.guess, n=n)
        self.looks.append(Look(n, self.votes[self.guess], rival))
