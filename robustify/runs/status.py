"""How far a run is and what it says so far; reads its folder only, while it lasts or after it."""

from dataclasses import dataclass
from typing import final

from robustify.certificates.certificate import floor
from robustify.certificates.decisions import RadiusPlan
from robustify.format import duration
from robustify.runs.folder import StoredRun
from robustify.runs.metrics import average_certified_radius
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
        radius: ℓ2, in [0, 1] pixels.
        share: Of the labelled images so far.
        low, high: 95 % interval for images like these; takes those done for a random sample of all.
        proven: The true certified accuracy on these very images is at least this, with 99.9 % confidence.
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
        done, total: Images.
        finished: Whether it has come to its end; images that are not done then could not be used.
        draws: Spent on the images done.
        accuracies: At a few radii; none without labelled images.
        mean_radius: Average certified radius of the labelled images.
        abstained: Images without a certificate.
        seconds: Spent so far.
        left: Estimated seconds to the end; None before the first image.
        alpha: Allowed chance, per image, of a false certificate.
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
        if (certified := self.done - self.abstained) > 0:
            expected, most = expected_false(self.done, self.alpha), most_false(self.done, self.alpha)
            told = f"at most {expected:g} expected, at most {min(most, certified)} with 99.9 % confidence"
            lines.append(f"false certificates: {told}")
        else:
            lines.append("certificates: none" if self.finished else "certificates: none yet")
        lines += self.remarks
        return "\n".join(lines)

    def _progress(self) -> str:
        spent = f"; {duration(self.seconds)} spent"
        if self.finished:
            missing = self.total - self.done
            return f"{spent}, finished" + (f"; {missing:,} images could not be used" if missing else "")
        return spent + (f", about {duration(self.left)} left" if self.left is not None else "")


def status(run: StoredRun) -> Status:
    """What the rows written so far add up to; accuracy at the radii decided, or else at 0, sigma and 2 sigma."""
    rows, plan, total = run.rows, run.plan, int(run.config["samples"])
    labelled = [row for row in rows if row.truth is not None]
    radii = plan.radii if isinstance(plan, RadiusPlan) else (0.0, plan.sigma, 2 * plan.sigma)
    seconds = sum((row.seconds for row in rows), 0.0)
    left = 0.0 if run.finished else seconds / len(rows) * (total - len(rows)) if rows else None
    return Status(
        done=len(rows),
        total=total,
        finished=run.finished,
        draws=sum(row.n0 + row.drawn for row in rows),
        accuracies=tuple(_accuracy(run, r) for r in radii) if labelled else (),
        mean_radius=average_certified_radius(labelled) if labelled else None,
        abstained=sum(row.label is None for row in rows),
        seconds=seconds,
        left=left,
        alpha=plan.alpha,
        remarks=tuple(remarks(run.config)),
    )


def _accuracy(run: StoredRun, radius: float) -> Accuracy:
    labelled = [row for row in run.rows if row.truth is not None]
    right = sum(row.correct and row.radius > radius for row in labelled)
    low, high = accuracy_interval(right, len(labelled))
    share = right / len(labelled)
    proven = accuracy_lower_bound(share, len(labelled), float(run.config["alpha"]), rho=RHO)
    return Accuracy(radius, share, low, high, proven)
