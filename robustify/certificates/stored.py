"""What the stored plans of all families have in common: a rule, and exactly the settings of their dataclass."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from robustify.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def rule_of(stored: Mapping[str, Any], rules: Collection[str]) -> str:
    """The rule of a stored plan.

    Raises:
        InputError: If it is none of these rules.
    """
    rule = stored.get("rule")
    if not isinstance(rule, str) or rule not in rules:
        raise InputError(f"expected the rule {', '.join(rules)}; got {rule!r}")
    return rule


def settings_of(stored: Mapping[str, Any], rule: str, kind: "type[DataclassInstance]") -> dict[str, Any]:
    """What a stored plan holds besides its rule.

    Exactly the fields of a dataclass: a missing or unknown setting would turn the plan into another question.

    Arguments:
        stored: Data that `Plan.stored` gave.
        rule: The rule that it must have.
        kind: The dataclass.

    Raises:
        InputError: If the rule is another, or a setting is missing or unknown.
    """
    rule_of(stored, [rule])
    settings = {name: value for name, value in stored.items() if name != "rule"}
    if settings.keys() != (expected := {field.name for field in fields(kind)}):
        raise InputError(f"expected a plan {rule!r} to store {_listed(expected)}; got {_listed(settings)}")
    return settings


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
