"""Repetition of rows from their seeds: the same model must give the same votes on the same images."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from torch import Tensor

from robustify.certificates import Certificate, Provenance
from robustify.certificates.family import Plan
from robustify.data import Sample
from robustify.errors import RunError
from robustify.runs import version1
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.runs.same_model import check_same_model
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import pixels_fingerprint
from robustify.verify.claims import name_of
from robustify.verify.problem import Problem


def replay(model: SmoothedClassifier, samples: Sequence[Sample], run: Run, count: int = 5) -> list[Problem]:
    """The differences when `count` rows, spread over the run, are drawn again; none if all is well.

    Tallies and the hash of the pixels must be identical. True labels of all rows are compared with those of the data.

    Arguments:
        model: The run's own, with noise of the run's levels.
        samples: The run's data, or more.
        run: What is to be repeated.
        count: Number of rows to repeat.

    Raises:
        RunError: If the model is another one, the data lacks an image of the run, or robustify 0.1 made the run.
    """
    version1.refuse(run.folder, run.config)
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


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """A number of rows, evenly spread, with the first and the last among them."""
    if len(rows) <= count:
        return list(rows)
    if count < 2:
        return list(rows[:count])
    return [rows[i * (len(rows) - 1) // (count - 1)] for i in range(count)]


def _replay(model: SmoothedClassifier, by_id: Mapping[str, Sample], run: Run, rows: Sequence[Row]) -> list[Problem]:
    """Problems of rows that share a batch size; those of other pixels are not drawn again."""
    images = {row.sample: model.prepare(by_id[row.sample].image, run.soundness) for row in rows}
    pixels = {name: pixels_fingerprint(image) for name, image in images.items()}
    problems = [
        Problem(row.sample, "pixels", row.pixels, f"{pixels[row.sample]}, those of the data: another image")
        for row in rows
        if row.pixels != pixels[row.sample]
    ]
    same = [row for row in rows if row.pixels == pixels[row.sample]]
    found = {c.sample: c for c in _drawn_again(model, run, same, images)}
    return problems + [problem for row in same for problem in _compare(row, found[row.sample], run.plan)]


def _drawn_again(
    model: SmoothedClassifier, run: Run, rows: Sequence[Row], images: Mapping[str, Tensor]
) -> Iterator[Certificate]:
    """Certificates of the images of rows that share a batch size."""
    if not rows:
        return
    provenance = Provenance(
        plan=run.plan,
        seed=run.seed,
        fresh=run.fresh,
        soundness=run.soundness,
        contract=run.contract,
        classifier=str(run.config["classifier"]["sha256"]),
        denoiser=str(run.config["denoiser"]["sha256"]),
        numerics=run.numerics,
        batch=rows[0].batch,
    )
    truths = {row.sample: row.truth for row in rows if row.truth is not None} if run.plan.needs_truth else {}
    yield from model.certificates(((row.sample, images[row.sample]) for row in rows), provenance, truths=truths)


def _compare(row: Row, certificate: Certificate, plan: Plan) -> Iterator[Problem]:
    """The tallies that are not those of the certificate."""
    for stored, again in zip_longest(row.tallies, certificate.tallies):
        if stored != again:
            yield Problem(row.sample, name_of(again or stored, plan), stored, f"{again}, as drawn again")
