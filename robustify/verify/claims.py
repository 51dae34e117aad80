"""Checks of stored rows: does every claim follow from its counts, and was the question that of the run?

What concerns every family of certificates is checked here; what its counts prove is checked by the arithmetic that the
family names as its `checker`, which is written apart from the code that made the claims
(`robustify.verify.gaussian_family`).

- Of the run: alpha is within what it says to share among images or attempts (that the ledger was kept shows only in
  the ledger), the slack of each view is that of its noise, and there are no more rows than images.
- Of each row: its tallies are possible, and its label, radius and bounds are those that the plan itself reads off the
  tallies, to a relative 1e-9: smaller claims are no lie, but a change.

**Not independent.** The slack of grid noise is the library's bound on total variation.

`truth`, `pixels`, `batch` and votes that were moved together with all that follows from them show in the digests
(`robustify.verify.integrity`); where those were computed again too, only when draws are repeated
(`robustify.verify.replay`).
"""

import math
import pkgutil
from collections.abc import Callable, Iterator
from typing import TypeAlias

from robustify.certificates.family import CERTIFICATES, Claim, Plan, Tally
from robustify.certificates.lattice import total_variation
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.errors import RunError
from robustify.runs import version1
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import is_probability
from robustify.verify.integrity import changes
from robustify.verify.problem import Problem

_SAME = 1e-9
"""Relative difference up to which numbers are the same."""

_OF_CLAIM = {"label", "radius", "p_lower", "p_upper"}
"""Fields that hold what is claimed; all others hold what was counted."""


Checker: TypeAlias = Callable[[Row, Plan, Run], Iterator[Problem]]
"""The independent arithmetic of a family: the problems of a row whose tallies are possible.

Where it finds a problem that is not about the claim, the counts are not looked at any further.
"""


def verify_run(run: Run) -> list[Problem]:
    """Every problem that the folder alone can show: what was changed, and claims that counts do not prove.

    Raises:
        PluginError: If the run's family of certificates is not installed.
        RunError: If there is nothing to verify.
    """
    return [*changes(run), *verify_claims(run)]


def verify_claims(run: Run) -> list[Problem]:
    """Every problem of every row that counts alone can show; none if all is well.

    Raises:
        PluginError: If the run's family of certificates is not installed.
        RunError: If there is nothing to verify.
    """
    if not run.rows:
        raise RunError(f"{str(run.folder)!r} holds no rows yet: nothing to verify")
    problems = [*_shares(run), *_slacks(run)]
    if len(run.rows) > run.samples:
        problems.insert(0, Problem("run.json", "samples", run.samples, f"at least {len(run.rows)}, as many as rows"))
    for row in run.rows:
        problems += verify_row(row, run.plan, run)
    return problems


def verify_row(row: Row, plan: Plan, run: Run) -> list[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    problems = [*_possible(row, plan, len(run.labels))]
    if not problems:
        checker: Checker = pkgutil.resolve_name(CERTIFICATES.find(plan.family).checker)
        problems = [*checker(row, plan, run)]
    if {problem.field for problem in problems} <= _OF_CLAIM:
        problems += [p for p in _changed(row, plan.certify_votes(row.tallies)) if p.field not in _fields(problems)]
    return problems


def _fields(problems: list[Problem]) -> set[str]:
    return {problem.field for problem in problems}


def _shares(run: Run) -> Iterator[Problem]:
    """Checks that alpha is at most its share of what all images, or all attempts, may spend together."""
    alpha = run.plan.alpha
    family, number, total = (run.config.get(name) for name in ("family_alpha", "attempt", "attempts_alpha"))
    if (number is None) != (total is None) or (number is not None and number < 1):
        yield Problem("run.json", "attempt", number, "a number and what all attempts may spend, or neither")
        return
    if number is not None and total is not None and not alpha <= total * 6 / (math.pi * number) ** 2:
        yield Problem("run.json", "alpha", alpha, f"at most 6 / (pi * {number})^2 of {total}")
    if not (alpha == 0 or 0 < alpha < 1):
        yield Problem("run.json", "alpha", alpha, "a chance below 1, or 0 for proofs without chance")
    each = total if total is not None else alpha
    if family is not None and not each * run.samples <= family * (1 + _SAME):
        yield Problem("run.json", "family_alpha", family, f"at least {each} for each image")


def _slacks(run: Run) -> Iterator[Problem]:
    """Checks that the slack of every view is the distance of its noise from ideal noise."""
    bound = version1.total_variation if run.config["format"] == 1 else total_variation
    dimensions = math.prod(run.contract.shape)
    for view, slack in zip(run.plan.views, run.plan.slacks, strict=True):
        ideal = run.soundness == "float" or view.sigma == 0
        least = 0.0 if ideal else bound(view.sigma, dimensions)
        if not least * (1 - _SAME) <= slack <= least * (1 + _SAME):
            yield Problem("run.json", "slack", slack, least)


def _possible(row: Row, plan: Plan, classes: int) -> Iterator[Problem]:
    """Checks that the plan could have such tallies, and that the claim consists of possible numbers."""
    for tally in row.tallies:
        yield from _tally(row, tally, plan, classes)
    if row.draws > plan.most_draws or (plan.exact and row.draws != plan.most_draws):
        yield Problem(row.sample, "draws", row.draws, f"{'' if plan.exact else 'at most '}{plan.most_draws}")
    if not (0 <= row.truth < classes if row.truth is not None else not plan.needs_truth):
        yield Problem(row.sample, "truth", row.truth, f"0 to {classes - 1}{'' if plan.needs_truth else ', or none'}")
    if not all(label is None or 0 <= label < classes for label in (row.label, row.uncertified)):
        yield Problem(row.sample, "label", (row.label, row.uncertified), f"0 to {classes - 1}, or none")
    if row.batch < 1:
        yield Problem(row.sample, "batch", row.batch, "at least 1")
    if not (0 <= row.radius < math.inf and all(is_probability(p) for bound in row.bounds for p in bound)):
        yield Problem(row.sample, "numbers", (row.radius, *row.bounds), "a finite radius, and bounds from 0 to 1")


def _tally(row: Row, tally: Tally, plan: Plan, classes: int) -> Iterator[Problem]:
    """Checks that a tally holds possible votes of one of the views; without draws, they are some of another's."""
    name = name_of(tally, plan)
    if tally.view not in range(len(plan.views)) or tally.stage not in (SELECTION, ESTIMATION) or tally.draws < 0:
        yield Problem(row.sample, name, tally, f"draws of a stage and of a view below {len(plan.views)}")
        return
    draws = tally.draws or row.draws
    if len(tally.votes) != classes or min(tally.votes, default=0) < 0 or sum(tally.votes) > draws:
        yield Problem(row.sample, name, tally.votes, f"{classes} counts of {draws} draws in all, at most")
    if tally.label is not None and tally.label not in range(classes):
        yield Problem(row.sample, "tested label", tally.label, f"0 to {classes - 1}")


def name_of(tally: Tally, plan: Plan) -> str:
    """The name of a tally in problems: "votes" or "selection", with the view where there are several."""
    name = "votes" if tally.stage == ESTIMATION else tally.stage
    return name if len(plan.views) == 1 else f"{name} of view {tally.view}"


def _changed(row: Row, own: Claim) -> Iterator[Problem]:
    """Differences between the stored claim and the one that the plan itself reads off the tallies."""
    if row.label != own.label:
        yield Problem(row.sample, "label", row.label, own.label)
    if row.uncertified != own.uncertified:
        yield Problem(row.sample, "uncertified", row.uncertified, own.uncertified)
    if not _same(row.radius, own.radius):
        yield Problem(row.sample, "radius", row.radius, own.radius)
    if len(row.bounds) != len(own.bounds):
        yield Problem(row.sample, "bounds", row.bounds, own.bounds)
        return
    for stored, bound in zip(row.bounds, own.bounds, strict=True):
        for name in bound._fields:
            if not _same(getattr(stored, name), getattr(bound, name)):
                yield Problem(row.sample, name, getattr(stored, name), getattr(bound, name))


def _same(stored: float, expected: float) -> bool:
    return abs(stored - expected) <= _SAME * abs(expected)
