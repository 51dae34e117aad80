"""The check of rows of certificates by exhaustion: did every transform up to the claim give the class of the image?

Numbers of transforms are counted anew, from the settings alone. That the transforms were those is only seen where they
are made again (`robustify.verify.replay`).
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import inf, nextafter, prod
from typing import Any

from robustify.certificates.exhaustive import ExhaustivePlan
from robustify.certificates.family import Tally
from robustify.certificates.queries import ESTIMATION
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.looks import look_at
from robustify.verify.problem import Problem


def totals_of(stored: Mapping[str, Any]) -> list[int]:
    """Numbers of transforms up to each ring, from what a plan stores."""
    axes = [stored.get(name, 0) for name in ("quarters", "shift", "shift", "brightness")]
    return [prod(2 * min(size, most) + 1 for most in axes) for size in range(max(axes) + 1)]


def problems(row: Row, plan: ExhaustivePlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    del run
    totals = totals_of(plan.stored())
    if wrong := [*_counts(row, totals)]:
        yield from wrong
        return
    agreed = [look for look in row.looks if look.label == look.n]
    most = max(0, len(agreed) - 1)
    if not row.radius <= nextafter(most, inf):
        yield Problem(row.sample, "radius", row.radius, f"at most {most}")
    expected = row.tested.label if most else None
    if row.label != expected:
        yield Problem(row.sample, "label", row.label, expected)
    if row.bounds:
        yield Problem(row.sample, "bounds", row.bounds, "none, as nothing is left to chance")


def _counts(row: Row, totals: list[int]) -> Iterator[Problem]:
    """Checks that rings were tried one after the other, as long as all agreed, and that the votes are theirs."""
    if [(tally.view, tally.stage) for tally in row.tallies] != [(0, ESTIMATION)]:
        yield Problem(row.sample, "tallies", row.tallies, "one, of all transforms")
        return
    tally = row.tested
    if tally.label is None:
        if tally.looks or tally.draws != 1 or any(tally.votes):
            yield Problem(row.sample, "votes", tally, "a single draw that failed, where no class was tested")
        return
    if (ns := [look.n for look in tally.looks]) != totals[: max(1, len(ns))] or ns[-1] != tally.draws:
        yield Problem(row.sample, "looks", ns, f"the first of {totals}, up to {tally.draws} draws")
        return
    yield from _looks(row, tally, totals[-1])


def _looks(row: Row, tally: Tally, last: int) -> Iterator[Problem]:
    """Checks that all looks but the last agreed, and that the last one is of the votes."""
    assert tally.label is not None  # noqa: S101 - as checked
    final = look_at(tally.votes, tally.draws, tally.label)
    if tally.looks[-1] != final:
        yield Problem(row.sample, "looks", tally.looks[-1], f"{final}, as the votes are")
    for look in (*tally.looks[:-1], *(tally.looks if len(tally.looks) == 1 else ())):
        if (look.label, look.rival) != (look.n, 0):
            yield Problem(row.sample, "looks", look, f"{look.n} votes for the label, as another ring was tried")
    if final.label == final.n < last:
        yield Problem(row.sample, "looks", final, f"further rings, up to {last} draws, as all agreed")
    for before, after in pairwise(tally.looks):
        if after.label < before.label:
            yield Problem(row.sample, "looks", after, f"possible counts after {before}")
