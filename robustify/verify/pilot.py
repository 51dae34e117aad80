"""Checks of rows whose pilot chose the label and the number of draws: what families of such plans share.

**Not independent.** The number of draws that test the label is the plan's own reading of the pilot: any number that is
a function of the pilot alone is valid.
"""

from collections.abc import Iterator
from fractions import Fraction

from robustify.certificates.family import Tally
from robustify.certificates.pilot import PilotPlan
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.runs.rows import Row
from robustify.verify.arithmetic import at_most, upper_tail
from robustify.verify.looks import look_at
from robustify.verify.problem import Problem


def stages(row: Row, plan: PilotPlan) -> Iterator[Problem]:
    """Checks that the row has the tallies of a pilot, and then those that tested its label, each of one bound."""
    expected = [(ask.view, SELECTION) for ask in plan.pilot] + [(view, ESTIMATION) for view in plan.tested]
    if [(tally.view, tally.stage) for tally in row.tallies] != expected:
        yield Problem(row.sample, "tallies", row.tallies, f"one for each of {expected}")
        return
    for tally, ask in zip(row.tallies, plan.pilot, strict=False):
        if tally != Tally(ask.view, SELECTION, ask.draws, tally.votes):
            yield Problem(row.sample, "selection", tally, f"{ask.draws} draws, and neither a label nor looks")
    if len(row.bounds) != len(plan.tested):
        yield Problem(row.sample, "bounds", row.bounds, f"{len(plan.tested)}")


def tests(row: Row, plan: PilotPlan, label: int) -> Iterator[Problem]:
    """Checks that as many draws as planned tested the label of the pilot, and were read once."""
    pilot = [tally.votes for tally in row.tallies[: len(plan.pilot)]]
    n = plan.worthwhile(pilot)
    for tally in row.tallies[len(plan.pilot) :]:
        look = look_at(tally.votes, n, label)
        if tally.draws != n:
            yield Problem(row.sample, "draws", tally.draws, n)
        elif tally.label != label:
            yield Problem(row.sample, "tested label", tally.label, label)
        elif tally.looks != (look,):
            yield Problem(row.sample, "looks", tally.looks, look)


def refuted(count: int, n: int, p: Fraction, level: Fraction) -> bool:
    """Whether so many of n draws refute, by their exact tail, that an event has at most the chance p."""
    return at_most(upper_tail(count, n, p), level)
