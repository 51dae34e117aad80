"""The folder of a training run: what was run, how far it is, what came out."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from robustify.errors import RunError
from robustify.folders import disk, write_whole

_UNDONE = ".tune.json."
"""What a killed process may leave of a folder that it began."""


@final
class RunFolder:
    """Holds `tune.json` (what is run) and `state.pt` (how far it is). Another run is refused.

    Arguments:
        folder: Made where missing.
        config: JSON-able description of the run.

    Raises:
        RunError: If the folder holds another run or other files, or cannot be written.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self._state = folder / "state.pt"
        wanted = json.loads(json.dumps(config))
        file = folder / "tune.json"
        if file.is_file():
            _check_same(json.loads(file.read_text()), wanted, folder)
            return
        if folder.is_file() or (folder.is_dir() and any(not p.name.startswith(_UNDONE) for p in folder.iterdir())):
            raise RunError(f"{str(folder)!r} holds something that is no training run; choose another folder")
        with disk(folder, "Models trained before"):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(wanted, indent=2).encode())

    def save(self, state: bytes) -> None:
        """Replaces the state, whole or not at all.

        Arguments:
            state: Of `packed`.

        Raises:
            RunError: If the disk is full or gone; the state before stays.
        """
        with disk(self.folder, "Steps up to the last checkpoint"):
            write_whole(self._state, state)

    def load(self) -> dict[str, Any] | None:
        """The state; None where there is none yet.

        Raises:
            RunError: If it cannot be read.
        """
        if not self._state.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, pickle and tensor errors: all mean an unusable file
            raise RunError(
                f"cannot read {str(self._state)!r}: {error}.\n  Delete it to train from the start."
            ) from error
        return state


def packed(state: Mapping[str, Any]) -> bytes:
    """As `RunFolder.load` reads it."""
    content = BytesIO()
    torch.save(dict(state), content)
    return content.getvalue()


def is_training_run(folder: Path) -> bool:
    """Whether the folder is one that `tune` made."""
    return (folder / "tune.json").is_file()


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters that learn, and buffers such as running statistics."""
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in frozen}


def restore_trained(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts `trained_state` back.

    Raises:
        RunError: If it belongs to another network.
    """
    own = network.state_dict()
    wrong = sorted(name for name in state if name not in own or own[name].shape != state[name].shape)
    if wrong:
        raise RunError(f"the stored weights are of another network: {len(wrong)} tensors differ, first {wrong[0]!r}")
    network.load_state_dict(dict(state), strict=False)


def _check_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    different = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if different:
        lines = [f"  {key}: there {stored.get(key)}, now {wanted.get(key)}" for key in different]
        raise RunError(
            f"{str(folder)!r} holds another training run:\n" + "\n".join(lines) + "\n  Choose another folder with out=."
        )
