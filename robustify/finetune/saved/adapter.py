"""Adapters on disk, as peft reads and writes them."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustify.classifiers import ImageClassifier
from robustify.errors import InputError, ModelError, RunError
from robustify.finetune.adapt.lora import peft_layers
from robustify.finetune.adapt.lora_layers import core, run
from robustify.types import Logits

FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Names of the two files of an adapter, as peft has them."""

_PREFIX = "base_model.model."
"""Prefix that peft adds to the name of every module of the model that it wraps."""


def save_adapter(classifier: ImageClassifier, folder: Path, *, base: str) -> None:
    """Writes adapters and head as `peft.PeftModel.from_pretrained(model, folder)` reads them.

    `model` is the base as its own library loads it: a timm, transformers or whole open_clip model.

    Arguments:
        classifier: Adapted, not yet merged.
        folder: Made where missing; replaced as a whole where it holds an adapter and nothing else.
        base: Name of the model that the adapter belongs to, written to the file; peft finds it by a Hub id.

    Raises:
        ModelError: If there are no adapters.
        RunError: If the folder holds something else or cannot be written; an older adapter then stays whole.
    """
    if not peft_layers(core(classifier.network)):
        raise ModelError(f"{classifier.name} has no adapters to save; adapt it with LoRA, and save before merging")
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - set(FILES)):
        raise RunError(f"{folder} holds more than an adapter, {' and '.join(FILES)}; choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True
        ) as beside:
            _write(classifier, Path(beside) / "new", base)
            _replace(folder, Path(beside))
    except OSError as error:
        raise RunError(f"cannot write the adapter to {folder}: {error}") from error


def _replace(folder: Path, beside: Path) -> None:
    """Moves `beside / "new"` to `folder`; where that fails, what was there before stays."""
    old = beside / "old"
    if folder.exists():
        folder.replace(old)
    try:
        (beside / "new").replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise


def load_adapter(classifier: ImageClassifier, folder: Path) -> None:
    """Loads an adapter into the classifier it was made for and merges it, in place, by peft itself.

    Raises:
        InputError: If the folder holds no adapter, or one that does not fit; then load the classifier anew.
        ModelError: If the classifier has adapters already, the adapter has weights that are not finite, or merging it
            moved the logits by more than rounding; then load the classifier anew, too.
    """
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(f"expected an adapter folder with {' and '.join(FILES)}; {folder} lacks {missing[0]}")
    if peft_layers(core(classifier.network)):
        raise ModelError(f"{classifier.name} has adapters already; load the classifier anew")
    adapted = _read(classifier, folder)
    before = _exact_logits(classifier)
    try:
        adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # what peft raises for weights that are not finite
        raise ModelError(f"the adapter in {folder} cannot be merged: {error}; did training diverge?") from error
    classifier.requires_grad_(False)
    classifier.eval()
    _check_merged(classifier, before)


def _read(classifier: ImageClassifier, folder: Path) -> Any:  # noqa: ANN401 - peft's, imported lazily
    """Puts the adapter into the classifier, not merged; returns it as peft knows it."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / FILES[1], "pt") as file:
            saved = set(file.keys())
        with _no_warnings():
            adapted = PeftModel.from_pretrained(core(classifier.network), str(folder))
            expected = set(get_peft_model_state_dict(adapted))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        raise InputError(f"the adapter in {folder} does not fit {classifier.name}: {error}") from error
    if saved != expected:
        raise InputError(
            f"the adapter in {folder} does not fit {classifier.name}: {sorted(saved ^ expected)[0]!r} is in only one "
            "of the two.\n  The classifier now holds parts of the adapter; load it anew."
        )
    return adapted


def _exact_logits(classifier: ImageClassifier) -> Logits:
    """Logits of two images, without TF32."""
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        return run(classifier)


def _check_merged(classifier: ImageClassifier, before: Logits) -> None:
    """Refuses a merge that moved the logits by more than rounding.

    Raises:
        ModelError: If they moved by more than 1e-5 of the largest, or 8 units of rounding in lower precision.
    """
    gap = float((_exact_logits(classifier) - before).abs().max() / before.abs().max().clamp(min=1e-6))
    tolerance = 1e-5 if classifier.dtype == torch.float32 else 8 * torch.finfo(classifier.dtype).eps
    if not gap <= tolerance:  # also refuses NaN
        raise ModelError(
            f"merging the adapters moved the logits of {classifier.name} by {gap:.2g} of the largest; expected at "
            f"most {tolerance:.2g}.\n  Load the base classifier and the saved adapter again, on the CPU in float32."
        )


def _write(classifier: ImageClassifier, folder: Path, base: str) -> None:
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    network: Any = core(classifier.network)
    head = [name for name, module in network.named_modules() if _is_trained_in_full(name, module, network)]
    config = deepcopy(network.peft_config["default"])
    config.base_model_name_or_path = base
    config.modules_to_save = head or None
    config.inference_mode = True
    state = dict(get_peft_model_state_dict(network))
    for name in head:
        state |= {f"{name}.{key}": value for key, value in network.get_submodule(name).state_dict().items()}
    folder.mkdir()
    config.save_pretrained(str(folder))
    tensors = {_PREFIX + key: value.detach().cpu().contiguous() for key, value in state.items()}
    try:
        save_file(tensors, folder / FILES[1], metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _is_trained_in_full(name: str, module: nn.Module, network: nn.Module) -> bool:
    """Whether it is a layer that learns outside any adapter."""
    own = [p.requires_grad for p in module.parameters(recurse=False)]
    return bool(own) and all(own) and not any(name.startswith(f"{outer}.") for outer in peft_layers(network))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silences peft, which warns of missing tensors, an error here, and of a missing configuration, which is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
