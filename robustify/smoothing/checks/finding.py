"""What one test of the noise found."""

from dataclasses import dataclass
from typing import final

FALSE_ALARM = 1e-6
"""Chance that true noise is refused."""

TESTS = 16
"""Tests that share it."""

LEVEL = FALSE_ALARM / TESTS


@final
@dataclass(frozen=True)
class Finding:
    """The outcome of one test.

    Arguments:
        test: Its name.
        found: What was seen, and out of how many.
        expected: What true noise would give.
        chance: At most this often true noise looks as bad.
    """

    test: str
    found: str
    expected: str
    chance: float

    @property
    def refused(self) -> bool:
        """Whether it's beyond the level of one test."""
        return self.chance < LEVEL

    def __str__(self) -> str:
        return f"{self.test}: found {self.found}; expected {self.expected} (chance {self.chance:.1g})"
