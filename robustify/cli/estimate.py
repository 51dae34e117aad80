"""`robustify estimate MODEL DATA`: what `certify` with the same options would cost."""

from pathlib import Path
from typing import Annotated

import typer

from robustify.cli.options import (
    Alpha,
    Batch,
    Classes,
    Compiled,
    Denoiser,
    FamilyWise,
    KnownLabel,
    Model,
    Precision,
    Seed,
    Sigma,
    Soundness,
    Templates,
    Tuned,
    build,
    check_exists,
)


def estimate(
    model: Model,
    data: Annotated[
        Path, typer.Argument(help="Folder of images or class folders, or .npz / .safetensors with images, labels.")
    ],
    denoiser: Denoiser = None,
    tuned: Tuned = None,
    sigma: Sigma = 0.25,
    precision: Precision = "float32",
    compiled: Compiled = False,
    radius: Annotated[
        list[float] | None, typer.Option(help="Decide at this radius, yes or no; may be given more than once.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="The classical certificate: exactly so many draws an image.")] = None,
    n_max: Annotated[int, typer.Option(help="The most draws an image, where --n is not given.")] = 10_000,
    n0: Annotated[
        int, typer.Option(help="Draws that choose the label; 0, with --radius: none, whichever leads is tested.")
    ] = 100,
    alpha: Alpha = 0.001,
    soundness: Soundness = "grid",
    batch: Batch = 64,
    seed: Seed = None,
    known_label: KnownLabel = False,
    family_wise: FamilyWise = False,
    every: Annotated[int, typer.Option(help="Certify every k-th image only.", min=1)] = 1,
    classes: Classes = None,
    templates: Templates = "openai",
) -> None:
    """Estimate draws, time, memory and disk of a run before it starts; takes the options of certify."""
    from robustify.data import open_samples
    from robustify.evaluate.estimate import estimate as measure
    from robustify.smoothing import Settings

    settings = Settings(radius, n, n_max, n0, alpha, soundness, batch, seed, known_label, family_wise)
    check_exists(data)
    smoothed = build(
        model,
        denoiser=denoiser,
        sigma=sigma,
        precision=precision,
        classes=classes,
        templates=templates,
        tuned=tuned,
        compiled=compiled,
    )
    samples = open_samples(data, smoothed.labels)[::every]
    print(measure(smoothed, samples, settings.over(max(1, len(samples)))))
