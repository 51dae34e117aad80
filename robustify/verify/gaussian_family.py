r"""The check of rows of the Gaussian family: do their counts prove what they claim?

**Independent of the code that made the claims**: tails, quantiles and sizes of tests come from
`robustify.verify.arithmetic`. A claim passes only if

- *fixed*, *adaptive*: the counts of all draws refute, by exact tails at alpha / 2 a side, every probability below the
  bounds stored; in an adaptive row, the number of draws is what the selection's votes make worth while;
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
rests on the last look must have refuted all smaller grid points too; that it did is the plan's own word.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple, TypeAlias, cast

from scipy.special import bdtrc

from robustify.certificates.decisions import RUNNER_UP, RadiusPlan
from robustify.certificates.family import Look
from robustify.certificates.plans import GaussianPlan, Proof
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.certificates.sequential import GroupSequentialTest
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import (
    at_most,
    crossing_chance,
    early_boundaries,
    is_deviation_above,
    normal_chance,
    normal_quantile,
    upper_tail,
)
from robustify.verify.looks import look_at
from robustify.verify.problem import Problem

_ULP = Fraction(1, 2**51)
"""Rounding of a stored probability when the slack is subtracted."""

_RADIUS_ULP = 2e-9
"""Relative excess of a claimed radius over the one that was asked for, and its rounding."""


def problems(row: Row, plan: GaussianPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    del run
    if wrong := [*_tallies(row, plan)]:
        yield from wrong
        return
    chosen = plan.after(row.selection) if row.selection else plan
    wrong = [*_looks(row, chosen)]
    yield from wrong or _claim(row, chosen)


def _tallies(row: Row, plan: GaussianPlan) -> Iterator[Problem]:
    """Checks that each stage has one tally, of as many draws as planned, and that the right class was tested."""
    stages = (ESTIMATION,) if plan.label_from == "truth" else (SELECTION, ESTIMATION)
    if tuple(tally.stage for tally in row.tallies) != stages:
        yield Problem(row.sample, "selection", row.selection, f"tallies of {' and '.join(stages)} alone")
        return
    if len(row.bounds) != 1:
        yield Problem(row.sample, "bounds", row.bounds, "those of one view")
    tested = row.tested
    for chosen in row.tallies[:-1]:
        if chosen.label is not None or chosen.looks:
            yield Problem(row.sample, "selection", chosen, "neither a label nor looks")
    if row.draws - tested.draws != plan.n0:
        yield Problem(row.sample, "selection", row.tallies[0], f"{plan.n0} draws")
    expected = row.selection.index(max(row.selection)) if row.selection else row.truth
    if tested.label != expected:
        yield Problem(row.sample, "tested label", tested.label, expected)


def _looks(row: Row, plan: GaussianPlan) -> Iterator[Problem]:
    """Checks that looks came when they were planned, never shrink, and end with the votes."""
    tested = row.tested
    planned = plan.schedule[: max(1, len(row.looks))]
    if tuple(look.n for look in row.looks) != planned or planned[-1] != tested.draws:
        yield Problem(row.sample, "looks", [look.n for look in row.looks], f"{[*planned]} up to {tested.draws} draws")
        return
    for before, after in pairwise((Look(0, 0, 0), *row.looks)):
        if not _follows(before, after, len(tested.votes)):
            yield Problem(row.sample, "looks", after, f"possible counts after {before}")
    if row.looks[-1] != (last := look_at(row.votes, tested.draws, _label(row))):
        yield Problem(row.sample, "looks", row.looks[-1], f"{last}, as the votes are")
    if plan.label_from == "leader":
        yield from _leader(row, cast(RadiusPlan, plan))


def _leader(row: Row, plan: RadiusPlan) -> Iterator[Problem]:
    """Checks that the selection holds the votes at the look that earned the first radius, or else at the last."""
    crossing = _crossing(row.looks, plan.tests[0])
    chosen = row.looks[-1 if crossing is None else crossing]
    final = chosen == row.looks[-1]
    pairs = zip(row.selection, row.votes, strict=True)
    grew = all(then == now if final else then <= now for then, now in pairs)
    if not grew or chosen != look_at(row.selection, chosen.n, _label(row)):
        yield Problem(row.sample, "selection", row.selection, f"the votes when the label was chosen: {chosen}")


def _label(row: Row) -> int:
    """Index of the class that the draws tested, which `_tallies` has checked."""
    label = row.tested.label
    assert label is not None  # noqa: S101 - as checked
    return label


def _crossing(looks: Sequence[Look], test: GroupSequentialTest, start: int = 0) -> int | None:
    """The first look, from `start` on, whose votes for the label reach the boundary."""
    pairs = enumerate(zip(looks, test.boundaries, strict=False))
    return next((k for k, (look, boundary) in pairs if k >= start and look.label >= boundary), None)


def _follows(before: Look, after: Look, classes: int) -> bool:
    """Whether draws between two looks can lead from one to the other; failed draws count for the rival."""
    draws, label, rival = (b - a for a, b in zip(before, after, strict=True))
    others = after.n - after.label
    shared = after.rival <= others <= after.rival * classes
    return 0 <= label <= draws and 0 <= rival <= draws - label and shared


def _claim(row: Row, plan: GaussianPlan) -> Iterator[Problem]:
    """Checks that the counts prove the claim."""
    own = plan.prove(row.looks)
    if plan.radii:
        yield from _decided(row, cast(RadiusPlan, plan), own)
    else:
        terms = _Terms(plan.sigma, Fraction(plan.slack), plan.alpha, plan.schedule)
        yield from _bounded(row, terms, own, _refuted_at_end)


class _Terms(NamedTuple):
    """The terms of bounds on label and runner-up.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        slack: Chance by which a vote may differ from a vote under ideal noise.
        alpha: Allowed chance that a bound is false, half a side.
        schedule: Numbers of draws at which one may look.
    """

    sigma: float
    slack: Fraction
    alpha: float
    schedule: tuple[int, ...]


Refutes: TypeAlias = Callable[[Sequence[int], _Terms, Fraction], bool]
"""Whether successes at the looks so far refute every probability up to the one given."""


def _bounded(row: Row, terms: _Terms, own: Proof, refutes: Refutes) -> Iterator[Problem]:
    """Checks bounds on label and runner-up, and the radius that they prove."""
    label = [look.label for look in row.looks]
    others = [look.n - look.rival for look in row.looks]
    if row.p_lower > 0 and not refutes(label, terms, Fraction(row.p_lower) + terms.slack):
        yield Problem(row.sample, "p_lower", row.p_lower, f"at most {own.p_lower}")
    rest = 1 - Fraction(row.p_upper) + terms.slack  # what all classes but the rival, the label among them, surely have
    if row.p_upper < 1 and not (refutes(others, terms, rest) or refutes(label, terms, rest)):
        yield Problem(row.sample, "p_upper", row.p_upper, f"at least {own.p_upper}")
    if row.radius > 0 and not _within(row, terms.sigma):
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")


def _within(row: Row, sigma: float) -> bool:
    """Whether the radius is one that the stored bounds prove."""
    if not 0 < row.p_upper < row.p_lower < 1:
        return False
    gap = normal_quantile(Fraction(row.p_lower)) - normal_quantile(Fraction(row.p_upper))
    return bool(row.radius <= sigma * gap / 2)


def _refuted_at_end(counts: Sequence[int], terms: _Terms, p: Fraction) -> bool:
    """Whether the exact tail of all draws refutes the probability."""
    return at_most(upper_tail(counts[-1], terms.schedule[-1], p), Fraction(terms.alpha) / 2)


def _refuted_by_look(counts: Sequence[int], terms: _Terms, p: Fraction) -> bool:
    """Whether the exact tail at the most telling look refutes it or, at the last look, the exact size of the test."""
    looks, levels = terms.schedule, _levels(counts, terms)
    tails = [float(bdtrc(count - 1, n, float(p))) if count else 1.0 for count, n in zip(counts, looks, strict=False)]
    best = min(range(len(counts)), key=lambda k: tails[k] / levels[k])
    if at_most(upper_tail(counts[best], looks[best], p), levels[best]):
        return True
    half = Fraction(terms.alpha) / 2
    if len(counts) < len(looks) or not at_most(upper_tail(counts[-1], looks[-1], p), half):
        return False
    return Fraction(_size(float(p), looks, counts[-1], terms.alpha / 2)) <= half


def _levels(counts: Sequence[int], terms: _Terms) -> list[Fraction]:
    """The chance of error that each look may spend."""
    looks, half = terms.schedule, Fraction(terms.alpha) / 2
    if len(looks) == 1:
        return [half / 4]
    share = half * Fraction(3, 4) / (len(looks) - 1)
    pairs = enumerate(zip(counts, looks, strict=False))
    levels = [share * max(Fraction(1), Fraction(k + 1, 2)) if count == n else share for k, (count, n) in pairs]
    if len(counts) == len(looks):
        levels[-1] = half / 4
    return levels


def _size(p: float, looks: tuple[int, ...], last: int, half: float) -> float:
    """The size of the test that refutes p at the level of an early look, or with `last` successes at the last."""
    early = looks[:-1]
    share = half * 0.75 / max(1, len(early))
    boundaries = early_boundaries(p, early, share)
    for k, n in enumerate(early):
        if p**n <= share * max(1.0, (k + 1) / 2):
            boundaries[k] = min(n, boundaries[k])
            break
    return crossing_chance(p, looks, (*boundaries, last))


class _Reached(NamedTuple):
    """What the tests of a decision prove.

    Arguments:
        radius: The largest radius whose test was crossed, with those of all smaller ones; 0 where none was.
        chance: What the label's probability exceeds: the test's threshold, less the slack.
    """

    radius: float = 0.0
    chance: Fraction = Fraction(0)


def _decided(row: Row, plan: RadiusPlan, own: Proof) -> Iterator[Problem]:
    """Checks the claim of a decision, which rests on its tests or else on bounds on label and runner-up."""
    reached = _reached(row, plan)
    if row.radius <= reached.radius * (1 + _RADIUS_ULP) or plan.label_from == "leader":
        yield from _by_test(row, plan, reached, own)
        return
    terms = _Terms(plan.sigma, Fraction(plan.slack), RUNNER_UP * plan.alpha, plan.schedule)
    yield from _bounded(row, terms, own, _refuted_by_look)


def _reached(row: Row, plan: RadiusPlan) -> _Reached:
    """The largest radius that the counts prove by tests that are strict enough."""
    reached, start = _Reached(), 0
    for test, radius in zip(plan.tests, plan.radii, strict=True):
        crossing = _crossing(row.looks, test, start)
        if crossing is None or not _holds(test, plan):
            break
        reached = _Reached(radius, Fraction(test.p0) - Fraction(plan.slack))
        if plan.label_from == "leader":  # only from there on is it surely the same class
            start = crossing
    return reached


def _by_test(row: Row, plan: RadiusPlan, reached: _Reached, own: Proof) -> Iterator[Problem]:
    """Checks a claim that rests on the threshold of a test."""
    most = reached.chance + (_ULP if reached.chance else 0)
    if Fraction(row.p_lower) > most:
        yield Problem(row.sample, "p_lower", row.p_lower, f"at most {own.p_lower}")
    if 1 - Fraction(row.p_upper) > most:
        yield Problem(row.sample, "p_upper", row.p_upper, f"at least {own.p_upper}")
    if row.radius == 0:
        return
    needed = normal_chance(Fraction(row.radius) / Fraction(plan.sigma))
    if row.radius > reached.radius * (1 + _RADIUS_ULP) or not at_most(needed, reached.chance):
        yield Problem(row.sample, "radius", row.radius, f"at most {own.radius}")


def _holds(test: GroupSequentialTest, plan: RadiusPlan) -> bool:
    """Whether the chance that a label at the threshold crosses the boundaries is small enough."""
    chance = Fraction(crossing_chance(test.p0, test.looks, test.boundaries))
    if plan.label_from != "leader":
        return chance <= Fraction(1 - RUNNER_UP) * Fraction(plan.alpha)
    far = all(is_deviation_above(b, n, Fraction(test.p0)) for b, n in zip(test.boundaries, test.looks, strict=True))
    return test.p0 >= 1 / 2 and far and chance <= Fraction(test.p0) * Fraction(plan.alpha)
