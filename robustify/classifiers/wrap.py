"""A classifier that already lives in this process becomes an `ImageClassifier`."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from robustify.classifiers.base import ImageClassifier
from robustify.classifiers.preprocessing import Preprocessing
from robustify.classifiers.zero_shot import ZeroShotModel as ZeroShotModel
from robustify.errors import InputError


def wrap(
    model: nn.Module,
    *,
    preprocessing: Preprocessing | None = None,
    processor: Any = None,  # noqa: ANN401 - transformers has no public base class for image processors
    tokenizer: Callable[..., Tensor] | None = None,
    labels: Sequence[str] | None = None,
) -> ImageClassifier | ZeroShotModel:
    """Wraps a timm model, an open_clip model with its tokenizer, a transformers model with its processor, or any
    module with an explicit preprocessing and, where known, the names of its classes.

    Raises:
        InputError: If it is not clear how the model wants its pixels.
        ModelError: If the model is no classifier or not one fixed function.
    """
    companions = {"preprocessing": preprocessing, "processor": processor, "tokenizer": tokenizer}
    given = [name for name, companion in companions.items() if companion is not None]
    if len(given) > 1:
        raise InputError(f"expected one of preprocessing, processor and tokenizer; got {' and '.join(given)}")
    if preprocessing is not None:
        return ImageClassifier(model, preprocessing, labels=labels, name=type(model).__name__)
    if processor is not None:
        from robustify.classifiers import transformers

        return transformers.wrap(model, processor)
    if tokenizer is not None:
        from robustify.classifiers.open_clip import OpenCLIP

        return OpenCLIP(model, tokenizer)
    if hasattr(model, "pretrained_cfg"):
        from robustify.classifiers import timm

        return timm.wrap(model)
    raise InputError(_hint(model))


def _hint(model: nn.Module) -> str:
    name = type(model).__name__
    if hasattr(model, "config"):
        return f"{name} looks like a transformers model; give its image processor too: processor=AutoImageProcessor…"
    if hasattr(model, "encode_text"):
        return f"{name} looks like an open_clip model; give its tokenizer and classes too: tokenizer=…, classes=[…]"
    return (
        f"{name} does not say how it wants its pixels.\n"
        "  Pass preprocessing=Preprocessing(mean=(…), std=(…), size=(height, width))."
    )
