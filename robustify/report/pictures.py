"""Pictures of certificates: the clean image, its first noisy draw, that draw denoised, the votes."""

from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from robustify.certificates.queries import ESTIMATION
from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.runs import version1
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.laws import law_of
from robustify.smoothing.noise import NoiseAddress, NoiseStream

Raster: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""Height × width × channels, 0 to 255, for showing only."""

TOP = 3
"""Number of classes whose votes are shown."""


@final
@dataclass(frozen=True)
class Picture:
    """One card of the report's strip.

    Arguments:
        clean: The image as certified.
        noisy: The first draw that was counted, clipped for display.
        denoised: That draw after the denoiser; None without one.
        sigma: Standard deviation of its noise, in [0, 1] pixels.
        votes: The most frequent classes with their share of the draws.
        row: The certificate.
        truth: Name of the true class; None where unknown.
        label: Name of the certified class; None where none is.
        uncertified: Name of the class that is answered where none is certified; None where nothing is answered.
    """

    clean: Raster
    noisy: Raster
    denoised: Raster | None
    sigma: float
    votes: tuple[tuple[str, float], ...]
    row: Row
    truth: str | None
    label: str | None
    uncertified: str | None = None


@torch.inference_mode()
def picture(model: SmoothedClassifier, sample: Sample, row: Row, run: Run) -> Picture:
    """A picture of a sample's certificate, for which the first noise that was counted is drawn again.

    Arguments:
        model: The run's own.
        sample: The image.
        row: Its certificate.
        run: The run of the row.

    Raises:
        RunError: If robustify 0.1 made the run.
    """
    version1.refuse(run.folder, run.config)
    image = model.prepare(sample.image, run.soundness)
    view = run.plan.views[0]
    noisy = NoiseStream(law_of(view, run.soundness), image, NoiseAddress(run.seed, row.sample, 0, ESTIMATION)).take(1)
    plain = isinstance(model.denoiser, Identity) or not view.sigma
    return Picture(
        clean=_raster(image),
        noisy=_raster(noisy[0]),
        denoised=None if plain else _raster(model.pipeline.denoise(noisy, view.sigma)[0]),
        sigma=view.sigma,
        votes=_leaders(row, model.labels),
        row=row,
        truth=None if row.truth is None else model.labels[row.truth],
        label=None if row.label is None else model.labels[row.label],
        uncertified=None if row.uncertified is None else model.labels[row.uncertified],
    )


def _leaders(row: Row, labels: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """The most frequent classes with their share of the draws."""
    order = sorted(range(len(row.votes)), key=lambda c: -row.votes[c])[:TOP]
    return tuple((labels[c], row.votes[c] / row.tested.draws) for c in order if row.votes[c])


def telling(rows: list[Row], count: int) -> list[Row]:
    """Some rows, evenly spread from the largest radius to the smallest."""
    ranked = sorted(rows, key=lambda row: -row.radius)
    if len(ranked) <= count:
        return ranked
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def _raster(image: Tensor) -> Raster:
    """Bytes as they are; floats clipped to [0, 1] and rounded."""
    if image.dtype != torch.uint8:
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.asarray(image.permute(1, 2, 0).cpu().numpy())
