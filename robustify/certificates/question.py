"""The question that users ask about an image, as options."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from robustify.certificates.bounds import is_number
from robustify.certificates.radii import check_budget, check_count
from robustify.errors import InputError
from robustify.options import check_flags


@dataclass(frozen=True, kw_only=True)
class Question:
    """The question about each image, and the chance of error that is allowed.

    There are three kinds. With `radius`: does the label hold within it, yes or no, for one or several radii at once?
    With `n`: which radius do exactly `n` draws prove (the classical certificate)? With neither: which radius do at
    most `n_max` draws prove, if sampling stops where more draws would gain little?

    Arguments:
        radius: Decide, yes or no, whether the label holds within this ℓ2 radius, in [0, 1] pixels; or within each of
            several, in any order.
        n: The classical certificate: exactly this many draws test the label.
        n_max: Largest number of draws that test the label, where `n` is not given.
        n0: Number of separate draws that choose the label. 0, with `radius` only, tests the class that leads among
            the draws that test it: about 100 draws fewer on an easy image, but labels that beat every rival without
            a clear majority are not certified.
        alpha: Allowed chance, in (0, 1) and for each image, that its certificate is false, whenever sampling stops.
        known_label: Decide whether the smoothed label is the true one, which must be known; no draws choose it. For
            the evaluation of data sets, with `radius`.

    Raises:
        InputError: If an option is out of range or two options contradict each other.
    """

    radius: float | Collection[float] | None = None
    n: int | None = None
    n_max: int = 10_000
    n0: int = 100
    alpha: float = 0.001
    known_label: bool = False

    def __post_init__(self) -> None:
        check_flags(known_label=self.known_label)
        check_budget(n=self.n_max if self.n is None else self.n, alpha=self.alpha)
        check_count("n0", self.n0, least=1 if self.radius is None else 0)
        if self.radius is not None and self.n is not None:
            raise InputError("give a radius to decide or a number of draws n, not both; n_max caps a decision")
        _several(self.radius)  # raises
        if self.known_label and self.radius is None:
            raise InputError("known_label decides whether the true label is certain within a radius; give the radius")

    @property
    def radii(self) -> tuple[float, ...]:
        """ℓ2 radii to decide, increasing and without repetition; empty where the largest radius is sought."""
        return tuple(sorted(set(map(float, _several(self.radius)))))

    def check_largest(self, what: str) -> None:
        """Refuses radii to decide, for a family that finds the largest.

        Arguments:
            what: What the family certifies, such as "a mixture".

        Raises:
            InputError: If radii are given.
        """
        if self.radius is not None:
            raise InputError(
                f"{what} finds the largest radius and decides no given ones; leave out radius={self.radius!r}, and "
                "compare the certificates' radii with it"
            )


def _several(radius: object) -> Collection[float]:
    """The radii that a user means: none, one, or those of a collection.

    Raises:
        InputError: If they are no numbers above 0.
    """
    if radius is None:
        return ()
    several: Collection[Any] = (
        radius if isinstance(radius, Collection) and not isinstance(radius, str | Mapping) else (radius,)
    )
    if len(several) == 0 or not all(is_number(number) and 0 < number < math.inf for number in several):
        raise InputError(f"expected radius, in [0, 1] pixels, to be one or several numbers above 0; got {radius!r}")
    return several
