"""What is measured of a run: one row per stretch of steps, hits per class and epoch, held-out images per epoch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from robustify.folders import disk, write_whole

LEAST_IMAGES = 20
"""Of a class, before its hit rate says anything."""

PATIENCE = 50
"""Steps whose mean hit rate is compared with the best such mean before."""


@final
@dataclass
class History:
    """Of one run.

    Arguments:
        labels: Names of the classes.
        every: Steps that one row stands for.
        rows: `step`, `epoch`, `images`, `loss`, `learning_rate`, and the mean of each metric of the objective.
        hits: For each epoch and class, the share of its images' copies that were classified as it, and how many images.
        held_out: What `HeldOut.judge` found before training, epoch 0, and after each epoch.
        log: Called with each row, and with those of `held_out`, whose names then begin with `held_out_`.
    """

    labels: tuple[str, ...]
    every: int
    log: Callable[[dict[str, float | int]], object] | None = None
    rows: list[dict[str, float | int]] = field(default_factory=list)
    hits: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[dict[str, float | int]] = field(default_factory=list)
    _last: dict[str, float | int] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)
    _images: int = 0
    _recent: list[float] = field(default_factory=list)
    _best: float = 0.0
    _lost: list[str] = field(default_factory=list)
    _class_hits: list[float] = field(default_factory=list)
    _class_images: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._clear()

    def add(self, means: dict[str, float], *, step: int, epoch: float, rate: float, images: int) -> str | None:
        """One step's means over its images. Returns a warning where the run collapses."""
        for name, mean in means.items():
            self._sums[name] = self._sums.get(name, 0.0) + mean * images
        self._last = {"step": step, "epoch": epoch, "learning_rate": rate}
        self._images += images
        if (step + 1) % self.every == 0:
            self._close()
        if "hit" not in means:
            return None
        if step == 0 and images >= LEAST_IMAGES:
            self._best = means["hit"]  # nothing is learned yet
        return self._diagnose(means["hit"])

    def add_hits(self, hits: Tensor, images: Tensor) -> None:
        """Hits and images of one step, summed by class."""
        self._class_hits = [a + b for a, b in zip(self._class_hits, hits.tolist(), strict=True)]
        self._class_images = [a + b for a, b in zip(self._class_images, images.tolist(), strict=True)]

    def add_held_out(self, found: dict[str, float], epoch: int) -> None:
        """What was found after so many epochs."""
        self.held_out.append({"epoch": epoch, **found})
        if self.log is not None:
            self.log({"epoch": epoch, **{f"held_out_{name}": value for name, value in found.items()}})

    def worse(self) -> str | None:
        """A warning where training left held-out images recognised worse than before by every measure."""
        first, last = self.held_out[0], self.held_out[-1]
        if any(last[name] >= first[name] for name in first if name != "epoch"):
            return None
        return (
            f"training made it worse: {first['hit']:.1%} of the noisy copies of held-out images were recognised before "
            f"it, {last['hit']:.1%} after.\n  Fewer epochs, a smaller learning rate or more images often help."
        )

    def end_epoch(self, epoch: int) -> str | None:
        """Closes what belongs to the epoch; `epoch` counts from 1. Returns a warning where a class is given up."""
        self._close()
        before = {row["class"]: row for row in self.hits if row["epoch"] == 1}
        for name, hits, images in zip(self.labels, self._class_hits, self._class_images, strict=True):
            share = hits / images if images else None
            self.hits.append({"epoch": epoch, "class": name, "hit": share, "images": int(images)})
        self._clear()
        lost = [row["class"] for row in self.hits[-len(self.labels) :] if self._is_lost(before.get(row["class"]), row)]
        self._lost += lost
        return _given_up(before, self.hits[-len(self.labels) :], lost)

    def _is_lost(self, first: dict[str, Any] | None, row: dict[str, Any]) -> bool:
        """Once recognised better than by chance, now half as often or less, and not said yet."""
        if first is None or row["class"] in self._lost or min(first["images"], row["images"]) < LEAST_IMAGES:
            return False
        return bool(first["hit"] > 2 / len(self.labels) and row["hit"] < first["hit"] / 2)

    def hallucination(self) -> dict[str, float]:
        """The share of each class's copies that were not recognised in the last epoch, the largest first."""
        last = max((row["epoch"] for row in self.hits), default=0)
        shares = {r["class"]: 1 - r["hit"] for r in self.hits if r["epoch"] == last and r["hit"] is not None}
        return dict(sorted(shares.items(), key=lambda item: item[1], reverse=True))

    def state(self) -> dict[str, Any]:
        """All of it, in plain containers."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`."""
        for name in _STATE:
            setattr(self, name, state[name])

    def write(self, folder: Path) -> None:
        """`history.parquet`, `hits.parquet` and `held_out.parquet`, where there are rows."""
        for name, rows in (("history", self.rows), ("hits", self.hits), ("held_out", self.held_out)):
            if rows:
                sink = BytesIO()
                pq.write_table(pa.Table.from_pylist(rows), sink)
                with disk(folder, "Steps up to the last checkpoint"):
                    write_whole(folder / f"{name}.parquet", sink.getvalue())

    def _close(self) -> None:
        if not self._images:
            return
        means = {name: value / self._images for name, value in self._sums.items()}
        self.rows.append({**self._last, "images": self._images, **means})
        self._sums, self._images = {}, 0
        if self.log is not None:
            self.log(self.rows[-1])

    def _clear(self) -> None:
        self._class_hits, self._class_images = [0.0] * len(self.labels), [0.0] * len(self.labels)

    def _diagnose(self, hit: float) -> str | None:
        self._recent = [*self._recent, hit][-PATIENCE:]
        if len(self._recent) < PATIENCE:
            return None
        mean = sum(self._recent) / PATIENCE
        self._best = max(self._best, mean)
        if mean >= self._best / 2:
            return None
        self._recent, best = [], self._best
        return (
            f"the run may be collapsing: over the last {PATIENCE} steps {mean:.0%} of the copies were recognised, "
            f"{best:.0%} at best before.\n  A smaller learning rate or a smaller weight of the robust term often helps."
        )


def _given_up(before: dict[str, Any], now: list[dict[str, Any]], lost: list[str]) -> str | None:
    said = [
        f"{row['class']!r} {before[row['class']]['hit']:.0%} to {row['hit']:.0%}" for row in now if row["class"] in lost
    ]
    if not said:
        return None
    return (
        f"the classifier is giving up {len(said)} of its classes: since the first epoch, copies recognised fell for "
        f"{', '.join(said[:3])}.\n  An objective that learns only from what is recognised (ft-cadis) may drop hard "
        "classes; a smaller weight keeps them."
    )


_STATE = (
    *("rows", "hits", "held_out"),
    *("_last", "_sums", "_images", "_recent", "_best", "_lost", "_class_hits", "_class_images"),
)
