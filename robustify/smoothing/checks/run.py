"""The checks of one run, together: the engine shows them what happens, and one place verifies."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, final

from torch import Tensor

from robustify.smoothing.checks.evidence import Evidence
from robustify.smoothing.checks.votes import VoteCheck, Wager
from robustify.types import Pixels

T = TypeVar("T")


@final
class Checks:
    """What a certificate rests on while a run lasts: the noise has its law, and votes are independent.

    Arguments:
        noise: A check of the noise for each view; None for views without noise.
    """

    def __init__(self, noise: Sequence[Evidence | None]) -> None:
        self.noise = noise
        self.votes = VoteCheck()
        self._due = 0

    def fed(self, view: int, noisy: Pixels, clean: Tensor) -> None:
        """Takes what a network is about to be shown: noisy images of one view, and the clean image of each."""
        if (check := self.noise[view]) is not None:
            check.add(noisy, clean)

    def completed(self, wager: Wager) -> None:
        """Takes how the votes of a complete ask were spread over batches."""
        self.votes.add(wager.log)

    def guard(self, answered: Iterable[T]) -> Iterator[T]:
        """Passes on what a run answers, each answer only after all evidence so far was verified.

        The noise is verified as evidence doubles: each time, true noise may be refused once in a million times.

        Raises:
            ModelError: With what was found.
        """
        for answer in answered:
            self.verify()
            yield answer
        self._verify_noise()

    def verify(self) -> None:
        """Verifies all evidence so far; of the noise, where there is twice as much as the last time.

        Raises:
            ModelError: With what was found.
        """
        # Noise that repeats explains votes that agree, so it is verified first.
        if (sampled := sum(check.sampled for check in self.noise if check)) > self._due or self.votes.refused:
            self._verify_noise()
            self._due = 2 * sampled
        self.votes.verify()

    def _verify_noise(self) -> None:
        for check in self.noise:
            if check is not None:
                check.verify()
