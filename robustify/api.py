"""The one line: composition only."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from robustify.certificates.choice import family_of
from robustify.certificates.family import Family
from robustify.classifiers import ImageClassifier, Preprocessing, ZeroShotModel, wrap
from robustify.default_dtype import float32_by_default
from robustify.denoisers import Denoiser, Identity
from robustify.denoisers.wrap import wrap as wrap_denoiser
from robustify.errors import InputError
from robustify.model_options import ModelOptions
from robustify.options import takes
from robustify.registry import CLASSIFIERS, DENOISERS
from robustify.smoothing.smoothed import SmoothedClassifier

if TYPE_CHECKING:
    from robustify.finetune import Recipe
    from robustify.finetune.objectives import Objective


@final
@dataclass(frozen=True, kw_only=True)
class RobustifyOptions(ModelOptions):
    """Options of `robustify` that only Python has.

    Arguments:
        preprocessing: Mean, standard deviation and size that a plain `nn.Module` expects.
        processor: Image processor of a transformers model.
        tokenizer: Tokenizer of an open_clip model.
        noise_conditioned: Whether a plain `nn.Module` denoises by itself and is called with the noise level of each
            image too; see `ImageClassifier`.
        tune: Fine-tunes the classifier behind the denoiser first: an objective such as "ft-cadis", with defaults
            for this model and data, which are printed; a published recipe of `finetune.PRESETS`; or a `Recipe`.
        data: What to learn from: a folder of class folders, an array file, a pair (images, labels) or a data set.
        validation: Other labelled data of these kinds, which tells after each epoch how well learning goes.
        out: Folder of the training run, which the same call continues; None for one named after the model.
    """

    preprocessing: Preprocessing | None = None
    processor: Any = None
    tokenizer: Callable[..., Tensor] | None = None
    noise_conditioned: bool = False
    tune: "str | Objective | Recipe | None" = None
    data: Any = None
    validation: Any = None
    out: str | PathLike[str] | None = None


@takes(RobustifyOptions)
def robustify(
    model: str | PathLike[str] | nn.Module | ImageClassifier | ZeroShotModel, options: RobustifyOptions
) -> SmoothedClassifier:
    """Turns an image classifier into a certified one.

    Arguments:
        model: A reference such as `"timm:resnet50.a1_in1k"`, `"open_clip:ViT-B-32/laion2b_s34b_b79k"` or
            `"hf:google/vit-base-patch16-224"`; the folder of a saved model; or a model of this process, in evaluation
            mode.
        options: The fields of `RobustifyOptions` as keywords, such as `denoiser=`, `sigma=` and `classes=`.
            `sigma=(0.25, 0.5, 1.0)` makes a cascade, `mix=0.9` a mixture with the classifier alone, and
            `certificate=` takes any other family.

    Raises:
        InputError: If the arguments do not fit each other.
        PluginError: If a named source cannot be used.
        ModelError: If no certificate would hold for the model.
        RunError: If training cannot start or go on in its folder.
    """
    o, family = options, family_of(options.sigma, options.certificate, options.mix)
    _check_learning(o)
    found = _taking_colours(_classifier(model, o)) if o.gray else _classifier(model, o)
    denoiser = _denoiser(o.denoiser, found)
    if o.tuned is not None:
        found = _tuned(Path(o.tuned), found, denoiser, family)
    if o.device is not None:
        found.to(_usable(o.device))
        denoiser.to(o.device)
    smoothed = SmoothedClassifier(found, denoiser, family=family, precision=o.precision, compiled=o.compiled)
    if o.gray and smoothed.contract.channels > 1:
        raise InputError(f"gray=True is for models of gray pictures; leave it out: {found.name} works in colour")
    return smoothed if o.tune is None else _tune(smoothed, o)


def _check_learning(options: RobustifyOptions) -> None:
    o = options
    if (o.tune is None) != (o.data is None):
        raise InputError("tune= says how to learn and data= from what; give both or neither")
    if o.tune is None and o.validation is not None:
        raise InputError(
            "validation= tells how well learning goes; say how to learn with tune= and from what with data="
        )
    if o.tune is None and o.out is not None:
        raise InputError("out= is the folder of the training run; say how to learn with tune=, or leave it out")
    if o.tune is not None and o.tuned is not None:
        raise InputError("tune= learns and tuned= takes what was learned, of the same classifier; give one of them")


def _classifier(model: object, options: RobustifyOptions) -> ImageClassifier:
    """The classifier, with names for its classes."""
    found = _find(model, options)
    if isinstance(found, ZeroShotModel):
        if options.classes is None:
            raise InputError(
                f"{found.name} is a zero-shot model: say which classes it chooses from, classes=['cat', 'dog', …]"
            )
        return found.classifier(options.classes, options.templates)
    if options.templates != ModelOptions.templates:
        raise InputError(
            f"templates= are prompts around the names of classes, for zero-shot models; {found.name} is none.\n"
            "  Leave it out."
        )
    if options.classes is not None and options.preprocessing is None:
        return _named(found, options.classes)
    return found


def _taking_colours(classifier: ImageClassifier) -> ImageClassifier:
    """A copy of the classifier that makes colour pictures gray where gray ones are needed."""
    taking = copy.copy(classifier)
    taking.preprocessing = replace(classifier.preprocessing, gray=True)
    return taking


def _usable(device: str | torch.device) -> torch.device:
    """The device, once a tensor was made there."""
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # a build without CUDA asserts
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot compute on {str(device)!r}: {reason}.\n  Try 'cpu', or leave it out.") from error
    if found.type == "meta":
        raise InputError(
            "cannot compute on 'meta': a model that is moved there loses its weights.\n  Try 'cpu', or leave it out."
        )
    return found


def _named(classifier: ImageClassifier, classes: Sequence[str]) -> ImageClassifier:
    """A copy of the classifier with names for classes that so far have numbers only."""
    unnamed = classifier.labels == tuple(map(str, range(len(classifier.labels))))
    if not unnamed or len(classes) != len(classifier.labels):
        raise InputError(
            f"{classifier.name} has its own {len(classifier.labels)} classes, such as {classifier.labels[0]!r}; "
            f"got {len(classes)} names.\n  classes= is for zero-shot models, plain modules, and models whose classes "
            "have no names, one name for each."
        )
    named = copy.copy(classifier)
    named.set_labels(classes)
    return named


def _tuned(folder: Path, classifier: ImageClassifier, denoiser: Denoiser, family: Family) -> ImageClassifier:
    """The classifier as a training run left it; warns where none of the noise levels is that of training."""
    from robustify.finetune import load_tuned, tuned_for

    differences = [tuned_for(folder, denoiser, sigma) for sigma in family.levels]
    if differences and all(differences):
        warnings.warn(str(differences[0]), stacklevel=4)
    return load_tuned(folder, classifier)


def _tune(model: SmoothedClassifier, options: RobustifyOptions) -> SmoothedClassifier:
    from robustify.finetune import tune

    how = options.tune
    if how is None:
        return model
    return tune(model, options.data, how, out=options.out, validation=options.validation).model


def _find(model: object, options: RobustifyOptions) -> ImageClassifier | ZeroShotModel:
    o = options
    ready = isinstance(model, str | PathLike | ImageClassifier | ZeroShotModel)
    if ready and (o.noise_conditioned or any(x is not None for x in (o.preprocessing, o.processor, o.tokenizer))):
        raise InputError(
            "preprocessing, processor, tokenizer and noise_conditioned are for models of this process; this one has "
            "its own"
        )
    if isinstance(model, str | PathLike):
        with float32_by_default():
            return CLASSIFIERS.load(fspath(model))
    if isinstance(model, ImageClassifier | ZeroShotModel):
        return model
    if isinstance(model, SmoothedClassifier):
        raise InputError("expected a classifier; got one that is smoothed already.\n  Give its `classifier` instead.")
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a reference 'source:name', a folder or an nn.Module; got {type(model).__name__}")
    return wrap(
        model,
        preprocessing=o.preprocessing,
        processor=o.processor,
        tokenizer=o.tokenizer,
        labels=o.classes,
        noise_conditioned=o.noise_conditioned,
    )


def _denoiser(denoiser: object, classifier: ImageClassifier) -> Denoiser:
    """The denoiser; one that is loaded by reference goes where the classifier is, one that is given must be there."""
    if denoiser is None:
        return Identity()
    if isinstance(denoiser, str | PathLike):
        with float32_by_default():
            return DENOISERS.load(fspath(denoiser)).to(classifier.device)
    return wrap_denoiser(denoiser)
