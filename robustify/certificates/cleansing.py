r"""PatchCleanser's prediction, which holds also where rounding could decide some of its draws.

Where all masks of the first round agree, theirs is the answer. Otherwise that of the first mask, in order, which
disagrees with the majority and keeps its class under every second mask; the majority's where there is none.

A draw whose lead rounding could decide has no class. Every class that it may have is considered, and without an answer
that all of them give, there is none. No patch can bring that about at a certified image: under the mask that covers the
patch, all second masks give clear votes for the certified class, which settles every case.

References:
    PatchCleanser: Certifiably Robust Defense against Adversarial Patches for Any Image Classifier, Xiang, Mahloujifar,
    Mittal, 2022, https://arxiv.org/abs/2108.09135
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from robustify.certificates.masks import Masking
from robustify.certificates.prediction import Poll, Prediction
from robustify.certificates.queries import PREDICTION, Ask
from robustify.certificates.radii import leading_class
from robustify.certificates.views import View


@final
@dataclass
class CleansingQuery:
    """PatchCleanser's prediction: the masks of the first round, then what those that disagree need.

    Arguments:
        masking: The masks.
        classes: Number of classes.
    """

    masking: Masking
    classes: int
    found: dict[int, int | None] = field(init=False, default_factory=dict)

    def ask(self) -> Sequence[Ask]:
        """The first round, mask by mask; then the unions of one mask that disagrees with all others."""
        due: Sequence[int] = range(self.masking.first)
        if self.found:
            due = next((missing for missing, _ in map(self._outcome, self._leaders()) if missing), ())
        return [Ask(0, PREDICTION, 1, first=index) for index in due]

    def tell(self, ask: Ask, votes: Sequence[int]) -> None:
        """Takes the class of one masked copy; a draw that failed has none."""
        assert ask.first is not None  # noqa: S101 - as asked
        self.found[ask.first] = votes.index(1) if 1 in votes else None

    @property
    def votes(self) -> tuple[int, ...]:
        """Votes of the first round, one count per class."""
        singles = [self.found[index] for index in range(self.masking.first)]
        return tuple(singles.count(label) for label in range(self.classes))

    @property
    def answer(self) -> int | None:
        """Index of the class, once nothing more is asked; None where it depends on draws that failed."""
        answers = {answer for leader in self._leaders() for answer in self._outcome(leader)[1]}
        return answers.pop() if len(answers) == 1 else None

    def _leaders(self) -> list[int]:
        """The classes that may have most votes of the first round; the first of several, as draws that failed vote."""
        votes = self.votes
        lead, failed = leading_class(votes), self.masking.first - sum(votes)
        return [label for label, count in enumerate(votes) if count + failed >= votes[lead] + (label > lead)]

    def _outcome(self, leader: int) -> tuple[Sequence[int], set[int | None]]:
        """Indices of draws that the answer still depends on; or else all answers that are possible, None for any.

        Arguments:
            leader: The class that leads the first round.
        """
        answers: set[int | None] = set()
        for index in range(self.masking.first):
            if self.found[index] == leader:
                continue
            unions = self.masking.unions(index)
            seen = {self.found[union] for union in unions if union in self.found}
            classes = seen - {None}
            if len(classes) > 1:  # no class is kept
                continue
            if missing := [union for union in unions if union not in self.found]:
                return missing, answers
            if classes == {leader}:
                continue
            answers |= classes or {None}
            if None not in seen:  # its class is kept for sure
                return (), answers
        return (), answers | {leader}


@final
@dataclass(frozen=True)
class CleansingPoll(Poll):
    """PatchCleanser's prediction, which counts the votes of its first round.

    Arguments:
        views: The view of masked copies.
        masking: The masks.
    """

    views: tuple[View]
    masking: Masking

    @property
    def n(self) -> int:  # type: ignore[override]  # that of the masks
        """Largest number of draws that one image can take."""
        return self.masking.draws

    def query(self, classes: int) -> CleansingQuery:
        return CleansingQuery(self.masking, classes)

    def answer(self, query: CleansingQuery, labels: Sequence[str]) -> Prediction:
        label = query.answer
        return Prediction(
            label=label,
            name=None if label is None else labels[label],
            p_value=float(label is None),
            votes=query.votes,
            n=self.masking.first,
            alpha=0.0,
        )
