"""The cost of a run, measured by three batches; no vote is kept."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from robustify.certificates.family import Bound, Look, Plan, Tally
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.data import Sample
from robustify.errors import InputError
from robustify.format import at_most, duration, memory
from robustify.runs.preparation import prepare
from robustify.runs.rows import Row, to_parquet
from robustify.smoothing import Settings, SmoothedClassifier


@final
@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Arguments:
        images: Number of images to certify.
        alpha: Allowed chance, per image, of a false certificate, after all sharing.
        attempt: Number of the attempt that the run would be, by the ledger; None without a ledger.
        draws: Largest number of forward passes of single images.
        exact: Whether the run takes exactly so many.
        batch: Images per forward pass.
        seconds: Longest time, at the speed measured.
        memory: Peak memory so far, in bytes, on the device.
        device: Name of the device that the model is on.
        output: Approximate number of bytes on disk while the run lasts; less after it.
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

    def __str__(self) -> str:
        most = "" if self.exact else "at most "
        attempt = f", as attempt {self.attempt}" if self.attempt else ""
        return "\n".join(
            [
                f"images: {self.images:,}",
                f"alpha: {at_most(self.alpha)} an image{attempt}",
                f"draws: {most}{self.draws:,}, in batches of {self.batch}",
                f"time: {most}{duration(self.seconds)} ({self.draws / self.seconds:,.0f} draws a second)",
                f"peak memory: {memory(self.memory)} on {self.device}",
                f"disk: about {memory(self.output)}",
            ]
        )


def estimate(
    model: SmoothedClassifier, samples: Sequence[Sample], settings: Settings, *, ledger: Path | None = None
) -> Estimate:
    """Times three full batches after a warm-up, noise and all, on the first image that can be used.

    Arguments:
        model: Model to certify, in evaluation mode.
        samples: Images, as `certify_dataset` takes them.
        settings: How to certify.
        ledger: Folder of the ledger of a new run; it is read, and all images with it, but nothing is charged.

    Raises:
        InputError: If a setting cannot be used, or no image can.
        RunError: If the ledger does not fit.
    """
    image = _first(model, samples, settings.soundness)
    prepared = prepare(model, samples, settings, ledger)
    plan, batch = prepared.provenance.plan, prepared.provenance.batch
    draws = plan.most_draws * len(samples)
    batches = -(-draws // batch)
    return Estimate(
        images=len(samples),
        alpha=plan.alpha,
        attempt=prepared.attempt.number if prepared.attempt else None,
        draws=draws,
        exact=plan.exact,
        batch=batch,
        seconds=batches * model.time_batch(image, soundness=prepared.provenance.soundness, batch=batch),
        memory=_peak(model.classifier.device),
        device=str(model.classifier.device),
        output=len(samples) * _row_size(plan, len(model.labels)),
    )


def _first(model: SmoothedClassifier, samples: Sequence[Sample], soundness: str) -> Tensor:
    if not samples:
        raise InputError("expected at least one image to certify; got none")
    for sample in samples:
        try:
            return model.prepare(sample.image, soundness)
        except InputError as error:
            last = error
    raise last


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _row_size(plan: Plan, classes: int) -> int:
    """Approximate size, in bytes, of the file of one row, with counts that hardly compress."""
    n = plan.most_draws
    counts = tuple((i * 7919) % (n + 1) for i in range(classes))
    read = (n,) if plan.exact else [n >> i for i in reversed(range(n.bit_length()))]
    looks = tuple(Look(k, k - k // 3, k // 3) for k in read)
    stages = ((SELECTION, None, ()), (ESTIMATION, 0, looks))
    views = range(len(plan.views))
    tallies = tuple(Tally(view, stage, n, counts, label, seen) for view in views for stage, label, seen in stages)
    bounds = tuple(Bound(0.123456789, 0.987654321) for _ in views)
    row = Row("x" * 40, 0, 0, 0.123456789, bounds, tallies, batch=64, pixels="0" * 64, seconds=0.123456789)
    return len(to_parquet([row]))
