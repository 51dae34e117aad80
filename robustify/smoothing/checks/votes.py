r"""Do draws of one batch agree more than draws of different batches?

Votes of one image are independent and alike, so how they spread over batches is chance alone. Whatever the images of a
batch share (one dropout mask, one random vector, an expert's capacity) or a network that changes during the run makes
batches differ by more. The probe before a run sees such faults only if they show within its few passes; this test sees
those that begin later, or vary slowly.

**The test.** Take the draws that were asked for at once. When a batch adds m of them to N, the class with most votes
has T of the N + m votes. Given that, its number k in the new batch is hypergeometric, whatever the image and its
probabilities: :math:`P(k) = \binom{T}{k} \binom{N + m - T}{m - k} / \binom{N + m}{m}`. The wager
:math:`E = P(k)^{-1/2} / \sum_j P(j)^{1/2}`, in favour of about twice the variance, has expectation 1. So has the
product over the batches of a request, as splits are independent given the sums; and it is added to the evidence only
once the request is complete, for earlier votes decide what is asked next.

**The evidence** for sharing is :math:`\sum_s w_s \prod_{r \ge s} E_r` over requests r, with weights
:math:`w_s = 1 / (s (s + 1))` on every beginning s of the fault, so that what begins late is found too. It is a
martingale of mean 1: that it ever reaches a million, however often one looks, has a chance of at most 1e-6 (Ville).

References:
    Testing Exchangeability: Fork-Convexity, Supermartingales and E-Processes, Ramdas, Ruf, Larsson, Koolen, 2022,
    https://arxiv.org/abs/2102.00630 (why not to look within a request)
"""

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from robustify.errors import ModelError

FALSE_ALARM = 1e-6
"""Chance that independent votes are refused."""

Array: TypeAlias = NDArray[Any]


@final
@dataclass
class Wager:
    """A bet, within one request, that batches differ by more than chance.

    Arguments:
        votes: So far, one count per class and one of failed draws.
        log: Natural logarithm of what a stake of 1 has become.
    """

    votes: Array
    log: float = 0.0

    def add(self, votes: Array) -> None:
        """Takes the votes of the next batch."""
        before, draws = int(self.votes.sum()), int(votes.sum())
        self.votes = self.votes + votes
        leader = int(self.votes.argmax())
        if before and draws > 1:  # one draw agrees with itself
            self.log += _log_wager(int(votes[leader]), int(self.votes[leader]), draws, before + draws)


@final
@dataclass
class VoteCheck:
    """Collects evidence over the requests of a run, in memory of one count per class.

    Arguments:
        log_evidence: Natural logarithm of the evidence for sharing.
        log_most: Natural logarithm of the largest evidence so far.
        requests: Complete so far.
    """

    log_evidence: float = field(init=False, default=0.0)
    log_most: float = field(init=False, default=0.0)
    requests: int = field(init=False, default=0)
    _begun: float = field(init=False, default=-math.inf)

    def add(self, log_wager: float) -> None:
        """Takes the wager of a request that is complete."""
        self.requests += 1
        r = self.requests
        self._begun = float(np.logaddexp(self._begun, -math.log(r * (r + 1)))) + log_wager
        self.log_evidence = float(np.logaddexp(self._begun, -math.log(r + 1)))
        self.log_most = max(self.log_most, self.log_evidence)

    @property
    def refused(self) -> bool:
        """Whether the votes can't be independent."""
        return self.log_most >= -math.log(FALSE_ALARM)

    def verify(self) -> None:
        """Refuses votes that depend on their batch; independent ones with a chance of at most 1e-6 per run.

        Raises:
            ModelError: With what was found.
        """
        if self.refused:
            raise ModelError(
                "votes of one batch agree with each other more than with those of other batches: by chance alone once "
                f"in {math.exp(min(self.log_most, 700)):.1g} runs; allowed: once in {1 / FALSE_ALARM:.0g}. Draws are "
                "not independent and no certificate would hold.\n  Look for randomness that the images of a batch "
                "share, such as a dropout mask, or for a network that changed during the run."
            )


def _log_wager(count: int, total: int, draws: int, n: int) -> float:
    """Logarithm of E for `count` of `draws` votes in the new batch, where `total` of all `n` are for the class."""
    counts = np.arange(max(0, draws - (n - total)), min(draws, total) + 1)
    log_chances = _log_ways(total, counts) + _log_ways(n - total, draws - counts) - _log_ways(n, draws)
    return float(-log_chances[count - counts[0]] / 2 - logsumexp(log_chances / 2))


def _log_ways(n: int, k: int | Array) -> Any:  # noqa: ANN401 - a number for a number, an array for an array
    return gammaln(n + 1) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n + 1, k))
