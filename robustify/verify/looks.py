"""What votes say of a label, counted anew for verification."""

from collections.abc import Sequence

from robustify.certificates.family import Look


def look_at(votes: Sequence[int], n: int, label: int) -> Look:
    """The look at a label after `n` draws with these votes, one count per class; failed draws count for the rival."""
    return Look(n, votes[label], max((*votes[:label], *votes[label + 1 :])) + n - sum(votes))
