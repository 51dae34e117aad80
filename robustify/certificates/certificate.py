"""The certificate of one image: a label, a radius, and everything that they depend on."""

import math
from dataclasses import dataclass
from typing import final

from robustify.certificates.answers import top_votes
from robustify.certificates.family import Bound, Plan, Tally
from robustify.certificates.queries import CertifyingQuery
from robustify.certificates.tallied import Tallied
from robustify.contract import InputContract, Numerics
from robustify.errors import InputError
from robustify.format import floor


@final
@dataclass(frozen=True)
class Provenance:
    """Everything that a certificate's claim depends on besides the image and its votes.

    Arguments:
        plan: The question, fixed before the first draw: noise levels, alpha, numbers of draws.
        seed: Seed of the noise, 0 to 2**128 - 1.
        fresh: Whether the seed came from the operating system, as a proof needs; otherwise it was given.
        soundness: "grid" for noise in whole multiples of 1/255 on an 8-bit image; "float" for a claim that holds in
            real arithmetic only.
        contract: The space in which noise was added and the radius is measured.
        classifier: SHA-256 of the classifier's weights, layers and preprocessing.
        denoiser: SHA-256 of the denoiser's weights, layers and schedule.
        numerics: Precision and compilation of the networks; another precision is another classifier.
        batch: Number of images per forward pass.
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
@dataclass(frozen=True, repr=False)
class Certificate(Tallied):
    """A label, the ℓ2 distance within which it holds, and the votes that prove it.

    Arguments:
        sample: Name of the image; with the seed, it determines the image's noise.
        label: Index of the certified class; None where the classifier abstains.
        name: Name of the class that is answered, certified or not; None where the classifier abstains.
        radius: ℓ2 radius in [0, 1] pixels, exclusive; 0 where the classifier abstains.
        bounds: Bounds on the probabilities of the label and of every other class, one per view.
        tallies: Votes that chose the label and votes that certify it, with the counts at each look.
        provenance: Everything else that the claim depends on.
        uncertified: Index of the class that is answered where none is certified; None where nothing is answered.
    """

    sample: str
    label: int | None
    name: str | None
    radius: float
    bounds: tuple[Bound, ...]
    tallies: tuple[Tally, ...]
    provenance: Provenance
    uncertified: int | None = None

    @property
    def abstained(self) -> bool:
        """Whether no label is certified."""
        return self.label is None

    def radius_lp(self, p: float) -> float:
        """A radius in the ℓp norm, which follows from the ℓ2 radius alone.

        With d values per image, the ℓ2 norm of a change is at most its ℓp norm for p <= 2, and at most
        d^(1/2 - 1/p) times its ℓp norm for p > 2.

        Arguments:
            p: Order of the norm, at least 1; `math.inf` for the largest change of any pixel.

        Raises:
            InputError: If p is less than 1, or the certificate's radius is not in the ℓ2 norm.
        """
        if self.provenance.plan.norm != "ℓ2":
            raise InputError(f"expected a certificate of an ℓ2 radius; got one of {self.provenance.plan.axis}")
        if not p >= 1:
            raise InputError(f"expected a norm of p >= 1; got {p}")
        if p <= 2:
            return self.radius
        shrink: float = math.prod(self.provenance.contract.shape) ** (1 / p - 1 / 2)
        return self.radius * shrink * (1 - 1e-12)

    def holds(self, label: int, *, at: float) -> bool:
        """Whether `label` is certified against every change whose ℓ2 norm, in [0, 1] pixels, is at most `at`."""
        return self.label is not None and self.label == label and self.radius > at

    def summary(self) -> dict[str, str]:
        """A few words under each heading of a table."""
        return {
            "label": "abstains" if self.name is None else self.name,
            "radius": f"{floor(self.radius):.3f}" if self.label is not None else "–",
            "votes": f"{max(self.votes):,} of {self.tested.draws:,}",
        }

    def __repr__(self) -> str:
        return (
            f"Certificate(label={self.label}, name={self.name!r}, radius={floor(self.radius):.3f}, "
            f"votes={top_votes(self.votes)}, n={self.n}, sample={self.sample!r})"
        )

    def __str__(self) -> str:
        e = self.provenance
        remarks = [e.plan.note] if e.plan.note else []
        remarks += [f"{floor(100 * (1 - e.plan.alpha), 4):.10g} % confidence"] if e.plan.alpha else ["without chance"]
        remarks.append(f"n = {self.n:,}")
        if e.soundness != "grid":
            remarks.append("in real arithmetic")
        if not e.fresh:
            remarks.append("reproduction with a given seed")
        if self.label is None:
            asked = f" within {e.plan.radii[0]:g}" if e.plan.radii else ""
            told = "abstains" if self.name is None else f"{self.name}, not certified"
            return f"{told}: no label is certain enough{asked} ({', '.join(remarks)})"
        return f"{self.name}: {e.plan.statement(f'{floor(self.radius):.3f}', str(e.contract))} ({', '.join(remarks)})"


def conclude(query: CertifyingQuery, *, sample: str, provenance: Provenance, labels: tuple[str, ...]) -> Certificate:
    """The certificate that a query's tallies prove; it abstains where they prove no radius.

    Arguments:
        query: A query of the provenance's plan that asks for nothing more.
        sample: Name of the image.
        provenance: Everything else that the claim depends on.
        labels: One name per class.
    """
    tallies = query.tallies
    claim = provenance.plan.certify_votes(tallies)
    answer = claim.uncertified if claim.label is None else claim.label
    name = None if answer is None else labels[answer]
    return Certificate(
        sample, claim.label, name, claim.radius, claim.bounds, tallies, provenance, uncertified=claim.uncertified
    )
