"""Prediction by a cascade: the answer of the classifier that its certificates are about, without a radius."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from robustify.certificates.cascade_level import CascadeLevel
from robustify.certificates.prediction import Poll, Prediction, predict_votes
from robustify.certificates.queries import PREDICTION, Ask
from robustify.certificates.radii import leading_class
from robustify.certificates.views import View


@final
@dataclass(frozen=True)
class CascadePoll(Poll):
    """Which is the first level that fires, and with which class?

    One level after the other is asked, until one fires, or may fire. Each has an equal share of alpha.

    Arguments:
        views: The views of the levels, and then that of the classifier alone, where it answers if no level fires.
        n: Largest number of draws, over all levels.
        alpha: Allowed chance of a wrong label, in (0, 1).
        each: Number of draws at each level.
        levels: The levels, in the order in which they are asked.
    """

    views: tuple[View, ...]
    n: int
    alpha: float
    each: int
    levels: tuple[CascadeLevel, ...]

    def query(self, classes: int) -> "CascadePollQuery":
        return CascadePollQuery(self, classes)

    def silence(self, votes: Sequence[Sequence[int]]) -> float:
        """A p-value, adjusted for the number of levels, of the silence of all levels that these are the votes of."""
        told = zip(self.levels, votes, strict=False)
        return max((self._adjusted(level.silence(of_level, self.each)) for level, of_level in told), default=0.0)

    def answer(self, query: "CascadePollQuery", labels: Sequence[str]) -> Prediction:
        *before, last = query.votes
        view, passed = len(before), self.silence(before)
        if view == len(self.levels):  # the classifier alone
            label = last.index(1) if 1 in last else None
            return self._prediction(label, labels, passed, last, 1)
        level = self.levels[view]
        if level.p0 is None:
            found = predict_votes(last, labels, n=self.each, alpha=level.alpha, slack=level.slack)
            return self._prediction(found.label, labels, max(passed, self._adjusted(found.p_value)), last, self.each)
        fires, silent = (self._adjusted(p) for p in (level.firing(last, self.each), level.silence(last, self.each)))
        label = leading_class(last) if fires <= self.alpha else None
        return self._prediction(label, labels, max(passed, min(fires, silent)), last, self.each)

    def _adjusted(self, p_value: float) -> float:
        return min(1.0, len(self.levels) * p_value)

    def _prediction(
        self, label: int | None, labels: Sequence[str], p_value: float, votes: Sequence[int], n: int
    ) -> Prediction:
        name = None if label is None else labels[label]
        settled = p_value <= self.alpha
        why = "no class is likely enough at any noise level" if settled else "the votes do not settle which level fires"
        return Prediction(label, name, p_value, tuple(votes), n, self.alpha, why, null="another answer")


@final
@dataclass
class CascadePollQuery:
    """Draws of one level after the other, while those before are silent.

    Arguments:
        poll: What is asked.
        classes: Number of classes.
    """

    poll: CascadePoll
    classes: int
    votes: list[tuple[int, ...]] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        """All draws of the next view; nothing once a level fires, or may fire."""
        p, view = self.poll, len(self.votes)
        if view == len(p.views) or p.silence(self.votes) > p.alpha:
            return ()
        return (Ask(view, PREDICTION, p.each if view < len(p.levels) else 1),)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws that `ask` describes."""
        del ask
        self.votes.append(tuple(votes))
