"""The certificate: a frozen value that explains itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import final

from robustify.certificates.radius import gaussian_radius, runner_up_bounds
from robustify.types import InputContract


@final
@dataclass(frozen=True)
class Evidence:
    """Everything a certificate's claim depends on besides the votes.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        alpha: Allowed chance that the certificate is false.
        n0: Draws that chose the label.
        n: Draws, disjoint from those, that certify it.
        seed: Of the noise.
        fresh: Whether the seed came from the operating system; a given seed makes a reproduction.
        sample: Address of the image within the seed.
        contract: The space in which noise was added.
        classifier: SHA-256 of weights and preprocessing.
        denoiser: SHA-256 of weights and schedule.
        dtype: Of the networks; another precision is another classifier.
        batch: Images per forward pass.
    """

    sigma: float
    alpha: float
    n0: int
    n: int
    seed: int
    fresh: bool
    sample: str
    contract: InputContract
    classifier: str
    denoiser: str
    dtype: str
    batch: int


@final
@dataclass(frozen=True)
class Certificate:
    """Which label holds within which ℓ2 distance, and why.

    Arguments:
        label: Index of the certified class; None where the classifier abstains.
        name: Its name; None where it abstains.
        radius: In [0, 1] pixel units, exclusive; 0 where it abstains.
        p_lower: Lower bound on the label's probability under noise.
        p_upper: Upper bound on any other label's.
        selection: Votes that chose the label, one count per class.
        votes: Votes that certify it, one count per class; draws that failed are missing from the sum.
        evidence: What else the claim depends on.
    """

    label: int | None
    name: str | None
    radius: float
    p_lower: float
    p_upper: float
    selection: tuple[int, ...]
    votes: tuple[int, ...]
    evidence: Evidence

    @property
    def abstained(self) -> bool:
        """Whether there is no certified label."""
        return self.label is None

    def holds(self, label: int, *, at: float) -> bool:
        """Whether `label` is certified against every change of ℓ2 norm up to and including `at`."""
        return self.label is not None and self.label == label and self.radius > at

    def __str__(self) -> str:
        e = self.evidence
        confidence = f"{floor(100 * (1 - e.alpha), 4):.10g} % confidence, n = {e.n:,}"
        origin = "" if e.fresh else "; reproduction with a given seed"
        if self.label is None:
            return f"abstains: no label is certain enough ({confidence}{origin})"
        return (
            f"{self.name}: no ℓ2 change below {floor(self.radius):.3f} (pixels in [0, 1]) "
            f"changes the smoothed prediction ({confidence}{origin})"
        )


def certify_votes(
    selection: Sequence[int], votes: Sequence[int], evidence: Evidence, labels: Sequence[str]
) -> Certificate:
    """Chooses the label on `selection`, certifies it on the disjoint `votes`; abstains where the radius is 0."""
    guess = max(range(len(selection)), key=selection.__getitem__)
    p_lower, p_upper = runner_up_bounds(votes, guess, n=evidence.n, alpha=evidence.alpha)
    radius = gaussian_radius(p_lower, p_upper, sigma=evidence.sigma)
    certain = radius > 0
    return Certificate(
        label=guess if certain else None,
        name=labels[guess] if certain else None,
        radius=radius,
        p_lower=p_lower,
        p_upper=p_upper,
        selection=tuple(selection),
        votes=tuple(votes),
        evidence=evidence,
    )


def floor(value: float, digits: int = 3) -> float:
    """Rounds down, never up, to so many decimals: what is shown may not exceed what is proven."""
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))
