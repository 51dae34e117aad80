"""The end of a run: which images could not be used, and the digest of all rows, in `finished.json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from robustify.errors import RunError
from robustify.runs.digests import keyed_digest, rows_digest
from robustify.runs.parse import parsed
from robustify.runs.rows import Row

ENDING = "finished.json"
"""Name of the file in the folder of a finished run."""


@final
@dataclass(frozen=True)
class Unusable:
    """An image of a run that could not be used.

    Arguments:
        sample: Name of the image in the data set.
        truth: Index of its true class; None where unknown.
        reason: What was wrong with it.
    """

    sample: str
    truth: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.sample}: {self.reason}"


@final
@dataclass(frozen=True)
class Ending:
    """What a run adds up to, written once all of its images are done or could not be used.

    Arguments:
        rows: Number of rows.
        rows_digest: Digest of the digests of all rows.
        unusable: Images without a row, ordered by name.
        digest: Digest of all of this, keyed by that of `run.json`.
    """

    rows: int
    rows_digest: str
    unusable: tuple[Unusable, ...]
    digest: str

    def expected_digest(self, key: str) -> str:
        """The digest that belongs to this content in the run whose `run.json` has the digest `key`."""
        return keyed_digest(asdict(self), key)

    def to_json(self) -> bytes:
        """The content of the file."""
        return json.dumps(asdict(self), indent=2).encode()


def ending_of(rows: Sequence[Row], unusable: Sequence[Unusable], key: str) -> Ending:
    """The end of a run with these rows and unusable images.

    Arguments:
        rows: All rows, with their digests.
        unusable: All other images.
        key: The digest of the run's `run.json`.
    """
    ordered = tuple(sorted(unusable, key=lambda image: image.sample))
    ending = Ending(len(rows), rows_digest(rows), ordered, "")
    return replace(ending, digest=ending.expected_digest(key))


def read_ending(folder: Path) -> Ending | None:
    """The end of the run in a folder; None where there is none yet.

    Raises:
        RunError: If it cannot be read.
    """
    file = folder / ENDING
    if not file.is_file():
        return None
    try:
        return parsed(Ending, json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read the end of a run from {str(file)!r}: {error}") from error
