"""The one line: composition only."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing, ZeroShotModel, wrap
from robustify.denoisers import Denoiser, Identity
from robustify.denoisers.wrap import wrap as wrap_denoiser
from robustify.errors import InputError
from robustify.registry import CLASSIFIERS, DENOISERS
from robustify.smoothing import SmoothedClassifier


def robustify(
    model: str | nn.Module | ImageClassifier | ZeroShotModel,
    *,
    sigma: float = 0.25,
    denoiser: str | Denoiser | object | None = None,
    precision: str = "float32",
    preprocessing: Preprocessing | None = None,
    processor: Any = None,  # noqa: ANN401
    tokenizer: Callable[..., Tensor] | None = None,
    classes: Sequence[str] | None = None,
    templates: str | Sequence[str] = "openai",
) -> SmoothedClassifier:
    """Turns an image classifier into a certified one.

    Arguments:
        model: A reference such as `"timm:resnet50.a1_in1k"`, `"open_clip:ViT-B-32/laion2b_s34b_b79k"` or
            `"hf:google/vit-base-patch16-224"`; or a model of this process, in evaluation mode.
        sigma: Standard deviation of the noise in [0, 1] pixels: more proves larger radii at less accuracy.
        denoiser: A reference such as `"diffusers:google/ddpm-cifar10-32"`, a diffusers pipeline, a pair (network,
            scheduler) or a `Denoiser`. None is plain smoothing, without one.
        precision: "float32", or "bfloat16" or "float16" by autocast: faster where the hardware has it, and another
            base classifier.
        preprocessing: For a plain `nn.Module`.
        processor: For a transformers model.
        tokenizer: For an open_clip model.
        classes: What a zero-shot model shall tell apart; or the names of a plain module's classes.
        templates: Prompts around them: `"openai"`, `"simple"` or a list of format strings.

    Raises:
        InputError: If the arguments do not fit each other.
        PluginError: If a named source cannot be used.
        ModelError: If no certificate would hold for the model.
    """
    found = _find(model, preprocessing, processor, tokenizer, classes)
    if isinstance(found, ZeroShotModel):
        if classes is None:
            raise InputError(f"{found.name} is a zero-shot model: say what to tell apart, classes=['cat', 'dog', …]")
        found = found.classifier(classes, templates)
    elif classes is not None and preprocessing is None:
        raise InputError(
            f"{found.name} has its own {len(found.labels)} classes; classes= is for zero-shot models and plain modules"
        )
    return SmoothedClassifier(found, _find_denoiser(denoiser), sigma=sigma, precision=precision)


def _find(
    model: str | nn.Module | ImageClassifier | ZeroShotModel,
    preprocessing: Preprocessing | None,
    processor: Any,  # noqa: ANN401
    tokenizer: Callable[..., Tensor] | None,
    classes: Sequence[str] | None,
) -> ImageClassifier | ZeroShotModel:
    ready = isinstance(model, str | ImageClassifier | ZeroShotModel)
    if ready and not (preprocessing is None and processor is None and tokenizer is None):
        raise InputError("preprocessing, processor and tokenizer are for models of this process; this one has its own")
    if isinstance(model, str):
        return CLASSIFIERS.load(model)
    if isinstance(model, ImageClassifier | ZeroShotModel):
        return model
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a reference 'source:name' or an nn.Module; got {type(model).__name__}")
    return wrap(model, preprocessing=preprocessing, processor=processor, tokenizer=tokenizer, labels=classes)


def _find_denoiser(denoiser: str | Denoiser | object | None) -> Denoiser:
    if denoiser is None:
        return Identity()
    if isinstance(denoiser, str):
        return DENOISERS.load(denoiser)
    return wrap_denoiser(denoiser)
