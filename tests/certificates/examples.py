"""Plans that several test files share, one of each kind."""

from collections.abc import Iterator

from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.certificates.plans import AdaptivePlan, FixedPlan
from robustify.certificates.queries import Ask, Query

SIGMA = 0.5
PLANS = [
    FixedPlan(SIGMA, 0.1, 10, 600),
    AdaptivePlan(SIGMA, 0.1, 10, 600),
    DecisionPlan(SIGMA, 0.1, 10, 600, radii=(0.1, 0.2, 0.4)),
    KnownLabelPlan(SIGMA, 0.1, 0, 600, radii=(0.1, 0.2, 0.4)),
]
LEADER = LeaderPlan(SIGMA, 0.05, 0, 600, radii=(0.1, 0.2, 0.4))


def asked(query: Query) -> Iterator[Ask]:
    """What the query asks for, one after the other; each must be told before the next is taken."""
    while asks := query.ask():
        yield from asks
