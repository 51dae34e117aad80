"""Checkpoints of a training run, each written only once the step after it has shown that it is sound."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, final

import torch

from robustify.errors import RunError
from robustify.finetune.train.folder import STATE, TrainingFolder
from robustify.finetune.train.history import History

CHECKPOINT_SECONDS = 60.0
"""Seconds between checkpoints; the first step and the last always make one."""


@final
@dataclass(frozen=True)
class _Taken:
    """A checkpoint in memory.

    Arguments:
        state: Everything that training needs to continue, as torch stores it.
        progress: JSON-able summary.
    """

    state: bytes
    progress: dict[str, Any]


@final
class Checkpoints:
    """Keeps the state of a run at intervals, and writes each one after it has proved sound.

    A step whose own loss was finite may still ruin the weights. So a state stays in memory until the next step, which
    starts from it, has a finite loss and gradient.

    Arguments:
        folder: Where checkpoints are written.
        history: Gives the history so far, whenever it is called.
        writes: Whether this process writes; the others only read.
    """

    def __init__(self, folder: TrainingFolder, history: Callable[[], History], *, writes: bool) -> None:
        self._folder = folder
        self._history = history
        self._writes = writes
        self._taken: _Taken | None = None
        self._last: float | None = None

    def is_due(self) -> bool:
        """Whether the interval is over, or no state was taken yet."""
        return self._last is None or time.monotonic() - self._last > CHECKPOINT_SECONDS

    def take(self, state: Mapping[str, Any]) -> None:
        """Keeps a state in memory without writing it; its `step` is the number of steps done."""
        self._last = time.monotonic()
        if self._writes:
            content = BytesIO()
            torch.save(dict(state), content)
            progress = {"step": state["step"], **self._history().summary()}
            self._taken = _Taken(content.getvalue(), progress)

    def confirm(self) -> None:
        """Writes the state that was taken last, unless it is written already, and the history.

        Raises:
            RunError: If the disk is full or gone; the checkpoint before stays.
        """
        if self._taken is not None:
            self._folder.save(self._taken.state, self._taken.progress)
            self._history().write(self._folder.folder)
            self._taken = None

    def load(self) -> dict[str, Any] | None:
        """The state written last; None where there is none yet.

        Raises:
            RunError: If it cannot be read.
        """
        file = self._folder.folder / STATE
        if not file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, pickle and tensor errors: all mean an unusable file
            raise RunError(f"cannot read {str(file)!r}: {error}.\n  Delete it to train from the start.") from error
        return state
