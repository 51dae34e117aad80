"""The numbers of a report: one line for each run, with its accuracy at a few radii."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from robustify.certificates.family import Plan
from robustify.format import floor, table
from robustify.report.pictures import Picture
from robustify.runs.folder import Run
from robustify.runs.metrics import abstention_rate, average_certified_radius, certified_accuracy

COLUMNS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Radii of the table, where neither the question nor its noise says which."""


@final
@dataclass(frozen=True)
class Chapter:
    """One model in a report.

    Arguments:
        name: Its name in the report.
        run: Its certificates.
        baseline: The certificates of the same images without a denoiser.
        pictures: Pictures for the strip.
        clean: Accuracy of the classifier alone on these images, without noise, in [0, 1]; None where not measured.
    """

    name: str
    run: Run
    baseline: Run | None = None
    pictures: Sequence[Picture] = field(default_factory=tuple)
    clean: float | None = None

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """The runs with their names, the chapter's own first."""
        more = [(f"{self.name}, no denoiser", self.baseline)] if self.baseline else []
        return [(self.name, self.run), *more]


@final
@dataclass(frozen=True)
class Line:
    """What a table says of one run.

    Arguments:
        name: Name of the model.
        images: Number of images.
        clean: Accuracy of the classifier alone, in per cent; None where not measured.
        accuracy: Certified accuracy at each radius of the table, in per cent, rounded down; None without labels.
        acr: Average certified radius; None without labels.
        abstains: Share of images without a certificate, in per cent.
        seconds: Time per image.
    """

    name: str
    images: int
    clean: float | None
    accuracy: tuple[float | None, ...]
    acr: float | None
    abstains: float
    seconds: float


def columns(plan: Plan) -> tuple[float, ...]:
    """Radii of the table: those that were decided, or else multiples of half of sigma up to what can be proven."""
    step, most = plan.scale / 2, min(plan.ceiling, 4 * plan.scale)
    if plan.radii or not step:
        return plan.radii or COLUMNS
    return tuple(i * step for i in range(int(most / step) + 1))


def lines(chapter: Chapter, radii: Sequence[float]) -> list[Line]:
    """One line for each run of a chapter that has rows."""
    return [_line(name, run, chapter.clean, radii) for name, run in chapter.runs if run.rows]


def text_table(chapters: Sequence[Chapter]) -> str:
    """The numbers as a table of text; of each model, the run without a denoiser comes first."""
    radii = columns(chapters[0].run.plan)
    heading = ["model", "clean", *(f"r = {r:g}" for r in radii), "mean radius"]
    found = [line for chapter in chapters for line in reversed(lines(chapter, radii))]
    return table([heading, *map(_cells, found)])


def _line(name: str, run: Run, clean: float | None, radii: Sequence[float]) -> Line:
    rows = run.rows
    labelled = [row for row in rows if row.truth is not None]
    return Line(
        name=name,
        images=len(rows),
        clean=None if clean is None else floor(100 * clean, 1),
        accuracy=tuple(floor(100 * certified_accuracy(labelled, r), 1) if labelled else None for r in radii),
        acr=average_certified_radius(labelled) if labelled else None,
        abstains=100 * abstention_rate(rows),
        seconds=sum(row.seconds for row in rows) / len(rows),
    )


def _cells(line: Line) -> list[str]:
    radius = "–" if line.acr is None else f"{floor(line.acr):.3f}"
    return [line.name, *map(_percent, (line.clean, *line.accuracy)), radius]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1f} %"
