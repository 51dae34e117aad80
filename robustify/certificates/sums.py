"""Prediction by a weighted sum of vote shares of several views: which class has the largest, and is that certain?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.prediction import Poll, Prediction
from robustify.certificates.queries import PREDICTION, SELECTION, Ask
from robustify.certificates.views import View
from robustify.errors import InputError

PILOT = 10
"""Share of the draws, as a divisor, that choose the class."""

ROUNDING = 1e-12
"""What the sum of a few shares may lose in floating point."""


@final
@dataclass(frozen=True)
class SumPoll(Poll):
    """Which class has the largest sum of weighted chances of a vote?

    A tenth of the draws choose the class, the others test it: bounds on its chance in each noisy view and on that of
    the class that is truly the strongest rival share alpha evenly. No union over classes is needed, because that class
    is fixed. A view without noise takes one draw, whose vote is exact.

    Arguments:
        views: The views that are summed.
        weights: Weight of each view, positive.
        draws: Number of draws of all noisy views together.
        alpha: Allowed chance of a wrong label, in (0, 1).
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise.

    Raises:
        InputError: If there are too few draws for each noisy view to have two.
    """

    views: tuple[View, ...]
    weights: tuple[float, ...]
    draws: int
    alpha: float
    slack: float

    def __post_init__(self) -> None:
        if self.draws < 2 * self.noisy:
            raise InputError(f"expected n >= {2 * self.noisy}, draws that choose a class and others; got {self.draws}")

    @property
    def n(self) -> int:  # type: ignore[override]  # it is computed
        """Largest number of draws that one image can take."""
        return self.draws + len(self.views) - self.noisy

    @property
    def noisy(self) -> int:
        """Number of views with noise."""
        return sum(view.sigma > 0 for view in self.views)

    @property
    def asks(self) -> tuple[Ask, ...]:
        """All draws: those that choose the class, and exact votes; then those that test it."""
        each = self.draws // self.noisy
        first = max(1, each // PILOT)
        chosen = [Ask(i, SELECTION, first if view.sigma else 1) for i, view in enumerate(self.views)]
        return (*chosen, *(Ask(i, PREDICTION, each - first) for i, view in enumerate(self.views) if view.sigma))

    def query(self, classes: int) -> "SumQuery":
        return SumQuery(self, classes)

    def answer(self, query: "SumQuery", labels: Sequence[str]) -> Prediction:
        tally = SumTest(self, query.told)
        certain = tally.settled(self.alpha)
        label = tally.label if certain else None
        tested = query.told[len(self.views) :]
        return Prediction(
            label=label,
            name=None if label is None else labels[label],
            p_value=tally.smallest_alpha(),
            votes=tuple(map(sum, zip(*tested, strict=True))),
            n=sum(ask.draws for ask in self.asks[len(self.views) :]),
            alpha=self.alpha,
        )


@final
@dataclass
class SumQuery:
    """All draws of a poll, at once.

    Arguments:
        poll: The question.
        classes: Number of classes.
    """

    poll: SumPoll
    classes: int
    told: list[tuple[int, ...]] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        """All draws at once; nothing once their votes are known."""
        return () if self.told else self.poll.asks

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Keeps the votes."""
        del ask
        self.told.append(tuple(votes))


@final
class SumTest:
    """The votes of a poll, and what they settle.

    Arguments:
        poll: The question.
        told: Votes of its asks, one count per class.
    """

    def __init__(self, poll: SumPoll, told: Sequence[Sequence[int]]) -> None:
        self.poll = poll
        views = len(poll.views)
        weighted = [
            [w * votes / ask.draws for votes in votes_of]
            for w, ask, votes_of in zip(poll.weights, poll.asks, told, strict=False)
        ]
        sums = list(map(math.fsum, zip(*weighted, strict=True)))
        self.label = sums.index(max(sums))
        """Index of the class that is tested."""
        exact = [told[i] for i, view in enumerate(poll.views) if view.sigma == 0]
        self._known = [w for w, view in zip(poll.weights, poll.views, strict=True) if view.sigma == 0]
        self._weights = [w for w, view in zip(poll.weights, poll.views, strict=True) if view.sigma > 0]
        self._n = [ask.draws for ask in poll.asks[views:]]
        tested = told[views:]
        self._failed = [n - sum(votes) for n, votes in zip(self._n, tested, strict=True)]
        counts = list(zip(*tested, *exact, strict=True))
        self._own = counts[self.label]
        self._rivals = {count for c, count in enumerate(counts) if c != self.label}

    def settled(self, alpha: float) -> bool:
        """Whether the class surely has the largest sum, at this chance of error."""
        each = alpha / (2 * len(self._n))
        lower = [lower_bound(count, n, alpha=each) for count, n in zip(self._own, self._n, strict=False)]
        own = self._sum(self._own, lower, -1)
        return all(own > self._sum(rival, self._upper(rival, each), 1) + ROUNDING for rival in self._rivals)

    def smallest_alpha(self) -> float:
        """The smallest chance of error at which the answer is settled; 1 where none is small enough to be one."""
        low, high = -300.0, 0.0
        if not self.settled(1 - 1e-9):
            return 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self.settled(min(10**middle, 1 - 1e-9)) else (middle, high)
        return min(1.0, 10**high)

    def _upper(self, counts: Sequence[int], alpha: float) -> list[float]:
        """Upper bounds on a rival's chance in each noisy view, to which failed draws may belong."""
        found = zip(counts, self._failed, self._n, strict=False)
        return [upper_bound(count + failed, n, alpha=alpha) for count, failed, n in found]

    def _sum(self, counts: Sequence[int], bounds: Sequence[float], sign: int) -> float:
        """The weighted sum of bounds, widened by the slack, and of exact votes."""
        bounded = [w * (bound + sign * self.poll.slack) for w, bound in zip(self._weights, bounds, strict=True)]
        known = [w * count for w, count in zip(self._known, counts[len(bounds) :], strict=True)]
        return math.fsum((*bounded, *known))
