"""What commands share besides options: the model that a command line describes, and how interruption is told."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robustify.errors import InputError
from robustify.model_options import ModelOptions

if TYPE_CHECKING:
    from robustify.smoothing import SmoothedClassifier


def build(model: str, options: ModelOptions) -> "SmoothedClassifier":
    """The model that a command line describes; says that compiling takes a while where it will."""
    import torch

    from robustify.api import robustify

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = replace(options, device=device)
    smoothed = robustify(model, **{field.name: getattr(chosen, field.name) for field in fields(chosen)})
    if options.compiled:
        print("compiling: nothing moves for a minute or so at the first batch of each size", file=sys.stderr)
    return smoothed


def check_exists(data: Path) -> None:
    """Raises `InputError` where there is nothing, before anything is loaded."""
    if not data.exists():
        raise InputError(f"there is no file or folder {str(data)!r}")


@contextmanager
def resumable(kept: str = "finished images") -> Iterator[None]:
    """Says, when interrupted, that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted: {kept} are kept; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(130) from None
