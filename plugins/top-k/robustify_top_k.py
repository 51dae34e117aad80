r"""Certificates that a class stays among the k most frequent votes.

Let :math:`p` bound the class's probability from below, and let :math:`S_t` bound the sum of the t smallest among its k
strongest rivals from above. The class leaves the k most frequent only if k rivals reach it; the t weakest of these have
together at most :math:`S_t`, and their weakest is no more frequent than their average. So the class stays within

.. math:: R = \max_{t \le k} r_t, \quad \Phi(\Phi^{-1}(p) - r_t / \sigma) = \Phi(\Phi^{-1}(S_t) + r_t / \sigma) / t

References:
    Certified Robustness for Top-k Predictions against Adversarial Perturbations via Randomized Smoothing, Jia, Cao,
    Wang, Gong, 2020, https://arxiv.org/abs/1912.09899
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

from scipy.special import ndtr, ndtri

from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.family import Bound, Claim, Family, Look, Plan, Subject, Tally
from robustify.certificates.gaussian import check_sigma
from robustify.certificates.queries import ESTIMATION, SELECTION, Ask
from robustify.certificates.question import Question
from robustify.certificates.radii import check_budget, check_count, leading_class, strongest_rival
from robustify.certificates.views import View
from robustify.errors import InputError

HALVINGS = 60
"""Steps of bisection, after which a radius is known to the last place."""


@final
@dataclass(frozen=True)
class TopK(Family):
    """Certificates that the class with most votes stays among the k most frequent, within an ℓ2 radius.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels, positive.
        k: How many classes, from 1 to one less than there are.

    Raises:
        InputError: If sigma or k is out of range.
    """

    name = "top-k"
    checker = "robustify_top_k_check:problems"

    sigma: float
    k: int = 3

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        check_count("k", self.k)

    @property
    def levels(self) -> tuple[float, ...]:
        return (self.sigma,)

    def plan(self, question: Question, subject: Subject) -> "TopKPlan":
        if question.radius is not None or question.n is None:
            raise InputError("top-k certificates take a fixed number of draws: give n=, and neither radius= nor n_max=")
        if self.k >= subject.classes:
            raise InputError(f"expected k below the number of classes, {subject.classes}; got {self.k}")
        slack = subject.slack(View(self.sigma))
        plan = TopKPlan(float(self.sigma), self.k, subject.classes, question.alpha, question.n0, question.n, slack)
        if plan.ceiling == 0:
            raise InputError(f"n = {question.n:,} draws can never certify at alpha = {question.alpha:g}; use more")
        return plan

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "TopKPlan":
        plan = TopKPlan(**stored)
        cls(plan.sigma, plan.k)  # raises
        check_budget(n=plan.n, alpha=plan.alpha)
        check_count("n0", plan.n0)
        check_count("classes", plan.classes, least=plan.k + 1)
        return plan

    def __str__(self) -> str:
        return f"sigma = {self.sigma:g}, top {self.k}"


@final
@dataclass(frozen=True)
class TopKPlan(Plan):
    """The radius within which the class that `n0` draws chose stays among the k most frequent, from `n` others.

    Arguments:
        sigma, k: As `TopK` takes them.
        classes: Number of classes; each has its own bound, at alpha / classes.
        alpha: Allowed chance of a false claim, in (0, 1).
        n0, n: Numbers of draws that choose the class, and that test it.
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise.
    """

    family = "top-k"
    rule = "fixed"
    exact = True
    radii = ()

    sigma: float
    k: int
    classes: int
    alpha: float
    n0: int
    n: int
    slack: float

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
    def ceiling(self) -> float:
        return self._claim(0, [self.n] + [0] * (self.classes - 1)).radius

    def statement(self, radius: str, where: str) -> str:
        return f"among the {self.k} most frequent classes under every ℓ2 change below {radius} of its {where}"

    def query(self, classes: int, truth: int | None = None) -> "TopKQuery":
        del truth
        return TopKQuery(self, classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        chosen, tested = tallies
        return self._claim(leading_class(chosen.votes), tested.votes)

    def _claim(self, label: int, votes: Sequence[int]) -> Claim:
        failed, level = self.n - sum(votes), self.alpha / self.classes
        low = max(0.0, lower_bound(votes[label], self.n, alpha=level) - self.slack)
        rivals = sorted((votes[c] for c in range(len(votes)) if c != label), reverse=True)[: self.k]
        upper = [min(1.0, upper_bound(min(self.n, r + failed), self.n, alpha=level) + self.slack) for r in rivals]
        radius = top_k_radius(low, upper, sigma=self.sigma)
        return Claim(label if radius > 0 else None, radius, (Bound(low, upper[0]),))

    def stored(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"top {self.k}, n = {self.n:,}"


@final
@dataclass
class TopKQuery:
    """The draws of one image, all asked for at once, and their votes."""

    plan: TopKPlan
    classes: int
    told: list[tuple[int, ...]] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        """Draws that choose the class, and draws that test it; nothing once their votes are known."""
        return () if self.told else (Ask(0, SELECTION, self.plan.n0), Ask(0, ESTIMATION, self.plan.n))

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Keeps the votes."""
        del ask
        self.told.append(tuple(votes))

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """Both stages; empty before any votes."""
        if not self.told:
            return ()
        n, (chosen, votes) = self.plan.n, self.told
        label = leading_class(chosen)
        look = Look(n, votes[label], strongest_rival(votes, label, n=n))
        return Tally(0, SELECTION, self.plan.n0, chosen), Tally(0, ESTIMATION, n, votes, label, (look,))


def top_k_radius(low: float, rivals: Sequence[float], *, sigma: float) -> float:
    """The ℓ2 radius within which a class stays among the k most frequent, rounded down; 0 where none is proven.

    Arguments:
        low: Lower bound on the class's probability, in [0, 1].
        rivals: Upper bounds on the probabilities of its k strongest rivals, strongest first.
        sigma: Standard deviation of the noise, in [0, 1] pixels.
    """
    sums = [min(math.fsum(rivals[-t:]) * (1 + 1e-15), 1 - low) for t in range(1, len(rivals) + 1)]
    found = max(_root(low, total, t, sigma) for t, total in enumerate(sums, start=1))
    return max(0.0, found * (1 - 1e-12) - 1e-12 * sigma)


def _root(low: float, total: float, t: int, sigma: float) -> float:
    """The largest radius, to the last place and from below, at which the class still beats an average of t rivals."""
    if low <= total / t:
        return 0.0
    above, below = float(ndtri(low)), float(ndtri(total))
    if total == 0:
        raise InputError("a bound of exactly 0 has no finite radius; no finite sample proves it")
    inside, outside = 0.0, sigma * (above + 40)
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        beats = float(ndtr(above - middle / sigma)) > float(ndtr(below + middle / sigma)) / t
        inside, outside = (middle, outside) if beats else (inside, middle)
    return inside
