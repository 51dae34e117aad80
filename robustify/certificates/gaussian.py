"""The standard certificate family: Gaussian noise of one standard deviation.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from robustify.certificates.bounds import is_number
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan, RadiusPlan
from robustify.certificates.family import Family, Subject
from robustify.certificates.plans import AdaptivePlan, FixedPlan, GaussianPlan
from robustify.certificates.prediction import MajorityPoll
from robustify.certificates.question import Question
from robustify.certificates.stored import rule_of, settings_of
from robustify.certificates.views import View
from robustify.errors import InputError

PLANS: dict[str, type[GaussianPlan]] = {
    plan.rule: plan for plan in (FixedPlan, AdaptivePlan, DecisionPlan, LeaderPlan, KnownLabelPlan)
}
"""Kinds of plans by the names that stored runs give them."""


@final
@dataclass(frozen=True)
class Gaussian(Family):
    """Certificates of an ℓ2 radius from Gaussian noise of one standard deviation.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels, positive.

    Raises:
        InputError: If sigma is not positive.
    """

    name = "gaussian"
    checker = "robustify.verify.gaussian_family:problems"

    sigma: float

    def __post_init__(self) -> None:
        check_sigma(self.sigma)

    @property
    def levels(self) -> tuple[float, ...]:
        return (self.sigma,)

    def plan(self, question: Question, subject: Subject) -> GaussianPlan:
        of_votes = subject.slack(View(self.sigma))
        sigma = float(self.sigma)  # stored plans hold plain numbers
        if question.n is not None:
            return FixedPlan(sigma, question.alpha, question.n0, question.n, of_votes)
        if question.radius is None:
            return AdaptivePlan(sigma, question.alpha, question.n0, question.n_max, of_votes)
        kind = _deciding(question)
        n0 = question.n0 if kind.label_from == "selection" else 0
        return kind(sigma, question.alpha, n0, question.n_max, of_votes, question.radii)

    def poll(self, n: int, alpha: float, subject: Subject) -> MajorityPoll:
        return MajorityPoll((View(self.sigma),), n, alpha, subject.slack(View(self.sigma)))

    def __str__(self) -> str:
        return f"sigma = {self.sigma:g}"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> GaussianPlan:
        rule = rule_of(stored, PLANS)
        settings = settings_of(stored, rule, PLANS[rule])
        settings |= {name: float(settings[name]) for name in ("sigma", "alpha", "slack")}
        if "radii" in settings:
            settings["radii"] = tuple(map(float, settings["radii"]))
        return PLANS[rule](**settings)


def _deciding(question: Question) -> type[RadiusPlan]:
    """The kind of plan that decides radii in the way that the question asks for."""
    if question.known_label:
        return KnownLabelPlan
    return LeaderPlan if question.n0 == 0 else DecisionPlan


def check_sigma(sigma: object) -> None:
    """Raises `InputError` unless it is a standard deviation of noise: a finite number above 0."""
    if not (is_number(sigma) and 0 < sigma < math.inf):
        raise InputError(f"expected a finite sigma > 0, the noise in units of [0, 1] pixels; got {sigma!r}")
