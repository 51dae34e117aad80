"""How fast a pipeline is, measured before a run: on a batch of draws, and at a lower precision against float32."""

import time

import torch
from torch import Tensor

from robustify.certificates.views import View
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress, NoiseStream
from robustify.smoothing.pipeline import Pipeline

IMAGES = 4
"""The most images that are timed together: a network of a gigabyte takes seconds for each."""

MATTERS = 0.05
"""Seconds per batch below which nothing is said: small networks are soon done, whatever their precision."""

SLOWER = 1.2
"""Ratio of times above which a lower precision is called slower."""


def slower_precision(pipeline: Pipeline, sigma: float, batch: int) -> str | None:
    """What to say where the pipeline's precision makes it slower than float32 would: the two speeds; None otherwise.

    Processors without instructions for bfloat16 or float16 emulate them. GPUs have them, and compiled networks are not
    timed, as each would have to be compiled twice.

    Arguments:
        pipeline: The base function; left as it is.
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        batch: Images per forward pass of the run; at most `IMAGES` of them are timed.
    """
    p = pipeline
    if p.precision == "float32" or p.compiled or p.device.type != "cpu":
        return None
    images = min(batch, IMAGES)
    if (lower := seconds(p, sigma, images)) < MATTERS:
        return None
    full = seconds(Pipeline(p.classifier, p.denoiser), sigma, images)
    if lower < SLOWER * full:
        return None
    return (
        f"{p.precision} is {lower / full:.1f} times slower than float32 on this processor: {images / lower:,.3g} "
        f"against {images / full:,.3g} draws a second, measured on one batch of {images}.\n"
        "  Use precision='float32' here."
    )


@torch.inference_mode()
def seconds(pipeline: Pipeline, sigma: float, images: int) -> float:
    """Time of one forward pass over so many gray images, after one that warms up."""
    gray = torch.full((images, *pipeline.contract.shape), 0.5, device=pipeline.device, dtype=torch.float32)
    pipeline(gray, sigma)
    started = time.perf_counter()
    pipeline(gray, sigma)
    return time.perf_counter() - started


@torch.inference_mode()
def seconds_a_batch(pipeline: Pipeline, view: View, image: Tensor, *, soundness: str, batch: int) -> float:
    """Time of a batch of draws of this image, noise and all, from three after one that warms up; no vote is kept."""
    # A stage of its own: its draws are no certificate's.
    noise = NoiseStream(law_of(view, soundness), image, NoiseAddress(0, "rehearsal", 0, "rehearsal"))
    started = 0.0
    for i in range(4):
        if i == 1:
            started = time.perf_counter()
        # What waits for the device is part of the time.
        pipeline(noise.take(batch), view.sigma).argmax(dim=1).cpu()
    return (time.perf_counter() - started) / 3
