"""Rows and runs that were changed, and what verification says of them."""

from dataclasses import replace
from typing import Any

from robustify.certificates.family import Plan, Tally
from robustify.certificates.queries import SELECTION
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.claims import verify_row


def claimed(run: Run) -> Row:
    return max((row for row in run.rows if row.radius > 0), key=lambda row: row.p_upper < 1)


def fields(row: Row, run: Run) -> set[str]:
    return fields_of(row, run.plan, run)


def fields_of(row: Row, plan: Plan, run: Run) -> set[str]:
    return {problem.field for problem in verify_row(row, plan, run)}


def counted(row: Row, **changed: Any) -> Row:  # noqa: ANN401
    """The row with other tallies: their selection, or fields of the votes that were tested."""
    *chosen, tested = row.tallies
    if (selection := changed.pop("selection", None)) is not None:
        chosen = [(chosen[0] if chosen else Tally(0, SELECTION, 0, ()))._replace(votes=tuple(selection))]
    return replace(row, tallies=(*chosen, tested._replace(**changed)))


def claiming(row: Row, *, radius: float | None = None, **bound: float) -> Row:
    """The row with another radius or another bound."""
    return replace(row, radius=row.radius if radius is None else radius, bounds=(row.bounds[0]._replace(**bound),))


def configured(run: Run, **plan: Any) -> Run:  # noqa: ANN401
    """The run with another plan in its run.json."""
    changed = {**run.config["plan"], **plan}
    if changed["rule"] in ("fixed", "adaptive"):
        changed.pop("radii", None)
    return replace(run, config={**run.config, "plan": changed})
