r"""Checks stored rows: is every claim what its integer counts prove, and was it asked as the run says?

**Independent of the code that made the claims** (`robustify.verify.arithmetic`): binomial tails as sums of terms in 50
digits; normal quantiles in 50 digits; the size of every sequential test, followed draw by draw. A claim passes only if

- *fixed*, *adaptive*: the counts of all draws refute, by exact tails at alpha / 2 a side, every probability below the
  bounds stored; of an adaptive one, the number of draws is what the selection's votes make worth while;
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

**Not independent.** At which numbers of draws one may look, and the boundaries of decisions, are taken from the plan:
any that are fixed in advance are valid. So is the number of draws of an adaptive plan. A bound on the runner-up that
rests on the last look must have refuted all smaller grid points too; that it did is the plan's own word. The slack of
grid noise is the library's bound on total variation.

The run's alpha must be within what it says to share among images or attempts; that the ledger was kept shows only in
the ledger. Besides, stored claims must equal the plan's own to a relative 1e-9: smaller ones are no lie, but a change.
`truth`, `pixels`, `batch` and votes that were moved together with all that follows from them show only when draws are
repeated.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from scipy.special import bdtrc

from robustify.certificates.decisions import RUNNER_UP, KnownLabelPlan, LeaderPlan, RadiusPlan
from robustify.certificates.lattice import total_variation
from robustify.certificates.plans import Claim, Look, Plan
from robustify.certificates.sequential import GroupSequentialTest
from robustify.errors import InputError, RunError
from robustify.runs.folder import StoredRun
from robustify.runs.rows import Row
from robustify.verify.arithmetic import (
    crossing_chance,
    early_boundaries,
    is_deviation_above,
    is_probability,
    normal_chance,
    normal_quantile,
    upper_tail,
)

_SAME = 1e-9
_ULP = Fraction(1, 2**51)
"""Rounding of a stored probability when the slack is subtracted."""


class Problem(NamedTuple):
    """Something stored that is not what it should be; `sample` is run.json for the run itself."""

    sample: str
    field: str
    stored: object
    expected: object

    def __str__(self) -> str:
        return f"{self.sample}: {self.field} is {self.stored}; expected {self.expected}"


def verify_run(run: StoredRun) -> list[Problem]:
    """Every problem of every row, as far as counts alone can tell; none if all is well.

    Raises:
        RunError: If there is nothing to verify.
    """
    if not run.rows:
        raise RunError(f"{str(run.folder)!r} holds no rows yet: nothing to verify")
    plan = run.plan
    problems = list(_of_run(run, plan))
    for row in run.rows:
        problems += verify_row(row, plan, run.config)
    return problems


def verify_row(row: Row, plan: Plan, config: dict[str, Any]) -> list[Problem]:
    """The problems of one row. What builds on something that is wrong already is not looked at."""
    if problems := [*_plan(row, plan, config)] or [*_counts(row, plan, config)]:
        return problems
    plan = plan.after(row.selection)
    return [*_looks(row, plan, config)] or [*_claim(row, plan)]


def _of_run(run: StoredRun, plan: Plan) -> Iterator[Problem]:
    if len(run.rows) > int(run.config["samples"]):
        yield Problem("run.json", "samples", run.config["samples"], f"at least {len(run.rows)}, as many as rows")
    yield from _shares(run, plan)
    sides = re.match(r"(\d+)×(\d+)×(\d+) ", str(run.config["contract"]))
    if sides is None:
        yield Problem("run.json", "contract", run.config["contract"], "channels×height×width pixels")
        return
    channels, height, width = map(int, sides.groups())
    grid = run.config["soundness"] != "float"
    least = total_variation(plan.sigma, channels * height * width) if grid else 0.0
    if not least * (1 - _SAME) <= plan.slack <= least * (1 + _SAME):
        yield Problem("run.json", "slack", plan.slack, least)


def _shares(run: StoredRun, plan: Plan) -> Iterator[Problem]:
    """Alpha is no more than its share of what all images, or all attempts, may spend together."""
    family, number, total = (run.config.get(name) for name in ("family_alpha", "attempt", "attempts_alpha"))
    if (number is None) != (total is None) or (number is not None and number < 1):
        yield Problem("run.json", "attempt", number, "a number and what all attempts may spend, or neither")
        return
    if number is not None and total is not None and not plan.alpha <= total * 6 / (math.pi * number) ** 2:
        yield Problem("run.json", "alpha", plan.alpha, f"at most 6 / (pi * {number})^2 of {total}")
    each = total if total is not None else plan.alpha
    if family is not None and not each * int(run.config["samples"]) <= family * (1 + _SAME):
        yield Problem("run.json", "family_alpha", family, f"at least {each} for each image")


def _plan(row: Row, plan: Plan, config: dict[str, Any]) -> Iterator[Problem]:
    """What was asked is what the run asks of all."""
    asked = {name: getattr(plan, name) for name in ("rule", "sigma", "alpha", "n0", "n", "slack")}
    asked |= {"radii": getattr(plan, "radii", ()), "seed": config["seed"], "soundness": config["soundness"]}
    for name, expected in asked.items():
        if getattr(row, name) != expected:
            yield Problem(row.sample, name, getattr(row, name), expected)


def _counts(row: Row, plan: Plan, config: dict[str, Any]) -> Iterator[Problem]:
    """Votes are possible, and the label is the one that was tested."""
    classes = len(config["labels"])
    drawn = row.looks[-1].n if row.looks else plan.n
    chosen = [] if isinstance(plan, KnownLabelPlan) else [("selection", row.selection, plan.n0 or drawn)]
    for name, votes, draws in (*chosen, ("votes", row.votes, drawn)):
        if len(votes) != classes or min(votes, default=0) < 0 or sum(votes) > draws:
            yield Problem(row.sample, name, votes, f"{classes} counts of {draws} draws in all, at most")
            return
    if not chosen and row.selection:
        yield Problem(row.sample, "selection", row.selection, "none: the label was known")
    if not (0 <= row.truth < classes if row.truth is not None else chosen):
        yield Problem(row.sample, "truth", row.truth, f"0 to {classes - 1}{', or none' if chosen else ''}")
        return
    expected = _tested(row) if row.radius > 0 else None
    if row.label != expected:
        yield Problem(row.sample, "label", row.label, expected)
    if row.batch < 1:
        yield Problem(row.sample, "batch", row.batch, "at least 1")


def _tested(row: Row) -> int:
    """The class that the draws tested."""
    if row.selection:
        return row.selection.index(max(row.selection))
    assert row.truth is not None  # noqa: S101 - known labels have been checked
    return row.truth


def _looks(row: Row, plan: Plan, config: dict[str, Any]) -> Iterator[Problem]:
    """Looks are those that were planned, add up over time, and end with the votes."""
    schedule = plan.schedule[: max(1, len(row.looks))]
    if tuple(look.n for look in row.looks) != schedule:
        yield Problem(row.sample, "looks", [look.n for look in row.looks], list(schedule))
        return
    for before, after in pairwise((Look(0, 0, 0), *row.looks)):
        if not _follows(before, after, len(config["labels"])):
            yield Problem(row.sample, "looks", after, f"possible counts after {before}")
    if row.looks[-1] != (last := _look(row.votes, row.drawn, _tested(row))):
        yield Problem(row.sample, "looks", row.looks[-1], f"{last}, as the votes are")
    if isinstance(plan, LeaderPlan):
        crossing = _crossing(row, plan.tests[0])
        chosen = row.looks[-1 if crossing is None else crossing]
        pairs = zip(row.selection, row.votes, strict=True)
        grew = all(a == b if chosen.n == row.drawn else a <= b for a, b in pairs)
        if not grew or chosen != _look(row.selection, chosen.n, _tested(row)):
            yield Problem(row.sample, "selection", row.selection, f"the votes when the label was chosen: {chosen}")


def _look(votes: Sequence[int], n: int, label: int) -> Look:
    """What `n` draws with these votes tell of a label."""
    return Look(n, votes[label], max((*votes[:label], *votes[label + 1 :])) + n - sum(votes))


def _crossing(row: Row, test: GroupSequentialTest, start: int = 0) -> int | None:
    """The first look, from `start` on, whose votes for the label reach the boundary."""
    pairs = enumerate(zip(row.looks, test.boundaries, strict=False))
    return next((k for k, (look, boundary) in pairs if k >= start and look.label >= boundary), None)


def _follows(before: Look, after: Look, classes: int) -> bool:
    """Whether draws between two looks can have made one of the other; a rival has all failures too."""
    draws, label, rival = (b - a for a, b in zip(before, after, strict=True))
    others = after.n - after.label
    shared = after.rival <= others <= after.rival * classes
    return 0 <= label <= draws and 0 <= rival <= draws - label and shared


def _claim(row: Row, plan: Plan) -> Iterator[Problem]:
    """The claim is proven, and is the plan's own."""
    own = plan.claim(row.looks)
    if not (is_probability(row.p_lower) and is_probability(row.p_upper) and 0 <= row.radius < float("inf")):
        yield Problem(row.sample, "radius", (row.radius, row.p_lower, row.p_upper), f"numbers such as {tuple(own)}")
        return
    proven = list(_decided(row, plan, own) if isinstance(plan, RadiusPlan) else _bounded(row, plan, own, _refuted))
    yield from proven
    known = {problem.field for problem in proven}
    for name in own._fields:
        stored, expected = getattr(row, name), getattr(own, name)
        if name not in known and abs(stored - expected) > _SAME * abs(expected):
            yield Problem(row.sample, name, stored, expected)


def _bounded(row: Row, plan: Plan, own: Claim, refutes: "Refutes") -> Iterator[Problem]:
    """Bounds on label and runner-up, and the radius between them."""
    slack = Fraction(plan.slack)
    label = [look.label for look in row.looks]
    others = [look.n - look.rival for look in row.looks]
    if row.p_lower > 0 and not refutes(label, plan, Fraction(row.p_lower) + slack):
        yield Problem(row.sample, "p_lower", row.p_lower, f"at most {own.p_lower}")
    rest = 1 - Fraction(row.p_upper) + slack  # what all classes but the rival, the label among them, surely have
    if row.p_upper < 1 and not (refutes(others, plan, rest) or refutes(label, plan, rest)):
        yield Problem(row.sample, "p_upper", row.p_upper, f"at least {own.p_upper}")
    if row.radius > 0 and not _within(row, plan.sigma):
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")


def _within(row: Row, sigma: float) -> bool:
    if not 0 < row.p_upper < row.p_lower < 1:
        return False
    gap = normal_quantile(Fraction(row.p_lower)) - normal_quantile(Fraction(row.p_upper))
    return bool(row.radius <= sigma * gap / 2)


Refutes = Callable[[Sequence[int], Plan, Fraction], bool]
"""Whether successes at the looks so far refute every probability up to the one given."""


def _refuted(counts: Sequence[int], plan: Plan, p: Fraction) -> bool:
    return _at_most(upper_tail(counts[-1], plan.n, p), Fraction(plan.alpha) / 2)


def _refuted_by_look(counts: Sequence[int], plan: Plan, p: Fraction) -> bool:
    """By the exact tail at one look, the most telling; else, at the last, by the exact size of the test."""
    looks, levels = plan.schedule, _levels(counts, plan)
    tails = [float(bdtrc(count - 1, n, float(p))) if count else 1.0 for count, n in zip(counts, looks, strict=False)]
    best = min(range(len(counts)), key=lambda k: tails[k] / levels[k])
    if _at_most(upper_tail(counts[best], looks[best], p), levels[best]):
        return True
    half = Fraction(plan.alpha) / 2
    if len(counts) < len(looks) or not _at_most(upper_tail(counts[-1], looks[-1], p), half):
        return False
    return Fraction(_size(float(p), looks, counts[-1], plan.alpha / 2)) <= half


def _levels(counts: Sequence[int], plan: Plan) -> list[Fraction]:
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
    """Of the test that refutes p at an early look's level or with `last` successes at the last."""
    early = looks[:-1]
    share = half * 0.75 / max(1, len(early))
    boundaries = early_boundaries(p, early, share)
    for k, n in enumerate(early):
        if p**n <= share * max(1.0, (k + 1) / 2):
            boundaries[k] = min(n, boundaries[k])
            break
    return crossing_chance(p, looks, (*boundaries, last))


def _decided(row: Row, plan: RadiusPlan, own: Claim) -> Iterator[Problem]:
    """The radius and bounds of a decision."""
    slack, best, proven, start = Fraction(plan.slack), Fraction(0), 0.0, 0
    for test, radius in zip(plan.tests, plan.radii, strict=True):
        crossing = _crossing(row, test, start)
        if crossing is None or not _holds(test, plan):
            break
        best, proven = Fraction(test.p0) - slack, radius
        start = crossing if isinstance(plan, LeaderPlan) else 0
    if row.radius > proven * (1 + 2e-9) and not isinstance(plan, LeaderPlan):
        # by the runner-up, with the share of alpha that is left
        if row.radius > own.radius * (1 + _SAME):
            yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")
        yield from _by_runner_up(row, plan, own)
        return
    if Fraction(row.p_lower) > best + (_ULP if best else 0):
        yield Problem(row.sample, "p_lower", row.p_lower, f"at most {own.p_lower}")
    if 1 - Fraction(row.p_upper) > best + (_ULP if best else 0):
        yield Problem(row.sample, "p_upper", row.p_upper, f"at least {own.p_upper}")
    reach = Fraction(row.radius) / Fraction(plan.sigma)
    if row.radius > 0 and (row.radius > proven * (1 + 2e-9) or not _at_most(normal_chance(reach), best)):
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")


def _holds(test: GroupSequentialTest, plan: RadiusPlan) -> bool:
    """Whether the chance of crossing at the threshold is small enough."""
    chance = Fraction(crossing_chance(test.p0, test.looks, test.boundaries))
    if not isinstance(plan, LeaderPlan):
        return chance <= Fraction(1 - RUNNER_UP) * Fraction(plan.alpha)
    far = all(is_deviation_above(b, n, Fraction(test.p0)) for b, n in zip(test.boundaries, test.looks, strict=True))
    return test.p0 >= 1 / 2 and far and chance <= Fraction(test.p0) * Fraction(plan.alpha)


def _by_runner_up(row: Row, plan: RadiusPlan, own: Claim) -> Iterator[Problem]:
    """Bounds and radius of a decision that rests on label and runner-up, with their share of alpha."""
    try:
        bounds = replace(plan, alpha=RUNNER_UP * plan.alpha, radii=(1e-6 * plan.sigma,))
    except InputError:  # so few draws that this route proves nothing
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")
        return
    yield from _bounded(row, bounds, own, _refuted_by_look)


def _at_most(number: Any, limit: Fraction) -> bool:  # noqa: ANN401
    return bool(number * limit.denominator <= limit.numerator)
