r"""The check of rows of mixtures: do their counts prove what they claim?

**Independent of the code that made the claims**: exact tails, and 50 digits for the normal distribution. A claim passes
only if

- the label is the leading class of the pilot's votes under noise;
- the counts refute, by exact tails, every probability below the bound on the label and, where the rival has a bound of
  its own, above that one, at alpha / 2 each; a single bound at alpha;
- with these bounds, :math:`\Phi(\Phi^{-1}(p_A) - r / \sigma) - \Phi(\Phi^{-1}(p_B) + r / \sigma)` is at least
  (1 - a) / a at the radius claimed;
- an answer without a certificate has the largest share of the mixture, in exact fractions.

**Not independent.** Whether there are one or two bounds is the plan's own reading of the pilot, as is the number of
draws: any choice that is a function of the pilot alone is valid.
"""

from collections.abc import Iterator
from fractions import Fraction

from robustify.certificates.mixed import MixedPlan
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import at_most, shifted_chance
from robustify.verify.pilot import refuted, stages, tests
from robustify.verify.problem import Problem


def problems(row: Row, plan: MixedPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    del run
    if not Fraction(1, 2) < Fraction(plan.weight) <= 1:
        yield Problem("run.json", "weight", plan.weight, "above 1/2, at most 1")
        return
    wrong = [*stages(row, plan)]
    if not wrong:
        votes = row.tallies[0].votes
        wrong = [*tests(row, plan, votes.index(max(votes)))]
    if wrong:
        yield from wrong
        return
    yield from _bounds(row, plan)
    if row.radius > 0 and not _within(row, plan):
        yield Problem(row.sample, "radius", row.radius, "no more than the bounds prove")
    if row.uncertified is not None and row.uncertified not in _blended(row, plan):
        yield Problem(row.sample, "uncertified", row.uncertified, _blended(row, plan))


def _bounds(row: Row, plan: MixedPlan) -> Iterator[Problem]:
    """Checks the bounds on label and rival."""
    (look,), slack = row.tallies[2].looks, Fraction(plan.slack)
    single = plan.single([tally.votes for tally in row.tallies[:2]], look.n)
    level = Fraction(plan.alpha) / (1 if single else 2)
    low, high = map(Fraction, row.bounds[0])
    if low > 0 and not refuted(look.label, look.n, low + slack, level):
        yield Problem(row.sample, "p_lower", row.p_lower, "less")
    rest = 1 - high + slack  # what all classes but the rival, the label among them, surely have
    counts = (look.label,) if single else (look.label, look.n - look.rival)
    if high < 1 and not any(refuted(count, look.n, rest, level) for count in counts):
        yield Problem(row.sample, "p_upper", row.p_upper, "more")


def _within(row: Row, plan: MixedPlan) -> bool:
    """Whether the radius is one that the stored bounds prove."""
    if not 0 < row.p_upper < row.p_lower < 1:
        return False
    shift, a = Fraction(row.radius) / Fraction(plan.sigma), Fraction(plan.weight)
    lead = shifted_chance(Fraction(row.p_lower), -shift) - shifted_chance(Fraction(row.p_upper), shift)
    return at_most(-lead, -(1 - a) / a)


def _blended(row: Row, plan: MixedPlan) -> list[int]:
    """Indices of the classes with the largest share of the mixture."""
    _, alone, tested = row.tallies
    a = Fraction(plan.weight)
    shares = [
        (1 - a) * own + a * Fraction(votes, tested.draws) for own, votes in zip(alone.votes, tested.votes, strict=True)
    ]
    return [c for c, share in enumerate(shares) if share == max(shares)]
