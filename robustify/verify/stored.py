"""The plan of a stored run as a family, with which its draws are made again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from robustify.certificates.family import Family, Plan, Subject
from robustify.certificates.question import Question
from robustify.certificates.views import levels_of


@final
@dataclass(frozen=True)
class Stored(Family):
    """The family of one plan of a stored run, with which its draws are repeated.

    Arguments:
        of: The plan.
    """

    of: Plan

    @property
    def name(self) -> str:  # type: ignore[override]  # that of the plan
        """Name of the plan's family."""
        return self.of.family

    @property
    def bases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(view.base for view in self.of.views))

    @property
    def levels(self) -> tuple[float, ...]:
        return levels_of(self.of.views)

    def plan(self, question: Question, subject: Subject) -> Plan:
        del question, subject
        return self.of

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Plan:
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.name}, {self.of}"
