"""What draws are made of: a base function, and a noise law before it."""

from dataclasses import dataclass
from typing import final

from robustify.smoothing.checks.fixed_function import Margin
from robustify.smoothing.checks.probes import Answer
from robustify.smoothing.checks.watch import Watch
from robustify.smoothing.noise import NoiseLaw


@final
@dataclass(frozen=True, eq=False)
class Base:
    """A base function.

    Arguments:
        function: One fixed function of each image: noisy pixels and their noise level to logits, shape (B, classes).
        margin: The lead that a logit needs over the second for its vote to count.
        watch: Watches, by probes among the draws of a run, that it is one fixed function; None where nobody needs to.
        mixes: Whether views of several levels share the function; it then takes a level for each image.
    """

    function: Answer
    margin: Margin
    watch: Watch | None = None
    mixes: bool = False

    @property
    def probes_due(self) -> int:
        """Number of places of the next batch that are not for draws."""
        return 0 if self.watch is None else self.watch.probes_due


@final
@dataclass(frozen=True)
class Channel:
    """A view that is ready to be drawn from.

    Arguments:
        law: The noise, and how it meets pixels.
        base: What is shown the noisy images.
    """

    law: NoiseLaw
    base: Base
