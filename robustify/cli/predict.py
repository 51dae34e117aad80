"""`robustify predict MODEL IMAGES…`: labels, without radii."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustify.cli.options import (
    Alpha,
    Batch,
    Classes,
    Denoiser,
    Model,
    Precision,
    Seed,
    Sigma,
    Soundness,
    Templates,
    Tuned,
    build,
)


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    denoiser: Denoiser = None,
    tuned: Tuned = None,
    sigma: Sigma = 0.25,
    precision: Precision = "float32",
    n: Annotated[int, typer.Option(help="Draws per image.")] = 1_000,
    alpha: Alpha = 0.001,
    soundness: Soundness = "grid",
    batch: Batch = 64,
    seed: Seed = None,
    classes: Classes = None,
    templates: Templates = "openai",
) -> None:
    """Predict the labels of image files, or abstain.

    Exit status: 0 done, 1 done but some images could not be read, 2 nothing could be done.
    """
    from robustify.errors import InputError

    smoothed = build(
        model,
        denoiser=denoiser,
        sigma=sigma,
        precision=precision,
        classes=classes,
        templates=templates,
        tuned=tuned,
    )
    unreadable = 0
    for image in images:
        try:
            pixels = smoothed.prepare(image, soundness)
        except InputError as error:
            print(f"{image}: {error}", file=sys.stderr)
            unreadable += 1
            continue
        prediction = smoothed.predict(pixels, n=n, alpha=alpha, soundness=soundness, batch=batch, seed=seed)
        print(f"{image}: {prediction}")
    if unreadable == len(images):
        raise InputError(f"none of the {len(images)} images could be used")
    if unreadable:
        raise typer.Exit(1)
