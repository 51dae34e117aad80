r"""The independent checker of the family `Gaussian`, for every kind of its plans.

**Independent of the code that made the claims** (`robustify.verify.arithmetic`): binomial tails as sums of terms in 50
digits; normal quantiles in 50 digits; the size of every sequential test, followed draw by draw. A claim passes only if

- *fixed*, *adaptive*: the counts of all draws refute, by exact tails at alpha / 2 a side, every probability below the
  bounds stored; of an adaptive one, the number of draws is the one that the selection's votes make worthwhile;
- *decision*, *known label*: for every radius claimed, the boundaries' chance of being crossed at the threshold is at
  most three quarters of alpha, the counts crossed them, and the threshold, less the slack, is at least
  :math:`\Phi(r / \sigma)`; or the bounds on label and runner-up pass at the last quarter, as follows. The counts of
  some look refute the bound by an exact tail at the level of that look. Levels add up to half of that quarter a side:
  three quarters of it evenly over the looks before the last, one quarter for the last. A run without failures may
  take half of the shares so far, as any other look's share is then unused. Where the bound rests on the last look
  having all that the earlier ones don't really use, the test at the bound itself, boundaries derived anew, has at most
  this size;
- *leader*: likewise without the runner-up; the threshold is at least a half, the chance of being crossed at most
  alpha times the threshold, each boundary a standard deviation or more above it, and the class that crossed is the
  one that led then;

and the radius is at most :math:`\frac{\sigma}{2} (\Phi^{-1}(p_A) - \Phi^{-1}(p_B))`.

**Not independent.** The numbers of draws after which one may look, and the boundaries of decisions, are taken from the
plan: any that are fixed in advance are valid. So is the number of draws of an adaptive plan. A bound on the runner-up
that rests on the last look must have refuted all smaller grid points too; for that, the plan's own radius is trusted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

from scipy.special import bdtrc

from robustify.certificates.decisions import RUNNER_UP, RadiusPlan
from robustify.certificates.family import Claim, Look
from robustify.certificates.plans import GaussianPlan
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.certificates.sequential import GroupSequentialTest
from robustify.errors import InputError
from robustify.runs.rows import Row
from robustify.verify.arithmetic import (
    crossing_chance,
    early_boundaries,
    is_deviation_above,
    normal_chance,
    normal_quantile,
    upper_tail,
)
from robustify.verify.claims import RUN, SAME, Problem, look_at, tally_field

_ULP = Fraction(1, 2**51)
"""Rounding of a stored probability when the slack is subtracted."""

_REACH = 1 + 2e-9
"""Factor by which a decision's radius may exceed the one that was asked, which it includes."""


def problems(row: Row, plan: GaussianPlan, *, classes: int, slack: Sequence[float]) -> Iterator[Problem]:
    """What is wrong with a row of a Gaussian plan and with the plan itself; see `robustify.verify.claims.Checker`."""
    del classes
    if not slack[0] * (1 - SAME) <= plan.slack <= slack[0] * (1 + SAME):
        yield Problem(RUN, "slack", plan.slack, slack[0])
    if wrong := [*_stages(row, plan)] or [*_looks(row, plan)]:
        yield from wrong
        return
    own = plan.certify_votes(row.tallies)
    if plan.radii:
        yield from _decided(row, cast(RadiusPlan, plan), own)
    else:
        yield from _bounded(row, plan.after(row.selection), own, _refuted)


def _stages(row: Row, plan: GaussianPlan) -> Iterator[Problem]:
    """The label was chosen as the plan says, and is the one that was tested."""
    stages = [tally.stage for tally in row.tallies]
    expected = [ESTIMATION] if plan.label_from == "truth" else [SELECTION, ESTIMATION]
    if stages != expected:
        yield Problem(row.sample, "tallies", stages, expected)
        return
    if plan.label_from != "truth" and (draws := row.tallies[0].draws) != plan.n0:
        yield Problem(row.sample, tally_field(row.tallies[0], "draws"), draws, plan.n0)
    label = row.truth if plan.label_from == "truth" else row.selection.index(max(row.selection))
    if (tested := row.tallies[-1]).label != label:
        yield Problem(row.sample, tally_field(tested, "label"), tested.label, label)
    if len(row.bounds) != 1:
        yield Problem(row.sample, "bounds", row.bounds, "bounds of one view")


def _looks(row: Row, plan: GaussianPlan) -> Iterator[Problem]:
    """Looks are those that were planned; a leader was chosen at the look that made it the label."""
    tested = row.tallies[-1]
    schedule = plan.after(row.selection).schedule[: max(1, len(tested.looks))]
    if (seen := tuple(look.n for look in tested.looks)) != schedule:
        yield Problem(row.sample, tally_field(tested, "looks"), seen, schedule)
    elif plan.label_from == "leader" and not _led(row, cast(RadiusPlan, plan)):
        yield Problem(row.sample, tally_field(row.tallies[0], "votes"), row.selection, "those when it was chosen")


def _led(row: Row, plan: RadiusPlan) -> bool:
    """Whether the votes that chose the label are those of the look that first proved a radius, or of the last."""
    crossing = _crossing(row.looks, plan.tests[0])
    chosen = row.looks[-1 if crossing is None else crossing]
    pairs = zip(row.selection, row.votes, strict=True)
    grew = all(a == b if chosen.n == row.n else a <= b for a, b in pairs)
    return grew and chosen == look_at(row.selection, chosen.n, cast(int, row.tallies[-1].label))


def _crossing(looks: Sequence[Look], test: GroupSequentialTest, start: int = 0) -> int | None:
    """Index of the first look, from `start` on, whose votes for the label reach the boundary."""
    pairs = enumerate(zip(looks, test.boundaries, strict=False))
    return next((k for k, (look, boundary) in pairs if k >= start and look.label >= boundary), None)


def _bounded(row: Row, plan: GaussianPlan, own: Claim, refutes: "Refutes") -> Iterator[Problem]:
    """Bounds on label and runner-up, and the radius between them."""
    slack = Fraction(plan.slack)
    label = [look.label for look in row.looks]
    others = [look.n - look.rival for look in row.looks]
    if row.p_lower > 0 and not refutes(label, plan, Fraction(row.p_lower) + slack):
        yield Problem(row.sample, "p_lower", row.p_lower, f"at most {own.bounds[0].p_lower}")
    rest = 1 - Fraction(row.p_upper) + slack  # what all classes but the rival, the label among them, surely have
    if row.p_upper < 1 and not (refutes(others, plan, rest) or refutes(label, plan, rest)):
        yield Problem(row.sample, "p_upper", row.p_upper, f"at least {own.bounds[0].p_upper}")
    if row.radius > 0 and not _within(row, plan.sigma):
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")


def _within(row: Row, sigma: float) -> bool:
    """Whether the radius is at most the one that the stored bounds prove."""
    if not 0 < row.p_upper < row.p_lower < 1:
        return False
    gap = normal_quantile(Fraction(row.p_lower)) - normal_quantile(Fraction(row.p_upper))
    return bool(row.radius <= sigma * gap / 2)


Refutes = Callable[[Sequence[int], GaussianPlan, Fraction], bool]
"""Whether successes at the looks so far refute every probability up to the one given."""


def _refuted(counts: Sequence[int], plan: GaussianPlan, p: Fraction) -> bool:
    """Refutation by the exact tail of all draws."""
    return _at_most(upper_tail(counts[-1], plan.n, p), Fraction(plan.alpha) / 2)


def _refuted_by_look(counts: Sequence[int], plan: GaussianPlan, p: Fraction) -> bool:
    """Refutation by the exact tail at the most telling look; else, at the last, by the exact size of the test."""
    looks, levels = plan.schedule, _levels(counts, plan)
    tails = [float(bdtrc(count - 1, n, float(p))) if count else 1.0 for count, n in zip(counts, looks, strict=False)]
    best = min(range(len(counts)), key=lambda k: tails[k] / levels[k])
    if _at_most(upper_tail(counts[best], looks[best], p), levels[best]):
        return True
    half = Fraction(plan.alpha) / 2
    if len(counts) < len(looks) or not _at_most(upper_tail(counts[-1], looks[-1], p), half):
        return False
    return Fraction(_size(float(p), looks, counts[-1], plan.alpha / 2)) <= half


def _levels(counts: Sequence[int], plan: GaussianPlan) -> list[Fraction]:
    """What each look may spend."""
    looks, half = plan.schedule, Fraction(plan.alpha) / 2
    if len(looks) == 1:
        return [half / 4]
    share = half * Fraction(3, 4) / (len(looks) - 1)
    pairs = enumerate(zip(counts, looks, strict=False))
    levels = [share * max(Fraction(1), Fraction(k + 1, 2)) if count == n else share for k, (count, n) in pairs]
    if len(counts) == len(looks):
        levels[-1] = half / 4
    return levels


def _size(p: float, looks: tuple[int, ...], last: int, half: float) -> float:
    """Size of the test that refutes p at an early look's level or with `last` successes at the last."""
    early = looks[:-1]
    share = half * 0.75 / max(1, len(early))
    boundaries = early_boundaries(p, early, share)
    for k, n in enumerate(early):
        if p**n <= share * max(1.0, (k + 1) / 2):
            boundaries[k] = min(n, boundaries[k])
            break
    return crossing_chance(p, looks, (*boundaries, last))


def _decided(row: Row, plan: RadiusPlan, own: Claim) -> Iterator[Problem]:
    """The radius and bounds of a decision, by one of its two routes."""
    passed = _passed(row.looks, plan)
    proven = plan.radii[passed - 1] if passed else 0.0
    threshold = Fraction(plan.tests[passed - 1].p0) - Fraction(plan.slack) if passed else Fraction(0)
    if plan.label_from == "leader" or row.radius <= proven * _REACH:
        yield from _by_test(row, plan, own, proven, threshold)
    else:
        yield from _by_runner_up(row, plan, own)


def _passed(looks: Sequence[Look], plan: RadiusPlan) -> int:
    """Number of radii, counted from the smallest, whose tests are valid and were passed by the counts.

    A leader passes each test at or after the look that passed the one before: another class may have led earlier.
    """
    start = 0
    for passed, test in enumerate(plan.tests):
        crossing = _crossing(looks, test, start)
        if crossing is None or not _holds(test, plan):
            return passed
        start = crossing if plan.label_from == "leader" else 0
    return len(plan.tests)


def _holds(test: GroupSequentialTest, plan: RadiusPlan) -> bool:
    """Whether the chance of crossing at the threshold is small enough."""
    chance = Fraction(crossing_chance(test.p0, test.looks, test.boundaries))
    if plan.label_from != "leader":
        return chance <= Fraction(1 - RUNNER_UP) * Fraction(plan.alpha)
    far = all(is_deviation_above(b, n, Fraction(test.p0)) for b, n in zip(test.boundaries, test.looks, strict=True))
    return test.p0 >= 1 / 2 and far and chance <= Fraction(test.p0) * Fraction(plan.alpha)


def _by_test(row: Row, plan: RadiusPlan, own: Claim, proven: float, threshold: Fraction) -> Iterator[Problem]:
    """Bounds and radius of a decision that rests on the test of the largest radius proven."""
    most = threshold + (_ULP if threshold else 0)
    if Fraction(row.p_lower) > most:
        yield Problem(row.sample, "p_lower", row.p_lower, f"at most {own.bounds[0].p_lower}")
    if 1 - Fraction(row.p_upper) > most:
        yield Problem(row.sample, "p_upper", row.p_upper, f"at least {own.bounds[0].p_upper}")
    reach = Fraction(row.radius) / Fraction(plan.sigma)
    if row.radius > 0 and (row.radius > proven * _REACH or not _at_most(normal_chance(reach), threshold)):
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")


def _by_runner_up(row: Row, plan: RadiusPlan, own: Claim) -> Iterator[Problem]:
    """Bounds and radius of a decision that rests on label and runner-up, with their share of alpha."""
    if row.radius > own.radius * (1 + SAME):
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")
    try:
        bounds = replace(plan, alpha=RUNNER_UP * plan.alpha, radii=(1e-6 * plan.sigma,))
    except InputError:  # so few draws that this route proves nothing
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")
        return
    yield from _bounded(row, bounds, own, _refuted_by_look)


def _at_most(number: Any, limit: Fraction) -> bool:  # noqa: ANN401
    return bool(number * limit.denominator <= limit.numerator)
