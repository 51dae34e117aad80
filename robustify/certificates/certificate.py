"""The certificate: a frozen value that explains itself."""

import math
from dataclasses import dataclass
from typing import final

from robustify.certificates.family import Bound, Plan, Tally
from robustify.certificates.queries import CertifyingQuery
from robustify.certificates.tallied import Tallied
from robustify.contract import InputContract, Numerics
from robustify.errors import InputError
from robustify.format import floor


@final
@dataclass(frozen=True)
class Provenance:
    """Everything that a certificate's claim depends on besides image and votes.

    Arguments:
        plan: The question, fixed before the first draw: noise levels, alpha, numbers of draws.
        seed: Seed of the noise, 128 bits.
        fresh: Whether the seed came from the operating system; a given seed makes a reproduction.
        soundness: "grid": noise in whole 1/255 on an 8-bit image. "float": true in real arithmetic only.
        contract: The space in which noise was added.
        classifier: SHA-256 of weights, layers and preprocessing.
        denoiser: SHA-256 of weights, layers and schedule.
        numerics: How the networks compute; another precision is another classifier.
        batch: Images per forward pass.
    """

    plan: Plan
    seed: int
    fresh: bool
    soundness: str
    contract: InputContract
    classifier: str
    denoiser: str
    numerics: Numerics
    batch: int


@final
@dataclass(frozen=True)
class Certificate(Tallied):
    """Which label holds within which ℓ2 distance, and why.

    Arguments:
        sample: Name of the image within the seed; it gives the image's noise.
        label: Index of the certified class; None where the classifier abstains.
        name: Its name; None where it abstains.
        radius: In [0, 1] pixel units, exclusive; 0 where it abstains.
        bounds: Bounds on the label's and on any other class's probability, for each view.
        tallies: The votes that chose the label and those that certify it, with what was known at each look.
        provenance: What else the claim depends on.
    """

    sample: str
    label: int | None
    name: str | None
    radius: float
    bounds: tuple[Bound, ...]
    tallies: tuple[Tally, ...]
    provenance: Provenance

    @property
    def abstained(self) -> bool:
        """Whether there is no certified label."""
        return self.label is None

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
        remarks = [e.plan.note] if e.plan.note else []
        remarks += [f"{floor(100 * (1 - e.plan.alpha), 4):.10g} % confidence", f"n = {self.n:,}"]
        if e.soundness != "grid":
            remarks.append("in real arithmetic")
        if not e.fresh:
            remarks.append("reproduction with a given seed")
        if self.label is None:
            asked = f" within {e.plan.radii[0]:g}" if e.plan.radii else ""
            return f"abstains: no label is certain enough{asked} ({', '.join(remarks)})"
        return (
            f"{self.name}: no ℓ2 change below {floor(self.radius):.3f} (pixels in [0, 1]) "
            f"changes the smoothed prediction ({', '.join(remarks)})"
        )


def conclude(query: CertifyingQuery, *, sample: str, provenance: Provenance, labels: tuple[str, ...]) -> Certificate:
    """The certificate that a query's tallies prove; it abstains where they prove no radius."""
    tallies = query.tallies
    claim = provenance.plan.certify_votes(tallies)
    name = None if claim.label is None else labels[claim.label]
    return Certificate(sample, claim.label, name, claim.radius, claim.bounds, tallies, provenance)
