"""What the engine costs beyond its forward passes, and its memory as n grows: `python examples/benchmarks/engine.py`

Certifies zoo images with the zoo's denoiser in the classical way and runs the same number of plain forward passes of
the same batch in the same process, alternating, three times; prints the median ratio, and the peak memory of one
certificate at 1,000 and at 20,000 draws of plain smoothing, each in a process of its own. Writes `engine.json`.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file

from robustify import SmoothedClassifier, robustify
from robustify.zoo import HELD_OUT

IMAGES = 8


def certify(model: SmoothedClassifier, images: torch.Tensor, n: int, batch: int) -> float:
    """Seconds for certificates of exactly n + n0 draws an image."""
    started = time.perf_counter()
    model.certify(images, n=n, n0=n, batch=batch)
    return time.perf_counter() - started


@torch.inference_mode()
def forwards(model: SmoothedClassifier, images: torch.Tensor, passes: int, batch: int) -> float:
    """Seconds for as many plain forward passes."""
    noisy = images[:1].float().div(255) + 0.5 * torch.randn(batch, *images.shape[1:])
    started = time.perf_counter()
    for _ in range(passes):
        model.logits(noisy)
    return time.perf_counter() - started


def peak_mib(n: int) -> float:
    """Peak memory of a process that certifies one image from n draws."""
    command = [sys.executable, __file__, "--only-memory", str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(
    batch: Annotated[int, typer.Option(help="Images per forward pass.")] = 64,
    n: Annotated[int, typer.Option(help="Draws of each stage and image.")] = 160,
    only_memory: Annotated[int, typer.Option(help="Certify from so many draws and print the peak memory.")] = 0,
) -> None:
    """Measures, prints and writes."""
    images = load_file(HELD_OUT)["images"][:IMAGES]
    if only_memory:
        robustify("zoo:timm", sigma=0.5).certify(images[0], n=only_memory, batch=batch)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    model = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5)
    passes = 2 * n * IMAGES // batch
    forwards(model, images, 4, batch)
    pairs = [(certify(model, images, n, batch), forwards(model, images, passes, batch)) for _ in range(3)]
    found = {
        "batch": batch,
        "draws": 2 * n * IMAGES,
        "certify_over_plain_forwards": round(statistics.median(a / b for a, b in pairs), 3),
        "draws_per_second": round(2 * n * IMAGES / statistics.median(a for a, _ in pairs)),
        "peak_mib_at_n_1000": round(peak_mib(1_000)),
        "peak_mib_at_n_20000": round(peak_mib(20_000)),
    }
    print(found)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
