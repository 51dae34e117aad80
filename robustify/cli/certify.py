"""`robustify certify MODEL DATA`: rows to Parquet and a report; run again, it continues."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robustify.cli.build import build, check_exists, resumable
from robustify.cli.options import Data, Every, Ledger, Model, Out
from robustify.format import floor, table
from robustify.model_options import ModelOptions
from robustify.smoothing.settings import Settings

if TYPE_CHECKING:
    from robustify.runs.folder import Run

SHOWN = 20
"""Images whose answers are printed where their labels are not known."""


def certify(
    model: Model,
    data: Data,
    options: ModelOptions,
    settings: Settings,
    out: Out = Path("run"),
    ledger: Ledger = None,
    every: Every = 1,
) -> None:
    """Certify a data set: one row per image, a progress bar, a report.

    By default the largest radius that at most --n-max draws prove, stopping where more would gain little; with
    --radius, yes or no at radii, usually from far fewer draws; with --n, the classical certificate.

    Example: robustify certify zoo:timm photos/ --denoiser zoo:ddpm --sigma 0.5 --out run

    Exit status: 0 done, 1 done but some images could not be read, 2 nothing could be done, 130 or 143 interrupted.
    """
    check_exists(data)
    from robustify.data import open_samples
    from robustify.report.html import write_report
    from robustify.report.numbers import Chapter
    from robustify.report.pictures import picture, telling
    from robustify.runs.certify import certify_dataset
    from robustify.runs.metrics import certified_accuracy
    from robustify.runs.status import shown_radii

    smoothed = build(model, options)
    samples = open_samples(data, smoothed.labels)[::every]
    print(smoothed)
    with resumable():
        run = certify_dataset(smoothed, samples, out, settings, ledger=ledger)
    by_id = {sample.id: sample for sample in samples}
    pictures = [picture(smoothed, by_id[row.sample], row, run) for row in telling(run.rows, 6)]
    chapter = Chapter(name=smoothed.classifier.name, run=run, pictures=pictures)
    write_report(out / "report.html", [chapter], title=f"{smoothed.classifier.name}, {smoothed.family}")
    labelled = [row for row in run.rows if row.truth is not None]
    if len(labelled) < len(run.rows):
        print(_answers(run))
    if labelled:
        for r in shown_radii(run.plan):
            print(f"certified accuracy at radius {r:g}: {floor(100 * certified_accuracy(labelled, r), 1)} %")
        if run.plan.norm is None:
            print(f"the radius is: {run.plan.axis}")
    print(f"abstained: {sum(row.answer is None for row in run.rows):,} of {len(run.rows):,}")
    print(f"rows: {out / 'rows.parquet'}\nreport: {out / 'report.html'}")
    if run.unreadable:
        print(f"{len(run.unreadable)} of {len(samples)} images could not be used", file=sys.stderr)
        raise typer.Exit(1)


def _answers(run: "Run") -> str:
    """The label and radius of the first images, for people who do not know the labels themselves."""
    lines = [["image", "label", "no change below"]]
    for row in run.rows[:SHOWN]:
        label = "abstains" if row.answer is None else run.labels[row.answer]
        lines.append([row.sample, label, f"{floor(row.radius):.3f}"])
    more = [f"… and {len(run.rows) - SHOWN:,} more, in the rows"] if len(run.rows) > SHOWN else []
    return "\n".join([table(lines), *more])
