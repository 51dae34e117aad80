"""Something stored that is not what it should be."""

from typing import NamedTuple


class Problem(NamedTuple):
    """Something stored that is not what it should be.

    Arguments:
        sample: Name of the image; run.json or finished.json for the run itself.
        field: Which part of it; "label", "radius", "p_lower" and "p_upper" are the claim's, all others the counts'.
        stored: What is there.
        expected: What should be.
    """

    sample: str
    field: str
    stored: object
    expected: object

    def __str__(self) -> str:
        return f"{self.sample}: {self.field} is {self.stored}; expected {self.expected}"
