"""`robustify denoisers convert`: public checkpoints to stock diffusers folders."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Convert released denoisers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Convert released denoisers."""


@app.command()
def convert(
    family: Annotated[str, typer.Argument(help="guided-diffusion or improved-diffusion.")],
    checkpoint: Annotated[Path, typer.Argument(help="The released .pt file.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; then use it as --denoiser FOLDER.")],
) -> None:
    """Turn a released checkpoint into a folder that diffusers loads.

    Families: guided-diffusion (OpenAI, 256×256 unconditional) and improved-diffusion (CIFAR-10).

    Example: robustify denoisers convert guided-diffusion 256x256_diffusion_uncond.pt adm-256
    """
    from robustify.denoisers.convert.checkpoints import convert as run

    run(family, checkpoint, out)
    print(f"written; use it as --denoiser diffusers:{out}")
