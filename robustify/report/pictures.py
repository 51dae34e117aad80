"""What one certificate looked like: the clean image, its first noisy draw, that draw denoised, the votes."""

from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch

from robustify.certificates.queries import ESTIMATION
from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.runs.rows import Row
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.noise import NoiseAddress, Soundness
from robustify.types import Image

Raster: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""Height × width × channels, 0 to 255, for showing only."""

TOP = 3


@final
@dataclass(frozen=True)
class Picture:
    """One row of the report's strip.

    Arguments:
        clean: As certified.
        noisy: The first draw that was counted, clipped for display.
        denoised: That draw after the denoiser; None without one.
        votes: The most frequent classes with their share of the draws.
        row: The certificate.
        truth: Name of the true class; None where unknown.
        label: Name of the certified class; None where the classifier abstained.
    """

    clean: Raster
    noisy: Raster
    denoised: Raster | None
    votes: tuple[tuple[str, float], ...]
    row: Row
    truth: str | None
    label: str | None


@torch.inference_mode()
def picture(model: SmoothedClassifier, sample: Sample, row: Row) -> Picture:
    """Draws again the first noise that `row` counted."""
    image = model.prepare(sample.image, row.soundness)
    normal = NoiseAddress(int(row.seed), row.sample, ESTIMATION).block(0, tuple(image.shape))[:1]
    noisy = Soundness(row.soundness).add(image, normal, row.sigma)
    plain = isinstance(model.denoiser, Identity)
    order = sorted(range(len(row.votes)), key=lambda c: -row.votes[c])[:TOP]
    return Picture(
        clean=_raster(image),
        noisy=_raster(noisy[0]),
        denoised=None if plain else _raster(model.denoiser(noisy, row.sigma)[0]),
        votes=tuple((model.labels[c], row.votes[c] / row.drawn) for c in order if row.votes[c]),
        row=row,
        truth=None if row.truth is None else model.labels[row.truth],
        label=None if row.label is None else model.labels[row.label],
    )


def telling(rows: list[Row], count: int) -> list[Row]:
    """Rows worth looking at: evenly spread from the largest radius to the first abstention."""
    ranked = sorted(rows, key=lambda row: -row.radius)
    if len(ranked) <= count:
        return ranked
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def _raster(image: Image) -> Raster:
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return np.asarray(pixels.cpu().numpy())
