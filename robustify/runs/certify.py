"""Certifies a data set, image by image, in a folder that survives interruption."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, final

from tqdm import tqdm

from robustify.certificates import Provenance
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.runs.folder import StoredRun
from robustify.runs.ledger import Attempt, Ledger, image_keys, model_key
from robustify.runs.rows import Row, RowStore, pixels_hash
from robustify.runs.status import status
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.types import Image

SHOWN = 10
"""Unusable images that are named while a run goes on; the run's result names all."""


@final
@dataclass(frozen=True)
class CertificationRun:
    """What came out of a run; as text, what it adds up to.

    Arguments:
        folder: Where it is kept.
        rows: One per certified image.
        unreadable: Sample id and reason for each image that could not be used.
        config: What was run.
    """

    folder: Path
    rows: list[Row] = field(repr=False)
    unreadable: dict[str, str]
    config: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        return str(status(StoredRun(self.folder, self.config, self.rows, finished=True)))


def certify_dataset(
    model: SmoothedClassifier,
    samples: Sequence[Sample],
    out: str | PathLike[str],
    settings: Settings | None = None,
    *,
    ledger: str | PathLike[str] | None = None,
    title: str = "certify",
) -> CertificationRun:
    """Certifies each sample and keeps one row for each in `out`; started again, it continues.

    An image that cannot be used is named and left out; the others are certified. The batch size may differ when a
    run continues: draws stay the same.

    Arguments:
        model: In evaluation mode.
        samples: With ids that stay the same between runs.
        out: Folder of the run, made where missing.
        settings: How to certify; `Settings()` where None.
        ledger: Folder that counts attempts at each image, so that all of them together stay within alpha: see
            `robustify.runs.ledger`. A new `out` is a new attempt, an interrupted one that continues is not. All
            images are read once before, to know them by their pixels.
        title: For the progress bar.

    Raises:
        InputError: If a setting cannot be used or there are no samples; before any sampling.
        RunError: If the folder holds another run or cannot be written, or the ledger does not fit; rows written
            before stay.
    """
    if not samples:
        raise InputError("expected at least one image to certify; got none")
    if not isinstance(samples[0], Sample):
        raise InputError(
            f"expected samples, which name their images; got {type(samples[0]).__name__}.\n"
            "  robustify.data.open_samples(path, model.labels) reads them; Sample(id, image, label) makes one."
        )
    out, settings = Path(out), settings or Settings()
    truths = _truths(samples) if settings.known_label else {}
    share = settings.over(len(samples))
    attempt = None if ledger is None else _attempt(model, samples, out, share, Ledger(Path(ledger)))
    if attempt is not None:
        share = replace(share, alpha=attempt.alpha)
    provenance = model.provenance(share)
    together = {
        "family_alpha": settings.alpha if settings.family_wise else None,
        "attempt": attempt.number if attempt else None,
        "attempts_alpha": attempt.total if attempt else None,
    }
    store = RowStore(out, {**_config(model, provenance, samples), **together})
    provenance = replace(provenance, seed=int(store.config["seed"]), fresh=bool(store.config["fresh"]))
    rows = store.rows()
    done, drawn = {row.sample for row in rows}, sum(row.n0 + row.drawn for row in rows)
    missing = [s for s in samples if s.id not in done]
    most = drawn + (provenance.plan.n0 + provenance.plan.n) * len(missing)
    with tqdm(total=most, initial=drawn, desc=title, unit="draw", unit_scale=True) as bar:
        reader = _Reader(model, missing, provenance.soundness, bar)
        started = time.monotonic()
        for name, certificate in model.certificates(reader.images(), provenance, bar.update, truths):
            seconds, started = time.monotonic() - started, time.monotonic()
            truth, pixels = reader.seen.pop(name)
            store.add(Row.of(certificate, truth=truth, pixels=pixels, seconds=seconds))
            bar.total -= provenance.plan.n - certificate.n  # what an early decision saved
    store.finish()
    return CertificationRun(out, store.rows(), reader.unreadable, store.config)


def _truths(samples: Sequence[Sample]) -> dict[str, int]:
    unlabelled = [sample.id for sample in samples if sample.label is None]
    if unlabelled:
        raise InputError(
            f"known_label tests the true label of every image; {len(unlabelled)} of {len(samples)} have none, "
            f"{unlabelled[0]} being the first.\n  Leave them out, or certify without known_label."
        )
    return {sample.id: sample.label for sample in samples if sample.label is not None}


def _attempt(
    model: SmoothedClassifier, samples: Sequence[Sample], out: Path, settings: Settings, ledger: Ledger
) -> Attempt:
    """The attempt that a run in `out` is: charged now if it is new, found in its configuration if it continues."""
    key, images = model_key(model.provenance(settings)), image_keys(model, samples, settings.soundness)
    made = ledger.attempts(key, images, settings.alpha)
    if not (out / "run.json").is_file():
        model.provenance(
            replace(settings, alpha=Attempt(made + 1, settings.alpha).alpha)
        )  # raises where it is too small
        return ledger.charge(key, images, settings.alpha)
    number = json.loads((out / "run.json").read_text(encoding="utf-8")).get("attempt")
    if number is None or number > made:
        raise RunError(
            f"the run in {str(out)!r} was not charged to the ledger {str(ledger.folder)!r}.\n"
            "  Continue it with the ledger that it was begun with, if any, or choose another folder."
        )
    return Attempt(number, settings.alpha)


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

    def images(self) -> Iterator[tuple[str, Image]]:
        for sample in self.samples:
            try:
                image = self.model.prepare(sample.image, self.soundness)
            except InputError as error:
                self.unreadable[sample.id] = str(error)
                if len(self.unreadable) <= SHOWN:
                    more = "\n…and so on" if len(self.unreadable) == SHOWN else ""
                    self.bar.write(f"left out {sample.id}: {error}{more}", file=sys.stderr)
                continue
            self.seen[sample.id] = sample.label, pixels_hash(image)
            yield sample.id, image


def _config(model: SmoothedClassifier, provenance: Provenance, samples: Sequence[Sample]) -> dict[str, Any]:
    """Everything that decides whether rows belong to one run. The batch size does not."""
    ids = sha256("\n".join(f"{s.id}\t{s.label}" for s in samples).encode())
    return {
        "robustify": version("robustify-vision"),
        "classifier": model.classifier.name,
        "classifier_sha256": provenance.classifier,
        "denoiser": f"{model.denoiser.name}: {model.denoiser.describe(model.sigma)}",
        "denoiser_sha256": provenance.denoiser,
        "dtype": provenance.dtype,
        "contract": str(provenance.contract),
        "labels": list(model.labels),
        "soundness": provenance.soundness,
        "rule": provenance.plan.rule,
        **asdict(provenance.plan),
        "samples": len(samples),
        "samples_sha256": ids.hexdigest(),
        "seed": str(provenance.seed),
        "fresh": provenance.fresh,
    }
