"""How to certify: the question, the chance of error, the noise, the batch; with published defaults."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from robustify.certificates.decisions import DecisionPlan, KnownLabelPlan, LeaderPlan
from robustify.certificates.radii import check_budget, check_count
from robustify.certificates.lattice import total_variation
from robustify.certificates.plans import AdaptivePlan, FixedPlan, Plan
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.smoothing.noise import Soundness, fresh_seed


@final
@dataclass(frozen=True)
class Settings:
    """How to certify.

    One of three questions: with `radius`, is the label certain within it (yes or no, one or several radii at once);
    with `n`, what is the largest radius that exactly `n` draws prove (the classical certificate); with neither, what
    is the largest radius that at most `n_max` draws prove, stopping once more would gain little.

    Arguments:
        radius: ℓ2, in [0, 1] pixels.
        n: Draws that test the label.
        n_max: The most draws that test it, where `n` is not given.
        n0: Draws, disjoint from those, that choose the label. 0, for a decision only, tests whichever label leads
            on the draws that test it: about 100 draws fewer on an easy image, but no help from the runner-up's votes.
        alpha: Allowed chance, per image, that the certificate is false, however the sampling stopped.
        soundness: "grid" for 8-bit images: certificates hold on real computers. "float" for any pixels:
            certificates hold in real arithmetic.
        batch: Images per forward pass; memory depends on it alone.
        seed: Of the noise, 0 to 2**128 - 1. None takes fresh entropy; a given seed makes a reproduction.
        known_label: Decide whether the smoothed label is the true one, which must be known; no draws choose it. For
            the evaluation of data sets.
        family_wise: Share alpha among all images of a data set, so that it is the chance that any certificate is
            false.

    Raises:
        InputError: If a setting cannot be used.
    """

    radius: float | Sequence[float] | None = None
    n: int | None = None
    n_max: int = 10_000
    n0: int = 100
    alpha: float = 0.001
    soundness: str = "grid"
    batch: int = 64
    seed: int | None = None
    known_label: bool = False
    family_wise: bool = False

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        check_budget(n=self.n_max if self.n is None else self.n, alpha=self.alpha)
        check_count("n0", self.n0, least=1 if self.radius is None else 0)
        Soundness(self.soundness)  # raises
        if self.radius is not None and self.n is not None:
            raise InputError("give a radius to decide or a number of draws n, not both; n_max caps a decision")
        if self.known_label and self.radius is None:
            raise InputError("known_label decides whether the true label is certain within a radius; give the radius")
        if self.seed is not None and not 0 <= self.seed < 2**128:
            raise InputError(f"expected a seed from 0 to 2**128 - 1; got {self.seed}")

    def plan(self, sigma: float, contract: InputContract) -> Plan:
        """The question, for noise of this sigma on images of this shape.

        Raises:
            InputError: If it could never be answered.
        """
        slack = self.slack(sigma, contract)
        if self.n is not None:
            return FixedPlan(sigma, self.alpha, self.n0, self.n, slack)
        if self.radius is None:
            return AdaptivePlan(sigma, self.alpha, self.n0, self.n_max, slack)
        radii = tuple(self.radius) if isinstance(self.radius, Sequence) else (self.radius,)
        if self.known_label or self.n0 == 0:
            plan = KnownLabelPlan if self.known_label else LeaderPlan
            return plan(sigma, self.alpha, 0, self.n_max, slack, radii)
        return DecisionPlan(sigma, self.alpha, self.n0, self.n_max, slack, radii)

    def over(self, images: int) -> "Settings":
        """The settings of each of so many images: alpha is divided among them where it is for the family.

        Raises:
            InputError: If `n` draws could then never certify.
        """
        check_count("images", images)
        return replace(self, alpha=self.alpha / images) if self.family_wise else self

    def entropy(self) -> tuple[int, bool]:
        """The seed, and whether it is fresh."""
        return (fresh_seed(), True) if self.seed is None else (self.seed, False)

    def slack(self, sigma: float, contract: InputContract) -> float:
        """By how much the chance of a vote may differ from that under ideal noise."""
        channels, height, width = contract.shape
        return total_variation(sigma, channels * height * width) if self.soundness == Soundness.GRID else 0.0
