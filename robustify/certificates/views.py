"""Views: what is done to an image before a base function sees it, and which base function that is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, final

PIPELINE = "pipeline"
"""Name of the base function of most views: denoise, then classify."""

ALONE = "robustify.smoothing.alone:classifier"
"""Name of the base function that is the classifier without the denoiser."""

UNDENOISED = "robustify.smoothing.alone:undenoised"
"""Name of the base function that is the classifier where there must be no denoiser."""


class Change:
    """What draws do to an image other than adding Gaussian noise to all of it: frozen data, such as a list of masks."""

    law: ClassVar[str]
    """The function that makes the noise law of such draws, as "module:function"; it takes the view and soundness."""


@final
@dataclass(frozen=True)
class View:
    """The recipe of a draw: an image is changed, usually by Gaussian noise, and one base function sees the result.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels; 0 where no noise is added.
        base: The base function: `PIPELINE`, or "module:function", which makes it from a pipeline; settings may follow,
            as in "module:function:4:8", which it is given as texts.
        change: What is done other than adding noise to all of the image; None where nothing is.
    """

    sigma: float
    base: str = PIPELINE
    change: Change | None = None


def levels_of(views: Iterable[View]) -> tuple[float, ...]:
    """Noise levels at which the views use the pipeline, each once, in their order."""
    return tuple(dict.fromkeys(view.sigma for view in views if view.base == PIPELINE and view.sigma > 0))
