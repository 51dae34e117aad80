"""A second family of certificates, written as an outsider would: two noise levels, the minimum of two radii.

The label is chosen at the first level and tested at both. Each radius is proven at alpha: where the minimum is too
large, so is the radius of the level that attains the true minimum, so alpha needs no split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, final

from robustify.certificates.family import Bound, Claim, Family, Look, Plan, Tally, View
from robustify.certificates.queries import ESTIMATION, SELECTION, Ask
from robustify.certificates.question import Question
from robustify.certificates.radii import gaussian_radius, leading_class, rival_bounds, strongest_rival
from robustify.errors import InputError
from robustify.runs.rows import Row
from robustify.verify.arithmetic import normal_quantile, upper_tail
from robustify.verify.claims import RUN, Problem, bound_field, tally_field


@final
@dataclass
class TwoLevelsQuery:
    """The draws of one image: those that choose the label, then those that test it at each level.

    Arguments:
        plan: The question.
        classes: Number of classes.
    """

    plan: "TwoLevelsPlan"
    classes: int
    tallies: tuple[Tally, ...] = field(init=False, default=())

    def ask(self) -> Ask | None:
        if not self.tallies:
            return Ask(0, SELECTION, self.plan.n0)
        tested = len(self.tallies) - 1
        return Ask(tested, ESTIMATION, self.plan.n) if tested < len(self.plan.sigmas) else None

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        tally = Tally(ask.view, ask.stage, ask.draws, tuple(votes))
        if self.tallies:
            label = leading_class(self.tallies[0].votes)
            look = Look(ask.draws, votes[label], strongest_rival(votes, label, n=ask.draws))
            tally = tally._replace(label=label, looks=(look,))
        self.tallies = (*self.tallies, tally)


@final
@dataclass(frozen=True)
class TwoLevelsPlan(Plan):
    """Exactly `n` draws at each of two noise levels."""

    family = "two-levels"
    rule = "minimum"
    exact = True
    remark = "Each radius is the minimum over two noise levels."

    sigmas: tuple[float, float]
    alpha: float
    n0: int
    n: int
    slack: tuple[float, float]

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(map(View, self.sigmas))

    @property
    def most_draws(self) -> int:
        return self.n0 + 2 * self.n

    @property
    def radii(self) -> tuple[float, ...]:
        return ()

    def query(self, classes: int, truth: int | None = None) -> TwoLevelsQuery:
        if truth is not None:
            raise InputError(f"the plan chooses the label itself; got the true label {truth}")
        return TwoLevelsQuery(self, classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        tested = tallies[1:]
        bounds = tuple(self._bound(tally) for tally in tested)
        radius = min(gaussian_radius(*b, sigma=s) for b, s in zip(bounds, self.sigmas, strict=True))
        return Claim(tested[0].label if radius > 0 else None, radius, bounds)

    def _bound(self, tally: Tally) -> Bound:
        look, slack = tally.looks[0], self.slack[tally.view]
        low, high = rival_bounds(look.label, look.rival, n=look.n, alpha=self.alpha)
        return Bound(max(0.0, low - slack), min(1.0, high + slack))

    def stored(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"n = {self.n:,} at each of two levels"


@final
@dataclass(frozen=True)
class TwoLevels(Family):
    """Certificates of the smaller of the radii at two noise levels.

    Arguments:
        sigmas: Standard deviations of the noise, in [0, 1] pixels.
    """

    name = "two-levels"
    checker = "tests.toys_family:problems"

    sigmas: tuple[float, float]

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(map(View, self.sigmas))

    def plan(self, question: Question, slack: Callable[[View], float]) -> TwoLevelsPlan:
        if question.n is None:
            raise InputError("two levels take exactly n draws each; give n")
        first, second = map(slack, self.views)
        return TwoLevelsPlan(self.sigmas, question.alpha, question.n0, question.n, (first, second))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> TwoLevelsPlan:
        pairs = {name: tuple(map(float, stored[name])) for name in ("sigmas", "slack")}
        return TwoLevelsPlan(**{**stored, **pairs})


def problems(row: Row, plan: TwoLevelsPlan, *, classes: int, slack: Sequence[float]) -> Iterator[Problem]:
    """What is wrong with a row: exact tails refute what the bounds exclude, and each radius follows from its bounds."""
    del classes
    if plan.slack != tuple(slack):
        yield Problem(RUN, "slack", plan.slack, tuple(slack))
    stages = [(tally.view, tally.stage, tally.draws) for tally in row.tallies]
    expected = [(0, SELECTION, plan.n0), (0, ESTIMATION, plan.n), (1, ESTIMATION, plan.n)]
    if stages != expected or len(row.bounds) != 2:
        yield Problem(row.sample, "tallies", stages, expected)
        return
    label = row.selection.index(max(row.selection))
    for tally, bound, sigma in zip(row.tallies[1:], row.bounds, plan.sigmas, strict=True):
        if tally.label != label or len(tally.looks) != 1:
            yield Problem(row.sample, tally_field(tally, "label"), tally.label, label)
            return
        yield from _bound(row.sample, tally, bound, plan)
        if row.radius > 0 and not _within(row.radius, bound, sigma):
            yield Problem(row.sample, "radius", row.radius, f"at most what {bound} proves at {sigma}")


def _bound(sample: str, tally: Tally, bound: Bound, plan: TwoLevelsPlan) -> Iterator[Problem]:
    look, slack, half = tally.looks[0], Fraction(plan.slack[tally.view]), plan.alpha / 2
    if bound.p_lower > 0 and upper_tail(look.label, look.n, Fraction(bound.p_lower) + slack) > half:
        yield Problem(sample, bound_field("p_lower", tally.view), bound.p_lower, "less")
    rest, others = 1 - Fraction(bound.p_upper) + slack, (look.label, look.n - look.rival)
    if bound.p_upper < 1 and all(upper_tail(count, look.n, rest) > half for count in others):
        yield Problem(sample, bound_field("p_upper", tally.view), bound.p_upper, "more")


def _within(radius: float, bound: Bound, sigma: float) -> bool:
    if not 0 < bound.p_upper < bound.p_lower < 1:
        return False
    gap = normal_quantile(Fraction(bound.p_lower)) - normal_quantile(Fraction(bound.p_upper))
    return bool(radius <= sigma * gap / 2)
