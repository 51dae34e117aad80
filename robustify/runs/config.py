"""The configuration of a run, as data in its `run.json`, which never changes once it is written."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustify.errors import RunError
from robustify.folders import disk, make_folder, write_whole
from robustify.runs import version1
from robustify.runs.digests import DIGEST, config_digest
from robustify.runs.possible import check_possible, needed_keys
from robustify.runs.rows import RESTORE

FORMAT = 3
"""Number of the layout that is written here; robustify 0.1 wrote none."""

WITHOUT_DIGESTS = 2
"""Number of the layout before, which is read, but not continued."""

_FOLLOWS = {
    "classifier.sha256": ("classifier.name",),
    "denoiser.description": ("denoiser.name", "plan.sigma"),
    "denoiser.sha256": ("denoiser.name", "denoiser.description", "plan.sigma"),
    "plan.slack": ("plan.sigma", "soundness"),
}
"""Differences that are left out where another one, listed here, implies them."""

_IN_WORDS = {
    "classifier.sha256": "the classifier has other weights, layers, attributes or preprocessing",
    "denoiser.sha256": "the denoiser has other weights, layers, attributes or schedule",
    "samples_sha256": "the images have other names or true labels",
}
"""What differs where a hash does, which itself tells nobody anything."""


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
    if not isinstance(config, dict):
        raise RunError(f"{str(file)!r} does not describe a certification run: it holds {_short(config)}")
    old = version1.wrote(config)
    if not old and config.get("format", FORMAT) not in (WITHOUT_DIGESTS, FORMAT):
        raise RunError(f"{str(file)!r} has format {config['format']}; expected {FORMAT}: use another robustify version")
    needed = version1.NEEDED if old else needed_keys(before=config.get("format") == WITHOUT_DIGESTS)
    if missing := [key for key in needed if key not in config]:
        raise RunError(f"{str(file)!r} does not describe a certification run: it lacks {', '.join(missing)}")
    try:
        config = version1.configuration(config) if old else config
        check_possible(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{str(file)!r} describes no possible run: {error}") from error
    return dict(config)


def open_config(folder: Path, config: dict[str, Any], explain: Callable[[], Sequence[str]] = tuple) -> dict[str, Any]:
    """Makes the folder of a run, or continues the run that it holds.

    Arguments:
        folder: The folder, made where missing.
        config: JSON-able description of the run; what decides whether rows belong together.
        explain: Gives more lines for the error, where the model is another one.

    Returns:
        The configuration of the folder, with its digest: that of the run that is continued, with its own fresh seed,
        where it holds one.

    Raises:
        RunError: If the folder holds another run or other files, or cannot be written.
    """
    wanted = json.loads(json.dumps(config))
    wanted[DIGEST] = config_digest(wanted)
    if (folder / "run.json").is_file():
        return _same_run(folder, read_config(folder), wanted, explain)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RunError(f"{str(folder)!r} holds something that is no certification run; choose another folder")
    with disk(folder, "Rows written before"):
        make_folder(folder)
        write_whole(folder / "run.json", json.dumps(wanted, indent=2).encode())
    return dict(wanted)


def _same_run(
    folder: Path, stored: dict[str, Any], wanted: dict[str, Any], explain: Callable[[], Sequence[str]]
) -> dict[str, Any]:
    """The stored configuration, if it is the wanted one; a fresh seed gives way to the fresh seed stored."""
    version1.refuse(folder, stored)
    if stored["format"] == WITHOUT_DIGESTS:
        raise RunError(
            f"the run in {str(folder)!r} has format {WITHOUT_DIGESTS}, whose rows have no digests: it cannot be "
            "continued.\n  Status, report and verification still work; certify into another folder."
        )
    if stored[DIGEST] != config_digest(stored):
        raise RunError(f"{str(folder / 'run.json')!r} was changed after it was written.\n  {RESTORE}")
    if wanted.get("fresh") and stored.get("fresh"):
        wanted = {**wanted, "seed": stored["seed"]}
    if lines := differences(stored, wanted):
        lines += explain() if another_network(lines) else ()
        raise RunError(f"{str(folder)!r} holds another run:\n" + "\n".join(lines) + "\n  Choose another folder.")
    return stored


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line for each value that differs between a stored configuration and the one that is wanted."""
    there, now = flat(stored), flat(wanted)
    different = sorted(key for key in (there.keys() | now.keys()) - {DIGEST} if there.get(key) != now.get(key))
    telling = [key for key in different if not any(cause in different for cause in _FOLLOWS.get(key, ()))]
    told = {key: f"{key}: there {_short(there.get(key))}, now {_short(now.get(key))}" for key in telling}
    return [f"  {_IN_WORDS.get(key, text)}" for key, text in told.items()]


def another_network(lines: Sequence[str]) -> bool:
    """Whether among these differences is a classifier or denoiser of the same name, of which only a hash tells."""
    return any(f"  {_IN_WORDS[f'{part}.sha256']}" in lines for part in ("classifier", "denoiser"))


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
