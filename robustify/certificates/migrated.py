"""The family of certificates that were carried over from a run before a change of the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from robustify.certificates.family import Family, Subject
from robustify.certificates.migration import MigratedPlan, Origin
from robustify.certificates.prediction import MajorityPoll
from robustify.certificates.question import Question
from robustify.certificates.stored import settings_of
from robustify.certificates.views import View
from robustify.errors import InputError


@final
@dataclass(frozen=True)
class Migrated(Family):
    """Certificates that were carried over from a run before a change; `robustify.runs.migrate` makes them.

    Arguments:
        of: The plan, which belongs to one run.
    """

    name = "migrated"
    checker = "robustify.verify.migrated_family:problems"
    bases = ("robustify.smoothing.pairs:before", "pipeline", "robustify.smoothing.pairs:agreement")

    of: MigratedPlan

    def __post_init__(self) -> None:
        if not isinstance(self.of, MigratedPlan):
            raise InputError("certificates are migrated by robustify.runs.migrate, or `robustify migrate`")

    @property
    def levels(self) -> tuple[float, ...]:
        return (self.of.sigma,)

    def plan(self, question: Question, subject: Subject) -> MigratedPlan:
        del question, subject
        return self.of

    def poll(self, n: int, alpha: float, subject: Subject) -> MajorityPoll:
        return MajorityPoll((View(self.of.sigma),), n, alpha, subject.slack(View(self.of.sigma)))

    def __str__(self) -> str:
        return f"sigma = {self.of.sigma:g}, migrated"

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> MigratedPlan:
        settings = settings_of(stored, MigratedPlan.rule, MigratedPlan)
        settings |= {name: float(settings[name]) for name in ("sigma", "alpha", "expected", "slack")}
        return MigratedPlan(**{**settings, "origin": Origin(**settings["origin"])})
