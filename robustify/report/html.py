"""A one-page report: one self-contained HTML file that works without a network."""

import math
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image as PILImage

from robustify.certificates.views import levels_of
from robustify.format import at_most, floor
from robustify.report.curves import curve_svg
from robustify.report.numbers import Chapter, columns, lines
from robustify.report.pictures import Raster
from robustify.runs.config import flat
from robustify.runs.folder import Run
from robustify.runs.statements import remarks


def write_report(file: str | PathLike[str], chapters: Sequence[Chapter], *, title: str) -> None:
    """Writes one HTML file with the curve, the pictures, the table and the configuration of each run."""
    labelled = [c for c in chapters if any(row.truth is not None for row in c.run.rows)]
    curves = {c.name: c.run.rows for c in labelled}
    baselines = {c.name: c.baseline.rows for c in labelled if c.baseline}
    radii = columns(chapters[0].run.plan)
    runs = [named for chapter in chapters for named in chapter.runs]
    environment = Environment(loader=PackageLoader("robustify.report"), autoescape=True)
    environment.filters["png"] = _png
    environment.filters["down"] = lambda value, digits=3: f"{floor(value, digits):.{digits}f}"
    html = environment.get_template("report.html").render(
        title=title,
        chapters=chapters,
        curve=curve_svg(curves, baselines, [run.plan for _, run in runs]) if curves else None,
        dashed=bool(baselines),
        table=[line for chapter in chapters for line in lines(chapter, radii)],
        clean=any(chapter.clean is not None for chapter in chapters),
        runs=runs,
        settings=_settings(runs),
        left_out=any(run.unreadable for _, run in runs),
        ceiling=any(run.plan.ceiling < math.inf and not run.plan.radii for _, run in runs),
        columns=radii,
        levels=any(len(levels_of(run.plan.views)) > 1 for _, run in runs),
        meaning=meaning(chapters[0].run, labelled=bool(curves)),
    )
    Path(file).write_text(html, encoding="utf-8")


def meaning(run: Run, *, labelled: bool = True) -> str:
    """What the numbers of a run say, in a few sentences."""
    alpha = run.plan.alpha
    chance = f"each certificate is false with chance at most {at_most(alpha)}." if alpha else "none rests on chance."
    if labelled:
        told = (
            "Certified accuracy at radius r is the share of images whose prediction is right and provably stays so "
            f"under every {run.plan.changes('up to r')};"
        )
    else:
        told = f"A radius r means that no {run.plan.changes('below r')} changes the prediction;"
    return " ".join([told, chance, *remarks(run)])


def _settings(runs: Sequence[tuple[str, Run]]) -> dict[str, list[object]]:
    """What was run, by the name of the setting: one value where all runs share it, otherwise one for each run."""
    configs = [flat(run.config) for _, run in runs]
    names = [name for name in dict.fromkeys(name for config in configs for name in config) if name != "labels"]
    found = {name: [config.get(name) for config in configs] for name in names}
    return {name: values[:1] if all(v == values[0] for v in values) else values for name, values in found.items()}


def _png(raster: Raster) -> str:
    """The picture as a data address, which needs no file."""
    stream = BytesIO()
    pixels = raster[:, :, 0] if raster.shape[2] == 1 else raster
    PILImage.fromarray(pixels).save(stream, format="PNG")
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode()
