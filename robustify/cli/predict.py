"""`robustify predict MODEL IMAGES…`: labels, without radii."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustify.cli.options import (
    Alpha,
    Batch,
    Classes,
    Compiled,
    Denoiser,
    Device,
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
    compiled: Compiled = False,
    device: Device = None,
    n: Annotated[int, typer.Option(help="Draws per image.")] = 1_000,
    alpha: Alpha = 0.001,
    soundness: Soundness = "grid",
    batch: Batch = 64,
    seed: Seed = None,
    classes: Classes = None,
    templates: Templates = "openai",
) -> None:
    """Predict the labels of image files, or abstain.

    Example: robustify predict zoo:open_clip a.png b.png --classes "t-shirt,bag,sandal" --denoiser zoo:ddpm

    Exit status: 0 done, 1 done but some images could not be read, 2 nothing could be done.
    """
    from robustify.errors import InputError
    from robustify.smoothing import Settings

    Settings(alpha=alpha, soundness=soundness, batch=batch, seed=seed)  # raises before the model is loaded
    smoothed = build(
        model,
        denoiser=denoiser,
        sigma=sigma,
        precision=precision,
        classes=classes,
        templates=templates,
        tuned=tuned,
        compiled=compiled,
        device=device,
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
