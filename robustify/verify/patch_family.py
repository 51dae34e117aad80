r"""The check of rows of PatchCleanser: do the masks cover every patch, and do the counts prove what is claimed?

**Independent of the code that made the claims**: that some mask covers each shape at each of its places is checked
place by place. Numbers of draws are those of sets of masks, as binomial coefficients. A row with a claim must hold all
draws, all of one class, and claim no more patches than its plan is about.

**Not independent.** Where the masks are comes from the plan; that the draws had those masks shows only when they are
repeated (`robustify.verify.replay`).

References:
    PatchCleanser: Certifiably Robust Defense against Adversarial Patches for Any Image Classifier, Xiang, Mahloujifar,
    Mittal, 2022, https://arxiv.org/abs/2108.09135 (the R-covering property, and the theorem)
"""

from collections.abc import Iterator
from functools import lru_cache
from math import comb

import numpy as np

from robustify.certificates.family import Tally
from robustify.certificates.masks import Masking
from robustify.certificates.patch_cleanser import MaskingPlan
from robustify.certificates.queries import ESTIMATION
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify.problem import Problem

_BEYOND = 1e-9
"""Excess of a claimed radius over the number of patches."""


def problems(row: Row, plan: MaskingPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    if wrong := [*_masks(plan.masking, run), *_tallies(row, plan.masking)]:
        yield from wrong
        return
    if row.bounds:
        yield Problem(row.sample, "bounds", row.bounds, "none: nothing rests on chance")
    yield from _claim(row, plan.masking)


def _masks(masking: Masking, run: Run) -> Iterator[Problem]:
    """Checks that the masks are of the run's images, and cover every patch at every place."""
    contract = run.contract
    if (masking.height, masking.width, len(masking.fill)) != (contract.height, contract.width, contract.channels):
        yield Problem("run.json", "masks", f"those of {masking.height}×{masking.width} pixels", str(contract))
    elif shape := uncovered(masking):
        yield Problem("run.json", "masks", masking.rectangles, f"some that cover {shape} wherever it is")


@lru_cache(maxsize=16)
def uncovered(masking: Masking) -> tuple[int, int] | None:
    """A shape of a patch that, at one of its places, no mask covers; None where there is none."""
    for height, width in masking.shapes:
        covered = np.zeros((masking.height - height + 1, masking.width - width + 1), bool)  # by place of the patch
        for top, left, tall, wide in masking.rectangles:
            if tall >= height and wide >= width:
                covered[top : top + tall - height + 1, left : left + wide - width + 1] = True
        if not covered.all():
            return height, width
    return None


def _draws(masking: Masking) -> tuple[int, int]:
    """Numbers of draws after each round: sets of up to as many rectangles as patches, and of up to twice as many."""
    count = len(masking.rectangles)
    first = sum(comb(count, size) for size in range(1, masking.patches + 1))
    return first, sum(comb(count, size) for size in range(1, 2 * masking.patches + 1))


def _tallies(row: Row, masking: Masking) -> Iterator[Problem]:
    """Checks that one tally holds the draws of one round or of both, and looks that end with its votes."""
    if len(row.tallies) != 1 or row.tallies[0].stage != ESTIMATION:
        yield Problem(row.sample, "votes", row.tallies, "one tally, of masked copies")
        return
    tally, (first, every) = row.tallies[0], _draws(masking)
    planned = [first] if tally.draws == first else [first, every]
    if tally.draws != planned[-1] or [look.n for look in tally.looks] != planned:
        yield Problem(row.sample, "looks", [look.n for look in tally.looks], f"{[first]} or {[first, every]}")
        return
    if tally.label is None or tally.votes[tally.label] != max(tally.votes):
        yield Problem(row.sample, "tested label", tally.label, "the leading class")
        return
    if wrong := _wrong_look(tally, tally.label):
        yield Problem(row.sample, "looks", tally.looks, wrong)


def _wrong_look(tally: Tally, label: int) -> str | None:
    """What is wrong with the counts after the rounds; None where they fit the votes."""
    rivals = [*tally.votes[:label], *tally.votes[label + 1 :]]
    last = tally.looks[-1]
    if (last.label, last.rival) != (tally.votes[label], max(rivals) + last.n - sum(tally.votes)):
        return "counts that end with the votes"
    if len(tally.looks) > 1 and (tally.looks[0].label, tally.looks[0].rival) != (tally.looks[0].n, 0):
        return "a second round only where the first agreed"
    return None


def _claim(row: Row, masking: Masking) -> Iterator[Problem]:
    """Checks that only an image all of whose masked copies are of one class has a certificate."""
    tally, (_, every) = row.tallies[0], _draws(masking)
    proven = tally.draws == every and max(tally.votes) == every
    if row.label is not None and not (proven and row.label == tally.label):
        yield Problem(row.sample, "label", row.label, tally.label if proven else None)
    if row.radius > (masking.patches * (1 + _BEYOND) if proven else 0):
        yield Problem(row.sample, "radius", row.radius, f"at most {masking.patches}" if proven else 0.0)
