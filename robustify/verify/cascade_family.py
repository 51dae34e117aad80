r"""The check of rows of cascades: do their counts prove what they claim?

**Independent of the code that made the claims**: tails and quantiles come from `robustify.verify.arithmetic`. A claim
passes only if, at every level that was drawn from, the exact tail at alpha / K of the counts refutes every probability
of the label below the bound stored, and every probability above the other for any rival; and if some level k, which
tested the label, answers it within the radius, while all levels before it fire with nothing else: the radius is at most
:math:`\sigma_k (\Phi^{-1}(\underline{p}_k) - \Phi^{-1}(p_0))` and, for every level j before,
:math:`\sigma_j (\Phi^{-1}(p_0) - \Phi^{-1}(\overline{p}_j))`. Where the lowest level always answers, its two bounds
share alpha / K, and its radius is half of sigma times the distance of their quantiles. The class of the classifier
alone is answered only where exact tails at alpha / K refute that any level fires.

**Not independent.** How many draws each level gets, and where they stop, are taken from the plan: any numbers that the
level's own test does not influence are valid.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from robustify.certificates.cascade_plans import CascadePlan
from robustify.certificates.family import Bound, Tally
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import at_most, normal_quantile, upper_tail
from robustify.verify.looks import look_at
from robustify.verify.problem import Problem


def problems(row: Row, plan: CascadePlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    del run
    falling = all(before > after for before, after in pairwise(plan.sigmas))
    if not (1 / 2 <= plan.p0 < 1 and falling):
        # below 1/2 two classes could fire at once
        yield Problem("run.json", "plan", (plan.p0, plan.sigmas), "p0 from 1/2 up to but not 1, and decreasing sigmas")
        return
    if wrong := [*_tallies(row, plan)]:
        yield from wrong
        return
    tested = [tally for tally in row.tallies if tally.stage == ESTIMATION and tally.view < len(plan.sigmas)]
    if wrong := [*_bounds(row, plan, tested)]:
        yield from wrong
        return
    if row.radius > 0 and not any(_proves(row, plan, tested, k) for k in range(len(tested))):
        yield Problem(row.sample, "radius", row.radius, "at most that of a chain that tested the label")
    if row.uncertified is not None:
        yield from _alone(row, plan, tested)


def _tallies(row: Row, plan: CascadePlan) -> Iterator[Problem]:
    """Checks that there are the draws that the plan asks for after each other, and that the right class was tested."""
    done, left = 0, row.tallies
    while asks := plan.asks(left[:done]):
        found = left[done : done + len(asks)]
        if [tally[:3] for tally in found] != [ask[:3] for ask in asks]:
            yield Problem(row.sample, "tallies", [tally[:3] for tally in found], [ask[:3] for ask in asks])
            return
        for tally in found:
            if wrong := _mistaken(row, plan, tally):
                yield wrong
                return
        done += len(asks)
    if done < len(left):
        yield Problem(row.sample, "tallies", len(left), f"no more than {done}: the others could change nothing")


def _mistaken(row: Row, plan: CascadePlan, tally: Tally) -> Problem | None:
    """A label that the level's selection did not choose, or a look that is not that of the votes."""
    if tally.stage == SELECTION or tally.view == len(plan.sigmas):
        expected: tuple[Any, Any] = None, ()
    else:
        chosen = next(t.votes for t in row.tallies if (t.view, t.stage) == (tally.view, SELECTION))
        label = chosen.index(max(chosen))
        expected = label, (look_at(tally.votes, tally.draws, label),)
    if (tally.label, tally.looks) == expected:
        return None
    name = f"label and looks of {tally.stage} of view {tally.view}"
    return Problem(row.sample, name, (tally.label, tally.looks), expected)


def _bounds(row: Row, plan: CascadePlan, tested: Sequence[Tally]) -> Iterator[Problem]:
    """Checks that the counts refute every probability beyond the bounds stored."""
    if len(row.bounds) != len(plan.views):
        yield Problem(row.sample, "bounds", row.bounds, f"those of {len(plan.views)} views")
        return
    label = tested[0].label if row.label is None else row.label
    assert label is not None  # noqa: S101 - as checked
    for view, bound in enumerate(row.bounds):
        if view < len(tested):
            yield from _unproven(row, plan, bound, tested[view], label)
        elif bound != Bound(0.0, 1.0):
            yield Problem(row.sample, "p_lower", bound, "0 and 1, as no votes bound it")


def _unproven(row: Row, plan: CascadePlan, bound: Bound, tally: Tally, label: int) -> Iterator[Problem]:
    slack, level = Fraction(plan.slack[tally.view]), _share(plan) / (2 if _answers_always(plan, tally.view) else 1)
    low, high = map(Fraction, bound)
    if low > 0 and not at_most(upper_tail(tally.votes[label], tally.draws, low + slack), level):
        yield Problem(row.sample, "p_lower", bound.p_lower, f"less, at view {tally.view}")
    others = tally.draws - look_at(tally.votes, tally.draws, label).rival
    if high < 1 and not at_most(upper_tail(others, tally.draws, 1 - high + slack), level):
        yield Problem(row.sample, "p_upper", bound.p_upper, f"more, at view {tally.view}")


def _proves(row: Row, plan: CascadePlan, tested: Sequence[Tally], k: int) -> bool:
    """Whether the chain that ends with level k, and that tested the label, reaches the radius."""
    if tested[k].label != row.label:
        return False
    threshold = normal_quantile(Fraction(plan.p0))
    for sigma, bound in zip(plan.sigmas[:k], row.bounds, strict=False):
        if not 0 < bound.p_upper < 1 or row.radius > sigma * (threshold - normal_quantile(Fraction(bound.p_upper))):
            return False
    low, high = row.bounds[k]
    if not 0 < low < 1 or not 0 < high <= 1:
        return False
    if _answers_always(plan, k):
        gap = (normal_quantile(Fraction(low)) - normal_quantile(Fraction(high))) / 2 if high < 1 else -1
    else:
        gap = normal_quantile(Fraction(low)) - threshold
    return bool(row.radius <= plan.sigmas[k] * gap)


def _alone(row: Row, plan: CascadePlan, tested: Sequence[Tally]) -> Iterator[Problem]:
    """Checks that no level fires, and that the answer is the classifier's."""
    for tally, slack in zip(tested, map(Fraction, plan.slack), strict=False):
        others = sum(tally.votes) - max(tally.votes)
        if not at_most(upper_tail(others, tally.draws, 1 - Fraction(plan.p0) + slack), _share(plan)):
            yield Problem(row.sample, "uncertified", row.uncertified, f"none, as level {tally.view} may fire")
    last = row.tallies[-1]
    if last.view != len(plan.sigmas) or last.votes[row.uncertified or 0] != 1:
        yield Problem(row.sample, "uncertified", row.uncertified, "the class of the classifier alone")


def _share(plan: CascadePlan) -> Fraction:
    """The chance of error of each chain."""
    return Fraction(plan.alpha) / len(plan.sigmas)


def _answers_always(plan: CascadePlan, view: int) -> bool:
    return plan.otherwise == "argmax" and view == len(plan.sigmas) - 1
