"""Plans that several test files share, one of each kind."""

from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.certificates.plans import AdaptivePlan, FixedPlan

SIGMA = 0.5
PLANS = [
    FixedPlan(SIGMA, 0.1, 10, 600),
    AdaptivePlan(SIGMA, 0.1, 10, 600),
    DecisionPlan(SIGMA, 0.1, 10, 600, radii=(0.1, 0.2, 0.4)),
    KnownLabelPlan(SIGMA, 0.1, 0, 600, radii=(0.1, 0.2, 0.4)),
]
LEADER = LeaderPlan(SIGMA, 0.05, 0, 600, radii=(0.1, 0.2, 0.4))
