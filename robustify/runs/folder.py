"""A run on disk, read without a model and without changing anything."""

from dataclasses import dataclass, field
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, final

from robustify.certificates.family import Plan, read_plan
from robustify.contract import InputContract, Numerics
from robustify.errors import RunError
from robustify.runs import version1
from robustify.runs.config import read_config
from robustify.runs.rows import Row, RowStore, read_rows

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Run:
    """What a run folder holds, while the run lasts or after it; as text, what it adds up to.

    Arguments:
        folder: The folder.
        config: What was run, from `run.json`.
        rows: One per certified image so far, ordered by sample.
        finished: Whether the run has come to its end.
        unreadable: Name and reason for each image that could not be used; known to the process that certified them.
    """

    folder: Path
    config: dict[str, Any] = field(repr=False)
    rows: list[Row] = field(repr=False)
    finished: bool
    unreadable: dict[str, str] = field(default_factory=dict)

    @cached_property
    def plan(self) -> Plan:
        """The question that was asked of every image.

        Raises:
            PluginError: If its family of certificates is not installed.
            RunError: If `run.json` describes none.
        """
        try:
            return read_plan(self.config["family"], self.config["plan"])
        except RunError as error:
            raise RunError(f"{str(self.folder / 'run.json')!r} describes no possible run: {error}") from error

    @property
    def contract(self) -> InputContract:
        """The space in which noise was added and radii live."""
        return self._read("contract", InputContract)

    @property
    def numerics(self) -> Numerics:
        """How the networks computed."""
        return self._read("numerics", Numerics)

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

    def _read(self, key: str, kind: type[T]) -> T:
        """A part of the configuration as an object.

        Raises:
            RunError: If it has other fields.
        """
        try:
            return kind(**self.config[key])
        except TypeError as error:
            file = str(self.folder / "run.json")
            raise RunError(f"{file!r} describes no possible run: its {key} is {self.config[key]!r}") from error

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
    return Run(folder, config, rows, store.finished)
