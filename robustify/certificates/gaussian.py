"""The standard certificate family: Gaussian noise of one standard deviation.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, final

from robustify.certificates.bounds import is_number
from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan, RadiusPlan
from robustify.certificates.family import Family, View
from robustify.certificates.plans import AdaptivePlan, FixedPlan, GaussianPlan
from robustify.certificates.question import Question
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
    """

    name = "gaussian"
    checker = "robustify.verify.gaussian_family:problems"

    sigma: float

    @property
    def views(self) -> tuple[View, ...]:
        return (View(self.sigma),)

    def plan(self, question: Question, slack: Callable[[View], float]) -> GaussianPlan:
        of_votes = slack(self.views[0])
        if question.n is not None:
            return FixedPlan(self.sigma, question.alpha, question.n0, question.n, of_votes)
        if question.radius is None:
            return AdaptivePlan(self.sigma, question.alpha, question.n0, question.n_max, of_votes)
        kind = _deciding(question)
        n0 = question.n0 if kind.label_from == "selection" else 0
        return kind(self.sigma, question.alpha, n0, question.n_max, of_votes, question.radii)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> GaussianPlan:
        settings = dict(stored)
        rule = settings.pop("rule", None)
        if rule not in PLANS:
            raise InputError(f"expected the rule {', '.join(PLANS)}; got {rule!r}")
        # exactly these: a missing or unknown setting would turn the plan into another question
        if set(settings) != (expected := {field.name for field in fields(PLANS[rule])}):
            raise InputError(f"expected a plan {rule!r} to store {_listed(expected)}; got {_listed(settings)}")
        settings |= {name: float(settings[name]) for name in ("sigma", "alpha", "slack")}
        if "radii" in settings:
            settings["radii"] = tuple(map(float, settings["radii"]))
        return PLANS[rule](**settings)


def _deciding(question: Question) -> type[RadiusPlan]:
    """The kind of plan that decides radii in the way that the question asks for."""
    if question.known_label:
        return KnownLabelPlan
    return LeaderPlan if question.n0 == 0 else DecisionPlan


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def family_of(sigma: float | None, family: Family | None) -> Family:
    """The family that a user means: the one given, or Gaussian noise of one standard deviation.

    Raises:
        InputError: If neither or both are given, or a noise level is no positive number.
    """
    if (sigma is None) == (family is None):
        raise InputError("give the standard deviation of the noise, sigma, or a family of certificates; one of them")
    found = family or Gaussian(sigma)  # type: ignore[arg-type]  # one of them is there
    for view in found.views:
        if not (is_number(view.sigma) and 0 < view.sigma < math.inf):
            raise InputError(f"expected a finite sigma > 0, the noise in units of [0, 1] pixels; got {view.sigma!r}")
    return found
