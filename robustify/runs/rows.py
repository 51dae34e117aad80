"""Rows on disk: one Parquet row per image, written whole or not at all.

A run folder holds `rows/` (one file per image while the run lasts) and `rows.parquet` (all of them, once it is done),
beside `run.json`. Rows hold integer counts, from which everything else can be computed again.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, final, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from robustify.certificates.family import Bound, Tally
from robustify.certificates.tallied import Tallied
from robustify.errors import RunError
from robustify.folders import disk, write_whole


@final
@dataclass(frozen=True)
class Row(Tallied):
    """The record of one image: integer counts, and the claim that follows from them.

    The fields, in this order and with these types, are the columns of the Parquet files.

    Arguments:
        sample: Name of the image in the data set; it gives the image's noise.
        truth: Index of the true class; None where unknown.
        label: Index of the certified class; None where the classifier abstained.
        radius: ℓ2, in [0, 1] pixels, exclusive; 0 where the classifier abstained.
        bounds: Bounds on the label's and on any other class's probability, for each view.
        tallies: The votes that chose the label and those that certify it, with what was known at each look.
        batch: Images per forward pass.
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


_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def _required(kind: Any) -> Any:  # noqa: ANN401 - types have no better type
    """The type of a value that is there, where None is allowed besides."""
    return next(k for k in get_args(kind) if k is not NoneType) if get_origin(kind) is UnionType else kind


def _column(kind: Any) -> pa.DataType:  # noqa: ANN401
    """The Parquet type of a field: a scalar, a tuple of one kind of items, or a named tuple."""
    kind = _required(kind)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if get_origin(kind) is tuple:
        return pa.list_(_column(get_args(kind)[0]))
    return pa.struct([(name, _column(hint)) for name, hint in get_type_hints(kind).items()])


@cache
def _decoder(kind: Any) -> Callable[[Any], Any]:  # noqa: ANN401
    """A function from what is stored of a field to its value."""
    kind = _required(kind)
    if kind in _SCALARS:
        return lambda stored: stored
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple if item in _SCALARS else lambda stored: tuple(map(_decoder(item), stored))
    hints = get_type_hints(kind)
    if all(_required(hint) in _SCALARS for hint in hints.values()):
        return lambda stored: kind(**stored)
    decoders = {name: _decoder(hint) for name, hint in hints.items()}
    return lambda stored: kind(**{name: decode(stored[name]) for name, decode in decoders.items()})


FIELDS = {name: hint for name, hint in get_type_hints(Row).items() if name in Row.__dataclass_fields__}

SCHEMA = pa.schema([(name, _column(hint)) for name, hint in FIELDS.items()])
"""The columns of a file of rows."""


def row_bytes(rows: Iterable[Row]) -> bytes:
    """The content of a Parquet file with these rows."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_rows(file: Path) -> list[Row]:
    """The rows of a Parquet file.

    Raises:
        RunError: If it cannot be read.
    """
    try:
        with pq.ParquetFile(file) as stored:  # `read_table` would import pandas and take half a second more
            records = stored.read().select(SCHEMA.names).cast(SCHEMA).to_pylist()
        return [Row(**{name: _decoder(hint)(record[name]) for name, hint in FIELDS.items()}) for record in records]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> RunError:
    """The error for a file of rows that cannot be read."""
    return RunError(f"cannot read rows from {str(file)!r}: {error}.\n  Delete it to run its images again.")


@final
class RowStore:
    """The rows of one run folder.

    Arguments:
        folder: The folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts = folder / "rows"
        self._whole = folder / "rows.parquet"

    @property
    def finished(self) -> bool:
        """Whether all rows are joined into one file."""
        return self._whole.is_file() and not any(self._parts.glob("*.parquet"))

    def rows(self, read: Callable[[Path], list[Row]] = read_rows) -> list[Row]:
        """Every row written so far, ordered by sample; a half-written file does not count.

        Arguments:
            read: Reads one file.
        """
        files = [self._whole, *sorted(self._parts.glob("*.parquet"))]
        found = {row.sample: row for file in files if file.is_file() for row in read(file)}
        return [found[sample] for sample in sorted(found)]

    def add(self, row: Row) -> None:
        """Writes one row; after this returns, nothing short of losing the disk loses it.

        Raises:
            RunError: If the disk is full or gone; rows written before stay.
        """
        name = blake2b(row.sample.encode(), digest_size=12).hexdigest()
        with disk(self.folder, "Rows written before"):
            self._parts.mkdir(exist_ok=True)
            write_whole(self._parts / f"{name}.parquet", row_bytes([row]))

    def finish(self) -> None:
        """Joins the rows into one file."""
        rows = self.rows()
        with disk(self.folder, "Rows written before"):
            write_whole(self._whole, row_bytes(rows))
            if self._parts.is_dir():
                shutil.rmtree(self._parts)
