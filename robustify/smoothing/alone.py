"""The classifier alone, without a denoising step, as a base function of views without noise."""

from torch import Tensor

from robustify.smoothing.checks.probes import Answer
from robustify.smoothing.pipeline import Pipeline
from robustify.types import Levels, Logits, Pixels


def classifier(pipeline: Pipeline) -> Answer:
    """The classifier's logits of an image as it is."""

    def answer(pixels: Pixels, levels: Levels) -> Logits:
        del levels
        return pipeline.classify(pixels)

    return answer


def confident(pipeline: Pipeline, least: float) -> Answer:
    """The classifier's logits where it is confident; elsewhere all are 0, a tie, which is no vote.

    Arguments:
        pipeline: Its classifier answers.
        least: The softmax probability, in [0, 1), that the leading class must exceed.
    """
    alone = classifier(pipeline)

    def answer(pixels: Pixels, levels: Levels) -> Logits:
        logits: Tensor = alone(pixels, levels)
        surest = logits.softmax(dim=1).amax(dim=1, keepdim=True)
        return logits.where(surest > least, 0.0)

    return answer
