"""Rows, one per image, as Parquet files: integer counts, from which everything else can be computed again."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, final, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from robustify.certificates.family import Bound, Tally
from robustify.certificates.tallied import Tallied
from robustify.errors import RunError


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
        uncertified: Index of the class that is answered where none is certified; None where nothing is answered.
        digest: Digest of all of the above, as `robustify.runs.digests` makes it; None in runs of older formats.
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
    uncertified: int | None = None
    digest: str | None = None

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
    """A function from what is stored of a field to its value; raises TypeError where a value is missing."""
    if get_origin(kind) is UnionType:
        inner = _decoder(_required(kind))
        return lambda stored: None if stored is None else inner(stored)
    if kind in _SCALARS:
        return _there
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return _all_there if item in _SCALARS else lambda stored: tuple(map(_decoder(item), _there(stored)))
    decoders = {name: _decoder(hint) for name, hint in get_type_hints(kind).items()}
    return lambda stored: kind(**{name: decode(_there(stored)[name]) for name, decode in decoders.items()})


def _there(stored: Any) -> Any:  # noqa: ANN401
    if stored is None:
        raise TypeError("a value is missing in a row")
    return stored


def _all_there(stored: Any) -> tuple[Any, ...]:  # noqa: ANN401
    if None in _there(stored):
        raise TypeError("a value is missing in a row")
    return tuple(stored)


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
        RunError: If it cannot be read, or holds two rows of one image.
    """
    try:
        records = _in_schema(read_table(file)).to_pylist()
        rows = [Row(**{name: _decoder(hint)(record[name]) for name, hint in FIELDS.items()}) for record in records]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise unreadable(file, error) from error
    if doubles := [sample for sample, count in Counter(row.sample for row in rows).items() if count > 1]:
        raise RunError(f"{str(file)!r} holds more than one row of {doubles[0]!r}: a row was copied.\n  {RESTORE}")
    return rows


def read_table(file: Path) -> pa.Table:
    """A whole Parquet file; `pyarrow.parquet.read_table` does the same, but imports pandas first."""
    with pq.ParquetFile(file) as opened:
        return opened.read()


def _in_schema(table: pa.Table) -> pa.Table:
    """The columns of rows, empty where the table lacks one; columns of another type raise an error of Arrow."""
    columns = [
        table.column(column.name).cast(column.type)
        if column.name in table.column_names
        else pa.nulls(len(table), column.type)
        for column in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


RESTORE = "Restore the file, or certify into another folder."
"""What to do where rows are not as they were written."""


def unreadable(file: Path, error: Exception) -> RunError:
    """The error for a file of rows that cannot be read."""
    return RunError(f"cannot read rows from {str(file)!r}: {error}.\n  Delete it to run its images again.")
