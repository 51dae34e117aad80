"""What certifying a data set and estimating its cost settle before the first draw: alpha, attempt, plan, true labels."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from robustify.certificates import Provenance
from robustify.certificates.family import PIPELINE, View
from robustify.data import Sample
from robustify.errors import InputError, RunError
from robustify.runs.folder import read_config
from robustify.runs.ledger import Attempt, Ledger
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.fingerprint import pixels_fingerprint


@final
@dataclass(frozen=True)
class Preparation:
    """What is known of a run before its first draw.

    Arguments:
        provenance: Plan, seed and model; its alpha is that of one image, after all sharing.
        attempt: Attempt that the run is, by the ledger; None without a ledger.
        truths: True labels by sample, where the plan tests them; otherwise empty.
    """

    provenance: Provenance
    attempt: Attempt | None
    truths: dict[str, int]


def prepare(
    model: SmoothedClassifier,
    samples: Sequence[Sample],
    settings: Settings,
    ledger: Path | None,
    out: Path | None = None,
) -> Preparation:
    """Shares alpha over images and attempts, and checks what can be checked before any draw.

    Arguments:
        model: Model to certify, in evaluation mode.
        samples: Images of the run, at least one.
        settings: How to certify.
        ledger: Folder that counts attempts at each image; None where nobody counts.
        out: Folder of the run, whose attempt is charged where the run is new; None to charge nothing.

    Raises:
        InputError: If a setting cannot be used, or a true label is needed and missing.
        RunError: If the ledger does not fit.
    """
    share = settings.over(len(samples))
    provenance = model.provenance(share)
    truths = _truths(samples) if provenance.plan.needs_truth else {}
    attempt = None
    if ledger is not None:
        attempt = _attempt(model, samples, share, provenance, Ledger(ledger), out)
        provenance = replace(provenance, plan=model.plan(replace(share, alpha=attempt.alpha)))
    return Preparation(provenance, attempt, truths)


def _attempt(
    model: SmoothedClassifier,
    samples: Sequence[Sample],
    share: Settings,
    provenance: Provenance,
    ledger: Ledger,
    out: Path | None,
) -> Attempt:
    """The attempt that a run is: found in its configuration if it continues, otherwise the next one."""
    key, images = model_key(provenance), image_keys(model, samples, share.soundness)
    made = ledger.attempts(key, images, share.alpha)
    if out is not None and (out / "run.json").is_file():
        return _continued(out, made, share.alpha, ledger)
    following = Attempt(made + 1, share.alpha)
    model.plan(replace(share, alpha=following.alpha))  # raises where alpha is too small; nothing is charged then
    return following if out is None else ledger.charge(key, images, share.alpha)


def _continued(out: Path, made: int, total: float, ledger: Ledger) -> Attempt:
    number = read_config(out).get("attempt")
    if number is None or number > made:
        raise RunError(
            f"the run in {str(out)!r} was not charged to the ledger {str(ledger.folder)!r}.\n"
            "  Continue it with the ledger that it was begun with, if any, or choose another folder."
        )
    return Attempt(number, total)


def _truths(samples: Sequence[Sample]) -> dict[str, int]:
    unlabelled = [sample.id for sample in samples if sample.label is None]
    if unlabelled:
        raise InputError(
            f"known_label tests the true label of every image; {len(unlabelled)} of {len(samples)} have none, "
            f"{unlabelled[0]} being the first.\n  Leave them out, or certify without known_label."
        )
    return {sample.id: sample.label for sample in samples if sample.label is not None}


def image_keys(model: SmoothedClassifier, samples: Sequence[Sample], soundness: str) -> set[str]:
    """SHA-256 of the pixels of each sample that can be used; the others are named when the run comes to them."""
    keys = set[str]()
    for sample in samples:
        with suppress(InputError):
            keys.add(pixels_fingerprint(model.prepare(sample.image, soundness)))
    return keys


def model_key(provenance: Provenance) -> str:
    """The smoothed classifier that certificates with this provenance are about, as a key for ledgers."""
    e = provenance
    views = " ".join(map(_view_key, e.plan.views))
    return f"{e.classifier} {e.denoiser} {e.numerics} {views} {e.contract}"


def _view_key(view: View) -> str:
    return repr(view.sigma) if view.base == PIPELINE else f"{view.base}@{view.sigma!r}"
