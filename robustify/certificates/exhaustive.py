"""Certificates by exhaustion: every transform of a grid is tried, and all must give the class of the image itself.

There is neither noise nor chance, and no bound is loose: what is certified is true of the transformed images as they
are computed here, and what is not has a counter-example among them. Nothing is said of transforms between them.

The transforms come in rings of growing size. The first holds the image as it is; an image is certified up to the
largest ring within which all agree, and no further ring is tried once one disagrees.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, product, takewhile
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from robustify.certificates.family import Claim, Family, Look, Plan, Subject, Tally, refuse_truth
from robustify.certificates.prediction import Poll, Prediction
from robustify.certificates.queries import ESTIMATION, Ask, PredictQuery
from robustify.certificates.question import Question
from robustify.certificates.radii import included, leading_class, strongest_rival
from robustify.certificates.views import UNDENOISED, Change, View
from robustify.errors import InputError

if TYPE_CHECKING:
    pass

BROUGHT = {
    "black": "black comes in",
    "mean": "the image's mean colour comes in",
    "cyclic": "what leaves comes in at the other side",
}
"""What each fill of a shift brings in, in words."""


class Transform(NamedTuple):
    """One transform of an image: first turned, then shifted, then made brighter.

    Arguments:
        quarters: Angle, in quarters of a degree, counterclockwise.
        down, right: Shift, in pixels.
        steps: Steps of 1/255 that are added to all pixels, which are then clipped to [0, 1].
    """

    quarters: int = 0
    down: int = 0
    right: int = 0
    steps: int = 0


@final
@dataclass(frozen=True)
class Transforms(Change):
    """All combinations of some steps along the axes of a grid: turns, shifts down and right, changes of brightness.

    Arguments:
        shift: The largest shift along each axis, in pixels.
        fill: What comes in, one of `BROUGHT`.
        brightness: The largest change of brightness, in steps of the grid.
        step: Such a step, in 1/255.
        quarters: The largest angle, in quarters of a degree.
    """

    law = "robustify.smoothing.transforms:TransformLaw"

    shift: int = 0
    fill: str = "black"
    brightness: int = 0
    step: int = 1
    quarters: int = 0

    @property
    def size(self) -> int:
        """Number of rings after the first, which leaves the image as it is."""
        return max(self.shift, self.brightness, self.quarters)

    @cached_property
    def rings(self) -> tuple[tuple[Transform, ...], ...]:
        """The transforms, ring by ring."""
        found: list[list[Transform]] = [[] for _ in range(self.size + 1)]
        for steps in product(*map(_both_ways, (self.quarters, self.shift, self.shift, self.brightness))):
            quarters, down, right, brightness = steps
            found[max(map(abs, steps))].append(Transform(quarters, down, right, brightness * self.step))
        return tuple(map(tuple, found))

    @cached_property
    def totals(self) -> tuple[int, ...]:
        """Numbers of transforms up to each ring, with it."""
        return tuple(accumulate(map(len, self.rings)))


@final
@dataclass
class RingsQuery:
    """The rings, one after the other, as long as all transforms agree.

    Arguments:
        totals: Numbers of transforms up to each ring; the first is 1.
        classes: Number of classes.
    """

    totals: Sequence[int]
    classes: int
    votes: list[int] = field(init=False)
    label: int | None = field(init=False, default=None)
    told: int = field(init=False, default=0)
    looks: list[Look] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.votes = [0] * self.classes

    def ask(self) -> Sequence[Ask]:
        """The next ring; nothing once a transform disagrees, or where the image itself has no class."""
        if max(self.votes) < self.told or self.told == self.totals[-1]:
            return ()
        return (Ask(0, ESTIMATION, self.totals[len(self.looks)] - self.told),)

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the votes of a ring; the first is of the image itself, whose class is tested from there on."""
        self.votes = [a + b for a, b in zip(self.votes, votes, strict=True)]
        self.told += ask.draws
        if self.told == 1 and max(self.votes):
            self.label = leading_class(self.votes)
        if self.label is not None:
            rival = strongest_rival(self.votes, self.label, n=self.told)
            self.looks.append(Look(self.told, self.votes[self.label], rival))

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """All votes, and how many there were after each ring."""
        if not self.told:
            return ()
        return (Tally(0, ESTIMATION, self.told, tuple(self.votes), self.label, tuple(self.looks)),)


class ExhaustivePlan(Plan):
    """The question up to which ring all transforms give the class of the image itself."""

    rule = "all"
    alpha = 0.0
    norm = None
    remark = "Certificates are of the classifier itself, and of the listed transforms alone, each of which was tried."

    transforms: Transforms

    @property
    def views(self) -> tuple[View, ...]:
        return (View(0.0, UNDENOISED, self.transforms),)

    @property
    def most_draws(self) -> int:
        return self.transforms.totals[-1]

    @property
    def radii(self) -> tuple[float, ...]:
        return tuple(float(ring) for ring in range(1, self.transforms.size + 1))

    @property
    def ceiling(self) -> float:
        return included(self.transforms.size)

    def query(self, classes: int, truth: int | None = None) -> RingsQuery:
        refuse_truth(self, truth)
        return RingsQuery(self.transforms.totals, classes)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        (tally,) = tallies
        agreed = sum(1 for _ in takewhile(lambda look: look.label == look.n, tally.looks))
        if agreed <= 1:
            return Claim(None, 0.0, (), uncertified=tally.label)
        return Claim(tally.label, included(agreed - 1), ())

    def __str__(self) -> str:
        return f"up to {self.most_draws:,} transforms, one by one"


@final
@dataclass(frozen=True)
class ItselfPoll(Poll):
    """The class of the image itself, without chance.

    Arguments:
        views: The view of transforms, of which the first leaves the image as it is.
    """

    views: tuple[View]
    n = 1

    def query(self, classes: int) -> PredictQuery:
        return PredictQuery(classes, 1)

    def answer(self, query: PredictQuery, labels: Sequence[str]) -> Prediction:
        label = leading_class(query.votes) if max(query.votes) else None
        name = None if label is None else labels[label]
        return Prediction(label, name, float(label is None), tuple(query.votes), n=1, alpha=0.0)


class ExhaustiveFamily(Family):
    """Certificates that hold for each of finitely many transforms."""

    checker = "robustify.verify.exhaustive_family:problems"
    bases = (UNDENOISED,)
    levels = ()

    kind: ClassVar[type[ExhaustivePlan]]
    """The plans of this family."""

    @abstractmethod
    def made(self, subject: Subject) -> ExhaustivePlan:
        """The plan of these settings.

        Raises:
            InputError: If the settings do not fit the size of the images.
        """

    def plan(self, question: Question, subject: Subject) -> ExhaustivePlan:
        given = {"n": question.n, "radius": question.radius}
        if found := [f"{name}={value!r}" for name, value in given.items() if value is not None]:
            raise InputError(
                f"{self.name} certificates try every transform of their own settings; leave out {', '.join(found)}"
            )
        return self.made(subject)

    def poll(self, n: int, alpha: float, subject: Subject) -> ItselfPoll:
        """One draw, of the image itself; neither the number of draws nor a chance matters to it."""
        del n, alpha
        (view,) = self.made(subject).views
        return ItselfPoll((view,))


def _both_ways(most: int) -> range:
    return range(-most, most + 1)


def check_fill(fill: object) -> None:
    """Raises `InputError` unless it is one of `BROUGHT`."""
    if not isinstance(fill, str) or fill not in BROUGHT:
        raise InputError(f"expected fill to be {', '.join(BROUGHT)}: what a shift brings in; got {fill!r}")
