"""Adapters on disk, as peft reads and writes them."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from robustify.classifiers import ImageClassifier
from robustify.errors import InputError, ModelError, RunError
from robustify.finetune.adapt.lora import check_merged, exact_logits, peft_layers
from robustify.finetune.adapt.modules import core

FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What peft calls the two files of an adapter."""

_PREFIX = "base_model.model."
"""What peft puts before the name of every module of the model that it wraps."""


def save_adapter(classifier: ImageClassifier, folder: Path, *, base: str) -> None:
    """Writes adapters and head as `peft.PeftModel.from_pretrained(model, folder)` reads them.

    `model` is the base as its own library loads it: a timm, transformers or whole open_clip model.

    Arguments:
        classifier: Adapted, not yet merged.
        folder: Made, or replaced as a whole if it holds an adapter and nothing else.
        base: What the adapter belongs to, for the file; a Hub id lets peft find it.

    Raises:
        ModelError: If there are no adapters.
        RunError: If the folder holds something else or cannot be written; an older adapter then stays whole.
    """
    network = core(classifier.network)
    if not peft_layers(network):
        raise ModelError(f"{classifier.name} has no adapters to save; adapt it with LoRA, and save before merging")
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - set(FILES)):
        raise RunError(f"{folder} holds more than an adapter, {' and '.join(FILES)}; choose another folder")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        _write(classifier, temporary / "new", base)
        if folder.exists():
            folder.rename(temporary / "old")
        try:
            (temporary / "new").rename(folder)
        except OSError:
            if (temporary / "old").exists():
                (temporary / "old").rename(folder)
            raise
    except OSError as error:
        raise RunError(f"cannot write the adapter to {folder}: {error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def load_adapter(classifier: ImageClassifier, folder: Path) -> None:
    """Loads an adapter into the classifier it was made for and merges it, in place, through plain peft.

    Raises:
        InputError: If the folder holds no adapter, or one that does not fit; then load the classifier anew.
        ModelError: If the classifier has adapters already, or merging these moved its logits by more than rounding.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(f"expected an adapter folder with {' and '.join(FILES)}; {folder} lacks {missing[0]}")
    network = core(classifier.network)
    if peft_layers(network):
        raise ModelError(f"{classifier.name} has adapters already; merge(classifier) first")
    try:
        with safe_open(folder / FILES[1], "pt") as file:
            saved = set(file.keys())
        with _no_warnings():
            model = PeftModel.from_pretrained(network, str(folder))
            expected = set(get_peft_model_state_dict(model))
            before = exact_logits(classifier)
            model.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        raise InputError(f"the adapter in {folder} does not fit {classifier.name}: {error}") from error
    if saved != expected:
        raise InputError(
            f"the adapter in {folder} does not fit {classifier.name}: {sorted(saved ^ expected)[0]!r} is in only one "
            "of the two.\n  The classifier is spoilt; load it anew."
        )
    classifier.requires_grad_(False)
    classifier.eval()
    check_merged(classifier, before)


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
    """A layer that learns outside any adapter."""
    own = [p.requires_grad for p in module.parameters(recurse=False)]
    return bool(own) and all(own) and not any(name.startswith(f"{outer}.") for outer in peft_layers(network))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """peft warns of missing tensors, which are an error here, and of a missing configuration, which is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
