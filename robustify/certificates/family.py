"""What every kind of proof has in common: views, plans, tallies, claims, and the families themselves.

A family of certificates is a frozen settings object, such as `Gaussian(sigma)`. Asked a question, it makes a *plan*,
which is fixed before the first draw. For each image the plan makes a *query*, which asks for draws and is told their
votes; what was counted is kept as *tallies*, from which alone `certify_votes` proves a *claim*. Engine, runs, status,
reports and verification work with these pieces and never ask which family they belong to.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from robustify.errors import InputError, RunError
from robustify.registry import Registry

if TYPE_CHECKING:
    from robustify.certificates.queries import CertifyingQuery
    from robustify.certificates.question import Question

PIPELINE = "pipeline"
"""The base function of most views: denoise, then classify."""


@final
@dataclass(frozen=True)
class View:
    """What a draw is: noise of one standard deviation, and the base function that is shown it.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        base: Name of the base function.
    """

    sigma: float
    base: str = PIPELINE


class Look(NamedTuple):
    """What was counted after `n` draws: votes for the label and for its strongest rival, which gets failed draws."""

    n: int
    label: int
    rival: int


class Tally(NamedTuple):
    """The votes of one stage of one view.

    Arguments:
        view: Index of the view among those of the plan.
        stage: What the draws were for: "selection" or "estimation".
        draws: Number of draws; 0 where the votes are some of another tally's.
        votes: One count per class; draws that failed are missing from the sum.
        label: Index of the class that the looks are about; None where nobody looked.
        looks: What was counted each time the votes were looked at.
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
        radius: ℓ2, in [0, 1] pixels; no change of a smaller norm changes the label. 0 where there is none.
        bounds: Bounds that the radius rests on, one a view.
    """

    label: int | None
    radius: float
    bounds: tuple[Bound, ...]


class Plan(ABC):
    """What is asked of every image of a run, and what the answers prove; fixed before the first draw.

    Its claims hold with chance at least 1 - alpha, however and whenever its queries stop.
    """

    family: ClassVar[str]
    """Name of the family that reads stored plans of this kind."""

    rule: ClassVar[str]
    """Name of this kind of plan in stored runs."""

    needs_truth: ClassVar[bool] = False
    """Whether the true label is tested, which must then be known."""

    exact: ClassVar[bool] = False
    """Whether every image takes `most_draws`, never fewer."""

    note: ClassVar[str] = ""
    """A remark for each certificate, such as "tested the true label"; empty where there is nothing to say."""

    remark: ClassVar[str] = ""
    """What the run's certificates say besides the usual, as a sentence; empty where nothing."""

    alpha: float
    """Allowed chance of a false claim, for each image."""

    @property
    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """The views whose draws are asked for."""

    @property
    @abstractmethod
    def slacks(self) -> tuple[float, ...]:
        """By how much the chance of a vote may differ from that under ideal noise, for each view."""

    @property
    @abstractmethod
    def most_draws(self) -> int:
        """The most draws that one image can take, over all views and stages."""

    @property
    @abstractmethod
    def radii(self) -> tuple[float, ...]:
        """Radii that are decided, yes or no, increasing; none where the largest radius is asked for."""

    @property
    def scale(self) -> float:
        """A length in which radii are worth reporting: the largest standard deviation of the views' noise."""
        return max(view.sigma for view in self.views)

    @abstractmethod
    def query(self, classes: int, truth: int | None = None) -> "CertifyingQuery":
        """The query of one image.

        Arguments:
            classes: Number of classes.
            truth: Index of the true label, for a plan that needs it.

        Raises:
            InputError: If the plan needs the true label and there is none, or the other way round.
        """

    @abstractmethod
    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        """What a query's tallies prove."""

    @abstractmethod
    def stored(self) -> dict[str, Any]:
        """The plan as JSON-able data, which the family's `read` turns back into the plan."""

    @abstractmethod
    def __str__(self) -> str:
        """The question, in a few words."""


class Family(ABC):
    """A kind of proof: frozen settings that users write, found by name in the entry-point group."""

    name: ClassVar[str]
    """Name of the entry point."""

    checker: ClassVar[str]
    """`module:function` of the independent arithmetic that `robustify.verify` applies to a row and its plan."""

    @property
    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """The views that plans of this family draw from."""

    @abstractmethod
    def plan(self, question: "Question", slack: Callable[[View], float]) -> Plan:
        """The plan that answers a question.

        Arguments:
            question: What users ask, and the chance of error they allow.
            slack: By how much the chance of a vote in a view may differ from that under ideal noise.

        Raises:
            InputError: If the question could never be answered.
        """

    @classmethod
    @abstractmethod
    def read(cls, stored: Mapping[str, Any]) -> Plan:
        """The plan that `Plan.stored` described.

        Raises:
            InputError: If it describes none.
        """


def _problem(entry: object) -> str | None:
    if isinstance(entry, type) and issubclass(entry, Family):
        return None
    return f"expected a subclass of Family; got {entry!r}"


CERTIFICATES: Registry[type[Family]] = Registry("certificate family", "robustify.certificates", _problem)
"""Families by name: those of this package and of plugins."""


def read_plan(family: str, stored: Mapping[str, Any]) -> Plan:
    """The plan of a stored run.

    Raises:
        PluginError: If the family is not installed.
        RunError: If the data describes no plan of that family.
    """
    try:
        return CERTIFICATES.find(family).read(stored)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"the stored plan describes no possible question of the family {family!r}: {error}") from error
