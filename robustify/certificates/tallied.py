"""What certificates and stored rows have in common: tallies, bounds, and what both say at a glance."""

from robustify.certificates.family import Bound, Look, Tally
from robustify.certificates.queries import ESTIMATION, SELECTION


class Tallied:
    """Something that was concluded from tallies.

    Arguments:
        label: Index of the certified class; None where none is.
        uncertified: Index of the class that is answered where none is certified; None where nothing is answered.
        bounds: Bounds on the probabilities of the label and of every other class, one per view.
        tallies: Votes that chose the label and votes that certify it, with the counts at each look.
    """

    label: int | None
    uncertified: int | None
    bounds: tuple[Bound, ...]
    tallies: tuple[Tally, ...]

    @property
    def answer(self) -> int | None:
        """Index of the class that is answered, certified or not; None where nothing is answered."""
        return self.uncertified if self.label is None else self.label

    @property
    def p_lower(self) -> float:
        """Lower bound on the label's probability in the first view, in [0, 1]."""
        return self.bounds[0].p_lower

    @property
    def p_upper(self) -> float:
        """Upper bound on every other class's probability in the first view, in [0, 1]."""
        return self.bounds[0].p_upper

    @property
    def selection(self) -> tuple[int, ...]:
        """Votes that chose the label, one count per class; empty where no draws chose it."""
        return next((tally.votes for tally in self.tallies if tally.stage == SELECTION), ())

    @property
    def tested(self) -> Tally:
        """The votes that certify the label in the first view."""
        return next(tally for tally in self.tallies if tally.stage == ESTIMATION)

    @property
    def votes(self) -> tuple[int, ...]:
        """Those votes, one count per class; draws that failed are missing from the sum."""
        return self.tested.votes

    @property
    def looks(self) -> tuple[Look, ...]:
        """Counts at each point where those votes were read."""
        return self.tested.looks

    @property
    def n(self) -> int:
        """Number of draws that certify the label, over all views."""
        return sum(tally.draws for tally in self.tallies if tally.stage == ESTIMATION)

    @property
    def draws(self) -> int:
        """Number of all draws of the image, over all views and stages."""
        return sum(tally.draws for tally in self.tallies)
