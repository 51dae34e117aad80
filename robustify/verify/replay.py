"""Repeats rows of a run from their seeds: the same model on the same images must vote the same again."""

from collections.abc import Iterator, Mapping, Sequence

from robustify.certificates import Certificate, Provenance
from robustify.certificates.family import Tally
from robustify.data import Sample
from robustify.errors import RunError
from robustify.runs.folder import Run, flat
from robustify.runs.rows import Row
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import classifier_fingerprint, denoiser_fingerprint, pixels_fingerprint
from robustify.verify.claims import Problem, tally_field


def replay(model: SmoothedClassifier, samples: Sequence[Sample], run: Run, count: int = 5) -> list[Problem]:
    """What differs when `count` rows, spread over the run, are drawn again; nothing if all is well.

    Tallies and the hash of the pixels must be identical. True labels of all rows are compared with those of the data.

    Arguments:
        model: Model of the run, with noise of the run's levels.
        samples: Data of the run, or more.
        run: Run that is to be repeated.
        count: Number of rows to repeat.

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


def check_same_model(model: SmoothedClassifier, run: Run) -> None:
    """Refuses a model that is not the one of the run.

    Raises:
        RunError: With each difference.
    """
    levels = [view.sigma for view in model.family.views]
    found = {
        "classifier.sha256": classifier_fingerprint(model.classifier),
        "denoiser.sha256": denoiser_fingerprint(model.denoiser, levels),
        "contract": model.contract,
        "numerics": model.numerics,
        "labels": model.labels,
        "sigma": levels,
    }
    stored = {
        **flat(run.config),
        "contract": run.contract,
        "numerics": run.numerics,
        "labels": run.labels,
        "sigma": [view.sigma for view in run.plan.views],
    }
    different = [key for key, value in found.items() if stored.get(key) != value]
    if different:
        lines = [f"  {key}: there {stored.get(key)}, now {found[key]}" for key in different]
        raise RunError("this is not the model of the run, so its rows cannot be repeated:\n" + "\n".join(lines))


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows, evenly spread, the first and the last among them."""
    if len(rows) <= count:
        return list(rows)
    if count < 2:
        return list(rows[:count])
    return [rows[i * (len(rows) - 1) // (count - 1)] for i in range(count)]


def _replay(model: SmoothedClassifier, by_id: Mapping[str, Sample], run: Run, rows: Sequence[Row]) -> list[Problem]:
    """Differences of rows that share a batch size; those of other pixels are not drawn again."""
    images = {row.sample: model.prepare(by_id[row.sample].image, run.soundness) for row in rows}
    pixels = {name: pixels_fingerprint(image) for name, image in images.items()}
    problems = [
        Problem(row.sample, "pixels", row.pixels, f"{pixels[row.sample]}, those of the data: another image")
        for row in rows
        if row.pixels != pixels[row.sample]
    ]
    same = [row for row in rows if row.pixels == pixels[row.sample]]
    known = {row.sample: row.truth for row in same if row.truth is not None} if run.plan.needs_truth else {}
    again = {row.sample: images[row.sample] for row in same}
    certificates = model.certificates(again.items(), _provenance(run, rows[0].batch), truths=known)
    found = {certificate.sample: certificate for certificate in certificates}
    return problems + [problem for row in same for problem in _compare(row, found[row.sample])]


def _provenance(run: Run, batch: int) -> Provenance:
    return Provenance(
        plan=run.plan,
        seed=run.seed,
        fresh=run.fresh,
        soundness=run.soundness,
        contract=run.contract,
        classifier=str(run.config["classifier"]["sha256"]),
        denoiser=str(run.config["denoiser"]["sha256"]),
        numerics=run.numerics,
        batch=batch,
    )


def _compare(row: Row, certificate: Certificate) -> Iterator[Problem]:
    """What differs between stored tallies and those drawn again."""
    if len(row.tallies) != len(certificate.tallies):
        yield Problem(row.sample, "tallies", row.tallies, f"{certificate.tallies}, as drawn again")
        return
    for stored, drawn in zip(row.tallies, certificate.tallies, strict=True):
        for name in Tally._fields:
            kept, again = getattr(stored, name), getattr(drawn, name)
            if kept != again:
                yield Problem(row.sample, tally_field(stored, name), kept, f"{again}, as drawn again")
