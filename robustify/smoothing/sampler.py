"""Noise in whole grid steps, from random bits: a table look-up for almost every value.

References:
    Parallel Random Numbers: As Easy as 1, 2, 3, Salmon, Moraes, Dror, Shaw, 2011,
    https://doi.org/10.1145/2063384.2063405
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from robustify.certificates.lattice import thresholds
from robustify.errors import InputError

Array: TypeAlias = NDArray[Any]

LEADING = 16
"""Leading bits of the 64-bit word that a value is drawn from, which decide alone for almost every value."""

_REST = 64 - LEADING
_UNDECIDED = np.iinfo(np.int16).min


@final
class LatticeSampler:
    """Draws noise in whole steps of 1/255: half the number of thresholds less than how many a word reaches.

    Comparing a 64-bit word with all thresholds would be slow. Its leading 16 bits say which of 65,536 intervals it
    lies in; a guide table holds the noise of each interval, or that a threshold cuts it. Only for cut intervals (1 to
    3 in 100 for sigma from 0.25 to 1) are the other 48 bits drawn and the thresholds searched.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels, below 14.

    Raises:
        InputError: If sigma is out of range.
    """

    def __init__(self, sigma: float) -> None:
        if not 0 < sigma < 14:  # noise beyond would not fit 16 bits
            raise InputError(f"expected 0 < sigma < 14 for noise in whole steps of 1/255; got {sigma}")
        self.thresholds: Array = np.array(thresholds(sigma), dtype=np.uint64)
        self.least = -(len(self.thresholds) // 2)
        begin = np.arange(1 << LEADING, dtype=np.uint64) << np.uint64(_REST)
        end = begin | np.uint64((1 << _REST) - 1)
        lowest, cuts = self._search(begin), self._search(end) - self._search(begin)
        self.guide: Array = np.where(cuts == 0, lowest, _UNDECIDED).astype(np.int16)
        self._lowest: Array = lowest.astype(np.int16)
        self._cut: Array = self.thresholds[np.minimum(lowest - self.least, len(self.thresholds) - 1)]
        self._cut_often: Array = cuts > 1

    def draw(self, leading: Array, rest: Callable[[int], Array]) -> Array:
        """The noise of each word, int16.

        Arguments:
            leading: The 16 leading bits of each word, uint16.
            rest: Gives so many further words, uint64; their upper 48 bits complete the words that are undecided, in
                the order of their places.
        """
        steps: Array = self.guide.take(leading, mode="wrap")  # the fastest mode; no index is out of range
        places = np.flatnonzero(steps == _UNDECIDED)
        if len(places):
            steps[places] = self._decide(leading[places], rest(len(places)))
        return steps

    def _decide(self, leading: Array, rest: Array) -> Array:
        """The noise of words whose intervals are cut: by one threshold, but for a few in the tails."""
        words = leading.astype(np.uint64) << np.uint64(_REST) | rest >> np.uint64(LEADING)
        found: Array = self._lowest[leading] + (words >= self._cut[leading])
        often = np.flatnonzero(self._cut_often[leading])
        found[often] = self._search(words[often])
        return found

    def _search(self, words: Array) -> Array:
        """The noise of whole words."""
        found: Array = np.searchsorted(self.thresholds, words, side="right") + self.least
        return found


@lru_cache(maxsize=16)
def lattice_sampler(sigma: float) -> LatticeSampler:
    """The sampler for one standard deviation, made once."""
    return LatticeSampler(sigma)
