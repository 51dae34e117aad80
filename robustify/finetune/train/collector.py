"""Gathers what steps and epochs measure into a history."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

from torch import Tensor

from robustify.finetune.train.history import History, Row
from robustify.finetune.train.watch import ClassWatch, CollapseWatch


@final
@dataclass
class Pending:
    """Sums that are not yet rows of the history.

    Arguments:
        last: Step, epoch and learning rate of the last step.
        sums: Metrics summed over the images since the last row.
        images: Number of images since the last row.
        correct_by_class: Share of correct noisy copies, summed over the images of each class in this epoch.
        images_by_class: Number of images of each class in this epoch.
    """

    last: Row = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    images: int = 0
    correct_by_class: list[float] = field(default_factory=list)
    images_by_class: list[float] = field(default_factory=list)


@final
class Collector:
    """Turns measurements into the rows of a `History`, and says where they are a bad sign.

    Arguments:
        labels: Names of the classes.
        every: Number of steps that one row of the history stands for.
        log: Called with each row of training, and with each of validation, whose names then begin with `validation_`.
    """

    def __init__(self, labels: Sequence[str], *, every: int, log: Callable[[Row], object] | None = None) -> None:
        self.history = History()
        self._labels = tuple(labels)
        self._every = every
        self._log = log
        self._collapse = CollapseWatch()
        self._given_up = ClassWatch()
        self._pending = Pending()
        self._start_epoch()

    def add_step(self, means: dict[str, float], *, step: int, epoch: float, rate: float, images: int) -> str | None:
        """Takes a step's means over its images. Returns a warning where the run collapses."""
        pending = self._pending
        for name, mean in means.items():
            pending.sums[name] = pending.sums.get(name, 0.0) + mean * images
        pending.last = {"step": step, "epoch": epoch, "learning_rate": rate}
        pending.images += images
        if (step + 1) % self._every == 0:
            self._close_row()
        if "noisy_accuracy" not in means:
            return None
        if step == 0:
            self._collapse.start(means["noisy_accuracy"], images)
        return self._collapse.see(means["noisy_accuracy"])

    def add_classes(self, correct: Tensor, images: Tensor) -> None:
        """Takes a step's sums by class, each of shape (classes): shares of correct copies, and numbers of images."""
        pending = self._pending
        pending.correct_by_class = _sums(pending.correct_by_class, correct)
        pending.images_by_class = _sums(pending.images_by_class, images)

    def add_validation(self, found: dict[str, float], epoch: int) -> None:
        """Takes what was measured on validation images after so many epochs."""
        self.history.validation.append({"epoch": epoch, **found})
        if self._log is not None:
            self._log({"epoch": epoch, **{f"validation_{name}": value for name, value in found.items()}})

    def end_epoch(self, epoch: int) -> str | None:
        """Adds the rows of an epoch, which are counted from 1. Returns a warning where a class is given up."""
        self._close_row()
        counts = zip(self._labels, self._pending.correct_by_class, self._pending.images_by_class, strict=True)
        now = [_class_row(epoch, name, correct, images) for name, correct, images in counts]
        self.history.classes += now
        self._start_epoch()
        return self._given_up.see(self.history.classes[: len(now)], now)

    def state(self) -> dict[str, Any]:
        """Everything needed to continue, in plain containers."""
        return {
            "history": asdict(self.history),
            "pending": asdict(self._pending),
            "collapse": asdict(self._collapse),
            "given_up": asdict(self._given_up),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        self.history = History(**state["history"])
        self._pending = Pending(**state["pending"])
        self._collapse = CollapseWatch(**state["collapse"])
        self._given_up = ClassWatch(**state["given_up"])

    def _close_row(self) -> None:
        pending = self._pending
        if not pending.images:
            return
        means = {name: value / pending.images for name, value in pending.sums.items()}
        row = {**pending.last, "images": pending.images, **means}
        self.history.training.append(row)
        pending.sums = {}
        pending.images = 0
        if self._log is not None:
            self._log(row)

    def _start_epoch(self) -> None:
        self._pending.correct_by_class = [0.0] * len(self._labels)
        self._pending.images_by_class = [0.0] * len(self._labels)


def _sums(before: list[float], now: Tensor) -> list[float]:
    return [a + b for a, b in zip(before, now.tolist(), strict=True)]


def _class_row(epoch: int, name: str, correct: float, images: float) -> dict[str, Any]:
    share = correct / images if images else None
    return {"epoch": epoch, "class": name, "noisy_accuracy": share, "images": int(images)}
