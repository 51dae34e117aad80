r"""The check of rows of partitions: do their counts prove what they claim?

**Independent of the code that made the claims**: exact tails, and 50 digits for the normal distribution. A claim passes
only if

- the label is the class with the most votes of both pilots together, and was tested in both halves;
- the counts of each half refute, by exact tails at alpha / 2, every probability below its bound, and the other bound of
  the half is no less than what the first leaves;
- the radius is at most :math:`\frac{\sigma}{\sqrt 2} (\Phi^{-1}(p_l) + \Phi^{-1}(p_r))`.

**Not independent.** The number of draws is the plan's own reading of the pilot.
"""

from collections.abc import Iterator
from fractions import Fraction

from robustify.certificates.family import Bound, Tally
from robustify.certificates.partition import PartitionPlan
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import at_most, normal_quantile
from robustify.verify.pilot import refuted, stages, tests
from robustify.verify.problem import Problem


def problems(row: Row, plan: PartitionPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    del run
    wrong = [*stages(row, plan)]
    if not wrong:
        left, right, *_ = row.tallies
        sums = [a + b for a, b in zip(left.votes, right.votes, strict=True)]
        wrong = [*tests(row, plan, sums.index(max(sums)))]
    if wrong:
        yield from wrong
        return
    for bound, tally in zip(row.bounds, row.tallies[2:], strict=True):
        yield from _bound(row, bound, tally, plan)
    if row.radius > 0 and not _within(row, plan):
        yield Problem(row.sample, "radius", row.radius, "no more than the bounds prove")


def _bound(row: Row, bound: Bound, tally: Tally, plan: PartitionPlan) -> Iterator[Problem]:
    """Checks the bounds of one half."""
    (look,), slack, level = tally.looks, Fraction(plan.slack), Fraction(plan.alpha) / 2
    low, high = map(Fraction, bound)
    if low > 0 and not refuted(look.label, look.n, low + slack, level):
        yield Problem(row.sample, "p_lower", bound.p_lower, "less")
    if high < 1 - low:
        yield Problem(row.sample, "p_upper", bound.p_upper, "more")


def _within(row: Row, plan: PartitionPlan) -> bool:
    """Whether the radius is one that the stored bounds prove."""
    chances = [Fraction(bound.p_lower) for bound in row.bounds]
    if not all(0 < chance < 1 for chance in chances):
        return False
    total = sum(map(normal_quantile, chances))
    least = Fraction(row.radius) / Fraction(plan.sigma)  # 2 least² <= total², for total >= 0
    return bool(total > 0) and at_most(-(total**2), -2 * least**2)
