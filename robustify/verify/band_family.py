r"""The check of rows of band smoothing: how many votes can a patch change, and do the counts prove what is claimed?

**Independent of the code that made the claims**: which pixels each draw keeps is written out, pixel by pixel, and the
draws that keep one of a patch's are counted at each of its places. Then the votes of each rival are compared with those
of the label, after the worst that a patch can do.

**Not independent.** Where the bands are comes from the plan; that the draws kept those shows only when they are
repeated (`robustify.verify.replay`).

References:
    (De)Randomized Smoothing for Certifiable Defense against Patch Attacks, Levine, Feizi, 2020,
    https://arxiv.org/abs/2002.10733
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustify.certificates.band_smoothing import BandPlan
from robustify.certificates.queries import ESTIMATION
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.problem import Problem

_BEYOND = 1e-9
"""Excess of a claimed radius over one patch."""


def problems(row: Row, plan: BandPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    if wrong := [*_bands(plan, run), *_tallies(row, plan)]:
        yield from wrong
        return
    if row.bounds:
        yield Problem(row.sample, "bounds", row.bounds, "none: nothing rests on chance")
    yield from _claim(row, plan)


def _bands(plan: BandPlan, run: Run) -> Iterator[Problem]:
    """Checks that the bands are of the run's images, and the patch inside them."""
    bands, contract = plan.bands, run.contract
    if (len(bands.fill), bands.height, bands.width) != contract.shape:
        yield Problem("run.json", "bands", f"those of {bands.height}×{bands.width} pixels", str(contract))
    (tall, wide) = plan.patch
    if not (1 <= tall <= bands.height and 1 <= wide <= bands.width):
        yield Problem("run.json", "patch", plan.patch, "some inside the image")


def _tallies(row: Row, plan: BandPlan) -> Iterator[Problem]:
    """Checks that one tally holds a vote of each band, or its failure, and names the class that leads."""
    if len(row.tallies) != 1 or row.tallies[0].stage != ESTIMATION or row.tallies[0].looks:
        yield Problem(row.sample, "votes", row.tallies, "one tally, without looks")
        return
    (tally,) = row.tallies
    if tally.draws != plan.bands.draws:
        yield Problem(row.sample, "draws", tally.draws, plan.bands.draws)
    leader = min(range(len(tally.votes)), key=lambda label: (-tally.votes[label], label))
    if tally.label != leader:
        yield Problem(row.sample, "tested label", tally.label, leader)


def _claim(row: Row, plan: BandPlan) -> Iterator[Problem]:
    """Checks that only an image whose vote no patch can change has a certificate."""
    (tally,) = row.tallies
    label = tally.label
    proven = label is not None and holds(tally.votes, label, plan.bands.draws, largest_touched(plan))
    if row.label is not None and not (proven and row.label == label):
        yield Problem(row.sample, "label", row.label, label if proven else None)
    if row.radius > (1 + _BEYOND if proven else 0):
        yield Problem(row.sample, "radius", row.radius, "at most 1" if proven else 0.0)


def holds(votes: tuple[int, ...], label: int, draws: int, changed: int) -> bool:
    """Whether a label still wins when votes that may be changed, and draws that failed, all go to one rival.

    Arguments:
        votes: One count per class; draws that failed are missing from the sum.
        label: Index of the label.
        draws: Number of draws.
        changed: Number of votes that may be changed.
    """
    least = votes[label] - changed
    for other, count in enumerate(votes):
        most = count + changed + (draws - sum(votes))
        if other != label and not (least > most or (least == most and label < other)):
            return False
    return True


@lru_cache(maxsize=16)
def largest_touched(plan: BandPlan) -> int:
    """The largest number of draws that keep a pixel of the patch, over all its places."""
    (tall, wide), bands = plan.patch, plan.bands
    rows = _touched(bands.height, tall, 1 if bands.keep == "columns" else bands.stride, _size(plan, "columns"))
    columns = _touched(bands.width, wide, 1 if bands.keep == "rows" else bands.stride, _size(plan, "rows"))
    if bands.keep == "columns":
        return int(columns.max())
    return int(rows.max()) if bands.keep == "rows" else int(np.outer(rows, columns).max())


def _size(plan: BandPlan, whole: str) -> int:
    """Pixels of what is kept along the axis of which all is kept where `keep` is `whole`; at most the axis."""
    bands = plan.bands
    axis = bands.height if whole == "columns" else bands.width
    return axis if bands.keep == whole else bands.band


def _touched(length: int, patch: int, stride: int, size: int) -> NDArray[Any]:
    """Numbers of bands of an axis that keep a pixel of a patch, by the patch's place."""
    kept = np.zeros((len(range(0, length, stride)), length), bool)
    for band, start in zip(kept, range(0, length, stride), strict=True):
        for i in range(size):
            band[(start + i) % length] = True
    return np.array([kept[:, place : place + patch].any(axis=1).sum() for place in range(length - patch + 1)])
