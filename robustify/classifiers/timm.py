"""Classifiers from timm: `timm:resnet50.a1_in1k`, `timm:hf-hub:org/repo`, `timm:local-dir:/folder`.

References:
    PyTorch Image Models, Wightman, 2019, https://github.com/huggingface/pytorch-image-models
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors import SafetensorError
from torch import nn

from robustify.classifiers.base import ImageClassifier
from robustify.classifiers.preprocessing import Preprocessing, ResizeCrop
from robustify.classifiers.weights import RANDOM, look_untrained
from robustify.downloads import from_hub
from robustify.errors import InputError, ModelError


@from_hub("hf-hub:")
def load(name: str, /) -> ImageClassifier:
    """Loads a pretrained timm model in evaluation mode.

    Raises:
        InputError: If timm does not know the name, or the folder holds no timm model.
        ModelError: If the model is no classifier.
    """
    import timm

    if name.startswith("local-dir:") and not Path(name.removeprefix("local-dir:"), "config.json").is_file():
        raise InputError(f"expected a timm folder with config.json; {name!r} has none")
    try:
        network = timm.create_model(name, pretrained=True)
    except (RuntimeError, ValueError, OSError, KeyError, SafetensorError) as error:
        raise InputError(
            f"timm cannot create {name!r}: {error}\n"
            "  Names: robustify plugins timm, or hf-hub:org/repo, or local-dir:/path/to/folder."
        ) from error
    return wrap(network.eval(), name=f"timm:{_with_weights(name, network)}")


def names(pattern: str = "*", /) -> list[str]:
    """Names of pretrained timm models that match a shell-style pattern."""
    import timm

    return sorted(timm.list_pretrained(pattern))


def wrap(network: nn.Module, *, name: str | None = None) -> ImageClassifier:
    """Wraps a timm model that is in memory, with the preprocessing of its own configuration.

    Class names and licence are those of the configuration; no names where the head was replaced by one of another
    number of classes, and no licence where the weights are random, which the name of the model then says.

    Raises:
        ModelError: If it has no classification head, is in training mode, or came from a folder without its weights.
    """
    card: dict[str, Any] = dict(getattr(network, "pretrained_cfg", None) or {})
    architecture = f"timm:{card.get('architecture', type(network).__name__)}"
    if not _has_head(network):
        raise ModelError(
            f"{name or architecture} has no classification head (num_classes=0): it is a feature extractor."
        )
    untrained = look_untrained(network)
    if card.get("file") and untrained:
        raise ModelError(
            f"{name or architecture} carries random weights: timm.create_model('local-dir:…') loads the weights only "
            "with pretrained=True."
        )
    classifier = ImageClassifier(
        network,
        _preprocessing(network),
        name=name or (f"{architecture} ({RANDOM})" if untrained else architecture),
        licence=None if untrained else card.get("license"),
    )
    own = _labels(network, card)
    if own is not None and len(own) == len(classifier.labels):  # differs where the head was replaced by hand
        classifier.set_labels(own)
    return classifier


def _with_weights(name: str, network: nn.Module) -> str:
    """The name with the tag of its weights, where timm chose them: `resnet50` is another model in other versions."""
    card: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    tag = card.get("tag")
    chosen = tag and ":" not in name and "." not in name
    return f"{name}.{tag}" if chosen else name


def _has_head(network: nn.Module) -> bool:
    """Whether there is a classification head; one that was set by hand leaves timm's number of classes as it was."""
    if getattr(network, "num_classes", 0):
        return True
    head_of = getattr(network, "get_classifier", None)
    head = head_of() if callable(head_of) else None
    return isinstance(head, nn.Module) and any(True for _ in head.parameters())


def _preprocessing(network: nn.Module) -> Preprocessing:
    config = _data_config(network)
    return Preprocessing(
        mean=config["mean"],
        std=config["std"],
        size=config["size"],
        geometry=ResizeCrop(
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
            crop_mode=config["crop_mode"],
            border=config["mean"],
        ),
    )


def _data_config(network: nn.Module) -> dict[str, Any]:
    """timm's data configuration, for the channels and the size that this network was created with."""
    from timm.data import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(network)
    channels = getattr(network, "in_chans", len(config["mean"]))
    for key in ("mean", "std"):
        values = tuple(config[key])
        config[key] = values if len(values) == channels else (fmean(values),) * channels
    config["size"] = getattr(getattr(network, "patch_embed", None), "img_size", None) or config["input_size"][-2:]
    return config


def _labels(network: nn.Module, card: dict[str, Any]) -> Sequence[str] | None:
    """Class names from the configuration, or else those of ImageNet if timm says so, or else None."""
    from timm.data import infer_imagenet_subset

    named = card.get("label_names") or ()
    if len(named) == network.num_classes:  # differs where timm replaced the head
        return list(named.values() if isinstance(named, dict) else named)
    subset = infer_imagenet_subset(network)
    return None if subset is None else imagenet_labels(subset)


def imagenet_labels(subset: str = "imagenet-1k") -> list[str]:
    """Names of ImageNet's classes; those that several classes share, such as crane, with their definitions."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    short, detailed = info.label_descriptions(), info.label_descriptions(detailed=True)
    count = Counter(short)
    return [s if count[s] == 1 else d for s, d in zip(short, detailed, strict=True)]
