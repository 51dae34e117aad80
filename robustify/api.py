"""The one line: composition only."""

import copy
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustify.classifiers import ImageClassifier, Preprocessing, ZeroShotModel, wrap
from robustify.denoisers import Denoiser, Identity
from robustify.denoisers.wrap import wrap as wrap_denoiser
from robustify.errors import InputError
from robustify.registry import CLASSIFIERS, DENOISERS
from robustify.smoothing.smoothed import SmoothedClassifier

if TYPE_CHECKING:
    from robustify.finetune import Recipe
    from robustify.finetune.objectives import Objective


def robustify(  # noqa: PLR0913 - the one line; all but the model have defaults
    model: str | nn.Module | ImageClassifier | ZeroShotModel,
    *,
    sigma: float = 0.25,
    denoiser: str | Denoiser | object | None = None,
    precision: str = "float32",
    compiled: bool = False,
    device: str | torch.device | None = None,
    preprocessing: Preprocessing | None = None,
    processor: Any = None,  # noqa: ANN401
    tokenizer: Callable[..., Tensor] | None = None,
    classes: Sequence[str] | None = None,
    templates: str | Sequence[str] = "openai",
    tune: "str | Objective | Recipe | None" = None,
    data: Any = None,  # noqa: ANN401
    held_out: Any = None,  # noqa: ANN401
    out: str | PathLike[str] | None = None,
    tuned: str | PathLike[str] | None = None,
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
        compiled: Fuses the networks by torch.compile: slow to start, faster after; again another base classifier.
        device: Where to compute, such as "cuda"; None leaves a model where it is, and loads a reference on the CPU.
        preprocessing: For a plain `nn.Module`.
        processor: For a transformers model.
        tokenizer: For an open_clip model.
        classes: What a zero-shot model shall tell apart; or the names of a plain module's classes.
        templates: Prompts around them: `"openai"`, `"simple"` or a list of format strings.
        tune: Fine-tunes the classifier behind the denoiser first: an objective such as `"ft-cadis"`, with defaults
            for this model and data, which are printed; a published recipe of `finetune.PRESETS`; or one's own.
        data: To learn from: a folder of class folders, an array file, a pair (images, labels) or a data set.
        held_out: Other labelled data of these kinds, which tells after each epoch how well learning goes.
        out: Folder of the training run, which the same call continues; named after the model where None.
        tuned: Folder of a training run of this classifier that is done: takes what was learned there.

    Raises:
        InputError: If the arguments do not fit each other.
        PluginError: If a named source cannot be used.
        ModelError: If no certificate would hold for the model.
        RunError: If training cannot start or go on in its folder.
    """
    _check_learning(tune, data, held_out, tuned)
    found = _find(model, preprocessing, processor, tokenizer, classes)
    if isinstance(found, ZeroShotModel):
        if classes is None:
            raise InputError(f"{found.name} is a zero-shot model: say what to tell apart, classes=['cat', 'dog', …]")
        found = found.classifier(classes, templates)
    elif classes is not None and preprocessing is None:
        found = _named(found, classes)
    found_denoiser = _find_denoiser(denoiser)
    if tuned is not None:
        from robustify.finetune import load_tuned, tuned_for

        if difference := tuned_for(Path(tuned), found_denoiser, sigma):
            warnings.warn(difference, stacklevel=2)
        found = load_tuned(Path(tuned), found)
    if device is not None:
        found.to(_usable(device))
    smoothed = SmoothedClassifier(found, found_denoiser, sigma=sigma, precision=precision, compiled=compiled)
    if tune is None:
        return smoothed
    from robustify.finetune import tune as tune_classifier

    return tune_classifier(smoothed, data, tune, out=out, validation=held_out).model


def _check_learning(tune: object, data: object, held_out: object, tuned: object) -> None:
    if (tune is None) != (data is None):
        raise InputError("tune= says how to learn and data= from what; give both or neither")
    if tune is None and held_out is not None:
        raise InputError("held_out= tells how well learning goes; say how to learn with tune= and from what with data=")
    if tune is not None and tuned is not None:
        raise InputError("tune= learns and tuned= takes what was learned, of the same classifier; give one of them")


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot compute on {str(device)!r}: {reason}.\n  Try 'cpu', or leave it out.") from error


def _named(classifier: ImageClassifier, classes: Sequence[str]) -> ImageClassifier:
    """With names for classes that so far have numbers only."""
    unnamed = classifier.labels == tuple(map(str, range(len(classifier.labels))))
    if not unnamed or len(classes) != len(classifier.labels):
        raise InputError(
            f"{classifier.name} has its own {len(classifier.labels)} classes, such as {classifier.labels[0]!r}; "
            f"got {len(classes)} names.\n  classes= is for zero-shot models, plain modules, and models whose classes "
            "have no names, one name for each."
        )
    named = copy.copy(classifier)
    named.labels = tuple(map(str, classes))
    return named


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
    if isinstance(model, SmoothedClassifier):
        raise InputError("expected a classifier; got one that is smoothed already.\n  Give its `classifier` instead.")
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a reference 'source:name' or an nn.Module; got {type(model).__name__}")
    return wrap(model, preprocessing=preprocessing, processor=processor, tokenizer=tokenizer, labels=classes)


def _find_denoiser(denoiser: str | Denoiser | object | None) -> Denoiser:
    if denoiser is None:
        return Identity()
    if isinstance(denoiser, str):
        return DENOISERS.load(denoiser)
    return wrap_denoiser(denoiser)
