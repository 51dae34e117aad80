r"""One level of a cascade: what its votes say of whether it fires, now and after a change of the image.

A level of noise sigma *fires* with a class whose probability exceeds a threshold :math:`p_0 \ge 1/2`. The quantile
:math:`\Phi^{-1}(p_c)` of a class's probability changes by at most :math:`\lVert\delta\rVert_2 / \sigma` when the image
changes by :math:`\delta`. So with :math:`\underline{p}` below the probability of class A and :math:`\overline{p}` above
that of any other, the level still fires with A below a change of
:math:`\sigma (\Phi^{-1}(\underline{p}) - \Phi^{-1}(p_0))`, and fires with no other class below one of
:math:`\sigma (\Phi^{-1}(p_0) - \Phi^{-1}(\overline{p}))`.

References:
    Provably Robust Deep Learning via Adversarially Trained Smoothed Classifiers, Salman, Yang, Li, Zhang, Zhang,
    Razenshteyn, Bubeck, 2019, https://arxiv.org/abs/1906.04584
    Multi-scale Diffusion Denoised Smoothing, Jeong, Shin, 2023, https://arxiv.org/abs/2310.16779
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from scipy.special import betainc

from robustify.certificates.bounds import lower_bound, upper_bound
from robustify.certificates.family import Bound
from robustify.certificates.radii import gaussian_radius, strongest_rival


class Counts(NamedTuple):
    """Votes about one class.

    Arguments:
        n: Number of draws.
        label: Votes for the class.
        rival: Votes for the strongest other class, plus the draws that failed.
    """

    n: int
    label: int
    rival: int

    @classmethod
    def of(cls, votes: Sequence[int], label: int, n: int) -> "Counts":
        """What the votes, one count per class, of `n` draws say about a class."""
        return cls(n, votes[label], strongest_rival(votes, label, n=n))

    def scaled(self, n: int) -> "Counts":
        """The counts of `n` draws that split as these do."""
        return Counts(n, round(self.label * n / self.n), round(self.rival * n / self.n))


@final
@dataclass(frozen=True)
class CascadeLevel:
    """A level of a cascade.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        p0: Probability, at least 1/2, above which a class fires; None for a level that always answers with the class
            of the largest probability.
        alpha: Allowed chance that what the level's votes prove is false.
        slack: Largest difference between the chance of a vote under the noise that is drawn and under ideal noise.
    """

    sigma: float
    p0: float | None
    alpha: float
    slack: float

    def bound(self, counts: Counts) -> Bound:
        """Bounds on the class's and on any other's probability.

        Each holds except with chance alpha, as a radius needs only one of them; for a level that always answers, both
        hold except with chance alpha.
        """
        alpha = self.alpha / 2 if self.p0 is None else self.alpha
        low = lower_bound(counts.label, counts.n, alpha=alpha) - self.slack
        high = upper_bound(counts.rival, counts.n, alpha=alpha) + self.slack
        return Bound(max(0.0, low), min(1.0, high))

    def answering(self, bound: Bound) -> float:
        """The ℓ2 radius within which the level answers with the class; 0 where none is proven."""
        if self.p0 is None:
            return gaussian_radius(*bound, sigma=self.sigma)
        return gaussian_radius(bound.p_lower, self.p0, sigma=2 * self.sigma)

    def harmless(self, bound: Bound) -> float:
        """The ℓ2 radius within which the level fires with no other class; 0 where none is proven."""
        return 0.0 if self.p0 is None else gaussian_radius(self.p0, bound.p_upper, sigma=2 * self.sigma)

    def silence(self, votes: Sequence[int], n: int) -> float:
        """The chance of votes as low as these, one count per class, if some class fires: a p-value of silence."""
        top = max(votes) + n - sum(votes)  # draws that failed may all belong to one class
        return 1.0 if self.p0 is None or top >= n else float(betainc(n - top, top + 1, 1 - self.p0 + self.slack))

    def firing(self, votes: Sequence[int], n: int) -> float:
        r"""A p-value of the leading class's firing: of as many votes for any class that does not fire.

        The same draws choose the class and test it. The chance f(p) of so many votes is convex in p and 0 at 0, up to
        the threshold, as these votes lie above the median there. So all classes together, none of them above the
        threshold, reach as many with chance at most :math:`\sum_c f(p_c) \le \sum_c p_c f(p_0) / p_0`. Where another
        class fires, so many votes for this one leave it fewer than `silence` would need: that chance is paid for.
        """
        top = max(votes)
        if self.p0 is None or top <= n * (threshold := self.p0 + self.slack) or threshold >= 1:
            return 1.0
        return min(1.0, float(betainc(top, n - top + 1, threshold)) / self.p0)
