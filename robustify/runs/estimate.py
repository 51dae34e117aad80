"""What a run would cost, measured on a few batches; no vote is kept."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import final

import numpy as np
from torch import Tensor

from robustify.bars import AFTER, bar
from robustify.certificates.family import Plan
from robustify.certificates.views import View
from robustify.data import Sample
from robustify.data.sources import check_samples
from robustify.errors import InputError
from robustify.format import at_most, duration, memory
from robustify.runs.ending import Unusable
from robustify.runs.memory import PeakMemory
from robustify.runs.preparation import Attempts, spending
from robustify.runs.rows import Row, row_bytes
from robustify.runs.work import SHOWN, truth_of
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.speed import seconds_a_batch, slower_precision

_LIKELY = 0.9
"""Share of the draws that vote for the label, in the row whose size is measured."""


@final
@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Arguments:
        images: Number of images to certify.
        alpha: Allowed chance, for each image, of a false certificate, after all sharing.
        attempt: Number of the attempt that the run would be by the ledger; None without a ledger.
        draws: The most forward passes of single images.
        exact: Whether it is exactly so many.
        batch: Images per forward pass.
        seconds: The most time, at the speed measured.
        memory: Most in use meanwhile, in bytes, on the device.
        device: Where the model is.
        output: Approximate bytes on disk while the run lasts; less after it.
        unusable: Images that cannot be used and would be left out.
    """

    images: int
    alpha: float
    attempt: int | None
    draws: int
    exact: bool
    batch: int
    seconds: float
    memory: int
    device: str
    output: int
    unusable: Sequence[Unusable] = ()

    def __str__(self) -> str:
        most = "" if self.exact else "at most "
        attempt = f", as attempt {self.attempt}" if self.attempt else ""
        lacking = f", of which {len(self.unusable):,} cannot be used" if self.unusable else ""
        return "\n".join(
            [
                f"images: {self.images:,}{lacking}",
                f"alpha: {at_most(self.alpha)} an image{attempt}",
                f"draws: {most}{self.draws:,}, in batches of {self.batch}",
                f"time: {most}{duration(self.seconds)} ({self.draws / self.seconds:,.0f} draws a second)",
                f"peak memory: {memory(self.memory)} on {self.device}",
                f"disk: about {memory(self.output)}",
                *(f"left out {image}" for image in self.unusable[:SHOWN]),
                *(["…and so on"] if len(self.unusable) > SHOWN else []),
            ]
        )


def estimate(
    model: SmoothedClassifier,
    samples: Sequence[Sample],
    settings: Settings,
    *,
    ledger: str | PathLike[str] | None = None,
) -> Estimate:
    """The cost of a run, from the time of a few full batches of the first image that can be used; all are read.

    Arguments:
        model, samples, settings: As `certify_dataset` takes them.
        ledger: Ledger of a new run; it is read, but nothing is charged.

    Raises:
        InputError: If a setting cannot be used, or no image can.
        RunError: If the ledger does not fit.
    """
    check_samples(samples)
    image, unusable = _read(model, samples, settings.soundness)
    share = settings.over(len(samples))
    attempt = None if ledger is None else Attempts.at(model, samples, share, ledger).next()
    provenance = model.provenance(spending(share, attempt))
    plan, batch = provenance.plan, provenance.batch
    usable = len(samples) - len(unusable)
    draws = plan.most_draws * usable
    if told := slower_precision(model.pipeline, model.sigma, batch):
        warnings.warn(told, stacklevel=2)
    with PeakMemory(model.classifier.device) as used:
        seconds = seconds_a_batch(model.pipeline, View(model.sigma), image, soundness=provenance.soundness, batch=batch)
    return Estimate(
        images=len(samples),
        alpha=plan.alpha,
        attempt=attempt.number if attempt else None,
        draws=draws,
        exact=plan.exact,
        batch=batch,
        seconds=-(-draws // batch) * seconds,
        memory=used.bytes,
        device=str(model.classifier.device),
        output=usable * _row_size(plan, len(model.labels)),
        unusable=unusable,
    )


def _read(model: SmoothedClassifier, samples: Sequence[Sample], soundness: str) -> tuple[Tensor, list[Unusable]]:
    """The first image that can be used, and all that cannot."""
    first: Tensor | None = None
    unusable: list[Unusable] = []
    with bar("read", len(samples), "image", delay=AFTER, leave=False) as shown:
        for sample in samples:
            try:
                image = model.prepare(sample.image, soundness)
                first = image if first is None else first
            except InputError as error:
                unusable.append(Unusable(sample.id, truth_of(sample), str(error)))
            shown.update()
    if first is None:
        raise InputError(f"none of the {len(samples)} images could be used; {unusable[0]}")
    return first, unusable


def _row_size(plan: Plan, classes: int) -> int:
    """Bytes of the file of one row whose label wins most of the votes, the others being scattered over all classes."""
    chances = np.full(classes, (1 - _LIKELY) / classes)
    chances[0] += _LIKELY
    generator = np.random.default_rng(0)
    query = plan.query(classes, 0 if plan.needs_truth else None)
    while asks := query.ask():
        for ask in asks:
            query.tell(ask, generator.multinomial(ask.draws, chances).tolist())
    claim, tallies = plan.certify_votes(query.tallies), query.tallies
    row = Row("x" * 40, 0, claim.label, claim.radius, claim.bounds, tallies, batch=64, pixels="0" * 64, seconds=1.0)
    return len(row_bytes([row]))
