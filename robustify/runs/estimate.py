"""What a run would cost, from three batches; no vote is kept."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from robustify.certificates.plans import FixedPlan, Plan
from robustify.data import Sample
from robustify.errors import InputError
from robustify.format import duration, memory
from robustify.runs.ledger import Attempt, Ledger, image_keys, model_key
from robustify.runs.rows import SCHEMA
from robustify.runs.statements import at_most
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.noise import NoiseAddress, NoiseStream, Soundness
from robustify.types import Image

_BATCHES = 3
_REHEARSAL = 99
"""A stage of its own: its draws are no certificate's."""


@final
@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Arguments:
        images: To certify.
        alpha: Allowed chance, per image, of a false certificate, after all sharing.
        attempt: Which one it would be by the ledger; None without a ledger.
        draws: Forward passes of single images, at most.
        exact: Whether it is exactly so many.
        batch: Images per forward pass.
        seconds: At most, at the speed measured.
        memory: Peak so far, in bytes, on the device.
        device: Where the model is.
        output: Bytes on disk, about, while the run lasts; less after it.
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
        model, samples, settings: As `certify_dataset` takes them.
        ledger: Of a new run; it is read, and all images with it, but nothing is charged.

    Raises:
        InputError: If a setting cannot be used, or no image can.
        RunError: If the ledger does not fit.
    """
    image = _first(model, samples, settings.soundness)
    share = settings.over(len(samples))
    attempt = None
    if ledger is not None:
        key, images = model_key(model.provenance(share)), image_keys(model, samples, share.soundness)
        attempt = Attempt(Ledger(ledger).attempts(key, images, share.alpha) + 1, share.alpha)
    provenance = model.provenance(share if attempt is None else replace(share, alpha=attempt.alpha))
    plan = provenance.plan
    each = plan.n0 + plan.n
    per_batch = _time(model, image, Soundness(provenance.soundness), provenance.batch)
    batches = -(-each * len(samples) // provenance.batch)
    return Estimate(
        images=len(samples),
        alpha=plan.alpha,
        attempt=attempt.number if attempt else None,
        draws=each * len(samples),
        exact=isinstance(plan, FixedPlan),
        batch=provenance.batch,
        seconds=batches * per_batch,
        memory=_peak(model.classifier.device),
        device=str(model.classifier.device),
        output=len(samples) * _row_size(plan, len(model.labels)),
    )


def _first(model: SmoothedClassifier, samples: Sequence[Sample], soundness: str) -> Image:
    if not samples:
        raise InputError("expected at least one image to certify; got none")
    for sample in samples:
        try:
            return model.prepare(sample.image, soundness)
        except InputError as error:
            last = error
    raise last


@torch.inference_mode()
def _time(model: SmoothedClassifier, image: Image, soundness: Soundness, batch: int) -> float:
    """Seconds a batch; the warm-up is not counted."""
    noise = NoiseStream(NoiseAddress(0, "rehearsal", _REHEARSAL), tuple(image.shape))
    started = 0.0
    for i in range(_BATCHES + 1):
        if i == 1:
            started = time.perf_counter()
        # What waits for the device is part of the time.
        model.logits(soundness.add(image, noise.take(batch), model.sigma)).argmax(dim=1).cpu()
    return (time.perf_counter() - started) / _BATCHES


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _row_size(plan: Plan, classes: int) -> int:
    """Of one row's file, with counts that hardly compress and half of the looks."""
    counts = [(i * 7919) % (plan.n + 1) for i in range(classes)]
    looks = [[n, n - n // 3, n // 3] for n in plan.schedule[: (len(plan.schedule) + 1) // 2]]
    row = {"sample": "x" * 40, "selection": counts, "votes": counts, "looks": looks, "seed": "7" * 39}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{**row, "pixels": "0" * 64}], schema=SCHEMA), sink, compression="zstd")
    return len(sink.getvalue())
