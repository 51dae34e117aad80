"""Options that several commands share."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from robustify.errors import InputError

if TYPE_CHECKING:
    from robustify.smoothing import SmoothedClassifier

Model: TypeAlias = Annotated[
    str, typer.Argument(help="Classifier, 'source:name': timm:…, open_clip:…, hf:…, zoo:…, or a plugin's.")
]
Denoiser: TypeAlias = Annotated[
    str | None,
    typer.Option(help="'diffusers:FOLDER or Hub id', 'zoo:ddpm', or a plugin's. Without: plain smoothing."),
]
Sigma: TypeAlias = Annotated[float, typer.Option(help="Standard deviation of the noise, in [0, 1] pixels.")]
Precision: TypeAlias = Annotated[
    str, typer.Option(help="'float32', or 'bfloat16' or 'float16' by autocast: faster where the hardware has it.")
]
Compiled: TypeAlias = Annotated[
    bool, typer.Option("--compiled", help="Fuse the networks by torch.compile: slow to start, faster after.")
]
Alpha: TypeAlias = Annotated[float, typer.Option(help="Allowed chance, per image, of a false statement.")]
Batch: TypeAlias = Annotated[int, typer.Option(help="Noisy images per forward pass; memory depends on it alone.")]
Seed: TypeAlias = Annotated[
    int | None, typer.Option(help="Reproduce a run. Without: fresh entropy, which a proof needs.")
]
Soundness: TypeAlias = Annotated[
    str, typer.Option(help="'grid': 8-bit images, sound on real computers. 'float': any pixels, real arithmetic.")
]
KnownLabel: TypeAlias = Annotated[
    bool,
    typer.Option("--known-label", help="Test the true label at --radius, for evaluation: no draws choose the label."),
]
FamilyWise: TypeAlias = Annotated[
    bool,
    typer.Option("--family-wise", help="Share --alpha among the images: the chance that any certificate is false."),
]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(help="For zero-shot models: names with commas between, or a text file with one per line."),
]
Tuned: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of a training run of this classifier: uses what was learned there.")
]
Templates: TypeAlias = Annotated[str, typer.Option(help="For zero-shot models: 'openai' or 'simple'.")]


def build(
    model: str,
    *,
    denoiser: str | None,
    sigma: float,
    classes: str | None,
    templates: str,
    precision: str = "float32",
    tuned: Path | None = None,
    compiled: bool = False,
) -> "SmoothedClassifier":
    """The model that a command line describes."""
    from diffusers.utils import logging

    from robustify.api import robustify

    logging.disable_progress_bar()
    return robustify(
        model,
        denoiser=denoiser,
        sigma=sigma,
        precision=precision,
        classes=class_names(classes) if classes else None,
        templates=templates,
        tuned=tuned,
        compiled=compiled,
    )


def class_names(text: str) -> list[str]:
    """Names from a list with commas, or from a text file.

    Raises:
        InputError: If there are none.
    """
    file = Path(text)
    parts = file.read_text(encoding="utf-8").splitlines() if file.is_file() else text.split(",")
    names = [part.strip() for part in parts if part.strip()]
    if not names:
        raise InputError(f"expected class names, or a text file with one per line; got {text!r}")
    return names


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
