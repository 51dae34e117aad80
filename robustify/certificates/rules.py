"""Plans by the names that stored rows give them."""

from collections.abc import Sequence

from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.certificates.plans import AdaptivePlan, FixedPlan, Plan
from robustify.errors import InputError


def plan_of(
    rule: str, *, sigma: float, alpha: float, n0: int, n: int, slack: float, radii: Sequence[float] = ()
) -> Plan:
    """The plan that a stored row describes.

    Raises:
        InputError: If there is no such rule.
    """
    for decision in (DecisionPlan, LeaderPlan, KnownLabelPlan):
        if rule == decision.rule:
            return decision(sigma, alpha, n0, n, slack, tuple(radii))
    for plan in (FixedPlan, AdaptivePlan):
        if rule == plan.rule:
            return plan(sigma, alpha, n0, n, slack)
    raise InputError(f"expected the rule fixed, adaptive, decision, leader or known label; got {rule!r}")
