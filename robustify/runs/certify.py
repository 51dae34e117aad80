"""Certification of a data set, image by image, in a folder that survives interruption."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from robustify import __version__
from robustify.bars import bar
from robustify.certificates import Certificate, Provenance
from robustify.data import Sample
from robustify.data.sources import check_samples
from robustify.errors import InputError, RunError
from robustify.runs.config import FORMAT, open_config, read_config
from robustify.runs.folder import Run
from robustify.runs.ledger import Attempt
from robustify.runs.preparation import Attempts, spending
from robustify.runs.rows import Row, RowStore
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.fingerprint import pixels_fingerprint
from robustify.smoothing.inputs import picture_rules

if TYPE_CHECKING:
    from tqdm import tqdm

SHOWN = 10
"""Number of unusable images that are named while a run goes on; the run's result names all."""


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
        model: The smoothed classifier, in evaluation mode.
        samples: Images with ids that stay the same between runs.
        out: Folder of the run, made where missing.
        settings: How to certify; `Settings()` where None.
        ledger: Folder that counts attempts at each image, so that all of them together stay within alpha: see
            `robustify.runs.ledger`. A new `out` is a new attempt, an interrupted one that continues is not. All
            images are read once before, to know them by their pixels.
        title: Title of the progress bar.

    Raises:
        InputError: If a setting cannot be used, there are no samples, or two have one name; before any sampling.
        RunError: If the folder holds another run or cannot be written, or the ledger does not fit; rows written
            before stay.
    """
    check_samples(samples)
    out, settings = Path(out), settings or Settings()
    share = settings.over(len(samples))
    truths = _truths(samples) if model.plan(share).needs_truth else {}
    attempt = None if ledger is None else _attempt(Attempts.at(model, samples, share, ledger), model, share, out)
    provenance = model.provenance(spending(share, attempt))
    config = open_config(out, _config(model, provenance, samples, settings, attempt))
    provenance = replace(provenance, seed=int(config["seed"]), fresh=bool(config["fresh"]))
    store = RowStore(out)
    rows = store.rows()
    with _bar(title, provenance, rows, len(samples)) as bar:
        reader = _Reader(model, _missing(samples, rows), provenance.soundness, bar)
        started = time.monotonic()
        for certificate in model.certificates(reader.images(), provenance, bar.update, truths):
            seconds, started = time.monotonic() - started, time.monotonic()
            store.add(_row(certificate, *reader.seen.pop(certificate.sample), seconds))
            bar.total -= provenance.plan.most_draws - certificate.draws  # what an early decision saved
    store.finish()
    return Run(out, config, store.rows(), finished=True, unreadable=reader.unreadable)


def _truths(samples: Sequence[Sample]) -> dict[str, int]:
    unlabelled = [sample.id for sample in samples if sample.label is None]
    if unlabelled:
        raise InputError(
            f"known_label tests the true label of every image; {len(unlabelled)} of {len(samples)} have none, "
            f"{unlabelled[0]} being the first.\n  Leave them out, or certify without known_label."
        )
    return {sample.id: sample.label for sample in samples if sample.label is not None}


def _attempt(attempts: Attempts, model: SmoothedClassifier, share: Settings, out: Path) -> Attempt:
    """The attempt that a run in `out` is: charged now if it is new, found in its configuration if it continues."""
    if not (out / "run.json").is_file():
        model.plan(spending(share, attempts.next()))  # raises where the attempt's alpha is too small
        return attempts.charge()
    number, made = read_config(out).get("attempt"), attempts.made()
    if number is None or number > made:
        raise RunError(
            f"the run in {str(out)!r} was not charged to the ledger {str(attempts.ledger.folder)!r}.\n"
            "  Continue it with the ledger that it was begun with, if any, or choose another folder."
        )
    return Attempt(number, share.alpha)


def _config(
    model: SmoothedClassifier,
    provenance: Provenance,
    samples: Sequence[Sample],
    settings: Settings,
    attempt: Attempt | None,
) -> dict[str, Any]:
    """Everything that decides whether rows belong to one run. The batch size does not."""
    p, denoiser = provenance, model.denoiser
    sigmas = dict.fromkeys(view.sigma for view in p.plan.views)
    described = "; ".join(dict.fromkeys(denoiser.describe(sigma) for sigma in sigmas))
    return {
        "format": FORMAT,
        "robustify": __version__,
        "family": p.plan.family,
        "plan": p.plan.stored(),
        "classifier": {"name": model.classifier.name, "sha256": p.classifier},
        "denoiser": {"name": denoiser.name, "description": described, "sha256": p.denoiser},
        "numerics": asdict(p.numerics),
        "contract": asdict(p.contract),
        "pictures": picture_rules(model.classifier.preprocessing),
        "labels": list(model.labels),
        "soundness": p.soundness,
        "samples": len(samples),
        "samples_sha256": sha256("\n".join(f"{s.id}\t{s.label}" for s in samples).encode()).hexdigest(),
        "seed": str(p.seed),  # 128 bits are more than other readers of JSON keep of a number
        "fresh": p.fresh,
        "family_alpha": settings.alpha if settings.family_wise else None,
        "attempt": attempt.number if attempt else None,
        "attempts_alpha": attempt.total if attempt else None,
    }


def _missing(samples: Sequence[Sample], rows: Sequence[Row]) -> list[Sample]:
    done = {row.sample for row in rows}
    return [sample for sample in samples if sample.id not in done]


def _bar(title: str, provenance: Provenance, rows: Sequence[Row], images: int) -> "tqdm[Any]":
    """A bar over the draws of all images: those that the rows took, and the most that the others can take."""
    drawn = sum(row.draws for row in rows)
    most = drawn + provenance.plan.most_draws * (images - len(rows))
    return bar(title, most, "draw", done=drawn, unit_scale=True)


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
        """Name and pixels of each image that can be used."""
        for sample in self.samples:
            try:
                image = self.model.prepare(sample.image, self.soundness)
            except InputError as error:
                self._leave_out(sample, error)
                continue
            self.seen[sample.id] = sample.label, pixels_fingerprint(image)
            yield sample.id, image

    def _leave_out(self, sample: Sample, error: InputError) -> None:
        self.unreadable[sample.id] = str(error)
        if len(self.unreadable) <= SHOWN:
            more = "\n…and so on" if len(self.unreadable) == SHOWN else ""
            self.bar.write(f"left out {sample.id}: {error}{more}", file=sys.stderr)
