"""Plans of cascades: which levels are drawn from, how often, and what the votes prove.

- `FixedCascade`: exactly `n` draws at each level that is needed.
- `AdaptiveCascade`: at most `n` draws a level; the draws that choose labels also predict how many are worthwhile.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, final

from robustify.certificates.cascade_level import CascadeLevel, Counts
from robustify.certificates.family import Bound, Claim, Look, Plan, Tally, refuse_truth
from robustify.certificates.plans import TOLERANCE
from robustify.certificates.queries import ESTIMATION, SELECTION, Ask
from robustify.certificates.radii import check_count, leading_class
from robustify.certificates.sequential import geometric_looks
from robustify.certificates.views import ALONE, View
from robustify.errors import InputError

OTHERWISE = ("abstain", "argmax", "clean")
"""What a cascade may answer where no level fires."""

DOUBT = 2.5
"""How many times the predicted radius of a chain each of its levels should prove, as the prediction may be too low."""


class Votes(NamedTuple):
    """The votes of a level.

    Arguments:
        n: Number of draws.
        votes: One count per class; draws that failed are missing from the sum.
        label: Index of the class that the level's chain tests.
    """

    n: int
    votes: tuple[int, ...]
    label: int


@dataclass(frozen=True)
class CascadePlan(Plan):
    """The largest radius of a cascade; levels are numbered from the highest on.

    Arguments:
        sigmas: Standard deviations of the noise, in [0, 1] pixels, decreasing.
        p0: Probability that a class must exceed at a level.
        otherwise: What answers where no level is sure: see `Cascade`.
        alpha: Allowed chance of a false claim, in (0, 1).
        n0: Number of draws at each level that choose its label.
        n: Largest number of draws at each level that test it.
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise, for
            each level.

    Raises:
        InputError: If no votes could ever prove a claim.
    """

    family: ClassVar[str] = "cascade"

    at_once: ClassVar[bool]
    """Whether the labels of all levels are chosen before any is tested."""

    sigmas: tuple[float, ...]
    p0: float
    otherwise: str
    alpha: float
    n0: int
    n: int
    slack: tuple[float, ...]

    def __post_init__(self) -> None:
        check_count("n0", self.n0)
        check_count("n", self.n)
        if self.ceiling == 0:
            raise InputError(
                f"{self.n:,} draws a level can never certify at alpha = {self.alpha:g} and p0 = {self.p0:g}, even if "
                "all agree.\n  Use more draws, a larger alpha, or a smaller p0."
            )

    @property
    def views(self) -> tuple[View, ...]:
        return views_of_cascade(self.sigmas, self.otherwise)

    @property
    def slacks(self) -> tuple[float, ...]:
        return (*self.slack, 0.0)[: len(self.views)]

    @property
    def most_draws(self) -> int:
        return len(self.sigmas) * (self.n0 + self.n) + len(self.views) - len(self.sigmas)

    @property
    def radii(self) -> tuple[float, ...]:
        return ()

    @property
    def ceiling(self) -> float:
        return max(self._chain([(Counts(self.n, self.n, 0))] * (k + 1)) for k in range(len(self.sigmas)))

    @cached_property
    def levels(self) -> tuple[CascadeLevel, ...]:
        """The levels, from the highest on."""
        return levels_of_cascade(self.sigmas, self.p0, self.otherwise, self.alpha, self.slack)

    @abstractmethod
    def numbers(self, selections: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Numbers of draws that test each level, 0 after the last level that is worthwhile.

        Arguments:
            selections: Votes that chose the labels, one count per class, for each level that has chosen.
        """

    def query(self, classes: int, truth: int | None = None) -> "CascadeQuery":
        refuse_truth(self, truth)
        return CascadeQuery(self, classes)

    def asks(self, tallies: Sequence[Tally]) -> Sequence[Ask]:
        """What is asked after these tallies; nothing once no other draw could enlarge the radius or give an answer."""
        chosen = _selections(tallies)
        tested = _tested(tallies, len(self.sigmas))
        k = len(tested)
        if self.at_once and not chosen:
            return [Ask(view, SELECTION, self.n0) for view in range(len(self.sigmas))]
        numbers = (*self.numbers(chosen), 0)
        if not (n := numbers[k]) or self._decided(tested, numbers):
            alone = self._falls_through(tallies, tested)
            return (Ask(len(self.sigmas), ESTIMATION, 1),) if alone else ()
        selecting = () if self.at_once else (Ask(k, SELECTION, self.n0),)
        return (*selecting, Ask(k, ESTIMATION, n))

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        tested = _tested(tallies, len(self.sigmas))
        if not tested:
            return Claim(None, 0.0, (Bound(0.0, 1.0),) * len(self.views))
        radii = self._radii(tested)
        best = radii.index(max(radii))
        label = tested[best].label
        bounds = [level.bound(Counts.of(v.votes, label, v.n)) for level, v in zip(self.levels, tested, strict=False)]
        bounds += [Bound(0.0, 1.0)] * (len(self.views) - len(bounds))
        if radii[best] > 0:
            return Claim(label, radii[best], tuple(bounds))
        alone = next((tally.votes for tally in tallies if tally.view == len(self.sigmas)), ())
        return Claim(None, 0.0, tuple(bounds), alone.index(1) if 1 in alone else None)

    def stored(self) -> dict[str, Any]:
        return {"rule": self.rule, **asdict(self)}

    def _chain(self, counts: Sequence[Counts]) -> float:
        """The radius of the chain that ends with the last of these levels, from counts about its class."""
        *above, last = (level.bound(c) for level, c in zip(self.levels, counts, strict=False))
        radii = [level.harmless(bound) for level, bound in zip(self.levels, above, strict=False)]
        return min([*radii, self.levels[len(above)].answering(last)])

    def _radii(self, tested: Sequence[Votes]) -> list[float]:
        """The radius of each chain."""
        chains = [tested[: k + 1] for k in range(len(tested))]
        return [self._chain([Counts.of(v.votes, chain[-1].label, v.n) for v in chain]) for chain in chains]

    def _decided(self, tested: Sequence[Votes], numbers: Sequence[int]) -> bool:
        """Whether no votes of the other levels could give a larger radius than the votes so far."""
        if not tested:
            return False
        left = list(zip(self.levels, numbers, strict=False))[len(tested) :]
        most = max(level.answering(level.bound(Counts(n, n, 0))) for level, n in left if n)
        return min(self._harmless(tested), most) <= max(self._radii(tested))

    def _harmless(self, tested: Sequence[Votes]) -> float:
        """The largest radius within which these levels fire with no class but one, whichever that is."""
        classes = range(len(tested[0].votes))
        leaders = {leading_class(v.votes) for v in tested}
        others = [c for c in classes if c not in leaders][:1]  # all of them have the same rivals
        return max(
            min(
                level.harmless(level.bound(Counts.of(v.votes, c, v.n)))
                for level, v in zip(self.levels, tested, strict=False)
            )
            for c in [*leaders, *others]
        )

    def _falls_through(self, tallies: Sequence[Tally], tested: Sequence[Votes]) -> bool:
        """Whether the classifier alone should be asked: no level fires, and it was not asked before."""
        if self.otherwise != "clean" or tallies[-1].view == len(self.sigmas) or len(tested) < len(self.sigmas):
            return False
        return all(level.silence(v.votes, v.n) <= level.alpha for level, v in zip(self.levels, tested, strict=True))


@final
@dataclass(frozen=True)
class FixedCascade(CascadePlan):
    """The question with exactly `n` draws at each level that is needed."""

    rule = "fixed"
    at_once = False

    def numbers(self, selections: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        del selections
        return (self.n,) * len(self.sigmas)

    def __str__(self) -> str:
        return f"n = {self.n:,} a level"


@final
@dataclass(frozen=True)
class AdaptiveCascade(CascadePlan):
    """The question with at most `n` draws a level, and fewer where more would gain little.

    The draws that choose the labels also predict, if the votes keep their shares, which chain will prove the largest
    radius, and how many draws are worthwhile at each of its levels: the smallest number that would prove 98 % of what
    `n` draws would prove there, or two and a half times the radius of the chain. Levels after it are left out. Where no
    chain promises a radius, each level gets as many draws as would settle whether it fires. All other draws are fresh,
    so their numbers are fixed before the first of them.
    """

    rule = "adaptive"
    at_once = True

    def numbers(self, selections: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        begun = [Votes(self.n0, votes, leading_class(votes)) for votes in selections]
        chains = [[Counts.of(v.votes, begun[k].label, self.n0) for v in begun[: k + 1]] for k in range(len(begun))]
        hoped = [self._chain([counts.scaled(self.n) for counts in chain]) for chain in chains]
        if (radius := max(hoped)) == 0:
            return tuple(self._settling(k, v) for k, v in enumerate(begun))
        *above, (last, counts) = enumerate(chains[hoped.index(radius)])
        needed = [self._needed(k, c, self.levels[k].harmless, radius) for k, c in above]
        needed.append(self._needed(last, counts, self.levels[last].answering, radius))
        return (*needed, *[0] * (len(begun) - len(needed)))

    def _needed(self, view: int, counts: Counts, part: Callable[[Bound], float], radius: float) -> int:
        """The smallest number of draws that would prove enough of a level's part of a chain of this radius."""
        level, looks = self.levels[view], geometric_looks(self.n)
        enough = (1 - TOLERANCE) * min(part(level.bound(counts.scaled(self.n))), DOUBT * radius)
        return looks[bisect_left(looks[:-1], True, key=lambda n: part(level.bound(counts.scaled(n))) >= enough)]

    def _settling(self, view: int, begun: Votes) -> int:
        """The smallest number of draws that would settle whether the level fires; all where none would."""
        level = self.levels[view]
        counts = Counts.of(begun.votes, begun.label, begun.n)
        top = Counts(begun.n, begun.label, begun.votes[begun.label] + begun.n - sum(begun.votes))
        looks = geometric_looks(self.n)

        def settles(n: int) -> bool:
            answers, silent = level.answering(level.bound(counts.scaled(n))), level.harmless(level.bound(top.scaled(n)))
            return max(answers, silent) > 0

        return looks[bisect_left(looks[:-1], True, key=settles)]

    def __str__(self) -> str:
        return f"n up to {self.n:,} a level"


PLANS: dict[str, type[CascadePlan]] = {plan.rule: plan for plan in (FixedCascade, AdaptiveCascade)}
"""Kinds of plans by the names that stored runs give them."""


@final
@dataclass
class CascadeQuery:
    """The draws that the plan of a cascade asks for, for one image, and their votes so far.

    Arguments:
        plan: The question.
        classes: Number of classes.
    """

    plan: CascadePlan
    classes: int
    _told: list[Tally] = field(init=False, default_factory=list)

    def ask(self) -> Sequence[Ask]:
        """The draws of the next level, while it may enlarge the radius."""
        return self.plan.asks(self._told)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes, one count per class, of exactly the draws that `ask` describes."""
        tally = Tally(ask.view, ask.stage, ask.draws, tuple(votes))
        if ask.stage == ESTIMATION and ask.view < len(self.plan.sigmas):
            label = leading_class(_selections(self._told)[ask.view])
            tally = tally._replace(label=label, looks=(Look(*Counts.of(votes, label, ask.draws)),))
        self._told.append(tally)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """All votes, in the order in which they were asked for."""
        return tuple(self._told)


def views_of_cascade(sigmas: Sequence[float], otherwise: str) -> tuple[View, ...]:
    """The views of the levels, and that of the classifier alone where it may answer."""
    alone = (View(0.0, ALONE),) if otherwise == "clean" else ()
    return (*map(View, sigmas), *alone)


def levels_of_cascade(
    sigmas: Sequence[float], p0: float, otherwise: str, alpha: float, slack: Sequence[float]
) -> tuple[CascadeLevel, ...]:
    """The levels, which share alpha equally."""
    of_last = None if otherwise == "argmax" else p0
    thresholds = [*[p0] * (len(sigmas) - 1), of_last]
    levels = zip(sigmas, thresholds, slack, strict=True)
    return tuple(CascadeLevel(sigma, threshold, alpha / len(sigmas), of_noise) for sigma, threshold, of_noise in levels)


def _selections(tallies: Sequence[Tally]) -> list[tuple[int, ...]]:
    """Votes that chose labels, level by level."""
    return [tally.votes for tally in tallies if tally.stage == SELECTION]


def _tested(tallies: Sequence[Tally], levels: int) -> list[Votes]:
    """Votes that test, level by level."""
    chosen = [leading_class(votes) for votes in _selections(tallies)]
    tested = [tally for tally in tallies if tally.stage == ESTIMATION and tally.view < levels]
    return [Votes(tally.draws, tally.votes, label) for tally, label in zip(tested, chosen, strict=False)]
