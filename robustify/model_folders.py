"""Folders of saved models: their files tell which library wrote them, and so which source loads them."""

import json
from dataclasses import dataclass
from pathlib import Path

from robustify.errors import InputError

NOISE_CONDITIONED = "noise_conditioned_vit"
"""Key of config.json under which the settings of our own network are."""

_SHOWN = 3
"""Number of file names in an error text."""


@dataclass(frozen=True)
class _Contents:
    """What a folder holds.

    Arguments:
        what: The thing, as the object of "holds".
        gives: "classifier" or "denoiser"; None for what is neither.
        source: Beginning of the reference that loads it, before the path.
        hint: What to do where it is neither.
    """

    what: str
    gives: str | None = None
    source: str = ""
    hint: str = ""


_HINT = "Give a folder as its library's save_pretrained or save_for_hf writes it, or 'source:name'."

_TUNED = "Give the classifier that was tuned; this folder goes into the option `tuned`."

_PART = "Give the folder above, with model_index.json."

_BY_FILE = {
    "model_index.json": _Contents("a diffusers pipeline", "denoiser", "diffusers:"),
    "open_clip_config.json": _Contents("an open_clip model", "classifier", "open_clip:local-dir:"),
    "adapter_config.json": _Contents(
        "an adapter of peft, no model by itself",
        hint="Give the classifier that it belongs to; a training run of robustify goes into the option `tuned`.",
    ),
    "tune.json": _Contents("a training run of robustify", hint=_TUNED),
    "run.json": _Contents("a certification run of robustify", hint=_HINT),
    "scheduler_config.json": _Contents("one part of a diffusers pipeline", hint=_PART),
}
"""Files that are enough to know a folder, the most telling first."""


def reference_of(folder: Path, kind: str) -> str:
    """The reference, "source:name", of the model that is saved in a folder.

    Arguments:
        folder: An existing folder.
        kind: "classifier" or "denoiser".

    Raises:
        InputError: If the folder holds no model of this kind.
    """
    contents = _contents(folder)
    if contents.gives == kind:
        return f"{contents.source}{folder}"
    found = f"expected the folder of a saved {kind}; {str(folder)!r} holds {contents.what}"
    if contents.gives is None:
        raise InputError(f"{found}.\n  {contents.hint}")
    role = "denoiser" if contents.gives == "denoiser" else "model"
    raise InputError(f"{found}, which is a {contents.gives}.\n  Give it as the {role}.")


def _contents(folder: Path) -> _Contents:
    for name, contents in _BY_FILE.items():
        if (folder / name).is_file():
            return contents
    return _by_config(folder / "config.json") if (folder / "config.json").is_file() else _others(folder)


def _by_config(file: Path) -> _Contents:
    """What a config.json describes, which several libraries write."""
    try:
        config: object = json.loads(file.read_bytes())
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        return _Contents("a config.json that cannot be read", hint=_HINT)
    if NOISE_CONDITIONED in config:
        return _Contents("a noise-conditioned ViT", "classifier", "noise-conditioned:")
    if "_class_name" in config:
        return _Contents(f"one part of a diffusers pipeline ({config['_class_name']})", hint=_PART)
    if {"model_type", "architectures"} & config.keys():  # also where transformers wraps timm
        return _Contents("a transformers model", "classifier", "hf:")
    if "architecture" in config:
        return _Contents("a timm model", "classifier", "timm:local-dir:")
    return _Contents("a config.json that is neither transformers' nor timm's", hint=_HINT)


def _others(folder: Path) -> _Contents:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return _Contents("nothing", hint=_HINT)
    shown = ", ".join(names[:_SHOWN])
    return _Contents(shown if len(names) <= _SHOWN else f"{shown}, … ({len(names)} in all)", hint=_HINT)
