"""How fast noise is drawn on one core, against inverting the normal distribution: `python examples/benchmarks/noise.py`

Draws blocks of grid noise and adds them to an image, as certifying does; in turn with what robustify 0.1 did: 53-bit
uniforms of the same generator, the inverse normal distribution function, rounding, and the image scaled back and
forth, in its blocks of 32 draws. One thread. Prints the best of many repeats, in millions of values a second, and
writes `noise.json`.
"""

import json
import time
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustify.smoothing.noise import GridNoise, NoiseAddress, per_block

SHAPES = ((1, 28, 28), (3, 32, 32), (3, 224, 224))
SIGMAS = (0.25, 0.5, 1.0)
REPEATS = 25
OLD_BLOCK = 32
"""Draws that robustify 0.1 made at once."""


def best(task: Callable[[], object]) -> float:
    """The shortest time of several, in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        task()
        times.append(time.perf_counter() - started)
    return min(times)


def by_inversion(image: Tensor, sigma: float) -> Tensor:
    """Noisy copies as robustify 0.1 made them."""
    generator = np.random.Generator(np.random.Philox(key=1, counter=1 << 64))
    uniform = torch.from_numpy(generator.random((OLD_BLOCK, *image.shape)))
    normal = torch.special.ndtri(uniform.clamp_(min=2.0**-54))
    pixels = image.float() / 255
    noisy: Tensor = ((255 * pixels).round() + (255 * sigma * normal).round().float()) / 255
    return noisy


def main() -> None:
    """Measures, prints and writes."""
    torch.set_num_threads(1)
    found = []
    for shape in SHAPES:
        image = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        for sigma in SIGMAS:
            law, address = GridNoise(sigma), NoiseAddress(1, "a", 0, "estimation")
            draws = per_block(shape)
            law.block(address, 0, shape)  # makes the tables
            out = torch.empty(draws, *shape)
            ours = best(lambda law=law, a=address, i=image, s=shape, o=out: law.add(i, law.block(a, 1, s), o))  # type: ignore[misc]
            theirs = best(lambda image=image, s=sigma: by_inversion(image, s))  # type: ignore[misc]
            rate, old = draws * prod(shape) / ours / 1e6, OLD_BLOCK * prod(shape) / theirs / 1e6
            row = {"shape": shape, "sigma": sigma, "millions_a_second": round(rate)}
            found.append({**row, "by_inversion": round(old), "ratio": round(rate / old, 1)})
            print(found[-1])
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
