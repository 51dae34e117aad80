"""Smoothed predictions from a certification run, to learn from: `CATRS(targets=soft_labels(…))`."""

from collections.abc import Sequence
from os import PathLike

import torch
from jaxtyping import Float64
from torch import Tensor

from robustify.data import Sample
from robustify.errors import InputError
from robustify.runs.folder import Run, read_run
from robustify.runs.rows import Row
from robustify.smoothing import SmoothedClassifier
from robustify.smoothing.fingerprint import pixels_fingerprint

CHECKED = 100
"""Images whose pixels are compared with those of the run, spread evenly."""


def soft_labels(
    folder: str | PathLike[str], model: SmoothedClassifier, samples: Sequence[Sample]
) -> Float64[Tensor, "images classes"]:
    """Each image's shares of votes, in the order of the samples.

    Arguments:
        folder: Folder of a finished run over these images, as `robustify certify` writes it.
        model: The model that is to learn; its classes are those of the run.
        samples: The images that it is to learn from.

    Raises:
        RunError: If the folder holds no run.
        InputError: If the run has other classes, lacks an image, saw another, or found no votes for one.
    """
    run = read_run(folder)
    if tuple(run.config["labels"]) != model.labels:
        raise InputError(f"the run in {str(folder)!r} has other classes than {model.classifier.name}")
    rows = {row.sample: row for row in run.rows}
    if missing := [sample.id for sample in samples if sample.id not in rows]:
        raise InputError(
            f"the run in {str(folder)!r} lacks {len(missing)} of {len(samples)} images, {missing[0]!r} being the first."
            "\n  Certify the data to learn from, to the end."
        )
    for sample in samples[:: max(1, len(samples) // CHECKED)]:
        _check_pixels(model, sample, rows[sample.id], run)
    votes = torch.tensor([rows[sample.id].votes for sample in samples], dtype=torch.float64)
    if (none := votes.sum(dim=1) == 0).any():
        raise InputError(f"all draws of {samples[int(none.nonzero()[0])].id!r} failed in the run in {str(folder)!r}")
    return votes / votes.sum(dim=1, keepdim=True)


def _check_pixels(model: SmoothedClassifier, sample: Sample, row: Row, run: Run) -> None:
    if pixels_fingerprint(model.prepare(sample.image, run.config["soundness"])) != row.pixels:
        raise InputError(
            f"{sample.id!r} is another image in the run in {str(run.folder)!r}, or has another size there.\n"
            "  Certify the same data with a model of the same input size."
        )
