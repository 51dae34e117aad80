"""The configuration of a run, as data in its `run.json`, which never changes once it is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustify.errors import RunError
from robustify.folders import disk, make_folder, write_whole
from robustify.runs import version1

FORMAT = 2
"""Number of the layout that is written here; robustify 0.1 wrote none."""

NEEDED = (
    "family",
    "plan",
    "classifier",
    "denoiser",
    "numerics",
    "contract",
    "labels",
    "soundness",
    "samples",
    "seed",
    "fresh",
)
"""Keys without which a run cannot be read."""

_FOLLOWS = {
    "denoiser.description": ("denoiser.name", "plan.sigma"),
    "denoiser.sha256": ("denoiser.name", "denoiser.description", "plan.sigma"),
    "plan.slack": ("plan.sigma", "soundness"),
}
"""Differences that are left out where another one, listed here, implies them."""


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a stored run. One of robustify 0.1 is turned into data of today, with `format` 1.

    Raises:
        RunError: If the folder holds no run, or one that cannot be read.
    """
    file = folder / "run.json"
    if not file.is_file():
        raise RunError(f"{str(folder)!r} holds no certification run: there is no run.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {str(file)!r}: {error}") from error
    old = version1.wrote(config)
    needed = version1.NEEDED if old else ("format", *NEEDED)
    missing = [key for key in needed if not isinstance(config, dict) or key not in config]
    if missing:
        raise RunError(f"{str(file)!r} does not describe a certification run: it lacks {', '.join(missing)}")
    if old:
        try:
            return version1.configuration(config)
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{str(file)!r} describes no possible run: {error}") from error
    if config["format"] != FORMAT:
        raise RunError(f"{str(file)!r} has format {config['format']}; expected {FORMAT}: use another robustify version")
    return dict(config)


def open_config(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Makes the folder of a run, or continues the run that it holds.

    Arguments:
        folder: The folder, made where missing.
        config: JSON-able description of the run; what decides whether rows belong together.

    Returns:
        The configuration of the folder: that of the run that is continued, with its own fresh seed, where it holds one.

    Raises:
        RunError: If the folder holds another run or other files, or cannot be written.
    """
    wanted = json.loads(json.dumps(config))
    if (folder / "run.json").is_file():
        return _same_run(folder, read_config(folder), wanted)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RunError(f"{str(folder)!r} holds something that is no certification run; choose another folder")
    with disk(folder, "Rows written before"):
        make_folder(folder)
        write_whole(folder / "run.json", json.dumps(wanted, indent=2).encode())
    return dict(wanted)


def _same_run(folder: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The stored configuration, if it is the wanted one; a fresh seed gives way to the fresh seed stored."""
    version1.refuse(folder, stored)
    if wanted.get("fresh") and stored.get("fresh"):
        wanted = {**wanted, "seed": stored["seed"]}
    if lines := differences(stored, wanted):
        raise RunError(f"{str(folder)!r} holds another run:\n" + "\n".join(lines) + "\n  Choose another folder.")
    return stored


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line for each value that differs between a stored configuration and the one that is wanted."""
    there, now = flat(stored), flat(wanted)
    different = sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key))
    telling = [key for key in different if not any(cause in different for cause in _FOLLOWS.get(key, ()))]
    return [f"  {key}: there {_short(there.get(key))}, now {_short(now.get(key))}" for key in telling]


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without levels: `{"plan": {"n": 100}}` as `{"plan.n": 100}`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": inner for name, inner in flat(value).items()}
        else:
            found[key] = value
    return found


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
