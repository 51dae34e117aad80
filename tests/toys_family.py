"""Families of certificates, as somebody else might write them.

`TwoLevels` takes the smaller of two radii, at two noise levels; `Agree` needs neither noise nor chance.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, final

from robustify.certificates.family import CERTIFICATES, Bound, Claim, Family, Look, Plan, Subject, Tally
from robustify.certificates.queries import ESTIMATION, SELECTION, Ask, CertifyingQuery
from robustify.certificates.question import Question
from robustify.certificates.radii import gaussian_radius, rival_bounds, strongest_rival
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.smoothing.pipeline import Pipeline
from robustify.types import Levels, Logits, Pixels
from robustify.verify.arithmetic import normal_quantile, upper_tail
from robustify.verify.problem import Problem


@final
@dataclass
class TwoLevelsQuery:
    """Draws that choose the label at the first level, then draws that test it at both.

    Arguments:
        plan: What is asked.
        classes: Number of classes.
    """

    plan: "TwoLevelsPlan"
    classes: int
    told: list[tuple[Ask, tuple[int, ...]]] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        """All at once: no vote changes how many draws are needed."""
        p = self.plan
        asks = (Ask(0, SELECTION, p.n0), Ask(0, ESTIMATION, p.n), Ask(1, ESTIMATION, p.n))
        return () if self.told else asks

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws asked for."""
        self.told.append((ask, tuple(votes)))

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """Everything that was counted."""
        if not self.told:
            return ()
        (_, selection), *estimations = self.told
        label = selection.index(max(selection))
        chosen = Tally(0, SELECTION, self.plan.n0, selection)
        return (chosen, *(_tested(ask, votes, label) for ask, votes in estimations))


def _tested(ask: Ask, votes: tuple[int, ...], label: int) -> Tally:
    look = Look(ask.draws, votes[label], strongest_rival(votes, label, n=ask.draws))
    return Tally(ask.view, ask.stage, ask.draws, votes, label, (look,))


@final
@dataclass(frozen=True)
class TwoLevelsPlan(Plan):
    """The smaller of the radii that `n` draws prove at each of two levels; a minimum needs no share of alpha.

    Arguments:
        sigmas: Standard deviations of the noise, in [0, 1] pixels.
        alpha: Allowed chance of a false claim.
        n0: Draws at the first level that choose the label.
        n: Draws at each level that test it.
        slack: The most by which the chance of a vote may differ from that under ideal noise, at each level.
    """

    family = "two-levels"
    rule = "minimum"
    exact = True

    sigmas: tuple[float, float]
    alpha: float
    n0: int
    n: int
    slack: tuple[float, float]

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(map(View, self.sigmas))

    @property
    def slacks(self) -> tuple[float, ...]:
        return self.slack

    @property
    def most_draws(self) -> int:
        return self.n0 + 2 * self.n

    @property
    def radii(self) -> tuple[float, ...]:
        return ()

    def query(self, classes: int, truth: int | None = None) -> TwoLevelsQuery:
        assert truth is None
        return TwoLevelsQuery(self, classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        _, *tested = tallies
        bounds = tuple(map(self._bound, tested, self.slack))
        radius = min(gaussian_radius(*bound, sigma=sigma) for bound, sigma in zip(bounds, self.sigmas, strict=True))
        return Claim(tested[0].label if radius > 0 else None, radius, bounds)

    def _bound(self, tally: Tally, slack: float) -> Bound:
        (look,) = tally.looks
        low, high = rival_bounds(look.label, look.rival, n=look.n, alpha=self.alpha)
        return Bound(max(0.0, low - slack), min(1.0, high + slack))

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self)}

    def __str__(self) -> str:
        return f"n = {self.n:,} at each of two levels"


@final
@dataclass(frozen=True)
class TwoLevels(Family):
    """The smaller of two radii.

    Arguments:
        sigmas: Standard deviations of the noise, in [0, 1] pixels.
    """

    name = "two-levels"
    checker = "tests.toys_family:problems"

    sigmas: tuple[float, float]

    @property
    def levels(self) -> tuple[float, ...]:
        return self.sigmas

    def plan(self, question: Question, subject: Subject) -> TwoLevelsPlan:
        if question.n is None:
            raise InputError("two levels need a number of draws, n")
        first, second = map(subject.slack, map(View, self.sigmas))
        return TwoLevelsPlan(self.sigmas, question.alpha, question.n0, question.n, (first, second))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> TwoLevelsPlan:
        (low, high), (first, second) = stored["sigmas"], stored["slack"]
        return TwoLevelsPlan((low, high), stored["alpha"], stored["n0"], stored["n"], (first, second))


def problems(row: Row, plan: TwoLevelsPlan, run: Run) -> Iterator[Problem]:
    """What the counts of a row do not prove, by exact tails and quantiles."""
    assert run.plan == plan
    stages = [(tally.view, tally.stage, tally.draws) for tally in row.tallies]
    if stages != [(0, SELECTION, plan.n0), (0, ESTIMATION, plan.n), (1, ESTIMATION, plan.n)]:
        yield Problem(row.sample, "tallies", stages, "one selection, and votes of both levels")
        return
    chosen, *tested = row.tallies
    label = chosen.votes.index(max(chosen.votes))
    for tally in tested:
        rival = max(votes for c, votes in enumerate(tally.votes) if c != label) + plan.n - sum(tally.votes)
        if (tally.label, tally.looks) != (label, (Look(plan.n, tally.votes[label], rival),)):
            yield Problem(row.sample, f"looks of view {tally.view}", tally.looks, "those of the votes")
            return
    for bound, tally, sigma, slack in zip(row.bounds, tested, plan.sigmas, plan.slack, strict=True):
        yield from _unproven(row, bound, tally.looks[0], sigma, Fraction(slack), Fraction(plan.alpha) / 2)


def _unproven(row: Row, bound: Bound, look: Look, sigma: float, slack: Fraction, level: Fraction) -> Iterator[Problem]:
    low, high = map(Fraction, bound)
    if low > 0 and upper_tail(look.label, look.n, low + slack) * level.denominator > level.numerator:
        yield Problem(row.sample, "p_lower", bound.p_lower, "less")
    rest = max(look.label, look.n - look.rival)
    if high < 1 and upper_tail(rest, look.n, 1 - high + slack) * level.denominator > level.numerator:
        yield Problem(row.sample, "p_upper", bound.p_upper, "more")
    if row.radius > 0 and not row.radius <= sigma / 2 * (normal_quantile(low) - normal_quantile(high)):
        yield Problem(row.sample, "radius", row.radius, f"no more than is proven at sigma = {sigma:g}")


CHANGED = "tests.toys_family:classifier"
"""A base function of its own."""


def classifier(pipeline: Pipeline) -> Callable[[Pixels, Levels], Logits]:
    """The classifier of a pipeline, whatever the noise level."""
    return lambda pixels, _: pipeline.classifier(pixels)


@final
@dataclass
class AgreeQuery:
    """Two draws, all at once."""

    classes: int
    votes: tuple[int, ...] = field(init=False, default=())

    def ask(self) -> Sequence[Ask]:
        return () if self.votes else (Ask(0, ESTIMATION, 2),)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        del ask
        self.votes = tuple(votes)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        return (Tally(0, ESTIMATION, 2, self.votes),) if self.votes else ()


@final
@dataclass(frozen=True)
class AgreePlan(Plan):
    """Whether two fixed changes agree: a proof without noise and without chance, of a given radius."""

    family = "agree"
    rule = "both"
    alpha = 0.0
    exact = True

    radius: float

    @property
    def views(self) -> tuple[View, ...]:
        return (View(0.0, CHANGED),)

    @property
    def slacks(self) -> tuple[float, ...]:
        return (0.0,)

    @property
    def most_draws(self) -> int:
        return 2

    @property
    def radii(self) -> tuple[float, ...]:
        return (self.radius,)

    def query(self, classes: int, truth: int | None = None) -> CertifyingQuery:
        del truth
        return AgreeQuery(classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        votes = tallies[0].votes
        return Claim(votes.index(2), self.radius, ()) if 2 in votes else Claim(None, 0.0, ())

    def stored(self) -> dict[str, Any]:
        return {"radius": self.radius}

    def __str__(self) -> str:
        return "both changes"


@final
@dataclass(frozen=True)
class Agree(Family):
    """Certificates of classes on which two fixed changes agree."""

    name = "agree"
    checker = "tests.toys_family:agreement"
    bases = (CHANGED,)
    levels = ()

    def plan(self, question: Question, subject: Subject) -> AgreePlan:
        del subject
        return AgreePlan(*question.radii)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> AgreePlan:
        return AgreePlan(stored["radius"])


def agreement(row: Row, plan: AgreePlan, run: Run) -> Iterator[Problem]:
    """A radius is claimed only where both changes gave one class."""
    del run
    if row.radius > 0 and max(row.votes) < plan.most_draws:
        yield Problem(row.sample, "radius", row.radius, 0.0)


def known(family: type[Family]) -> None:
    """Registers a family unless it is installed."""
    if family.name not in CERTIFICATES.names():
        CERTIFICATES.register(family.name, family)


known(TwoLevels)
