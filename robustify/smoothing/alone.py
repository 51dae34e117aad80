"""Base functions that are the classifier alone, for views without noise."""

from robustify.denoisers import Identity
from robustify.errors import InputError
from robustify.smoothing.checks.probes import Answer
from robustify.smoothing.pipeline import Pipeline
from robustify.types import Levels, Logits, Pixels


def classifier(pipeline: Pipeline) -> Answer:
    """The classifier's logits of images as they are, in the pipeline's precision, whatever denoiser there is."""
    return lambda pixels, _: pipeline.classify(pixels)


def undenoised(pipeline: Pipeline) -> Answer:
    """The classifier's logits, of a pipeline that has no denoiser.

    What masks cover or what brightness is added is then in the space that the network sees.

    Raises:
        InputError: If there is a denoiser: there is no noise that it could remove.
    """
    if not isinstance(pipeline.denoiser, Identity):
        raise InputError(
            f"these certificates add no noise to pixels that {pipeline.denoiser.name} could remove.\n"
            "  Leave out the denoiser: they are for the classifier alone."
        )
    return classifier(pipeline)


def confident(pipeline: Pipeline, least: str) -> Answer:
    """The classifier's logits where it is confident; elsewhere all are 0, a tie, which is no vote.

    Arguments:
        pipeline: Its classifier answers.
        least: The softmax probability, in [0, 1), that the leading class must exceed, as text.
    """
    threshold = float(least)

    def answer(pixels: Pixels, levels: Levels) -> Logits:
        del levels
        logits = pipeline.classify(pixels)
        surest = logits.softmax(dim=1).amax(dim=1, keepdim=True)
        return logits.where(surest > threshold, 0.0)

    return answer
