"""Rows on disk: one Parquet row per image, written whole or not at all.

Rows hold integer counts, from which everything else can be computed again. What is the same for all of them, the plan
and the seed among it, is in `run.json`: see `robustify.runs.folder`.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import pyarrow.parquet as pq

from robustify.certificates.certificate import Counted
from robustify.certificates.family import Bound, Look, Tally
from robustify.errors import RunError
from robustify.folders import disk, write_whole


@final
@dataclass(frozen=True)
class Row(Counted):
    """The stored result of one image: its counts, and the claim that follows from them.

    Arguments:
        sample: Name of the image in the data set.
        truth: Index of the true class; None where unknown.
        label: Index of the certified class; None where the classifier abstained.
        radius: ℓ2 radius in [0, 1] pixels, exclusive; 0 where the classifier abstained.
        bounds: Bounds that the radius rests on, one per view; empty for a proof without probabilities.
        tallies: Votes of each stage of each view.
        batch: Number of images per forward pass.
        pixels: SHA-256 of the pixels that were certified.
        seconds: Wall time since the row before.
    """

    sample: str
    truth: int | None
    label: int | None
    radius: float
    bounds: tuple[Bound, ...]
    tallies: tuple[Tally, ...]
    batch: int
    pixels: str
    seconds: float

    @property
    def correct(self) -> bool:
        """Whether the certified label is the true one."""
        return self.label is not None and self.label == self.truth


_BOUND = pa.struct([("p_lower", pa.float64()), ("p_upper", pa.float64())])
_LOOK = pa.struct([("n", pa.int64()), ("label", pa.int64()), ("rival", pa.int64())])
_TALLY = pa.struct(
    [
        ("view", pa.int64()),
        ("stage", pa.string()),
        ("draws", pa.int64()),
        ("votes", pa.list_(pa.int64())),
        ("label", pa.int64()),
        ("looks", pa.list_(_LOOK)),
    ]
)

SCHEMA = pa.schema(
    [
        ("sample", pa.string()),
        ("truth", pa.int64()),
        ("label", pa.int64()),
        ("radius", pa.float64()),
        ("bounds", pa.list_(_BOUND)),
        ("tallies", pa.list_(_TALLY)),
        ("batch", pa.int64()),
        ("pixels", pa.string()),
        ("seconds", pa.float64()),
    ]
)
"""Columns of a Parquet file of rows, named and ordered like the fields of `Row`."""


def to_parquet(rows: Iterable[Row]) -> bytes:
    """The content of a Parquet file that holds these rows."""
    table = pa.Table.from_pylist([_record(row) for row in rows], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


@final
class RowStore:
    """The rows of a run folder: `rows/`, one file per image while the run lasts, and `rows.parquet`, all in the end.

    Arguments:
        folder: Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / "rows"
        self._whole = folder / "rows.parquet"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self._whole.is_file() and not any(self._parts.glob("*.parquet"))

    def rows(self) -> list[Row]:
        """Every row written so far, ordered by sample; a half-written file does not count.

        Raises:
            RunError: If a file cannot be read.
        """
        files = [self._whole, *sorted(self._parts.glob("*.parquet"))]
        found = {row.sample: row for file in files if file.is_file() for row in _read(file)}
        return [found[sample] for sample in sorted(found)]

    def add(self, row: Row) -> None:
        """Writes one row; after this returns, nothing short of losing the disk loses it.

        Raises:
            RunError: If the disk is full or gone; rows written before stay.
        """
        name = blake2b(row.sample.encode(), digest_size=12).hexdigest()
        with disk(self.folder, "Rows written before"):
            self._parts.mkdir(exist_ok=True)
            write_whole(self._parts / f"{name}.parquet", to_parquet([row]))

    def finish(self) -> None:
        """Joins the rows into one file.

        Raises:
            RunError: If a file cannot be read, or the disk is full or gone; rows written before stay.
        """
        rows = self.rows()
        with disk(self.folder, "Rows written before"):
            write_whole(self._whole, to_parquet(rows))
            if self._parts.is_dir():
                shutil.rmtree(self._parts)


def _read(file: Path) -> list[Row]:
    try:
        records = pq.read_table(file, schema=SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RunError(
            f"cannot read rows from {str(file)!r}: {error}.\n  Delete it to run its images again."
        ) from error
    return [_row(record) for record in records]


def _record(row: Row) -> dict[str, Any]:
    bounds = [bound._asdict() for bound in row.bounds]
    tallies = [{**tally._asdict(), "looks": [look._asdict() for look in tally.looks]} for tally in row.tallies]
    return {**vars(row), "bounds": bounds, "tallies": tallies}


def _row(record: Mapping[str, Any]) -> Row:
    bounds = tuple(Bound(**bound) for bound in record["bounds"])
    return Row(**{**record, "bounds": bounds, "tallies": tuple(map(_tally, record["tallies"]))})


def _tally(record: Mapping[str, Any]) -> Tally:
    looks = tuple(Look(**look) for look in record["looks"])
    return Tally(**{**record, "votes": tuple(record["votes"]), "looks": looks})
