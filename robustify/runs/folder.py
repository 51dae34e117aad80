"""A run on disk, read without a model and without changing anything."""

import json
from dataclasses import dataclass, field
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any, final

from robustify.certificates.family import Plan, read_plan
from robustify.contract import InputContract, Numerics
from robustify.errors import RunError
from robustify.runs import version1
from robustify.runs.config import read_config
from robustify.runs.digests import DIGEST
from robustify.runs.ending import Ending, read_ending
from robustify.runs.rows import Row, read_rows
from robustify.runs.store import RowStore


@final
@dataclass(frozen=True)
class Run:
    """What a run folder holds, while the run lasts or after it; as text, what it adds up to.

    Arguments:
        folder: The folder.
        config: What was run, from `run.json`.
        rows: One per certified image so far, ordered by sample.
        finished: Whether the run has come to its end.
        ending: What a finished run adds up to; None where it still goes on, or has an older format.
    """

    folder: Path
    config: dict[str, Any] = field(repr=False)
    rows: list[Row] = field(repr=False)
    finished: bool
    ending: Ending | None = field(default=None, repr=False)

    @cached_property
    def plan(self) -> Plan:
        """The question that was asked of every image.

        Raises:
            PluginError: If its family of certificates is not installed.
            RunError: If `run.json` describes none.
        """
        stored = self.config["plan"]
        try:
            plan = read_plan(self.config["family"], stored)
        except RunError as error:
            raise RunError(f"{str(self.folder / 'run.json')!r} describes no possible run: {error}") from error
        there, read = (json.loads(json.dumps(data)) for data in (stored, plan.stored()))
        if there != read:  # text that can be read as a number, for example
            file = str(self.folder / "run.json")
            raise RunError(f"{file!r} describes no possible run: its plan is {there}; expected {read}")
        return plan

    @property
    def contract(self) -> InputContract:
        """The space in which noise was added and radii live."""
        return InputContract(**self.config["contract"])

    @property
    def numerics(self) -> Numerics:
        """How the networks computed."""
        return Numerics(**self.config["numerics"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.config["labels"])

    @property
    def soundness(self) -> str:
        """How noise met pixels: "grid" or "float"."""
        return str(self.config["soundness"])

    @property
    def samples(self) -> int:
        """Number of images that are to be certified."""
        return int(self.config["samples"])

    @property
    def seed(self) -> int:
        """Seed of the noise, 128 bits."""
        return int(self.config["seed"])

    @property
    def fresh(self) -> bool:
        """Whether the seed came from the operating system."""
        return bool(self.config["fresh"])

    @property
    def digest(self) -> str | None:
        """Digest of the configuration, which keys those of the rows; None in runs of older formats."""
        return self.config.get(DIGEST)

    @property
    def unreadable(self) -> dict[str, str]:
        """Name and reason for each image that could not be used, once the run is finished."""
        return {} if self.ending is None else {image.sample: image.reason for image in self.ending.unusable}

    def __str__(self) -> str:
        from robustify.runs.status import status  # which reads runs, and so imports this module

        return str(status(self))


def read_run(folder: str | PathLike[str]) -> Run:
    """Reads a run folder.

    Raises:
        RunError: If it holds no run, or one that cannot be read.
    """
    folder = Path(folder)
    config, store = read_config(folder), RowStore(folder)
    rows = store.rows(partial(version1.read_rows, config=config) if config["format"] == 1 else read_rows)
    return Run(folder, config, rows, store.finished, read_ending(folder))
