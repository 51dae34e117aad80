"""Runs on disk: a folder with `run.json`, which says what was run, and its rows; read without a model.

`run.json` holds everything that decides whether rows belong together, as data. The same configuration continues a
run, any other is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, final

from robustify.certificates.family import Plan, read_plan
from robustify.contract import InputContract, Numerics
from robustify.errors import RunError
from robustify.folders import disk, write_whole
from robustify.runs.rows import Row, RowStore

FORMAT = 2
"""Version of the form of run folders; robustify 0.1 wrote the first, which names no version."""

T = TypeVar("T")

_NEEDED = (
    *("family", "plan", "classifier", "denoiser", "numerics", "contract", "labels"),
    *("soundness", "samples", "seed", "fresh"),
)


@final
@dataclass(frozen=True)
class Run:
    """A certification run, while it lasts or after it; as text, its status.

    Arguments:
        folder: Folder of the run.
        config: What was run, as `run.json` holds it.
        rows: Rows written so far, ordered by sample.
        finished: Whether the run has come to its end.
        unreadable: Sample and reason for each image that could not be used; known to the process that certified.
    """

    folder: Path
    config: dict[str, Any] = field(repr=False)
    rows: list[Row] = field(repr=False)
    finished: bool
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The question that was asked of every image.

        Raises:
            PluginError: If the certificate family is unknown, not installed or broken.
            RunError: If `run.json` describes none.
        """
        try:
            return read_plan(self.config["family"], self.config["plan"])
        except RunError as error:
            raise RunError(f"{str(self.folder / 'run.json')!r} describes no possible run: {error}") from error

    @property
    def seed(self) -> int:
        """Seed of the noise, 0 to 2**128 - 1."""
        return int(self.config["seed"])

    @property
    def fresh(self) -> bool:
        """Whether the seed came from the operating system, as a proof needs."""
        return bool(self.config["fresh"])

    @property
    def soundness(self) -> str:
        """How noise met pixels: "grid" or "float"."""
        return str(self.config["soundness"])

    @property
    def numerics(self) -> Numerics:
        """How the networks computed."""
        return self._read("numerics", Numerics)

    @property
    def contract(self) -> InputContract:
        """The space in which noise was added and radii are measured."""
        return self._read("contract", InputContract)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.config["labels"])

    @property
    def samples(self) -> int:
        """Number of images to certify."""
        return int(self.config["samples"])

    def _read(self, key: str, kind: type[T]) -> T:
        try:
            return kind(**self.config[key])
        except TypeError as error:
            file = str(self.folder / "run.json")
            raise RunError(f"{file!r} describes no possible run: {key} is {self.config[key]!r}") from error

    def __str__(self) -> str:
        from robustify.runs.status import status

        return str(status(self))


def read_run(folder: str | PathLike[str]) -> Run:
    """Reads a run folder without changing anything.

    Raises:
        RunError: If it holds no run, one of robustify 0.1, or one that cannot be read.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise RunError(f"{str(folder)!r} holds no certification run: there is no run.json")
    config, store = read_config(folder), RowStore(folder)
    return Run(folder, config, store.rows(), store.finished)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the run in a folder.

    Raises:
        RunError: If `run.json` cannot be read, or is from another version of robustify.
    """
    file = folder / "run.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {str(file)!r}: {error}") from error
    if not isinstance(config, dict):
        raise RunError(f"{str(file)!r} does not describe a certification run: it holds no JSON object")
    if "format" not in config and "rule" in config:
        raise RunError(
            f"{str(folder)!r} was made by robustify 0.1, whose seeds gave other noise and whose rows have another "
            "form; read it with robustify 0.1, or certify again in another folder"
        )
    if missing := [key for key in ("format", *_NEEDED) if key not in config]:
        raise RunError(f"{str(file)!r} does not describe a certification run: it lacks {', '.join(missing)}")
    if config["format"] != FORMAT:
        raise RunError(
            f"{str(folder)!r} has format {config['format']!r}, which this version of robustify cannot read; "
            f"expected format {FORMAT}"
        )
    return config


def open_run(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Begins a run in a new or empty folder, or continues the same run; returns the configuration that holds.

    Arguments:
        folder: Folder of the run, made where missing.
        config: What is to be run. A fresh seed gives way to the fresh seed of the run that continues.

    Raises:
        RunError: If the folder holds another run or other files, or cannot be written.
    """
    wanted: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **config}))
    if (folder / "run.json").is_file():
        stored = read_config(folder)
        _check_same(stored, wanted, folder)
        return stored
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RunError(f"{str(folder)!r} holds something that is no certification run; choose another folder")
    with disk(folder, "Rows written before"):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "run.json", json.dumps(wanted, indent=2).encode())
    return wanted


_FOLLOWS = {
    "plan.slack": ("plan.sigma", "soundness"),
    "denoiser.description": ("denoiser.name", "plan.sigma"),
    "denoiser.sha256": ("denoiser.name", "denoiser.description", "plan.sigma"),
}
"""Differences that go unsaid where another one, which is easier to read, implies them."""


def _check_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Refuses to mix rows of different runs, with each difference that is worth reading."""
    there, now = flat(stored), flat(wanted)
    if there["fresh"] and now["fresh"]:
        now["seed"] = there["seed"]
    different = sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key))
    told = [key for key in different if not any(cause in different for cause in _FOLLOWS.get(key, ()))]
    if told:
        lines = [f"  {key}: there {_short(there.get(key))}, now {_short(now.get(key))}" for key in told]
        raise RunError(f"{str(folder)!r} holds another run:\n" + "\n".join(lines) + "\n  Choose another folder.")


def flat(config: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Nested settings as one level, with keys such as `plan.sigma`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{within}{key}.")
        else:
            found[f"{within}{key}"] = value
    return found


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
