"""Pictures of one certificate: the clean image, its first noisy draw, that draw denoised, the votes."""

from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.smoothing import SmoothedClassifier

Raster: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""Height × width × channels, 0 to 255, for showing only."""

TOP = 3
"""Number of classes whose votes are shown."""


@final
@dataclass(frozen=True)
class Picture:
    """One row of the report's strip.

    Arguments:
        clean: Image as certified.
        noisy: First draw that was counted, clipped for display.
        denoised: The same draw after the denoiser; None without one.
        sigma: Standard deviation of its noise, in [0, 1] pixels.
        votes: Most frequent classes with their share of the draws.
        row: Stored result of the image.
        truth: Name of the true class; None where unknown.
        label: Name of the certified class; None where the classifier abstained.
    """

    clean: Raster
    noisy: Raster
    denoised: Raster | None
    sigma: float
    votes: tuple[tuple[str, float], ...]
    row: Row
    truth: str | None
    label: str | None


@torch.inference_mode()
def picture(model: SmoothedClassifier, sample: Sample, row: Row, run: Run) -> Picture:
    """Draws again the first noise that a row of a run counted, in the view of its last tally."""
    tally = row.tallies[-1]
    sigma = run.plan.views[tally.view].sigma
    image = model.prepare(sample.image, run.soundness)
    noisy = model.first_draw(image, row.sample, seed=run.seed, soundness=run.soundness, view=tally.view)
    plain = isinstance(model.denoiser, Identity)
    order = sorted(range(len(tally.votes)), key=lambda c: -tally.votes[c])[:TOP]
    return Picture(
        clean=_raster(image),
        noisy=_raster(noisy[0]),
        denoised=None if plain else _raster(model.pipeline.denoise(noisy, sigma)[0]),
        sigma=sigma,
        votes=tuple((model.labels[c], tally.votes[c] / tally.draws) for c in order if tally.votes[c]),
        row=row,
        truth=None if row.truth is None else model.labels[row.truth],
        label=None if row.label is None else model.labels[row.label],
    )


def telling(rows: list[Row], count: int) -> list[Row]:
    """Rows worth a picture, evenly spread from the largest radius to the first abstention."""
    ranked = sorted(rows, key=lambda row: -row.radius)
    if len(ranked) <= count:
        return ranked
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def _raster(image: Tensor) -> Raster:
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.asarray(pixels.permute(1, 2, 0).cpu().numpy())
