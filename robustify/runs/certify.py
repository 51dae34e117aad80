"""Certification of a data set, image by image, in a folder that survives interruption."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustify import __version__
from robustify.bars import bar
from robustify.certificates import Provenance
from robustify.certificates.views import levels_of
from robustify.data import Sample
from robustify.data.sources import check_samples
from robustify.errors import InputError, RunError
from robustify.options import checked
from robustify.runs.config import FORMAT, open_config, read_config
from robustify.runs.digests import DIGEST, row_digest, samples_digest
from robustify.runs.folder import Run
from robustify.runs.ledger import Attempt
from robustify.runs.preparation import Attempts, spending
from robustify.runs.rows import RESTORE, Row
from robustify.runs.store import RowStore
from robustify.runs.work import Work, truth_of
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.smoothing.changing import changed_by_a_pass
from robustify.smoothing.inputs import picture_rules

if TYPE_CHECKING:
    from tqdm import tqdm


@checked({field.name: "an option of Settings: give Settings(…)" for field in fields(Settings)})
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
            If none of the images could be used: then the folder is left free for another run.
        RunError: If the folder holds another run or changed rows, or cannot be written, or the ledger does not fit;
            rows written before stay.
        KeyboardInterrupt: Where interrupted, with how much is kept and lost.
    """
    check_samples(samples)
    _check_kinds(model, settings, samples)
    out, settings = Path(out), settings or Settings()
    share = settings.over(len(samples))
    truths = _truths(samples) if model.plan(share).needs_truth else {}
    attempt = None if ledger is None else _attempt(Attempts.at(model, samples, share, ledger), model, share, out)
    provenance = model.provenance(spending(share, attempt))
    changed = partial(changed_by_a_pass, model.pipeline, model.sigma, provenance.batch)
    config = open_config(out, configuration(model, provenance, samples, settings, attempt), explain=changed)
    provenance = replace(provenance, seed=int(config["seed"]), fresh=bool(config["fresh"]))
    return carry_out(model, samples, provenance, config, out, truths, title)


def carry_out(
    model: SmoothedClassifier,
    samples: Sequence[Sample],
    provenance: Provenance,
    config: dict[str, Any],
    out: Path,
    truths: Mapping[str, int],
    title: str,
) -> Run:
    """Certifies the samples that have no row in an open run folder, and ends the run.

    Arguments:
        model: The smoothed classifier.
        samples: All images of the run.
        provenance: What certificates depend on, with the seed of the folder.
        config: The folder's configuration.
        out: The folder.
        truths: True labels by name, where the plan tests them.
        title: Title of the progress bar.

    Raises:
        InputError, RunError, KeyboardInterrupt: As `certify_dataset` does.
    """
    store, key = RowStore(out), str(config[DIGEST])
    rows = store.rows()
    check_unchanged(rows, key, out)
    with _bar(title, provenance, rows, len(samples)) as bar:
        work = Work(model, _missing(samples, rows), provenance, truths, store, key, bar)
        try:
            if rows:
                bar.write(f"continues: {len(rows):,} of {len(samples):,} images are there", file=sys.stderr)
            work.do()
        except KeyboardInterrupt:
            kept = len(rows) + work.images
            told = f"{kept:,} of {len(samples):,} images are kept, {work.lost:,} draws of others are lost"
            raise KeyboardInterrupt(told) from None
    if not rows and not work.images:
        (out / "run.json").unlink()
        raise InputError(f"none of the {len(samples)} images could be used; {work.unusable[0]}")
    ending = store.finish(work.unusable, key)
    return Run(out, config, store.rows(), finished=True, ending=ending)


def _check_kinds(model: object, settings: object, samples: Sequence[Sample]) -> None:
    """Raises `InputError` at what is no model or settings, and at true classes that the model does not have."""
    if not isinstance(model, SmoothedClassifier):
        raise InputError(f"expected a smoothed classifier, as robustify(…) makes one; got {type(model).__name__}")
    if not isinstance(settings, Settings | None):
        raise InputError(f"expected Settings(…) or None; got {type(settings).__name__}")
    classes = len(model.labels)
    for sample in samples:
        label = sample.label
        if label is not None and (
            isinstance(label, bool) or not hasattr(label, "__index__") or not 0 <= label < classes
        ):
            raise InputError(
                f"expected the true class of {sample.id!r} to be a whole number from 0 to {classes - 1}; got {label!r}"
            )


def check_unchanged(rows: Sequence[Row], key: str, out: Path) -> None:
    """Refuses to build on rows that are not as they were written."""
    if changed := [row.sample for row in rows if row.digest != row_digest(row, key)]:
        raise RunError(
            f"{len(changed)} of {len(rows)} rows in {str(out)!r} were changed after they were written, that of "
            f"{changed[0]!r} first.\n  {RESTORE}"
        )


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


def configuration(
    model: SmoothedClassifier,
    provenance: Provenance,
    samples: Sequence[Sample],
    settings: Settings,
    attempt: Attempt | None,
) -> dict[str, Any]:
    """Everything that decides whether rows belong to one run. The batch size does not."""
    p, denoiser = provenance, model.denoiser
    described = "; ".join(dict.fromkeys(map(denoiser.describe, levels_of(p.plan.views))))
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
        "samples_sha256": samples_digest((sample.id, truth_of(sample)) for sample in samples),
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
