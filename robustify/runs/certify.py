"""Certifies a data set, image by image, in a folder that survives interruption."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, final

from torch import Tensor
from tqdm import tqdm

from robustify.certificates import Certificate, Provenance
from robustify.data import Sample
from robustify.errors import InputError
from robustify.runs.folder import Run, open_run
from robustify.runs.preparation import Preparation, prepare
from robustify.runs.rows import Row, RowStore
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.fingerprint import pixels_fingerprint

SHOWN = 10
"""Unusable images that are named while a run goes on; the run's result names all."""


def certify_dataset(
    model: SmoothedClassifier,
    samples: Sequence[Sample],
    out: str | PathLike[str],
    settings: Settings | None = None,
    *,
    ledger: str | PathLike[str] | None = None,
    title: str = "certify",
) -> Run:
    """Certifies each sample and keeps one row for each in `out`; started again, it continues.

    An image that cannot be used is named and left out; the others are certified. The batch size may differ when a
    run continues: draws stay the same.

    Arguments:
        model: Model to certify, in evaluation mode.
        samples: Images, with ids that stay the same between runs.
        out: Folder of the run, made where missing.
        settings: How to certify; `Settings()` where None.
        ledger: Folder that counts attempts at each image, so that all of them together stay within alpha: see
            `robustify.runs.ledger`. A new `out` is a new attempt, an interrupted one that continues is not. All
            images are read once before, to know them by their pixels.
        title: Title of the progress bar.

    Raises:
        InputError: If a setting cannot be used or there are no samples; before any sampling.
        RunError: If the folder holds another run or cannot be written, or the ledger does not fit; rows written
            before stay.
    """
    _check_samples(samples)
    out, settings = Path(out), settings or Settings()
    prepared = prepare(model, samples, settings, None if ledger is None else Path(ledger), out)
    config = open_run(out, _config(model, samples, settings, prepared))
    provenance = replace(prepared.provenance, seed=int(config["seed"]), fresh=bool(config["fresh"]))
    store = RowStore(out)
    done = {row.sample: row.draws for row in store.rows()}
    missing = [sample for sample in samples if sample.id not in done]
    with _bar(title, provenance, len(missing), sum(done.values())) as bar:
        reader = _Reader(model, missing, provenance.soundness, bar)
        started = time.monotonic()
        for certificate in model.certificates(reader.images(), provenance, bar.update, prepared.truths):
            seconds = time.monotonic() - started
            started = time.monotonic()
            store.add(_row(certificate, *reader.seen.pop(certificate.sample), seconds))
            bar.total -= provenance.plan.most_draws - certificate.draws  # what an early decision saved
    store.finish()
    return Run(out, config, store.rows(), finished=True, unreadable=reader.unreadable)


def _check_samples(samples: Sequence[Sample]) -> None:
    if not samples:
        raise InputError("expected at least one image to certify; got none")
    if not isinstance(samples[0], Sample):
        raise InputError(
            f"expected samples, which name their images; got {type(samples[0]).__name__}.\n"
            "  robustify.data.open_samples(path, model.labels) reads them; Sample(id, image, label) makes one."
        )


def _bar(title: str, provenance: Provenance, missing: int, drawn: int) -> "tqdm[NoReturn]":
    """A bar over the draws of the images that are missing, at most, and those drawn before."""
    most = drawn + provenance.plan.most_draws * missing
    return tqdm(total=most, initial=drawn, desc=title, unit="draw", unit_scale=True)


def _row(certificate: Certificate, truth: int | None, pixels: str, seconds: float) -> Row:
    c = certificate
    return Row(
        sample=c.sample,
        truth=truth,
        label=c.label,
        radius=c.radius,
        bounds=c.bounds,
        tallies=c.tallies,
        batch=c.provenance.batch,
        pixels=pixels,
        seconds=seconds,
    )


@final
@dataclass
class _Reader:
    """Reads samples when the engine has room for them, and keeps what rows need of those in flight."""

    model: SmoothedClassifier
    samples: Sequence[Sample]
    soundness: str
    bar: Any
    seen: dict[str, tuple[int | None, str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def images(self) -> Iterator[tuple[str, Tensor]]:
        for sample in self.samples:
            try:
                image = self.model.prepare(sample.image, self.soundness)
            except InputError as error:
                self._left_out(sample.id, str(error))
                continue
            self.seen[sample.id] = sample.label, pixels_fingerprint(image)
            yield sample.id, image

    def _left_out(self, sample: str, reason: str) -> None:
        self.unreadable[sample] = reason
        if len(self.unreadable) <= SHOWN:
            more = "\n…and so on" if len(self.unreadable) == SHOWN else ""
            self.bar.write(f"left out {sample}: {reason}{more}", file=sys.stderr)


def _config(
    model: SmoothedClassifier, samples: Sequence[Sample], settings: Settings, prepared: Preparation
) -> dict[str, Any]:
    """Everything that decides whether rows belong to one run. The batch size does not."""
    p, attempt = prepared.provenance, prepared.attempt
    described = " | ".join(model.denoiser.describe(view.sigma) for view in p.plan.views)
    ids = sha256("\n".join(f"{s.id}\t{s.label}" for s in samples).encode())
    return {
        "robustify": version("robustify-vision"),
        "family": p.plan.family,
        "plan": p.plan.stored(),
        "classifier": {"name": model.classifier.name, "sha256": p.classifier},
        "denoiser": {"name": model.denoiser.name, "description": described, "sha256": p.denoiser},
        "numerics": asdict(p.numerics),
        "contract": asdict(p.contract),
        "labels": list(model.labels),
        "soundness": p.soundness,
        "samples": len(samples),
        "samples_sha256": ids.hexdigest(),
        "seed": str(p.seed),
        "fresh": p.fresh,
        "family_alpha": settings.alpha if settings.family_wise else None,
        "attempt": attempt.number if attempt else None,
        "attempts_alpha": attempt.total if attempt else None,
    }
