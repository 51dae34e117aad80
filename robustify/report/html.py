"""A one-page report: one self-contained HTML file that works without a network."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, PackageLoader
from PIL import Image as PILImage

from robustify.format import at_most, floor
from robustify.report.curves import curve_svg
from robustify.report.pictures import Picture, Raster
from robustify.runs.config import flat
from robustify.runs.folder import Run
from robustify.runs.metrics import abstention_rate, average_certified_radius, certified_accuracy
from robustify.runs.rows import Row
from robustify.runs.statements import remarks

COLUMNS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Radii of the table, where none were decided."""


@final
@dataclass(frozen=True)
class Chapter:
    """One model in a report.

    Arguments:
        name: Its name in the report.
        run: Its certificates.
        baseline: The certificates of the same images without a denoiser.
        pictures: Pictures for the strip.
    """

    name: str
    run: Run
    baseline: Run | None = None
    pictures: Sequence[Picture] = field(default_factory=tuple)


def write_report(file: str | PathLike[str], chapters: Sequence[Chapter], *, title: str) -> None:
    """Writes one HTML file with the curve, the pictures, the table and the configuration of each run."""
    labelled = [c for c in chapters if any(row.truth is not None for row in c.run.rows)]
    curves = {c.name: c.run.rows for c in labelled}
    baselines = {c.name: c.baseline.rows for c in labelled if c.baseline}
    columns = chapters[0].run.plan.radii or COLUMNS
    environment = Environment(loader=PackageLoader("robustify.report"), autoescape=True)
    environment.filters["png"] = _png
    environment.filters["flat"] = flat
    environment.filters["down"] = lambda value, digits=3: f"{floor(value, digits):.{digits}f}"
    html = environment.get_template("report.html").render(
        title=title,
        chapters=chapters,
        curve=curve_svg(curves, baselines) if curves else None,
        dashed=bool(baselines),
        table=[_line(name, run.rows, columns) for chapter in chapters for name, run in _runs(chapter) if run.rows],
        runs=[named for chapter in chapters for named in _runs(chapter)],
        columns=columns,
        meaning=meaning(chapters[0].run, labelled=bool(curves)),
    )
    Path(file).write_text(html, encoding="utf-8")


def meaning(run: Run, *, labelled: bool = True) -> str:
    """What the numbers of a run say, in a few sentences."""
    chance = f"each certificate is false with chance at most {at_most(run.plan.alpha)}."
    if labelled:
        told = (
            "Certified accuracy at radius r is the share of images whose prediction is right and provably stays so "
            "under every change of the pixels of ℓ2 norm up to r (pixels in [0, 1]);"
        )
    else:
        told = (
            "A radius r means that no change of the pixels of ℓ2 norm below r (pixels in [0, 1]) changes the "
            "prediction;"
        )
    return " ".join([told, chance, *remarks(run)])


def _runs(chapter: Chapter) -> list[tuple[str, Run]]:
    runs = [(chapter.name, chapter.run)]
    if chapter.baseline:
        runs.append((f"{chapter.name}, no denoiser", chapter.baseline))
    return runs


def _line(name: str, rows: list[Row], columns: Sequence[float]) -> dict[str, Any]:
    labelled = [row for row in rows if row.truth is not None]
    return {
        "name": name,
        "images": len(rows),
        "accuracy": [floor(100 * certified_accuracy(labelled, r), 1) if labelled else None for r in columns],
        "acr": average_certified_radius(labelled) if labelled else None,
        "abstains": 100 * abstention_rate(rows),
        "seconds": sum(row.seconds for row in rows) / len(rows),
    }


def _png(raster: Raster) -> str:
    """The picture as a data address, which needs no file."""
    stream = BytesIO()
    pixels = raster[:, :, 0] if raster.shape[2] == 1 else raster
    PILImage.fromarray(pixels).save(stream, format="PNG")
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode()
