"""The history of a training run: everything that was measured, in plain containers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias, final

import pyarrow as pa
import pyarrow.parquet as pq

from robustify.folders import disk, write_whole

Row: TypeAlias = dict[str, float | int]
"""Numbers by name."""

WORST = 3
"""Classes that a summary names."""


@final
@dataclass
class History:
    """Everything that was measured of one run; `dataclasses.asdict` stores it.

    Arguments:
        training: One row per stretch of steps: `step`, `epoch`, `images`, `loss`, `learning_rate`, and the mean of
            each metric of the objective.
        classes: For each epoch and class: `epoch`, `class`, `noisy_accuracy` (None without images), `images`.
        validation: Rows of `Validation.measure` from before training, epoch 0, and after each epoch.
    """

    training: list[Row] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    validation: list[Row] = field(default_factory=list)

    def hallucination(self) -> dict[str, float]:
        """The share of each class's noisy copies not classified as it in the last epoch, the largest first."""
        last = max((row["epoch"] for row in self.classes), default=0)
        now = [row for row in self.classes if row["epoch"] == last and row["noisy_accuracy"] is not None]
        shares = {row["class"]: 1 - row["noisy_accuracy"] for row in now}
        return dict(sorted(shares.items(), key=lambda item: item[1], reverse=True))

    def summary(self) -> dict[str, Any]:
        """The last numbers, and the classes with the lowest noisy accuracy, as JSON has them."""
        return {
            "training": self.training[-1] if self.training else {},
            "validation": self.validation[-1] if self.validation else None,
            "worst": list(self.hallucination().items())[:WORST],
        }

    def write(self, folder: Path) -> None:
        """Writes `history.parquet`, `classes.parquet` and `validation.parquet`, those that have rows.

        Raises:
            RunError: If the disk is full or gone.
        """
        _write(folder / "history.parquet", self.training)
        _write(folder / "classes.parquet", self.classes)
        _write(folder / "validation.parquet", self.validation)


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    with disk(file.parent, "Steps up to the last checkpoint"):
        write_whole(file, sink.getvalue())
