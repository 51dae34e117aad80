"""The check of rows of top-k certificates, in fractions and 50 digits, apart from what made the claims."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from robustify_top_k import TopKPlan

from robustify.certificates.family import Look
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import normal_chance, normal_quantile, upper_tail
from robustify.verify.problem import Problem

STEPS = 120
"""Halvings by which the smallest probability that the counts do not refute is found."""


def problems(row: Row, plan: TopKPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row."""
    if plan.classes != len(run.labels):
        yield Problem("run.json", "classes", plan.classes, f"{len(run.labels)}, as many as labels")
        return
    stages = [(tally.stage, tally.draws) for tally in row.tallies]
    if stages != [(SELECTION, plan.n0), (ESTIMATION, plan.n)]:
        yield Problem(row.sample, "tallies", stages, f"{plan.n0} draws that choose and {plan.n} that test")
        return
    label = row.selection.index(max(row.selection))
    failed = plan.n - sum(row.votes)
    rivals = sorted((v for c, v in enumerate(row.votes) if c != label), reverse=True)
    look = Look(plan.n, row.votes[label], rivals[0] + failed)
    if (row.tested.label, row.tested.looks) != (label, (look,)):
        yield Problem(row.sample, "looks", row.tested.looks, f"{look}, of the class {label}")
    elif row.radius > 0 and not _proven(row, plan, [min(plan.n, r + failed) for r in rivals[: plan.k]]):
        yield Problem(row.sample, "radius", row.radius, "no more than the counts prove")


def _proven(row: Row, plan: TopKPlan, rivals: Sequence[int]) -> bool:
    """Whether some number t of rivals proves the radius."""
    slack = Fraction(plan.slack)
    low = _refuted(row.tested.looks[0].label, plan) - slack
    upper = [1 - _refuted(plan.n - rival, plan) + slack for rival in rivals]
    moved = Fraction(row.radius) / Fraction(plan.sigma)
    if not 0 < low < 1:
        return False
    own = normal_chance(_number(normal_quantile(low)) - moved)
    for t in range(1, plan.k + 1):
        total = min(sum(upper[-t:], Fraction(0)), 1 - low)
        if 0 < total < 1 and own * t >= normal_chance(_number(normal_quantile(total)) + moved):
            return True
    return False


def _refuted(successes: int, plan: TopKPlan) -> Fraction:
    """A probability that the counts refute at alpha / classes, as large as halving finds."""
    level = Fraction(plan.alpha) / plan.classes  # as many as labels, which was checked
    low, high = Fraction(0), Fraction(successes, plan.n)
    for _ in range(STEPS):
        middle = (low + high) / 2
        refuted = upper_tail(successes, plan.n, middle) * level.denominator <= level.numerator
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _number(value: object) -> Fraction:
    """A number of mpmath, of 50 digits, as a fraction."""
    return Fraction(str(value))
