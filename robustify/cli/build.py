"""What commands share besides options: the model that a command line describes, and how interruption is told."""

import signal
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
def resumable() -> Iterator[None]:
    """Says, when interrupted by Ctrl-C or SIGTERM, what is kept, and exits with the status that shells expect."""
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        kept = str(error) or "what was finished is kept"
        print(f"\ninterrupted: {kept}; run the same command again to continue", file=sys.stderr)
        raise typer.Exit(128 + (stopped or [signal.SIGINT])[0]) from None
    finally:
        signal.signal(signal.SIGTERM, before)
