"""A run on disk, read without a model and without changing anything."""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, final

from robustify.certificates.plans import Plan
from robustify.certificates.rules import plan_of
from robustify.errors import InputError, RunError
from robustify.runs.rows import Row, RowStore

_NEEDED = ("rule", "sigma", "alpha", "n0", "n", "slack", "seed", "soundness", "samples", "labels", "contract")


@final
@dataclass(frozen=True)
class StoredRun:
    """What a run folder holds, while the run lasts or after it.

    Arguments:
        folder: Where it is.
        config: What was run, from `run.json`.
        rows: Those written so far, by sample id.
        finished: Whether the run has come to its end.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[Row]
    finished: bool

    @property
    def plan(self) -> Plan:
        """The question that was asked of every image.

        Raises:
            RunError: If `run.json` describes none.
        """
        c = self.config
        try:
            return plan_of(
                c["rule"],
                sigma=float(c["sigma"]),
                alpha=float(c["alpha"]),
                n0=c["n0"],
                n=c["n"],
                slack=float(c["slack"]),
                radii=tuple(map(float, c.get("radii", ()))),
            )
        except (InputError, TypeError, ValueError) as error:
            raise RunError(f"{str(self.folder / 'run.json')!r} describes no possible run: {error}") from error


def read_run(folder: str | PathLike[str]) -> StoredRun:
    """Reads a run folder.

    Raises:
        RunError: If it holds no run, or one that cannot be read.
    """
    folder = Path(folder)
    file = folder / "run.json"
    if not file.is_file():
        raise RunError(f"{str(folder)!r} holds no certification run: there is no run.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {str(file)!r}: {error}") from error
    missing = [key for key in _NEEDED if not isinstance(config, dict) or key not in config]
    if missing:
        raise RunError(f"{str(file)!r} does not describe a certification run: it lacks {', '.join(missing)}")
    finished = (folder / "rows.parquet").is_file() and not any((folder / "rows").glob("*.parquet"))
    return StoredRun(folder, config, RowStore(folder, config).rows(), finished)
