"""Draws per second against batch size, precision, memory format and compilation.

Run it by `python examples/benchmarks/throughput.py`.

Times `certify` itself, noise and votes included. On the CPU it certifies a zoo image with the zoo's denoiser, on one
thread, and counts the CPU time of the process, as others may use the machine; the variants take turns, and the table
holds medians. Writes `throughput.json`.

With `--device cuda` it builds the networks of diffusion-denoised smoothing on ImageNet, the 552 M guided-diffusion
U-Net at 256×256 before timm's ViT-B/16, with random weights, counts wall time, and adds seconds per image at
n = 10,000 and the share of the accelerator's peak. That part has not been run: no accelerator was at hand.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from robustify import SmoothedClassifier, robustify
from robustify.zoo import HELD_OUT

BATCHES = [8, 32, 64, 256]
PRECISIONS = ("float32", "bfloat16")
VARIANTS = ("default", "contiguous", "compiled")


def zoo_model(precision: str) -> SmoothedClassifier:
    """The zoo's timm classifier behind its denoiser."""
    return robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5, precision=precision)


def imagenet_model(precision: str) -> SmoothedClassifier:
    """The architectures of the ImageNet results, with random weights."""
    import timm
    from diffusers import DDPMScheduler, UNet2DModel

    from robustify.denoisers.convert.checkpoints import FAMILIES
    from robustify.denoisers.convert.layout import empty_network

    family = FAMILIES["guided-diffusion"]
    unet = UNet2DModel.from_config(empty_network(family.layout).config).eval().to(memory_format=torch.channels_last)
    scheduler = DDPMScheduler(**family.schedule)
    classifier = timm.create_model("vit_base_patch16_224").eval()
    return robustify(classifier, denoiser=(unet, scheduler), sigma=0.5, precision=precision)


def vary(model: SmoothedClassifier, variant: str) -> SmoothedClassifier:
    """The same model as it is (its denoiser in channels-last memory), all of it in rows, or compiled in place."""
    if variant == "contiguous":
        model.to(memory_format=torch.contiguous_format)
    if variant == "compiled":
        # Not the denoiser as a whole: torch cannot compile its NumPy timestep.
        for network in (*model.denoiser.children(), model.classifier.network):
            network.compile(dynamic=False)
    return model


def seconds(
    model: SmoothedClassifier, image: torch.Tensor, passes: int, batch: int, clock: Callable[[], float]
) -> float:
    """Seconds a draw of a certificate whose two stages take so many forward passes."""
    started = clock()
    model.certify(image, n=(passes - 1) * batch, n0=batch, batch=batch, alpha=0.1)
    return (clock() - started) / (passes * batch)


def tera_per_draw(model: SmoothedClassifier, image: torch.Tensor) -> float:
    """Floating-point operations of one draw, in 10^12."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.logits(image.float()[None] / 255)
    return float(counter.get_total_flops()) / 1e12


def main(
    device: Annotated[str, typer.Option(help="cpu, or cuda for the networks of ImageNet.")] = "cpu",
    batches: Annotated[list[int], typer.Option("--batch", help="Images per forward pass.")] = BATCHES,
    rounds: Annotated[int, typer.Option(help="Times that each variant is measured.")] = 5,
    passes: Annotated[int, typer.Option(help="Forward passes a measurement.")] = 3,
    peak: Annotated[float, typer.Option(help="TFLOP/s that the accelerator promises in bfloat16.")] = 989.0,
) -> None:
    """Measures, prints and writes."""
    torch.set_num_threads(1)
    cpu = device == "cpu"
    clock = time.process_time if cpu else time.perf_counter
    make = zoo_model if cpu else imagenet_model
    models = {(p, v): vary(make(p).to(device), v) for p in PRECISIONS for v in VARIANTS}
    default = models["float32", "default"]
    image = load_file(HELD_OUT)["images"][0] if cpu else torch.zeros(default.contract.shape, dtype=torch.uint8)
    tera = tera_per_draw(default, image.to(device))
    table = []
    for batch in batches:
        found: dict[tuple[str, str], list[float]] = {key: [] for key in models}
        for turn in range(rounds + 1):
            for key, model in models.items():
                taken = seconds(model, image, passes, batch, clock)
                if turn > 0:  # the first compiles and warms up
                    found[key].append(taken)
        for (precision, variant), times in found.items():
            rate = 1 / statistics.median(times)
            line = {
                "batch": batch,
                "precision": precision,
                "variant": variant,
                "draws_per_second": round(rate, 1),
                "against_default_float32": round(rate * statistics.median(found["float32", "default"]), 2),
            }
            if not cpu:
                line |= {"seconds_at_10000": round(1e4 / rate, 2), "share_of_peak": round(rate * tera / peak, 3)}
            print(line, flush=True)
            table.append(line)
    result = {"device": device, "gigaflop_per_draw": round(1000 * tera, 4), "table": table}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
