"""What users have to learn from, as `Examples`."""

from os import PathLike
from pathlib import Path
from typing import Any

from robustify.data.sources import open_samples
from robustify.finetune.examples import Examples
from robustify.smoothing import SmoothedClassifier


def training_examples(model: SmoothedClassifier, data: Any) -> Examples:  # noqa: ANN401
    """Images and labels that fit the model.

    Arguments:
        model: Says which shape and which classes.
        data: A folder of class folders or an array file, as `open_samples` reads them; a pair (images, labels), the
            labels None where there are none; or a data set of pairs (image, label).

    Raises:
        InputError: If there is nothing there, or it does not fit the model.
    """
    if isinstance(data, str | PathLike):
        samples = open_samples(Path(data), model.labels)
        return Examples(model, [sample.image for sample in samples], [sample.label for sample in samples])
    if isinstance(data, tuple) and len(data) == 2:
        return Examples(model, *data)
    return Examples(model, data)
