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
Tuned: TypeAlias = Annotated[
    Path | None, typer.Option(help="Folder of a training run of this classifier: uses what was learned there.")
]
Sigma: TypeAlias = Annotated[float, typer.Option(help="Standard deviation of the noise, in [0, 1] pixels.")]
Precision: TypeAlias = Annotated[
    str, typer.Option(help="'float32', or 'bfloat16' or 'float16' by autocast: faster where the hardware has it.")
]
Compiled: TypeAlias = Annotated[
    bool,
    typer.Option("--compiled", help="Fuse the networks by torch.compile: a minute or so to start, faster after."),
]
Device: TypeAlias = Annotated[
    str | None, typer.Option(help="Where to compute, such as 'cuda:1'. Without: a GPU where there is one, else 'cpu'.")
]
Classes: TypeAlias = Annotated[
    str | None,
    typer.Option(help="For zero-shot models: names with commas between, or a text file with one per line."),
]
Templates: TypeAlias = Annotated[str, typer.Option(help="For zero-shot models: 'openai' or 'simple'.")]
Data: TypeAlias = Annotated[
    Path, typer.Argument(help="Folder of images or class folders, or .npz / .safetensors with images, labels.")
]
Every: TypeAlias = Annotated[int, typer.Option(help="Take every k-th image only.", min=1)]
Radius: TypeAlias = Annotated[
    list[float] | None,
    typer.Option(help="Decide at this ℓ2 radius, in [0, 1] pixels, yes or no; may be given more than once."),
]
Draws: TypeAlias = Annotated[
    int | None, typer.Option(help="The classical certificate: exactly so many draws an image.")
]
MostDraws: TypeAlias = Annotated[int, typer.Option(help="The most draws an image, where --n is not given.")]
ChoosingDraws: TypeAlias = Annotated[
    int, typer.Option(help="Draws that choose the label; 0, with --radius: none, whichever leads is tested.")
]
Alpha: TypeAlias = Annotated[float, typer.Option(help="Allowed chance, per image, of a false statement.")]
Soundness: TypeAlias = Annotated[
    str, typer.Option(help="'grid': 8-bit images, sound on real computers. 'float': any pixels, real arithmetic.")
]
Batch: TypeAlias = Annotated[int, typer.Option(help="Noisy images per forward pass; memory depends on it alone.")]
Seed: TypeAlias = Annotated[
    int | None, typer.Option(help="Reproduce a run. Without: fresh entropy, which a proof needs.")
]
KnownLabel: TypeAlias = Annotated[
    bool,
    typer.Option("--known-label", help="Test the true label at --radius, for evaluation: no draws choose the label."),
]
FamilyWise: TypeAlias = Annotated[
    bool,
    typer.Option("--family-wise", help="Share --alpha among the images: the chance that any certificate is false."),
]
Ledger: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Folder that counts attempts at each image: all of them together stay within --alpha."),
]
Out: TypeAlias = Annotated[Path, typer.Option(help="Folder of the run; the same command continues it.")]
Run: TypeAlias = Annotated[Path, typer.Argument(help="Folder of the run.")]


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
    device: str | None = None,
) -> "SmoothedClassifier":
    """The model that a command line describes; says that compiling takes a while where it will."""
    import torch

    from robustify.api import robustify

    smoothed = robustify(
        model,
        denoiser=denoiser,
        sigma=sigma,
        precision=precision,
        classes=class_names(classes) if classes else None,
        templates=templates,
        tuned=tuned,
        compiled=compiled,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
    if compiled:
        print("compiling: nothing moves for a minute or so at the first batch of each size", file=sys.stderr)
    return smoothed


def class_names(text: str) -> list[str]:
    """Names from a list with commas, or from a text file.

    Raises:
        InputError: If there are none, or the file holds no text.
    """
    try:
        parts = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"expected a text file (UTF-8) with one class name per line; {text!r} is none") from error
    except OSError:  # no such file, or no possible name of one
        parts = text.split(",")
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
