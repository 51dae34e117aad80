"""Prediction without a radius: the leading class, or abstention where the votes do not settle which class leads.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
    Rank Verification for Exponential Families, Hung, Fithian, 2019, https://arxiv.org/abs/1610.03944
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from scipy.special import bdtrc, betainc

from robustify.certificates.answers import top_votes
from robustify.certificates.queries import PredictQuery, Query
from robustify.certificates.radii import leading_class, strongest_rival
from robustify.certificates.views import View


class Poll(ABC):
    """What `predict` asks about each image, fixed before the first draw."""

    views: tuple[View, ...]
    """The views that its queries draw from."""

    n: int
    """Largest number of draws that one image can take."""

    @abstractmethod
    def query(self, classes: int) -> Query:
        """A new query about one image; `answer` reads what it was told."""

    @abstractmethod
    def answer(self, query: Any, labels: Sequence[str]) -> "Prediction":  # noqa: ANN401 - a query of this poll
        """The prediction that follows from the votes.

        Arguments:
            query: One that `query` made, and that asks for nothing more.
            labels: One name per class.
        """


@final
@dataclass(frozen=True)
class MajorityPoll(Poll):
    """Which class do `n` draws of one view vote for most often?

    Arguments:
        views: The view.
        n: Number of draws.
        alpha: Allowed chance of a wrong label, in (0, 1).
        slack: See `predict_votes`.
    """

    views: tuple[View]
    n: int
    alpha: float
    slack: float = 0.0

    def query(self, classes: int) -> PredictQuery:
        return PredictQuery(classes, self.n)

    def answer(self, query: PredictQuery, labels: Sequence[str]) -> "Prediction":
        return predict_votes(query.votes, labels, n=self.n, alpha=self.alpha, slack=self.slack)


@final
@dataclass(frozen=True, repr=False)
class Prediction:
    """A label that differs from the smoothed classifier's label under ideal noise with chance at most `alpha`.

    Arguments:
        label: Index of the class; None where the classifier abstains.
        name: Its name; None where it abstains.
        p_value: The smallest alpha at which the answer is the same: for one view, the p-value of the two-sided test
            that the two leading classes are equally likely.
        votes: One count per class; draws that failed are missing from the sum.
        n: Number of draws.
        alpha: Allowed chance of a wrong label, in (0, 1); 0 where nothing is left to chance.
        why: Why it abstains, where it does.
        null: What the p-value is that of.
    """

    label: int | None
    name: str | None
    p_value: float
    votes: tuple[int, ...]
    n: int
    alpha: float
    why: str = "the leading classes cannot be told apart"
    null: str = "a tie"

    def summary(self) -> dict[str, str]:
        """A few words under each heading of a table."""
        found = {
            "label": "abstains" if self.name is None else self.name,
            "votes": f"{max(self.votes):,} of {self.n:,}",
        }
        return found | {f"p-value of {self.null}": f"{self.p_value:.2g}"} if self.alpha else found

    def __repr__(self) -> str:
        return (
            f"Prediction(label={self.label}, name={self.name!r}, votes={top_votes(self.votes)}, n={self.n}, "
            f"p_value={self.p_value:.2g})"
        )

    def __str__(self) -> str:
        if self.label is None:
            return f"abstains: {self.why} ({self._sure}, n = {self.n:,})"
        return f"{self.name}: {self.votes[self.label]:,} of {self.n:,} votes ({self._sure})"

    @property
    def _sure(self) -> str:
        """How sure the label is, in a few words."""
        return f"p-value of {self.null}: {self.p_value:.2g}" if self.alpha else "without chance"


def predict_votes(
    votes: Sequence[int], labels: Sequence[str], *, n: int, alpha: float, slack: float = 0.0
) -> Prediction:
    """The leading class, if a test against its runner-up is certain enough; draws that failed count for the runner-up.

    Each vote may differ from a vote under ideal noise with chance `slack`. Except with chance alpha / 100, no more than
    a certain number of the votes differ; so many are moved from the leader to the runner-up. The rest of alpha pays for
    the test.

    Arguments:
        votes: One count per class; draws that failed are missing from the sum.
        labels: One name per class.
        n: Number of draws.
        alpha: Allowed chance of a wrong label, in (0, 1).
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise.
    """
    leader = leading_class(votes)
    flips = 0
    while slack > 0 and bdtrc(flips, n, slack) > alpha / 100:
        flips += 1
    runner_up = strongest_rival(votes, leader, n=n) + flips
    p_value = binomial_test(votes[leader] - flips, runner_up)
    certain = p_value <= (alpha if slack == 0 else 0.99 * alpha)
    return Prediction(
        label=leader if certain else None,
        name=labels[leader] if certain else None,
        p_value=p_value,
        votes=tuple(votes),
        n=n,
        alpha=alpha,
    )


def binomial_test(first: int, second: int) -> float:
    """The exact two-sided p-value of these counts of heads and tails of a fair coin; 1 unless `first` is larger."""
    if first <= second:
        return 1.0
    return min(1.0, 2 * float(betainc(first, second + 1, 0.5)))
