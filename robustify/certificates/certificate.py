"""The certificate: a frozen value that explains itself."""

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import final

from robustify.certificates.decisions import KnownLabelPlan, RadiusPlan
from robustify.certificates.plans import Look, Plan
from robustify.certificates.queries import Transcript
from robustify.contract import InputContract
from robustify.errors import InputError


@final
@dataclass(frozen=True)
class Provenance:
    """Everything a certificate's claim depends on besides the votes.

    Arguments:
        plan: The question, fixed before the first draw: sigma, alpha, numbers of draws.
        seed: Of the noise.
        fresh: Whether the seed came from the operating system; a given seed makes a reproduction.
        sample: Address of the image within the seed.
        soundness: "grid": noise in whole 1/255 on an 8-bit image. "float": true in real arithmetic only.
        contract: The space in which noise was added.
        classifier: SHA-256 of weights, layers and preprocessing.
        denoiser: SHA-256 of weights, layers and schedule.
        dtype: Of the networks; another precision is another classifier.
        batch: Images per forward pass.
    """

    plan: Plan
    seed: int
    fresh: bool
    sample: str
    soundness: str
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
        selection: Votes that chose the label, one count per class; none where it was known.
        votes: Votes that certify it, one count per class; draws that failed are missing from the sum.
        looks: What was known each time the votes were looked at.
        provenance: What else the claim depends on.
    """

    label: int | None
    name: str | None
    radius: float
    p_lower: float
    p_upper: float
    selection: tuple[int, ...]
    votes: tuple[int, ...]
    looks: tuple[Look, ...]
    provenance: Provenance

    @property
    def abstained(self) -> bool:
        """Whether there is no certified label."""
        return self.label is None

    @property
    def n(self) -> int:
        """Draws that tested the label."""
        return self.looks[-1].n

    def radius_lp(self, p: float) -> float:
        """A radius in another norm, derived from the ℓ2 radius; no certificate of its own.

        With d pixels, no vector's ℓ2 norm exceeds its ℓp norm for p <= 2, nor d^(1/2 - 1/p) times it for p > 2.

        Arguments:
            p: At least 1; `math.inf` for the largest change of any pixel.

        Raises:
            InputError: If p is less than 1.
        """
        if not p >= 1:
            raise InputError(f"expected a norm of p >= 1; got {p}")
        if p <= 2:
            return self.radius
        shrink: float = math.prod(self.provenance.contract.shape) ** (1 / p - 1 / 2)
        return self.radius * shrink * (1 - 1e-12)

    def holds(self, label: int, *, at: float) -> bool:
        """Whether `label` is certified against every change of ℓ2 norm up to and including `at`."""
        return self.label is not None and self.label == label and self.radius > at

    def __str__(self) -> str:
        e = self.provenance
        remarks = [f"{floor(100 * (1 - e.plan.alpha), 4):.10g} % confidence", f"n = {self.n:,}"]
        if e.soundness != "grid":
            remarks.append("in real arithmetic")
        if not e.fresh:
            remarks.append("reproduction with a given seed")
        if isinstance(e.plan, KnownLabelPlan):
            remarks.insert(0, "tested the true label")
        if self.label is None:
            asked = f" within {min(e.plan.radii):g}" if isinstance(e.plan, RadiusPlan) else ""
            return f"abstains: no label is certain enough{asked} ({', '.join(remarks)})"
        return (
            f"{self.name}: no ℓ2 change below {floor(self.radius):.3f} (pixels in [0, 1]) "
            f"changes the smoothed prediction ({', '.join(remarks)})"
        )


def conclude(transcript: Transcript, provenance: Provenance, labels: tuple[str, ...]) -> Certificate:
    """What the answers of a transcript prove; abstains where that is no radius."""
    radius, p_lower, p_upper = transcript.plan.claim(transcript.looks)
    guess = transcript.guess if radius > 0 else None
    return Certificate(
        label=guess,
        name=None if guess is None else labels[guess],
        radius=radius,
        p_lower=p_lower,
        p_upper=p_upper,
        selection=tuple(transcript.selection),
        votes=tuple(transcript.votes),
        looks=tuple(transcript.looks),
        provenance=provenance,
    )


def floor(value: float, digits: int = 3) -> float:
    """Rounds down, never up, to so many decimals: what is shown may not exceed what is proven."""
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))
