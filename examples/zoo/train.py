"""Rebuilds the zoo: `python examples/zoo/train.py [TARGET]`."""

import json
import os
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

import measure
import training
from robustify.zoo import FOLDER, HELD_OUT, fashion_mnist


class Target(StrEnum):
    """What to build."""

    DENOISER = "denoiser"
    TIMM = "timm"
    TRANSFORMERS = "transformers"
    OPEN_CLIP = "open_clip"
    IMAGES = "images"
    ALL = "all"


FOLDERS = {
    Target.DENOISER: "ddpm",
    Target.TIMM: "timm",
    Target.TRANSFORMERS: "transformers",
    Target.OPEN_CLIP: "open_clip",
}
"""Where each model goes, inside the zoo's folder."""

DATA = {"name": "Fashion-MNIST", "licence": "MIT (Expat)", "copyright": "2017 Zalando SE"}


def main(
    target: Annotated[Target, typer.Argument(help="What to build.")] = Target.ALL,
    data: Annotated[Path, typer.Option(help="Folder of Fashion-MNIST's idx files.")] = fashion_mnist.DEBIAN_FOLDER,
    out: Annotated[Path, typer.Option(help="Folder of the zoo.")] = FOLDER,
) -> None:
    """Trains the zoo's models on Fashion-MNIST's training split and records how, and what they reach."""
    out.mkdir(parents=True, exist_ok=True)
    if target in (Target.IMAGES, Target.ALL):
        save_images(data, out)
    for model, folder in FOLDERS.items():
        if target in (model, Target.ALL):
            trainer = import_module(f"train_{model}")
            update_record(out / "record.json", folder, trainer.train(data, out / folder))
    if out == FOLDER:  # elsewhere the zoo's own sources would not find the models
        measure.measure()


def save_images(data: Path, out: Path) -> None:
    """Writes `held_out.safetensors`: `images`, uint8 (500, 1, 32, 32), and `labels`, int64 (500)."""
    images, labels = training.held_out(fashion_mnist.read("test", data))
    save_file({"images": images, "labels": labels}, out / HELD_OUT.name)


def update_record(path: Path, model: str, entry: dict[str, object]) -> None:
    """Puts `entry`, with the machine it was made on, in the place of the model's former entry."""
    models = json.loads(path.read_text())["models"] if path.exists() else {}
    models[model] = {**entry, **machine()}
    path.write_text(json.dumps({"data": DATA, "models": models}, indent=2) + "\n")


def machine() -> dict[str, object]:
    """The date and what the training ran on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "torch": str(torch.__version__),
    }


if __name__ == "__main__":
    typer.run(main)
