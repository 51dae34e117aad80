"""`robustify certify MODEL DATA`: rows to Parquet and a report; run again, it continues."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustify.cli.options import Alpha, Batch, Classes, Denoiser, Model, Seed, Sigma, Templates, build


def certify(
    model: Model,
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or .npz / .safetensors with images, labels.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command continues it.")] = Path("run"),
    denoiser: Denoiser = None,
    sigma: Sigma = 0.25,
    n: Annotated[int, typer.Option(help="Draws that certify each image.")] = 10_000,
    n0: Annotated[int, typer.Option(help="Draws that choose the label.")] = 100,
    alpha: Alpha = 0.001,
    batch: Batch = 64,
    seed: Seed = None,
    every: Annotated[int, typer.Option(help="Certify every k-th image only.", min=1)] = 1,
    classes: Classes = None,
    templates: Templates = "openai",
) -> None:
    """Certify a data set: one row per image, a progress bar, a report.

    Exit status: 0 done, 1 done but some images could not be read, 2 nothing could be done.
    """
    from robustify.data import open_samples
    from robustify.evaluate import Chapter, certify_dataset, write_report
    from robustify.evaluate.curves import certified_accuracy
    from robustify.evaluate.pictures import picture, telling

    smoothed = build(model, denoiser=denoiser, sigma=sigma, classes=classes, templates=templates)
    print(smoothed)
    samples = open_samples(data, smoothed.labels)[::every]
    run = certify_dataset(smoothed, samples, out, n=n, n0=n0, alpha=alpha, batch=batch, seed=seed)
    by_id = {sample.id: sample for sample in samples}
    pictures = [picture(smoothed, by_id[row.sample], row) for row in telling(run.rows, 6)]
    chapter = Chapter(name=smoothed.classifier.name, run=run, pictures=pictures)
    write_report(out / "report.html", [chapter], title=f"{smoothed.classifier.name} at sigma = {sigma:g}")
    labelled = [row for row in run.rows if row.truth is not None]
    for radius in (0.0, sigma, 2 * sigma) if labelled else ():
        print(f"certified accuracy at radius {radius:g}: {100 * certified_accuracy(labelled, radius):.1f} %")
    print(f"rows: {out / 'rows.parquet'}\nreport: {out / 'report.html'}")
    if run.unreadable:
        print(f"{len(run.unreadable)} images could not be used:", file=sys.stderr)
        for sample, reason in run.unreadable.items():
            print(f"  {sample}: {reason}", file=sys.stderr)
        raise typer.Exit(1)
