"""The pieces that all kinds of proof share: views, tallies, claims, plans, and families of certificates.

A *family* of certificates is a frozen settings object, such as `Gaussian(sigma)`. Given a question and its subject (the
space of the images, the classes), it makes a *plan*, which is fixed before the first draw. For each image the plan
makes a *query*, which asks for draws of *views* and is told their votes. The counts are kept as *tallies*, and
`certify_votes` proves a *claim* from them alone. The engine, runs, status, reports and verification use these pieces
and never ask which family they belong to.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from robustify.certificates.views import PIPELINE, View
from robustify.contract import InputContract
from robustify.errors import InputError, RunError
from robustify.registry import Registry

if TYPE_CHECKING:
    from robustify.certificates.prediction import Poll
    from robustify.certificates.queries import CertifyingQuery
    from robustify.certificates.question import Question


@final
@dataclass(frozen=True)
class Subject:
    """What a question is asked about.

    Arguments:
        contract: The space of the images.
        classes: Number of classes.
        slack: Gives, for a view, the largest difference between the chance of a vote under the noise that is drawn
            and under ideal noise.
        mean: The colour that the classifier's normalisation makes 0, in [0, 1] pixels, one number per channel.
    """

    contract: InputContract
    classes: int
    slack: Callable[[View], float]
    mean: tuple[float, ...] = ()


class Look(NamedTuple):
    """The counts after the first `n` draws.

    Arguments:
        n: Number of draws so far.
        label: Votes for the label that is tested.
        rival: Votes for the strongest other class, plus the draws that failed.
    """

    n: int
    label: int
    rival: int


class Tally(NamedTuple):
    """The votes of one stage of one view.

    Arguments:
        view: Index of the view within the plan's `views`.
        stage: Purpose of the draws: "selection" chose the label, "estimation" tested it.
        draws: Number of draws; 0 where the same draws are already counted in another tally.
        votes: One count per class; draws that failed are missing from the sum.
        label: Index of the class that was tested; None where none was.
        looks: Counts at each point where the votes were read, in order.
    """

    view: int
    stage: str
    draws: int
    votes: tuple[int, ...]
    label: int | None = None
    looks: tuple[Look, ...] = ()


class Bound(NamedTuple):
    """Bounds on the base function's probabilities in one view.

    Arguments:
        p_lower: Lower bound on the label's probability.
        p_upper: Upper bound on the probability of every other class.
    """

    p_lower: float
    p_upper: float


class Claim(NamedTuple):
    """What tallies prove.

    Arguments:
        label: Index of the certified class; None where no radius is proven.
        radius: Size of the changes that the plan is about, by default the ℓ2 norm in [0, 1] pixels: no smaller change
            changes the label. 0 where none is proven.
        bounds: Bounds that the radius rests on, one per view; empty for a proof without probabilities.
        uncertified: Index of the class that is answered without a proof, by families that answer rather than abstain;
            None where a label is certified, or nothing is answered.
    """

    label: int | None
    radius: float
    bounds: tuple[Bound, ...]
    uncertified: int | None = None


class Plan(ABC):
    """The question that a run asks about every image, and the proof that turns votes into an answer.

    A plan is fixed before the first draw. A claim is false with chance at most `alpha` per image, whenever and for
    whatever reason its query stops.
    """

    family: ClassVar[str]
    """Name of the family that reads stored plans of this kind."""

    rule: ClassVar[str]
    """Name of this kind of plan in stored runs."""

    alpha: float
    """Allowed chance of a false claim, for each image; 0 for a proof without chance."""

    @property
    def needs_truth(self) -> bool:
        """Whether the plan tests the true label, which must then be known."""
        return False

    @property
    def exact(self) -> bool:
        """Whether every image takes `most_draws`, never fewer."""
        return False

    @property
    def note(self) -> str:
        """A few words that each certificate adds, such as "tested the true label"; usually empty."""
        return ""

    norm: ClassVar[str | None] = "ℓ2"
    """Norm that the radius is measured in, over pixels in [0, 1]; None where it measures something else."""

    axis: ClassVar[str] = "ℓ2 radius, in [0, 1] pixels"
    """What the radius measures, as the axis of a plot says it."""

    def statement(self, radius: str, where: str) -> str:
        """What a certificate of this radius says of its label, such as "no … changes the smoothed prediction".

        Arguments:
            radius: The radius, rounded down.
            where: The space of the images.
        """
        return f"no ℓ2 change below {radius} of its {where} changes the smoothed prediction"

    def changes(self, size: str) -> str:
        """The changes of a size, such as "below r", that certificates speak of."""
        return f"change of the pixels of ℓ2 norm {size} (pixels in [0, 1])"

    @property
    def remark(self) -> str:
        """A sentence that summaries of a run add about its certificates; usually empty."""
        return ""

    @property
    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """The views that queries draw from; tallies and bounds refer to them by index."""

    @property
    def slacks(self) -> tuple[float, ...]:
        """How far the chance of a vote under the noise drawn may be from that under ideal noise, for each view.

        A plan whose views add noise says what its bounds allow for; `robustify.verify` checks it.
        """
        return (0.0,) * len(self.views)

    @property
    @abstractmethod
    def most_draws(self) -> int:
        """Largest number of draws that one image can take, over all views and stages."""

    @property
    @abstractmethod
    def radii(self) -> tuple[float, ...]:
        """ℓ2 radii, increasing, that the plan decides, yes or no; empty where it seeks the largest radius."""

    @property
    def scale(self) -> float:
        """Largest sigma of the views, in [0, 1] pixels, by which reports space their radii; 0 without noise."""
        return max((view.sigma for view in self.views), default=0.0)

    @property
    def ceiling(self) -> float:
        """ℓ2 radius that no claim exceeds, whatever the votes, in [0, 1] pixels; infinite where that is unknown."""
        return math.inf

    @abstractmethod
    def query(self, classes: int, truth: int | None = None) -> "CertifyingQuery":
        """A new query about one image.

        Arguments:
            classes: Number of classes.
            truth: Index of the true label, 0 to classes - 1, where `needs_truth`; None otherwise.

        Raises:
            InputError: If `truth` is missing, out of range, or given to a plan that does not need it.
        """

    @abstractmethod
    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        """The claim that a query's tallies prove; a claim of radius 0 where they prove nothing."""

    @abstractmethod
    def stored(self) -> dict[str, Any]:
        """The plan as data that JSON can hold; the family's `read` turns it back into an equal plan."""

    @abstractmethod
    def __str__(self) -> str:
        """The question in a few words, such as "n up to 10,000"."""


def refuse_truth(plan: Plan, truth: int | None) -> None:
    """Raises `InputError` where a true label is given to a plan whose draws choose what is tested."""
    if truth is not None:
        raise InputError(f"a plan {plan.rule!r} chooses the label itself; got the true label {truth}")


class Family(ABC):
    """A kind of proof, as frozen settings that users write.

    Families are found by name in the entry-point group `robustify.certificates`. Each is a frozen dataclass, whose
    `str` names it in titles.
    """

    name: ClassVar[str]
    """Name of the entry point."""

    checker: ClassVar[str]
    """Independent arithmetic, as "module:function", with which `robustify.verify` checks a stored row and its plan."""

    @property
    def bases(self) -> tuple[str, ...]:
        """The base functions that views of this family use."""
        return (PIPELINE,)

    @property
    @abstractmethod
    def levels(self) -> tuple[float, ...]:
        """Standard deviations of the noise, in [0, 1] pixels, the first that of the first view; empty without noise."""

    @abstractmethod
    def plan(self, question: "Question", subject: Subject) -> Plan:
        """The plan that answers a question.

        Arguments:
            question: The user's question, with the chance of error that is allowed.
            subject: What is asked about.

        Raises:
            InputError: If no votes could ever answer the question with a certificate, or the settings do not fit the
                subject.
        """

    def poll(self, n: int, alpha: float, subject: Subject) -> "Poll":
        """What `predict` asks; its answer is about the classifier that certificates are about.

        Arguments:
            n: Number of draws.
            alpha: Allowed chance, for each image, that the answer is not that classifier's.
            subject: What is asked about.

        Raises:
            InputError: If the family gives certificates only.
        """
        raise InputError(f"{self} gives certificates only: use certify instead of predict")

    @classmethod
    @abstractmethod
    def read(cls, stored: Mapping[str, Any]) -> Plan:
        """The plan that `Plan.stored` described.

        Raises:
            InputError: If the data describes no plan of this family. `read_plan` also accepts KeyError, TypeError
                and ValueError for that.
        """


def _problem(entry: object) -> str | None:
    if isinstance(entry, type) and issubclass(entry, Family):
        return None
    return f"expected a subclass of Family; got {entry!r}"


CERTIFICATES: Registry[type[Family]] = Registry("certificate family", "robustify.certificates", _problem)
"""Certificate families by name, those of this package and those of plugins."""


def read_plan(family: str, stored: Mapping[str, Any]) -> Plan:
    """The plan of a stored run.

    Arguments:
        family: Name of the certificate family.
        stored: Data that `Plan.stored` gave.

    Raises:
        PluginError: If the family is unknown, not installed or broken.
        RunError: If the data describes no plan of that family.
    """
    try:
        return CERTIFICATES.find(family).read(stored)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"cannot read the stored plan of the certificate family {family!r}: {error}") from error
