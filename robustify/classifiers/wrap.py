"""Wrapping of classifiers that are already in memory."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from robustify.classifiers.base import ImageClassifier
from robustify.classifiers.noise_conditioned import NoiseConditionedViT
from robustify.classifiers.noise_conditioned import wrap as wrap_noise_conditioned
from robustify.classifiers.preprocessing import Preprocessing
from robustify.classifiers.zero_shot import ZeroShotModel
from robustify.errors import InputError


def wrap(
    model: nn.Module,
    *,
    preprocessing: Preprocessing | None = None,
    processor: Any = None,  # noqa: ANN401 - transformers has no public base class for image processors
    tokenizer: Callable[..., Tensor] | None = None,
    labels: Sequence[str] | None = None,
    noise_conditioned: bool = False,
) -> ImageClassifier | ZeroShotModel:
    """Wraps a model that is in memory as a classifier; an image-text model as a `ZeroShotModel`, which needs classes.

    Arguments:
        model: A network in evaluation mode. A timm model or a `NoiseConditionedViT` needs nothing else.
        preprocessing: Preprocessing of any module; with a tokenizer, that of the image tower.
        processor: Image processor of a transformers model.
        tokenizer: Tokenizer of an open_clip model.
        labels: Names of the classes, with `preprocessing` alone; the class indices if None.
        noise_conditioned: Whether the network is told the noise level, with `preprocessing` alone; see
            `ImageClassifier`.

    Raises:
        InputError: If it is not known how the model preprocesses pixels, or more than one way is given.
        ModelError: If the model is no classifier, or is in training mode.
    """
    if isinstance(model, NoiseConditionedViT):
        return wrap_noise_conditioned(model)
    companions = {"preprocessing": preprocessing, "processor": processor, "tokenizer": tokenizer}
    given = [name for name, companion in companions.items() if companion is not None]
    _check_together(given, noise_conditioned)
    if processor is not None:
        from robustify.classifiers import transformers

        return transformers.wrap(model, processor)
    if tokenizer is not None:
        from robustify.classifiers.open_clip import OpenCLIP

        return OpenCLIP(model, tokenizer, preprocessing=preprocessing)
    if preprocessing is not None:
        if hasattr(model, "encode_text"):
            raise InputError(_hint(model))
        return ImageClassifier(
            model, preprocessing, labels=labels, name=type(model).__name__, noise_conditioned=noise_conditioned
        )
    if hasattr(model, "pretrained_cfg"):
        from robustify.classifiers import timm

        return timm.wrap(model)
    raise InputError(_hint(model))


def _check_together(given: list[str], noise_conditioned: bool) -> None:
    """Raises `InputError` where more than one way to preprocess is given."""
    if noise_conditioned and given != ["preprocessing"]:
        got = " and ".join(given) or "nothing else"
        raise InputError(f"expected noise_conditioned=True with preprocessing= alone; got {got}")
    if "processor" in given and len(given) > 1:
        raise InputError(f"expected a processor without anything else; got {' and '.join(given)}")


def _hint(model: nn.Module) -> str:
    name = type(model).__name__
    if hasattr(model, "config"):
        return f"{name} looks like a transformers model; give its image processor too: processor=AutoImageProcessor…"
    if hasattr(model, "encode_text"):
        return f"{name} looks like an open_clip model; give its tokenizer and classes too: tokenizer=…, classes=[…]"
    return (
        f"{name} does not say how it preprocesses pixels.\n"
        "  Pass preprocessing=Preprocessing(mean=(…), std=(…), size=(height, width))."
    )
