"""The folder of a training run: what is run, how far it is, what came out. Reading it needs no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from robustify.errors import RunError
from robustify.folders import disk, write_whole

FORMAT = 2
"""Version of the folder, written to `tune.json`; robustify 0.1 wrote none."""

CONFIG = "tune.json"
STATE = "state.pt"
PROGRESS = "progress.json"
ADAPTER = "adapter"
WEIGHTS = "weights.safetensors"

_UNFINISHED = f".{CONFIG}."
"""Start of the name of a temporary file, which a killed process may leave in a folder that it had just made."""


@final
class TrainingFolder:
    """A folder with `tune.json` (what is run), `state.pt` and `progress.json` (how far it is).

    Arguments:
        folder: Made where missing.
        config: JSON-able description of the run.

    Raises:
        RunError: If the folder holds another run or other files, or cannot be written.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        wanted = json.loads(json.dumps({"format": FORMAT, **config}))
        if is_training_run(folder):
            _check_same(read_config(folder), wanted, folder)
            return
        if folder.is_file() or (folder.is_dir() and any(not p.name.startswith(_UNFINISHED) for p in folder.iterdir())):
            raise RunError(f"{str(folder)!r} holds something that is no training run; choose another folder")
        with disk(folder, "Models trained before"):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / CONFIG, json.dumps(wanted, indent=2).encode())

    def save(self, state: bytes, progress: Mapping[str, Any]) -> None:
        """Replaces the checkpoint and its summary, each file whole or not at all.

        Arguments:
            state: Everything that training needs to continue.
            progress: JSON-able summary of it, which `read_progress` reads without torch.

        Raises:
            RunError: If the disk is full or gone; the state before stays.
        """
        with disk(self.folder, "Steps up to the last checkpoint"):
            write_whole(self.folder / STATE, state)
            write_whole(self.folder / PROGRESS, json.dumps(progress).encode())


def is_training_run(folder: Path) -> bool:
    """Whether the folder is one that `tune` made."""
    return (folder / CONFIG).is_file()


def is_done(folder: Path) -> bool:
    """Whether the folder of a training run holds the tuned weights."""
    return (folder / ADAPTER).is_dir() or (folder / WEIGHTS).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """Description of the run in a folder that `tune` made.

    Raises:
        RunError: If the folder was made by robustify 0.1 or a newer version, or cannot be read.
    """
    config = _read_json(folder / CONFIG)
    if config.get("format") != FORMAT:
        raise RunError(
            f"{str(folder)!r} holds a training run of format {config.get('format', 1)}, of another version of "
            f"robustify; this one reads format {FORMAT}.\n  Tune again in another folder, or use that version."
        )
    return config


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Summary of the last checkpoint, as `TrainingFolder.save` wrote it; None before the first.

    Raises:
        RunError: If it cannot be read.
    """
    file = folder / PROGRESS
    return _read_json(file) if file.is_file() else None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {str(file)!r}: {error}") from error
    return found


def _check_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    different = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if different:
        lines = [f"  {key}: there {stored.get(key)}, now {wanted.get(key)}" for key in different]
        raise RunError(
            f"{str(folder)!r} holds another training run:\n" + "\n".join(lines) + "\n  Choose another folder with out=."
        )
