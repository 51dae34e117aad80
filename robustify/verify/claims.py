r"""Checks stored rows: is every claim what its integer counts prove, and was it asked as the run says?

Checked here for every family of certificates: alpha is within what the run says to share among images or attempts;
counts are possible, add up over looks, and stay within the draws that the plan allows; labels and bounds are possible;
and the stored claim equals the plan's own to a relative 1e-9. A smaller claim is no lie, but a change.

Whether the counts prove the claim is checked by the family's independent checker, in arithmetic that shares nothing
with what made the claim: `robustify.verify.gaussian` for `Gaussian`.

**Not checked.** That the ledger was kept shows only in the ledger. `truth`, `pixels`, `batch`, and votes that were
moved together with all that follows from them, show only when draws are repeated. The slack of grid noise is the
library's bound on total variation.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pkgutil import resolve_name
from typing import NamedTuple, Protocol, cast

from robustify.certificates.family import CERTIFICATES, Look, Plan, Tally
from robustify.certificates.lattice import total_variation
from robustify.errors import RunError
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.arithmetic import is_probability

RUN = "run.json"
"""Name that problems of the run itself bear instead of a sample's."""

SAME = 1e-9
"""Largest relative difference of numbers that count as equal."""


class Problem(NamedTuple):
    """Something stored that is not what it should be.

    Arguments:
        sample: Name of the image; "run.json" for the run itself.
        field: Name of what is wrong.
        stored: Stored value.
        expected: Expected value, or what is expected of it.
    """

    sample: str
    field: str
    stored: object
    expected: object

    def __str__(self) -> str:
        return f"{self.sample}: {self.field} is {self.stored}; expected {self.expected}"


class Checker(Protocol):
    """A family's independent check of stored rows, which `Family.checker` names."""

    def __call__(self, row: Row, plan: Plan, *, classes: int, slack: Sequence[float]) -> Iterable[Problem]:
        """What is wrong with a row, given its plan, and with the plan itself; nothing if all is well.

        Problems of the claim are called "radius", or as `bound_field` says. Any other problem of the row means that
        its counts are not what the plan asks for.

        Arguments:
            row: Row whose counts are possible.
            plan: Plan of the run.
            classes: Number of classes.
            slack: Largest difference, for each view, between the chance of a vote under the noise that is drawn and
                under ideal noise.
        """


def tally_field(tally: Tally, name: str) -> str:
    """Name of a part of a tally in problems, such as "selection votes"; later views are named too."""
    return f"{tally.stage} {name}" + (f" of view {tally.view}" if tally.view else "")


def bound_field(name: str, view: int = 0) -> str:
    """Name of a bound in problems, "p_lower" or "p_upper"; later views are named too."""
    return name + (f" of view {view}" if view else "")


def verify_run(run: Run) -> list[Problem]:
    """Every problem of every row that counts alone can show; none if all is well.

    Raises:
        RunError: If there is nothing to verify.
    """
    if not run.rows:
        raise RunError(f"{str(run.folder)!r} holds no rows yet: nothing to verify")
    plan = run.plan
    of_run = list(_of_run(run, plan))
    of_rows = []
    for row in run.rows:
        for problem in verify_row(row, plan, run):
            if problem.sample != RUN:
                of_rows.append(problem)
            elif problem not in of_run:  # each row finds the same
                of_run.append(problem)
    return of_run + of_rows


def verify_row(row: Row, plan: Plan, run: Run) -> list[Problem]:
    """The problems of one row, and of the plan; what builds on something that is wrong already is not checked."""
    classes = len(run.labels)
    if problems := list(_form(row, plan, classes)):
        return problems
    checker = cast(Checker, resolve_name(CERTIFICATES.find(plan.family).checker))
    found = list(checker(row, plan, classes=classes, slack=_slack(run, plan)))
    known = {problem.field for problem in found if problem.sample != RUN}
    if known - _claim_fields(plan):
        return found
    return found + [problem for problem in _differences(row, plan) if problem.field not in known]


def _slack(run: Run, plan: Plan) -> tuple[float, ...]:
    """Largest difference, for each view, of the chance of a vote from that under ideal noise."""
    if run.soundness == "float":
        return tuple(0.0 for _ in plan.views)
    dimensions = math.prod(run.contract.shape)
    return tuple(total_variation(view.sigma, dimensions) if view.sigma > 0 else 0.0 for view in plan.views)


def _of_run(run: Run, plan: Plan) -> Iterator[Problem]:
    """Problems of the run as a whole: the number of images, and alpha.

    Alpha is no more than its share of what all images, or all attempts, may spend together.
    """
    if len(run.rows) > run.samples:
        yield Problem(RUN, "samples", run.samples, f"at least {len(run.rows)}, as many as rows")
    family, number, total = (run.config.get(name) for name in ("family_alpha", "attempt", "attempts_alpha"))
    if (number is None) != (total is None) or (number is not None and number < 1):
        yield Problem(RUN, "attempt", number, "a number and what all attempts may spend, or neither")
        return
    if number is not None and total is not None and not plan.alpha <= total * 6 / (math.pi * number) ** 2:
        yield Problem(RUN, "alpha", plan.alpha, f"at most 6 / (pi * {number})^2 of {total}")
    each = total if total is not None else plan.alpha
    if family is not None and not each * run.samples <= family * (1 + SAME):
        yield Problem(RUN, "family_alpha", family, f"at least {each} for each image")


def _form(row: Row, plan: Plan, classes: int) -> Iterator[Problem]:
    """What makes a row impossible under any plan with these views."""
    yield from _numbers(row, plan)
    if row.batch < 1:
        yield Problem(row.sample, "batch", row.batch, "at least 1")
    if not (0 <= row.truth < classes if row.truth is not None else not plan.needs_truth):
        yield Problem(row.sample, "truth", row.truth, f"0 to {classes - 1}{'' if plan.needs_truth else ', or none'}")
    stages = [(tally.view, tally.stage) for tally in row.tallies]
    if len(set(stages)) < len(stages):
        yield Problem(row.sample, "tallies", stages, "one for each stage of a view")
    for tally in row.tallies:
        yield from _tally(row.sample, tally, plan, classes)
    if row.draws > plan.most_draws:
        yield Problem(row.sample, "draws", row.draws, f"at most {plan.most_draws}")


def _numbers(row: Row, plan: Plan) -> Iterator[Problem]:
    if not 0 <= row.radius < math.inf:
        yield Problem(row.sample, "radius", row.radius, "a finite number of at least 0")
    if row.bounds and len(row.bounds) != len(plan.views):
        yield Problem(row.sample, "bounds", row.bounds, f"one for each of {len(plan.views)} views, or none")
    for view, bound in enumerate(row.bounds):
        for name, value in bound._asdict().items():
            if not is_probability(value):
                yield Problem(row.sample, bound_field(name, view), value, "a number from 0 to 1")


def _tally(sample: str, tally: Tally, plan: Plan, classes: int) -> Iterator[Problem]:
    """Votes and looks are possible."""
    votes, draws, label = tally.votes, tally.draws, tally.label
    if not 0 <= tally.view < len(plan.views):
        yield Problem(sample, "tallies", f"of view {tally.view}", f"views 0 to {len(plan.views) - 1}")
    limit = draws or plan.most_draws  # where draws are 0, the same draws are counted in another tally
    if draws < 0 or len(votes) != classes or min(votes, default=0) < 0 or sum(votes) > limit:
        yield Problem(sample, tally_field(tally, "votes"), votes, f"{classes} counts of {limit} draws in all, at most")
    elif label is not None and not 0 <= label < classes:
        yield Problem(sample, tally_field(tally, "label"), label, f"0 to {classes - 1}")
    elif tally.looks:
        yield from _looks(sample, tally, classes)


def _looks(sample: str, tally: Tally, classes: int) -> Iterator[Problem]:
    """Looks add up over time, and end with the votes."""
    field = tally_field(tally, "looks")
    if tally.label is None:
        yield Problem(sample, field, tally.looks, "none where no label is tested")
        return
    for before, after in pairwise((Look(0, 0, 0), *tally.looks)):
        if not _follows(before, after, classes):
            yield Problem(sample, field, after, f"possible counts after {before}")
    if tally.looks[-1] != (last := look_at(tally.votes, tally.draws, tally.label)):
        yield Problem(sample, field, tally.looks[-1], f"{last}, as the votes are")


def look_at(votes: Sequence[int], n: int, label: int) -> Look:
    """What `n` draws with these votes say about a label."""
    return Look(n, votes[label], max((*votes[:label], *votes[label + 1 :])) + n - sum(votes))


def _follows(before: Look, after: Look, classes: int) -> bool:
    """Whether draws between two looks can have turned one into the other; a rival has all failures too."""
    draws, label, rival = (b - a for a, b in zip(before, after, strict=True))
    others = after.n - after.label
    shared = after.rival <= others <= after.rival * classes
    return draws > 0 and 0 <= label <= draws and 0 <= rival <= draws - label and shared


def _claim_fields(plan: Plan) -> set[str]:
    bounds = {bound_field(name, view) for name in ("p_lower", "p_upper") for view in range(len(plan.views))}
    return {"radius", *bounds}


def _differences(row: Row, plan: Plan) -> Iterator[Problem]:
    """Differences between the stored claim and the plan's own."""
    own = plan.certify_votes(row.tallies)
    expected = own.label if row.radius > 0 else None
    if row.label != expected:
        yield Problem(row.sample, "label", row.label, expected)
    if not _same(row.radius, own.radius):
        yield Problem(row.sample, "radius", row.radius, own.radius)
    if len(row.bounds) != len(own.bounds):
        yield Problem(row.sample, "bounds", row.bounds, own.bounds)
        return
    for view, (stored, proven) in enumerate(zip(row.bounds, own.bounds, strict=True)):
        for name, value in proven._asdict().items():
            if not _same(kept := getattr(stored, name), value):
                yield Problem(row.sample, bound_field(name, view), kept, value)


def _same(stored: float, own: float) -> bool:
    return abs(stored - own) <= SAME * abs(own)
