r"""The check of rows of migrated runs: do the counts of both runs prove what is claimed of the changed model?

**Independent of the code that made the claims**: tails and quantiles come from `robustify.verify.arithmetic`. The
chance :math:`\zeta` that the two functions differ is the smallest number of 60 binary digits that the exact tail of the
shared draws refutes at its share of alpha; the bounds stored pass only if exact tails of the draws before the change
refute every chance of the label up to :math:`p_A + \zeta`, and of the rival from :math:`p_B - \zeta`. Fresh draws are
checked as those of a classical certificate are.

**Not independent.** Which of the ways an image takes is the plan's own word: any is valid that the draws which chose
its label fix.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from robustify.certificates.family import Look
from robustify.certificates.migration import BEFORE, FRESH, SHARED, MigratedPlan
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import normal_quantile, upper_tail
from robustify.verify.looks import look_at
from robustify.verify.problem import Problem

_DIGITS = 60


class _Terms(NamedTuple):
    """The terms of a row's bounds.

    Arguments:
        share: Allowed chance that one of the bounds is false.
        look: Counts of the draws that test the label.
        zeta: Chance that the votes of two functions differ; 0 where one function is at stake.
        rival: Whether the rival may be bounded by its own votes.
    """

    share: Fraction
    look: Look
    zeta: Fraction
    rival: bool


def problems(row: Row, plan: MigratedPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    del run
    wrong = [*_tallies(row, plan)]
    yield from wrong or _claim(row, plan, _terms(row, plan))


def _tallies(row: Row, plan: MigratedPlan) -> Iterator[Problem]:
    """Checks that there are the draws that were planned, for the label that was chosen, and looks as votes are."""
    chosen = next((tally.votes for tally in row.tallies if tally.stage == SELECTION), None)
    fresh = chosen is not None and plan.way(chosen) == "fresh"
    last = (FRESH, ESTIMATION, plan.fresh) if fresh else (SHARED, ESTIMATION, plan.shared)
    expected = [(BEFORE, SELECTION, plan.n0), (BEFORE, ESTIMATION, plan.n), last]
    found = [(tally.view, tally.stage, tally.draws) for tally in row.tallies]
    if found != expected or len(row.bounds) != 1:
        yield Problem(row.sample, "tallies", found, f"{expected}, and bounds of the changed model alone")
        return
    selection, *tested = row.tallies
    label = selection.votes.index(max(selection.votes))
    if selection.label is not None or selection.looks or sum(selection.votes) > plan.n0:
        yield Problem(row.sample, "selection", selection, f"{plan.n0} draws, neither a label nor looks")
    for tally in tested:
        looks = () if tally.view == SHARED else (look_at(tally.votes, tally.draws, label),)
        if (tally.label, tally.looks) != (label, looks) or sum(tally.votes) > tally.draws:
            yield Problem(row.sample, f"looks of view {tally.view}", tally.looks, f"{looks} at class {label}")


def _terms(row: Row, plan: MigratedPlan) -> _Terms:
    """What the bounds of the row rest on."""
    alpha, (_, tested, last) = Fraction(plan.alpha), row.tallies
    if last.view == FRESH:
        return _Terms(alpha / 2, last.looks[0], Fraction(0), rival=True)
    rival = plan.way(row.selection) == "runner-up"
    share = alpha / (3 if rival else 2)
    return _Terms(share, tested.looks[0], _zeta(sum(last.votes), last.draws, share), rival)


@lru_cache(maxsize=1024)
def _zeta(agreed: int, draws: int, share: Fraction) -> Fraction:
    """A chance of disagreement that so many agreements refute, as they do every larger one."""
    low, high = 0, 1 << _DIGITS
    while high - low > 1:
        middle = (low + high) // 2
        refuted = _refutes(agreed, draws, 1 - Fraction(middle, 1 << _DIGITS), share)
        low, high = (low, middle) if refuted else (middle, high)
    return Fraction(high, 1 << _DIGITS)


def _claim(row: Row, plan: MigratedPlan, terms: _Terms) -> Iterator[Problem]:
    """Checks that the counts prove bounds and radius."""
    low, high, slack = Fraction(row.p_lower), Fraction(row.p_upper), Fraction(plan.slack)
    look, loss = terms.look, slack + terms.zeta
    if low > 0 and not _refutes(look.label, look.n, low + loss, terms.share):
        yield Problem(row.sample, "p_lower", row.p_lower, "less, as the counts prove")
    rest = 1 - high + slack  # what all classes but the rival, the label among them, surely have
    own = terms.rival and _refutes(look.n - look.rival, look.n, rest + terms.zeta, terms.share)
    if high < 1 and not (own or _refutes(look.label, look.n, rest + terms.zeta, terms.share)):
        yield Problem(row.sample, "p_upper", row.p_upper, "more, as the counts prove")
    if row.radius > 0 and not _within(row, low, high, plan.sigma):
        yield Problem(row.sample, "radius", row.radius, "no more than the bounds prove")


def _within(row: Row, low: Fraction, high: Fraction, sigma: float) -> bool:
    """Whether the radius is one that the stored bounds prove."""
    if not 0 < high < low < 1:
        return False
    return bool(row.radius <= sigma * (normal_quantile(low) - normal_quantile(high)) / 2)


def _refutes(successes: int, trials: int, p: Fraction, share: Fraction) -> bool:
    """Whether so many successes have at most the chance `share` where each has at most the chance `p`."""
    return bool(upper_tail(successes, trials, p) * share.denominator <= share.numerator)
