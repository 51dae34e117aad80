"""`robustify predict MODEL IMAGES…`: labels, without radii."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from robustify.cli.build import build
from robustify.cli.options import Model
from robustify.model_options import ModelOptions
from robustify.smoothing.settings import PredictSettings


def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    options: ModelOptions,
    settings: PredictSettings,
) -> None:
    """Predict the labels of image files, or abstain.

    Example: robustify predict zoo:open_clip a.png b.png --classes "t-shirt,bag,sandal" --denoiser zoo:ddpm

    Exit status: 0 done, 1 done but some images could not be read, 2 nothing could be done.
    """
    from robustify.errors import InputError

    smoothed = build(model, options)
    asked = {field.name: getattr(settings, field.name) for field in fields(settings)}
    unreadable = 0
    for image in images:
        try:
            pixels = smoothed.prepare(image, settings.soundness)
        except InputError as error:
            print(f"{image}: {error}", file=sys.stderr)
            unreadable += 1
            continue
        prediction = smoothed.predict(pixels, **asked)
        print(f"{image}: {prediction}")
    if unreadable == len(images):
        raise InputError(f"none of the {len(images)} images could be used")
    if unreadable:
        raise typer.Exit(1)
