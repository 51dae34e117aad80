r"""Certificates against a change that one number describes, such as brightness: the number is smoothed, not the pixels.

Where changes compose by addition, :math:`T_s(T_t(x)) = T_{s+t}(x)`, the prediction at :math:`T_t(x)` under noise
:math:`k \sim N(0, \sigma^2)` is that at :math:`x` under noise of mean :math:`t`. So it is a smoothed classifier of one
real number, and all that is proven of Gaussian noise holds with :math:`|t|` in the place of an ℓ2 norm: the label stays
for every :math:`|t| < \frac{\sigma}{2}(\Phi^{-1}(p_A) - \Phi^{-1}(p_B))`, whatever the image's size.

The sum must be exact: between the two changes nothing may be clipped or rounded.

References:
    TSS: Transformation-Specific Smoothing for Robustness Certification, Li, Weber, Xu, Rimanic, Kailkhura, Xie, Zhang,
    Li, 2021, https://arxiv.org/abs/2002.12398
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from robustify.certificates.family import Claim, Family, Plan, Subject, Tally
from robustify.certificates.gaussian import Gaussian, check_sigma
from robustify.certificates.plans import GaussianPlan
from robustify.certificates.prediction import MajorityPoll
from robustify.certificates.queries import CertifyQuery
from robustify.certificates.question import Question
from robustify.certificates.views import UNDENOISED, Change, View


@dataclass(frozen=True)
class ParameterNoise(Change):
    """One random number for each draw, by which all of the image changes.

    Arguments:
        sigma: Standard deviation of the number.
    """

    sigma: float


@dataclass(frozen=True)
class ParameterPlan(Plan):
    """A question about a change of one number, asked and answered as a question about Gaussian noise is.

    Arguments:
        of: That question; its sigma and radii are of the number.
    """

    change: ClassVar[type[ParameterNoise]]
    """What draws do to an image."""

    norm = None

    of: GaussianPlan

    @property
    def rule(self) -> str:  # type: ignore[override]  # that of the question
        """Name of this kind of plan in stored runs."""
        return self.of.rule

    @property
    def alpha(self) -> float:  # type: ignore[override]
        """Allowed chance of a false claim, for each image."""
        return self.of.alpha

    @property
    def needs_truth(self) -> bool:
        return self.of.needs_truth

    @property
    def exact(self) -> bool:
        return self.of.exact

    @property
    def note(self) -> str:
        return self.of.note

    @property
    def remark(self) -> str:
        return self.of.remark

    @property
    def views(self) -> tuple[View, ...]:
        return (view_of(self.change(self.of.sigma)),)

    @property
    def most_draws(self) -> int:
        return self.of.most_draws

    @property
    def radii(self) -> tuple[float, ...]:
        return self.of.radii

    @property
    def scale(self) -> float:
        return self.of.sigma

    @property
    def ceiling(self) -> float:
        return self.of.ceiling

    def query(self, classes: int, truth: int | None = None) -> CertifyQuery:
        return self.of.query(classes, truth)

    def certify_votes(self, tallies: Sequence[Tally]) -> Claim:
        return self.of.certify_votes(tallies)

    def stored(self) -> dict[str, Any]:
        return self.of.stored()

    def __str__(self) -> str:
        return str(self.of)


@dataclass(frozen=True)
class ParameterFamily(Family):
    """Certificates against a change of one number, which is smoothed by Gaussian noise.

    Arguments:
        sigma: Standard deviation of the number, positive.

    Raises:
        InputError: If sigma is out of range.
    """

    checker = "robustify.verify.parameter_family:problems"
    bases = (UNDENOISED,)
    levels = ()

    kind: ClassVar[type[ParameterPlan]]
    """The plans of this family."""

    sigma: float

    def __post_init__(self) -> None:
        check_sigma(self.sigma)

    @abstractmethod
    def slack(self, subject: Subject) -> float:
        """How far the law of the numbers drawn is, in total variation, from the Gaussian that the proof is about.

        Raises:
            InputError: If the change is not exact in the space of the images.
        """

    def plan(self, question: Question, subject: Subject) -> ParameterPlan:
        slack = self.slack(subject)
        return self.kind(Gaussian(self.sigma).plan(question, replace(subject, slack=lambda _: slack)))

    def poll(self, n: int, alpha: float, subject: Subject) -> MajorityPoll:
        return MajorityPoll((view_of(self.kind.change(self.sigma)),), n, alpha, self.slack(subject))

    def __str__(self) -> str:
        return f"sigma = {self.sigma:g}"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> ParameterPlan:
        of = Gaussian.read(stored)
        cls(of.sigma)  # raises where no such family has this sigma
        return cls.kind(of)


def view_of(change: ParameterNoise) -> View:
    """The view of the classifier alone, after a change; its pixels get no noise."""
    return View(0.0, UNDENOISED, change)


def on_grid(subject: Subject, sigma: float) -> bool:
    """Whether the images are 8-bit and stay so: the noise of their pixels would then be rounded to whole steps."""
    return subject.slack(View(sigma)) > 0
