"""`robustify migrate RUN`: certificates of a finished run for the same model, changed."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from robustify.cli.build import build, check_exists, resumable
from robustify.cli.options import Run, Without
from robustify.format import floor
from robustify.model_options import ModelOptions


def migrate(
    run: Run,
    model: Annotated[str, typer.Option(help="The run's classifier.")],
    data: Annotated[Path, typer.Option(help="The run's images.")],
    options: Annotated[ModelOptions, Without("sigma", "mix", "certificate", "gray")],
    to: Annotated[
        str | None, typer.Option(help="The changed classifier, where more than precision and compilation change.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Draws of each image that both models see; a tenth of the run's by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the new run; the same command continues it.")] = Path("migrated"),
) -> None:
    """Carry the certificates of a finished run over to a changed model, for a share of its draws.

    The run must be a classical one, certified with --n. --precision and --compiled are those of the changed model; the
    other options are those of both.

    Example: robustify migrate run --model zoo:timm --data photos/ --denoiser zoo:ddpm --precision bfloat16 --out new

    Exit status: 0 done, 2 nothing could be done, 130 or 143 interrupted.
    """
    check_exists(run)
    check_exists(data)
    from robustify.data import open_samples
    from robustify.report.html import write_report
    from robustify.report.numbers import Chapter
    from robustify.runs.folder import read_run
    from robustify.runs.migrate import migratable
    from robustify.runs.migrate import migrate as carry_over

    stored = read_run(run)
    sigma = migratable(stored).sigma
    gray = stored.config["pictures"]["gray"]
    changed = replace(options, sigma=sigma, gray=gray)
    before = replace(changed, precision=stored.numerics.precision, compiled=stored.numerics.compiled)
    old, new = build(model, before), build(to or model, changed)
    with resumable():
        found = carry_over(stored, old, new, open_samples(data, old.labels), out, draws=draws)
    write_report(
        out / "report.html",
        [Chapter(name=new.classifier.name, run=found)],
        title=f"{new.classifier.name}, sigma = {sigma:g}, {new.numerics}, migrated",
    )
    radii = [floor(sum(row.radius for row in each.rows) / len(each.rows)) for each in (stored, found)]
    print(f"{found}\nmean radius of all images: {radii[1]}, {radii[0]} before the change")
    print(f"rows: {out / 'rows.parquet'}\nreport: {out / 'report.html'}")
