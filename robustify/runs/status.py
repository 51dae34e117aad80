"""How far a run is, and what its rows say so far; needs its folder only, while it lasts or after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from robustify.certificates.family import Plan
from robustify.format import duration, floor
from robustify.runs.folder import Run
from robustify.runs.metrics import answer_accuracy, average_certified_radius
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
        share: Share of the labelled images so far whose true label is certified there.
        low, high: 95 % interval for images like these, as if those done were a random sample of all.
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
    """Progress and results of a run at one moment.

    Arguments:
        done, total: Numbers of images.
        finished: Whether the run has come to its end; images that are not done then could not be used.
        draws: Number of draws that the images done took.
        accuracies: Certified accuracy at a few radii; none without labelled images.
        mean_radius: Average certified radius of the labelled images; None without any.
        abstained: Number of images without an answer.
        uncertified: Number of images that are answered without a certificate.
        right: Share of the labelled images whose true label is answered, certified or not; None without any.
        seconds: Time spent so far.
        left: Estimated seconds to the end; None before the first image.
        alpha: Allowed chance, for each image, of a false certificate; 0 for a proof without chance.
        remarks: What the certificates claim besides the usual, in sentences.
    """

    done: int
    total: int
    finished: bool
    draws: int
    accuracies: tuple[Accuracy, ...]
    mean_radius: float | None
    abstained: int
    uncertified: int
    right: float | None
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
        if self.uncertified:
            lines.append(f"answered without a certificate: {self.uncertified:,}{self._right()}")
        lines.append(self._certificates())
        lines += self.remarks
        return "\n".join(lines)

    def _right(self) -> str:
        return "" if self.right is None else f"; right answers, certified or not: {floor(100 * self.right, 1)} %"

    def _certificates(self) -> str:
        if (certified := self.done - self.abstained - self.uncertified) == 0:
            return "certificates: none" if self.finished else "certificates: none yet"
        if self.alpha == 0:
            return "false certificates: none, because the proof leaves nothing to chance"
        expected, most = expected_false(self.done, self.alpha), most_false(self.done, self.alpha)
        told = f"at most {expected:g} expected, at most {min(most, certified)} with 99.9 % confidence"
        return f"false certificates: {told}"

    def _progress(self) -> str:
        spent = f"; {duration(self.seconds)} spent"
        if self.finished:
            missing = self.total - self.done
            return f"{spent}, finished" + (f"; {missing:,} images could not be used" if missing else "")
        return spent + (f", about {duration(self.left)} left" if self.left is not None else "")


def status(run: Run) -> Status:
    """Progress and results of a run, from the rows written so far."""
    rows, plan = run.rows, run.plan
    labelled = [row for row in rows if row.truth is not None]
    seconds = sum((row.seconds for row in rows), 0.0)
    return Status(
        done=len(rows),
        total=run.samples,
        finished=run.finished,
        draws=sum(row.draws for row in rows),
        accuracies=tuple(_accuracy(labelled, r, plan.alpha) for r in shown_radii(plan)) if labelled else (),
        mean_radius=average_certified_radius(labelled) if labelled else None,
        abstained=sum(row.answer is None for row in rows),
        uncertified=sum(row.uncertified is not None for row in rows),
        right=answer_accuracy(labelled) if labelled else None,
        seconds=seconds,
        left=_left(run, seconds),
        alpha=plan.alpha,
        remarks=tuple(remarks(run)),
    )


def shown_radii(plan: Plan) -> tuple[float, ...]:
    """Radii at which certified accuracy is shown: those that were decided, or else 0, sigma and 2 sigma."""
    return plan.radii or (0.0, plan.scale, 2 * plan.scale)


def _left(run: Run, seconds: float) -> float | None:
    """Estimated seconds to the end, if images to come take as long as those done; None before the first."""
    if run.finished:
        return 0.0
    return seconds / len(run.rows) * (run.samples - len(run.rows)) if run.rows else None


def _accuracy(labelled: Sequence[Row], radius: float, alpha: float) -> Accuracy:
    right = sum(row.correct and row.radius > radius for row in labelled)
    share = right / len(labelled)
    low, high = accuracy_interval(right, len(labelled))
    proven = share if alpha == 0 else accuracy_lower_bound(share, len(labelled), alpha, rho=RHO)
    return Accuracy(radius, share, low, high, proven)
