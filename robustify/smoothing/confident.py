"""The classifier alone where it is confident, as a base function of views without noise."""

from robustify.smoothing.checks.probes import Answer
from robustify.smoothing.pipeline import Pipeline
from robustify.types import Levels, Logits, Pixels


def classifier(pipeline: Pipeline, least: str) -> Answer:
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
