"""Signs that training does harm, each with what to do about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from robustify.finetune.train.history import Row

LEAST_IMAGES = 20
"""Fewest images of a class, or of a first step, whose noisy accuracy says anything."""

PATIENCE = 50
"""Steps whose mean noisy accuracy is compared with the best such mean before."""


@final
@dataclass
class CollapseWatch:
    """Watches the noisy accuracy of each step for a fall to half of what it was.

    Arguments:
        recent: Noisy accuracy of the last steps, at most `PATIENCE`.
        best: Largest mean of so many steps so far, or what the first step had.
    """

    recent: list[float] = field(default_factory=list)
    best: float = 0.0

    def start(self, noisy_accuracy: float, images: int) -> None:
        """Takes note of the first step, before which nothing was learned."""
        if images >= LEAST_IMAGES:
            self.best = noisy_accuracy

    def see(self, noisy_accuracy: float) -> str | None:
        """Takes note of one step. Returns a warning where the run collapses, once for each fall."""
        self.recent = [*self.recent, noisy_accuracy][-PATIENCE:]
        if len(self.recent) < PATIENCE:
            return None
        mean = sum(self.recent) / PATIENCE
        self.best = max(self.best, mean)
        if mean >= self.best / 2:
            return None
        self.recent = []
        return (
            f"the run may be collapsing: over the last {PATIENCE} steps the noisy accuracy was {mean:.0%}, "
            f"{self.best:.0%} at best before.\n  A smaller learning rate or a smaller weight of the robust term often "
            "helps."
        )


@final
@dataclass
class ClassWatch:
    """Watches for classes whose noisy accuracy fell to less than half of that of the first epoch.

    Arguments:
        named: Classes of which a warning was given.
    """

    named: list[str] = field(default_factory=list)

    def see(self, first: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str | None:
        """Compares an epoch with the first. Returns a warning where classes are given up, once for each class.

        Arguments:
            first: One row of `History.classes` for each class, of the first epoch.
            now: The same of the epoch that ended, in the same order.
        """
        lost = [(old, new) for old, new in zip(first, now, strict=True) if self._is_lost(old, new, len(now))]
        if not lost:
            return None
        self.named += [new["class"] for _, new in lost]
        falls = [f"{new['class']!r} {old['noisy_accuracy']:.0%} to {new['noisy_accuracy']:.0%}" for old, new in lost]
        return (
            f"the classifier is giving up {len(lost)} of its classes: since the first epoch, noisy accuracy fell for "
            f"{', '.join(falls[:3])}.\n  An objective that learns only from copies classified correctly (ft-cadis) "
            "may drop hard classes; a smaller weight keeps them."
        )

    def _is_lost(self, old: Mapping[str, Any], new: Mapping[str, Any], classes: int) -> bool:
        """Whether the class was better than chance, has less than half of that now, and was not named yet."""
        if new["class"] in self.named or min(old["images"], new["images"]) < LEAST_IMAGES:
            return False
        return bool(old["noisy_accuracy"] > 2 / classes and new["noisy_accuracy"] < old["noisy_accuracy"] / 2)


def worse_than_before(validation: Sequence[Row]) -> str | None:
    """A warning where training made every measure of the validation images worse.

    Arguments:
        validation: Rows of `History.validation`, the first from before training.
    """
    first, last = validation[0], validation[-1]
    if any(last[name] >= first[name] for name in first if name != "epoch"):
        return None
    return (
        f"training made it worse: noisy accuracy on validation images was {first['noisy_accuracy']:.1%} before it, "
        f"{last['noisy_accuracy']:.1%} after.\n  Fewer epochs, a smaller learning rate or more images often help."
    )
