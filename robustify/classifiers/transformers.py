"""Classifiers from Hugging Face transformers: `hf:google/vit-base-patch16-224`, `hf:/folder`.

References:
    Transformers: State-of-the-Art Natural Language Processing, Wolf et al., 2020,
    https://arxiv.org/abs/1910.03771
"""

from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError
from torch import Tensor, nn

from robustify.classifiers.base import ImageClassifier, check_evaluation_mode
from robustify.classifiers.processors import flips_channels, preprocessing_of
from robustify.classifiers.weights import RANDOM, look_untrained
from robustify.downloads import from_hub
from robustify.errors import InputError, ModelError
from robustify.licences import licence_of


@from_hub("")
def load(name: str, /) -> ImageClassifier:
    """Loads a pretrained image classifier with its image processor, from the Hub or a folder.

    Raises:
        InputError: If there is no such model, or the folder is not a transformers folder.
        ModelError: If the model has no image-classification head.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = Path(name)
    if name.startswith(("/", ".", "~")) and not folder.is_dir():
        raise InputError(f"there is no folder {name!r}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"expected a transformers folder with config.json; {folder} has none")
    try:
        model, report = AutoModelForImageClassification.from_pretrained(name, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"transformers cannot load an image classifier from {name!r}: {error}") from error
    if report["missing_keys"]:
        raise ModelError(
            f"hf:{name} lacks weights for {sorted(report['missing_keys'])[:3]}: they would be random.\n"
            "  Is it a backbone without a classification head?"
        )
    return wrap(model.eval(), processor, name=f"hf:{name}", licence=licence_of(name))


def names(pattern: str = "*", /) -> list[str]:
    """No names, since the Hub is too large to list; see https://huggingface.co/models?pipeline_tag=image-classification."""
    del pattern
    return []


def wrap(
    model: nn.Module,
    processor: Any,  # noqa: ANN401
    *,
    name: str | None = None,
    licence: str | None = None,
) -> ImageClassifier:
    """Wraps a transformers model that is in memory, with its image processor.

    Class names are those of its configuration; none where the head was replaced by one of another number of classes.

    Raises:
        ModelError: If the model does not choose one of several classes, or is in training mode.
        InputError: If the processor does anything but resize to a fixed size, crop, pad, rescale, normalise and flip
            channels.
    """
    if "ForImageClassification" not in type(model).__name__:  # some names go on: "…WithTeacher"
        raise ModelError(
            f"expected a model for image classification; got {type(model).__name__}.\n"
            "  Load it with AutoModelForImageClassification."
        )
    check_evaluation_mode(model)
    config: Any = model.config
    _check_task(config, name or type(model).__name__)
    classifier = ImageClassifier(
        LogitsOf(model, flip=flips_channels(processor)).eval(),
        preprocessing_of(processor, channels=getattr(config, "num_channels", 3)),
        name=name or _name(model, config),
        licence=licence,
    )
    labels: dict[int, str] = getattr(config, "id2label", None) or {}
    if set(labels) == set(range(len(classifier.labels))):  # differs where the head was replaced by hand
        classifier.set_labels([labels[i] for i in range(len(labels))])
    return classifier


def _name(model: nn.Module, config: Any) -> str:  # noqa: ANN401
    """The name that the model was loaded by; its class where its weights are random or nobody loaded it."""
    if look_untrained(model):
        return f"hf:{type(model).__name__} ({RANDOM})"
    return f"hf:{getattr(config, 'name_or_path', '') or type(model).__name__}"


def _check_task(config: Any, name: str) -> None:  # noqa: ANN401
    """Refuses heads whose outputs are not the logits of one class among several.

    Raises:
        ModelError: If there is no head, or it was trained for several labels at once or for a number.
    """
    labels = getattr(config, "num_labels", None)
    task = getattr(config, "problem_type", None)
    if labels == 0:
        raise ModelError(f"{name} has no classification head (num_labels=0): it is a feature extractor.")
    if labels == 1 or task not in (None, "single_label_classification"):
        raise ModelError(
            f"expected a model that chooses one of at least 2 classes; {name} has num_labels={labels} and "
            f"problem_type={task!r}.\n"
            "  A certificate says that the largest logit stays the largest, which means nothing for several labels at "
            "once or for a number."
        )


@final
class LogitsOf(nn.Module):
    """Returns the logits from a transformers model's output.

    Arguments:
        model: Maps `pixel_values` of shape (B, C, H, W) to an output with `logits`.
        flip: Whether the model expects the channels in reverse: blue, green, red.
    """

    def __init__(self, model: nn.Module, *, flip: bool = False) -> None:
        super().__init__()
        self.model = model
        self.flip = flip

    def forward(self, normalised: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=normalised.flip(1) if self.flip else normalised).logits
        return logits
