"""Certifies a data set, image by image, in a folder that survives interruption."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from tqdm import tqdm

from robustify.certificates import Evidence
from robustify.data import Sample
from robustify.errors import InputError
from robustify.evaluate.store import Row, RowStore
from robustify.smoothing import SmoothedClassifier
from robustify.types import Image


@final
@dataclass(frozen=True)
class CertificationRun:
    """What came out of a run.

    Arguments:
        rows: One per certified image.
        unreadable: Sample id and reason for each image that could not be used.
        config: What was run.
    """

    rows: list[Row]
    unreadable: dict[str, str]
    config: dict[str, Any] = field(repr=False)


def certify_dataset(
    model: SmoothedClassifier,
    samples: Sequence[Sample],
    out: Path,
    *,
    n: int = 10_000,
    n0: int = 100,
    alpha: float = 0.001,
    batch: int = 64,
    seed: int | None = None,
    title: str = "certify",
) -> CertificationRun:
    """Certifies each sample and keeps one row for each in `out`; started again, it continues.

    An image that cannot be used is named and left out; the others are certified. Arguments are those of
    `SmoothedClassifier.certify`; `batch` may differ when a run continues.

    Raises:
        InputError: If a setting cannot be used or there are no samples; before any sampling.
        RunError: If the folder holds another run or cannot be written; rows written before stay.
    """
    if not samples:
        raise InputError("expected at least one image to certify; got none")
    evidence = model.evidence(n=n, n0=n0, alpha=alpha, batch=batch, seed=seed)
    store = RowStore(out, _config(model, evidence, samples))
    evidence = replace(evidence, seed=int(store.config["seed"]), fresh=bool(store.config["fresh"]))
    done = {row.sample for row in store.rows()}
    unreadable: dict[str, str] = {}
    total = (n0 + n) * len(samples)
    with tqdm(total=total, initial=(n0 + n) * len(done), desc=title, unit="draw", unit_scale=True) as bar:
        for sample in samples:
            if sample.id in done:
                continue
            try:
                image = model.prepare(sample.image)
            except InputError as error:
                unreadable[sample.id] = str(error)
                bar.write(f"left out {sample.id}: {error}")
                bar.update(n0 + n)
                continue
            store.add(_certify(model, image, sample, replace(evidence, sample=sample.id), bar))
    store.finish()
    return CertificationRun(store.rows(), unreadable, store.config)


def _certify(model: SmoothedClassifier, image: Image, sample: Sample, evidence: Evidence, bar: Any) -> Row:  # noqa: ANN401
    started = time.monotonic()
    certificate = model.certify_pixels(image, evidence, bar.update)
    pixels = sha256(image.cpu().contiguous().numpy().data).hexdigest()
    return Row.of(certificate, truth=sample.label, pixels=pixels, seconds=time.monotonic() - started)


def _config(model: SmoothedClassifier, evidence: Evidence, samples: Sequence[Sample]) -> dict[str, Any]:
    """Everything that decides whether rows belong to one run. The batch size does not."""
    ids = sha256("\n".join(f"{s.id}\t{s.label}" for s in samples).encode())
    return {
        "robustify": version("robustify-vision"),
        "classifier": model.classifier.name,
        "classifier_sha256": evidence.classifier,
        "denoiser": f"{model.denoiser.name}: {model.denoiser.describe(model.sigma)}",
        "denoiser_sha256": evidence.denoiser,
        "dtype": evidence.dtype,
        "contract": str(evidence.contract),
        "labels": list(model.labels),
        "sigma": evidence.sigma,
        "n": evidence.n,
        "n0": evidence.n0,
        "alpha": evidence.alpha,
        "samples": len(samples),
        "samples_sha256": ids.hexdigest(),
        "seed": str(evidence.seed),
        "fresh": evidence.fresh,
    }
