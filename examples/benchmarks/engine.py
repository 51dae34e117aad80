"""What certifying costs beyond its forward passes, at 32×32 and at 224×224: `python examples/benchmarks/engine.py`

Certifies in the classical way, and runs plain forward passes of ready noisy images in batches of the same size, as few
as hold the draws, in the same process, in turn, three times; prints median ratios (about six minutes on two cores).
Every certificate begins with the check of the model, whose time counts, as does that of the probes among the draws: the
model is told to forget that it was checked before.

- 32×32: zoo images, the zoo's denoiser and classifier.
- 224×224: EfficientNet-Lite0 (`pip install ./plugins/efficientnet-lite`), batches of 32, n = 1,000 and n0 = 100, one
  image: the dearest case, for many images share what checks cost.
- 224×224 with next to no network: a classifier that takes about a millisecond a batch shows the cost of a draw.
- Memory: the peak of one certificate at 1,000 and at 20,000 draws of plain smoothing, each in a process of its own.

Writes `engine.json`.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file
from torch import Tensor, nn

from robustify import Preprocessing, SmoothedClassifier, robustify
from robustify.zoo import HELD_OUT

PHOTO = (3, 224, 224)
REPEATS = 3


class Light(nn.Module):
    """A classifier of the mean colours of 16 parts: about a millisecond for 32 images of 3×224×224."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        parts = x[..., ::8, ::8].reshape(len(x), 3, 4, 7, 4, 7).mean(dim=(3, 5))
        logits: Tensor = self.head(parts.flatten(1))
        return logits


def certify(model: SmoothedClassifier, images: Tensor, *, n: int, n0: int, batch: int) -> float:
    """Seconds for certificates of exactly n + n0 draws an image, the check of the model included."""
    model.forget_checks()
    started = time.perf_counter()
    model.certify(images, n=n, n0=n0, batch=batch)
    return time.perf_counter() - started


@torch.inference_mode()
def forwards(model: SmoothedClassifier, image: Tensor, passes: int, batch: int) -> float:
    """Seconds for so many plain forward passes of ready noisy images."""
    noisy = image.float().div(255) + 0.5 * torch.randn(batch, *image.shape)
    started = time.perf_counter()
    for _ in range(passes):
        model.logits(noisy).argmax(dim=1).cpu()
    return time.perf_counter() - started


def compared(model: SmoothedClassifier, images: Tensor, *, n: int, n0: int, batch: int) -> dict[str, Any]:
    """Certifying against plain forward passes of as many noisy images."""
    draws = (n + n0) * len(images)
    calls: list[object] = []
    hook = model.pipeline.classifier.register_forward_hook(lambda *_: calls.append(None))
    certify(model, images, n=n, n0=n0, batch=batch)  # warms up, and counts the passes
    hook.remove()
    passes = -(-draws // batch)
    forwards(model, images[0], 3, batch)
    pairs = [
        (certify(model, images, n=n, n0=n0, batch=batch), forwards(model, images[0], passes, batch))
        for _ in range(REPEATS)
    ]
    return {
        "images": len(images),
        "draws": draws,
        "batch": batch,
        "plain_passes": passes,
        "passes": len(calls),
        "over_plain_forwards": round(statistics.median(a / b for a, b in pairs), 3),
        "draws_per_second": round(draws / statistics.median(a for a, _ in pairs)),
        "ms_a_draw_beyond": round(1_000 * statistics.median(a - b for a, b in pairs) / draws, 3),
    }


def photos(count: int) -> Tensor:
    """Random bytes in the shape of photographs; time does not depend on what they show."""
    return torch.randint(0, 256, (count, *PHOTO), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def light() -> SmoothedClassifier:
    """The classifier that takes next to no time."""
    torch.manual_seed(0)
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=PHOTO[1:])
    return robustify(Light().eval(), preprocessing=preprocessing, sigma=0.5)


def peak_mib(n: int) -> float:
    """Peak memory of a process that certifies one image from n draws."""
    command = [sys.executable, __file__, "--only-memory", str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(
    only_memory: Annotated[int, typer.Option(help="Certify from so many draws and print the peak memory.")] = 0,
    images: Annotated[int, typer.Option(help="Zoo images.")] = 4,
    n: Annotated[int, typer.Option(help="Draws that certify a photograph.")] = 1_000,
) -> None:
    """Measures, prints and writes."""
    small = load_file(HELD_OUT)["images"][:images]
    if only_memory:
        robustify("zoo:timm", sigma=0.5).certify(small[0], n=only_memory, batch=64)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    zoo = robustify("zoo:timm", denoiser="zoo:ddpm", sigma=0.5)
    lite = robustify("efficientnet-lite:0", sigma=0.5)
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "cpus": os.cpu_count(), "torch": torch.__version__}
    found["zoo, denoiser, 1×32×32"] = compared(zoo, small, n=160, n0=160, batch=64)
    found["a light classifier, 3×224×224"] = compared(light(), photos(1), n=n, n0=100, batch=32)
    found["efficientnet-lite0, 3×224×224"] = compared(lite, photos(1), n=n, n0=100, batch=32)
    found |= {"peak_mib_at_n_1000": round(peak_mib(1_000)), "peak_mib_at_n_20000": round(peak_mib(20_000))}
    print(json.dumps(found, indent=2, ensure_ascii=False))
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
