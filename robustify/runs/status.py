"""The progress of a run and what its rows add up to so far; reads its folder only, while it lasts or after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from robustify.format import duration, floor
from robustify.runs.folder import Run
from robustify.runs.metrics import average_certified_radius, certified_accuracy
from robustify.runs.rows import Row
from robustify.runs.statements import (
    accuracy_interval,
    accuracy_lower_bound,
    expected_false,
    most_false,
    remarks,
)

RHO = 0.001
"""Allowed chance that a statement about all images is false."""


@final
@dataclass(frozen=True)
class Accuracy:
    """Certified accuracy at one radius.

    Arguments:
        radius: ℓ2 radius in [0, 1] pixels.
        share: Share of the labelled images so far.
        low, high: 95 % interval for images like these; takes those done for a random sample of all.
        proven: Lower bound on the true certified accuracy on these very images, with 99.9 % confidence.
    """

    radius: float
    share: float
    low: float
    high: float
    proven: float

    def __str__(self) -> str:
        share, low, proven = (floor(100 * x, 1) for x in (self.share, self.low, self.proven))
        return (
            f"certified accuracy at radius {self.radius:g}: {share} % (95 % interval {low} to "
            f"{-floor(-100 * self.high, 1)} %; on these images at least {proven} % with 99.9 % confidence)"
        )


@final
@dataclass(frozen=True)
class Status:
    """A run at one moment.

    Arguments:
        done, total: Numbers of images.
        finished: Whether the run has come to its end; images that are not done then could not be used.
        draws: Number of draws spent on the images done.
        accuracies: Certified accuracy at a few radii; empty without labelled images.
        mean_radius: Average certified radius of the labelled images; None without any.
        abstained: Number of images without a certificate.
        seconds: Time spent so far, in seconds.
        left: Estimated time to the end, in seconds; None before the first image.
        alpha: Allowed chance, per image, of a false certificate; 0 for a proof without chance.
        remarks: What certificates claim besides the usual, in sentences.
    """

    done: int
    total: int
    finished: bool
    draws: int
    accuracies: tuple[Accuracy, ...]
    mean_radius: float | None
    abstained: int
    seconds: float
    left: float | None
    alpha: float
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.done:,} of {self.total:,} images, {self.draws:,} draws{self._progress()}"]
        lines += map(str, self.accuracies)
        if self.mean_radius is not None:
            lines.append(f"mean radius: {floor(self.mean_radius)} (wrong or abstained counts as 0)")
        lines.append(f"abstained: {self.abstained:,}")
        lines.append(self._certificates())
        lines += self.remarks
        return "\n".join(lines)

    def _certificates(self) -> str:
        if (certified := self.done - self.abstained) == 0:
            return "certificates: none" if self.finished else "certificates: none yet"
        if self.alpha == 0:
            return "false certificates: none, for the proof leaves nothing to chance"
        expected, most = expected_false(self.done, self.alpha), most_false(self.done, self.alpha)
        return (
            f"false certificates: at most {expected:g} expected, at most {min(most, certified)} with 99.9 % confidence"
        )

    def _progress(self) -> str:
        spent = f"; {duration(self.seconds)} spent"
        if self.finished:
            missing = self.total - self.done
            return f"{spent}, finished" + (f"; {missing:,} images could not be used" if missing else "")
        return spent + (f", about {duration(self.left)} left" if self.left is not None else "")


def status(run: Run) -> Status:
    """What the rows so far add up to; accuracy at the radii decided, or else at 0, once and twice the plan's scale."""
    rows, plan = run.rows, run.plan
    labelled = [row for row in rows if row.truth is not None]
    radii = plan.radii or (0.0, plan.scale, 2 * plan.scale)
    seconds = sum((row.seconds for row in rows), 0.0)
    return Status(
        done=len(rows),
        total=run.samples,
        finished=run.finished,
        draws=sum(row.draws for row in rows),
        accuracies=tuple(_accuracy(labelled, r, plan.alpha) for r in radii) if labelled else (),
        mean_radius=average_certified_radius(labelled) if labelled else None,
        abstained=sum(row.label is None for row in rows),
        seconds=seconds,
        left=_left(run, seconds),
        alpha=plan.alpha,
        remarks=tuple(remarks(run)),
    )


def _left(run: Run, seconds: float) -> float | None:
    """Seconds to the end, at the speed so far; None before the first image."""
    if run.finished:
        return 0.0
    return seconds / len(run.rows) * (run.samples - len(run.rows)) if run.rows else None


def _accuracy(labelled: Sequence[Row], radius: float, alpha: float) -> Accuracy:
    share, images = certified_accuracy(labelled, radius), len(labelled)
    low, high = accuracy_interval(round(share * images), images)
    proven = accuracy_lower_bound(share, images, alpha, rho=RHO) if alpha > 0 else share
    return Accuracy(radius, share, low, high, proven)
