"""The probes of one run: which of them the next batch shows, where, and whether they were seen often enough."""

from typing import NamedTuple, final

from robustify.smoothing.checks.fixed_function import FixedFunction
from robustify.smoothing.places import EVERY, PROBES, probes_in_first
from robustify.types import Logits, Pixels

_ENOUGH = 3
"""Comparisons of the probes before any answer is given."""

_GOLDEN = 0.618034
"""Successive multiples of it, less their whole parts, come near every place of a batch soon."""


class Shown(NamedTuple):
    """Probes on their way into a batch.

    Arguments:
        which: Their indices.
        images: Shape (B, C, H, W).
        levels: Noise level of each.
        share: Share of the batch's draws that come before them, in [0, 1).
    """

    which: tuple[int, ...]
    images: Pixels
    levels: list[float]
    share: float


@final
class Watch:
    """Shows the probes of a base function among the draws of one run.

    Arguments:
        fixed: What is known of the base function; shared by all runs.
    """

    def __init__(self, fixed: FixedFunction) -> None:
        self._fixed = fixed
        self._batch = fixed.probes.batch
        self._first = self._vouched = True
        self._next = self._unseen = self._batches = 0

    @property
    def probes_due(self) -> int:
        """Number of places of the next batch that are for probes; 0 in batches of one image."""
        if self._first:
            return probes_in_first(self._batch)
        # Now sooner, now later, so that no rhythm of the network's own hides from the probes.
        wait = EVERY * (1 - self._share / 2)
        return int(self._batch > 1 and self._unseen + self._batch >= wait)

    def take(self) -> Shown:
        """The probes of the next batch, as many as `probes_due` said."""
        due, p = self.probes_due, self._fixed.probes
        which = tuple(i % PROBES for i in range(self._next, self._next + due))
        self._next, self._first = self._next + due, False
        self._unseen = 0 if due else self._unseen + self._batch
        self._batches += 1
        shown = list(which)
        return Shown(which, p.images[shown], p.levels[shown].tolist(), self._share)

    @property
    def _share(self) -> float:
        """A number in [0, 1) that is another for each batch."""
        return self._batches * _GOLDEN % 1

    def compare(self, shown: Shown, logits: Logits) -> None:
        """Compares the logits of the probes just shown with those before the run.

        Raises:
            ModelError: If they differ by more than half of the margin.
        """
        self._vouched = bool(shown.which)
        if shown.which:
            self._fixed.judge(shown.which, logits)

    def vouch(self) -> None:
        """Makes sure, before an answer is given, that probes were compared often enough and in or after its last batch.

        Raises:
            ModelError: If they differ by more than half of the margin.
        """
        while not self._vouched or self._fixed.compared < _ENOUGH:
            self._fixed.show_alone()
            self._vouched = True
