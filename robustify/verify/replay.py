"""Repeats rows of a run from their seeds: the same model on the same images must vote the same again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from robustify.certificates import Certificate, Provenance
from robustify.data import Sample
from robustify.errors import RunError
from robustify.runs.folder import StoredRun
from robustify.runs.rows import Row, pixels_hash
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint
from robustify.verify.claims import Problem


def replay(model: SmoothedClassifier, samples: Sequence[Sample], run: StoredRun, count: int = 5) -> list[Problem]:
    """What differs when `count` rows, spread over the run, are drawn again; nothing if all is well.

    Votes, selection, looks and the hash of the pixels must be identical. True labels of all rows are compared with
    those of the data.

    Arguments:
        model: The one of the run; noise of the run's sigma.
        samples: The run's data, or more.
        run: What is to be repeated.
        count: Rows to repeat.

    Raises:
        RunError: If the model is another one, or the data lacks an image of the run.
    """
    check_same_model(model, run)
    by_id = {sample.id: sample for sample in samples}
    missing = [row.sample for row in run.rows if row.sample not in by_id]
    if missing:
        raise RunError(
            f"the data lacks {len(missing)} of the run's {len(run.rows)} images, {missing[0]!r} being the first.\n"
            "  Give the data that the run was made over, with the same names."
        )
    problems = [
        Problem(row.sample, "truth", row.truth, by_id[row.sample].label)
        for row in run.rows
        if row.truth != by_id[row.sample].label
    ]
    chosen = spread(run.rows, count)
    for batch in sorted({row.batch for row in chosen}):
        problems += _replay(model, by_id, run, [row for row in chosen if row.batch == batch])
    return problems


def check_same_model(model: SmoothedClassifier, run: StoredRun) -> None:
    """Refuses a model that is not the one of the run.

    Raises:
        RunError: With each difference.
    """
    found = {
        "classifier_sha256": classifier_fingerprint(model.classifier),
        "denoiser_sha256": denoiser_fingerprint(model.denoiser, model.sigma),
        "contract": str(model.contract),
        "dtype": model.dtype,
        "labels": list(model.labels),
        "sigma": model.sigma,
    }
    different = [key for key, value in found.items() if run.config.get(key) != value]
    if different:
        lines = [f"  {key}: there {run.config.get(key)}, now {found[key]}" for key in different]
        raise RunError("this is not the model of the run, so its rows cannot be repeated:\n" + "\n".join(lines))


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """So many rows, evenly spread, the first and the last among them."""
    if len(rows) <= count:
        return list(rows)
    if count < 2:
        return list(rows[:count])
    return [rows[i * (len(rows) - 1) // (count - 1)] for i in range(count)]


def _replay(
    model: SmoothedClassifier, by_id: Mapping[str, Sample], run: StoredRun, rows: Sequence[Row]
) -> list[Problem]:
    """Rows that share a batch size; those of other pixels are not drawn again."""
    images = {row.sample: model.prepare(by_id[row.sample].image, row.soundness) for row in rows}
    pixels = {name: pixels_hash(image) for name, image in images.items()}
    problems = [
        Problem(row.sample, "pixels", row.pixels, f"{pixels[row.sample]}, those of the data: another image")
        for row in rows
        if row.pixels != pixels[row.sample]
    ]
    same = [row for row in rows if row.pixels == pixels[row.sample]]
    known = {row.sample: row.truth for row in same if row.truth is not None and not row.selection}
    again = {row.sample: images[row.sample] for row in same}
    found = dict(model.certificates(again.items(), _evidence(model, run, rows[0]), truths=known))
    return problems + [problem for row in same for problem in _compare(row, found[row.sample])]


def _evidence(model: SmoothedClassifier, run: StoredRun, row: Row) -> Provenance:
    return Provenance(
        plan=run.plan,
        seed=int(run.config["seed"]),
        fresh=bool(run.config.get("fresh")),
        sample="",
        soundness=row.soundness,
        contract=model.contract,
        classifier=str(run.config["classifier_sha256"]),
        denoiser=str(run.config["denoiser_sha256"]),
        dtype=str(run.config["dtype"]),
        batch=row.batch,
    )


def _compare(row: Row, certificate: Certificate) -> list[Problem]:
    fields = ("selection", "votes", "looks")
    again = replace(row, **{name: getattr(certificate, name) for name in fields})
    return [
        Problem(row.sample, name, getattr(row, name), f"{getattr(again, name)}, as drawn again")
        for name in fields
        if getattr(row, name) != getattr(again, name)
    ]
