"""The questions that users ask of an image, as options."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustify.certificates.radii import check_budget, check_count
from robustify.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of each image, and the chance of error that is allowed.

    One of three: with `radius`, is the label certain within it (yes or no, one or several radii at once); with `n`,
    which largest radius do exactly `n` draws prove (the classical certificate); with neither, which largest radius do
    at most `n_max` draws prove, stopping where more would gain little.

    Arguments:
        radius: Decide, yes or no, whether the label holds within this ℓ2 radius, in [0, 1] pixels; or within each of
            several.
        n: The classical certificate: exactly so many draws test the label.
        n_max: The most draws that test the label, where `n` is not given.
        n0: Draws, disjoint from those, that choose the label. 0, with `radius` only, tests whichever label leads on
            the draws that test it: about 100 draws fewer on an easy image, but no help from the runner-up's votes.
        alpha: Allowed chance, for each image, that its certificate is false, however the sampling stopped.
        known_label: Decide whether the smoothed label is the true one, which must be known; no draws choose it. For
            the evaluation of data sets, with `radius`.

    Raises:
        InputError: If an option cannot be used.
    """

    radius: float | Sequence[float] | None = None
    n: int | None = None
    n_max: int = 10_000
    n0: int = 100
    alpha: float = 0.001
    known_label: bool = False

    def __post_init__(self) -> None:
        check_budget(n=self.n_max if self.n is None else self.n, alpha=self.alpha)
        check_count("n0", self.n0, least=1 if self.radius is None else 0)
        if self.radius is not None and self.n is not None:
            raise InputError("give a radius to decide or a number of draws n, not both; n_max caps a decision")
        if self.known_label and self.radius is None:
            raise InputError("known_label decides whether the true label is certain within a radius; give the radius")

    @property
    def radii(self) -> tuple[float, ...]:
        """Radii to decide, increasing; none where the largest radius is asked for."""
        if self.radius is None:
            return ()
        several = self.radius if isinstance(self.radius, Sequence) else (self.radius,)
        return tuple(sorted(set(map(float, several))))
