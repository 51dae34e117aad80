"""The check that certificates of a family live through a whole run, by a linear classifier whose radii are known."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustify.certificates.family import Family, Tally
from robustify.certificates.queries import SELECTION
from robustify.certificates.question import Question
from robustify.classifiers import ImageClassifier, Preprocessing
from robustify.data import Sample
from robustify.denoisers import Identity
from robustify.errors import InputError
from robustify.report.html import write_report
from robustify.report.numbers import Chapter
from robustify.runs.certify import certify_dataset
from robustify.runs.estimate import estimate
from robustify.runs.folder import Run, read_run
from robustify.smoothing import Settings, SmoothedClassifier
from robustify.testing.shared import require, short
from robustify.verify.claims import verify_row, verify_run
from robustify.verify.replay import replay
from robustify.verify.stored import Stored

SIDE = 8
LABELS = ("dark", "bright", "never")
BORDER = 127.5 / 255
ALPHA = 1e-4
"""Chance of a false claim in the runs, small enough that none of the few images has one."""

STEPS = (-60, -24, -6, -1, 1, 6, 24, 60)
"""How far the mean of each image is from the border between the classes, in steps of 1/255, less half a step."""


class HalfSpace(nn.Module):
    """Class 0 where the mean pixel is below 127.5 / 255, class 1 where it is above, class 2 nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, shape (B, 3)."""
        above = self.scale * (pixels.mean(dim=(1, 2, 3)) - BORDER)
        return torch.stack([-above, above, -above.abs() - 1], dim=1)


def check_runs(family: Family, question: Question, *, first: bool) -> None:
    """Checks runs of a family over images of a linear classifier.

    Arguments:
        family: The family.
        question: What is asked of each image; `Settings` for a family of certificates in real arithmetic alone.
        first: Whether a radius says that the label stays the most frequent class.

    Raises:
        ModelError: With the first thing that is wrong.
    """
    model, samples = _model(family), _samples()
    settings = Settings(**{**vars(question), "alpha": min(question.alpha, ALPHA), "seed": 1})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = certify_dataset(model, samples, out, settings)
        _check_kept(run, model, samples, settings)
        require(any(row.correct for row in run.rows), f"{family}: certifies nothing, however far from the border")
        if first and run.plan.norm == "ℓ2" and not any(view.change for view in run.plan.views):
            _check_radii(run)
        _check_verified(run)
        again = SmoothedClassifier(model.classifier, model.denoiser, family=Stored(run.plan))
        differences = replay(again, samples, run, count=3)
        require(not differences, f"{family}: drawn again from their seeds, rows differ: {short(differences)}")
        write_report(out / "report.html", [Chapter("check", run)], title=str(family))
        require(bool(str(run)) and bool(str(estimate(model, samples, settings))), f"{family}: tells nothing of a run")
    _check_predictions(model, samples, settings)


def _model(family: Family) -> SmoothedClassifier:
    preprocessing = Preprocessing(mean=(0.0,), std=(1.0,), size=(SIDE, SIDE))
    classifier = ImageClassifier(HalfSpace().eval(), preprocessing, labels=LABELS)
    return SmoothedClassifier(classifier, Identity(), family=family)


def _samples() -> list[Sample]:
    """Even images of bytes, from very dark to very bright."""
    levels = [128 + step - (step > 0) for step in STEPS]
    return [Sample(f"{i}", np.full((SIDE, SIDE), level, np.uint8), int(level >= 128)) for i, level in enumerate(levels)]


def _check_kept(run: Run, model: SmoothedClassifier, samples: Sequence[Sample], settings: Settings) -> None:
    """Checks that a run is read as it was written, and that rows that are lost are made again."""
    family = model.family
    stored = read_run(run.folder)
    require(stored.rows == run.rows and stored.plan == run.plan, f"{family}: a run is not read as it was written")
    images = [(sample.id, model.prepare(sample.image)) for sample in samples]
    found = {c.sample: c for c in model.certificates(images, model.provenance(settings))}
    for row in run.rows:
        c = found[row.sample]
        same = (row.label, row.radius, row.tallies) == (c.label, c.radius, c.tallies)
        require(same, f"{family}: the row {short(row)} is not what its certificate holds: {c!r}")
        require(bool(str(c)) and bool(repr(c)), f"{family}: a certificate tells nothing")
    if certified := [row for row in run.rows if row.label is not None]:
        told = str(found[certified[0].sample])
        name = LABELS[certified[0].label or 0]
        require(told.startswith(f"{name}: "), f"{family}: expected a certificate to begin with its label; got {told}")


def _check_radii(run: Run) -> None:
    """Checks radii against what is true: the smoothed classifier of a half-space is the half-space."""
    for row, step in zip(run.rows, STEPS, strict=True):
        distance = (abs(step) - 0.5) / 255 * SIDE
        require(
            row.radius <= distance and row.label in {row.truth, None},
            f"{run.plan}: claims a radius of {row.radius} for {row.label} at a distance of {distance} from the border",
        )


def _check_verified(run: Run) -> None:
    """Checks that verification passes what was claimed, and names what was enlarged."""
    problems = verify_run(run)
    require(not problems, f"{run.plan}: its own run does not pass verification: {short(problems)}")
    for row in run.rows:
        if row.radius > 0:
            larger = verify_row(replace(row, radius=row.radius * 1.001), run.plan, run)
            require(bool(larger), f"{run.plan}: verification passes a radius of {row.radius} enlarged by a thousandth")
            other = verify_row(replace(row, label=1 - (row.label or 0)), run.plan, run)
            require(bool(other), f"{run.plan}: verification passes another label than {row.label}")
        for i, tally in enumerate(row.tallies):
            changed = replace(row, tallies=tuple(_elsewhere(other, tally) for other in row.tallies))
            if row.radius > 0 and max(tally.votes) == tally.draws > 1:
                found = verify_row(changed, run.plan, run)
                require(bool(found), f"{run.plan}: verification passes votes for another class in tally {i}")


def _elsewhere(tally: Tally, which: Tally) -> Tally:
    """The tally with its votes for other classes, if it is the one, or if both choose the label together."""
    if tally is not which and not tally.stage == which.stage == SELECTION:
        return tally
    return tally._replace(votes=(*tally.votes[1:], tally.votes[0]))


def _check_predictions(model: SmoothedClassifier, samples: Sequence[Sample], settings: Settings) -> None:
    """Checks that predictions are of the classifier that certificates are about."""
    images = [sample.image for sample in samples]
    certificates = model.certify(images, **vars(settings))
    try:
        predictions = model.predict(images, n=1_000, alpha=settings.alpha, seed=2, soundness=settings.soundness)
    except InputError:
        return  # a family of certificates only
    for c, p in zip(certificates, predictions, strict=True):  # type: ignore[arg-type]  # lists, for a list
        require(
            c.label is None or p.label in {c.label, None},
            f"{model.family}: certifies {c.label} and predicts {p.label} at the same image",
        )
