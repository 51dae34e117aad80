"""Rows on disk, each written whole or not at all.

A run folder holds `rows/` (one file per image while the run lasts), and `rows.parquet` (all of them) and
`finished.json` (what they add up to) once it is done, beside `run.json`.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import final

from robustify.errors import RunError
from robustify.folders import disk, make_folder, write_whole
from robustify.runs.ending import ENDING, Ending, Unusable, ending_of
from robustify.runs.rows import RESTORE, Row, read_rows, row_bytes


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

        Raises:
            RunError: If a file cannot be read, or two hold different rows of one image.
        """
        files = [self._whole, *sorted(self._parts.glob("*.parquet"))]
        found = dict[str, Row]()
        for row in (row for file in files if file.is_file() for row in read(file)):
            first = found.setdefault(row.sample, row)
            # Another process on the same folder may have certified an image too: alike, but for the time.
            if replace(row, seconds=first.seconds, digest=first.digest) != first:
                raise RunError(
                    f"two files in {str(self.folder)!r} hold different rows of {row.sample!r}: one was changed.\n"
                    f"  {RESTORE}"
                )
        return [found[sample] for sample in sorted(found)]

    def add(self, row: Row) -> None:
        """Writes one row; after this returns, nothing short of losing the disk loses it.

        Raises:
            RunError: If the disk is full or gone; rows written before stay.
        """
        name = blake2b(row.sample.encode(), digest_size=12).hexdigest()
        with disk(self.folder, "Rows written before"):
            make_folder(self._parts)
            write_whole(self._parts / f"{name}.parquet", row_bytes([row]))

    def finish(self, unusable: Sequence[Unusable], key: str) -> Ending:
        """Joins the rows into one file, and writes what they add up to.

        Arguments:
            unusable: The images that could not be used.
            key: The digest of the run's `run.json`.
        """
        rows = self.rows()
        ending = ending_of(rows, unusable, key)
        with disk(self.folder, "Rows written before"):
            write_whole(self._whole, row_bytes(rows))
            write_whole(self.folder / ENDING, ending.to_json())
            if self._parts.is_dir():  # only now is the run finished
                shutil.rmtree(self._parts)
        return ending
