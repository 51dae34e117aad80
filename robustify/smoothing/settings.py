"""How to certify: the question, the chance of error, the noise, the batch; with published defaults."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import TypeAlias

from robustify.certificates.bounds import check_alpha
from robustify.certificates.lattice import total_variation
from robustify.certificates.question import Question
from robustify.certificates.radii import check_count
from robustify.contract import InputContract
from robustify.errors import InputError
from robustify.options import check_flags
from robustify.smoothing.places import batch_with_probes

Progress: TypeAlias = Callable[[int], object]
"""Called with the number of draws just finished."""

SEEDS = 2**128
"""Number of seeds."""


class Soundness(StrEnum):
    """How noise meets pixels.

    `GRID` adds whole multiples of 1/255 to an 8-bit image: what the network sees is exactly what rounding
    the ideal noisy image would give, up to a total variation that bounds account for, so certificates hold
    for real computers and every 8-bit image. `FLOAT` adds float32 noise to any image: certificates hold in real
    arithmetic only, and float rounding can tell which image the noise was added to.
    """

    GRID = "grid"
    FLOAT = "float"

    @classmethod
    def _missing_(cls, value: object) -> "Soundness":
        raise InputError(f"expected soundness 'grid' or 'float'; got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How noise is drawn and fed.

    Arguments:
        soundness: "grid" for 8-bit images: certificates hold on real computers. "float" for any pixels:
            certificates hold in real arithmetic.
        batch: Noisy images per forward pass; memory depends on it alone.
        seed: Seed of the noise, 0 to 2**128 - 1, which makes a reproduction. Without one, fresh entropy, which a
            proof needs.

    Raises:
        InputError: If an option cannot be used.
    """

    soundness: str = "grid"
    batch: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        check_count("batch", self.batch)
        Soundness(self.soundness)  # raises
        if self.seed is not None:
            check_count("seed", self.seed, least=0, most=SEEDS - 1)

    def entropy(self) -> tuple[int, bool]:
        """The seed, and whether it is fresh from the operating system."""
        return (secrets.randbits(128), True) if self.seed is None else (self.seed, False)

    def batch_for(self, draws: int) -> int:
        """Images per forward pass where no more than so many draws are needed."""
        return min(self.batch, batch_with_probes(draws))

    def slack(self, sigma: float, contract: InputContract) -> float:
        """The most by which the chance of a vote may differ from that under ideal noise of this standard deviation."""
        return total_variation(sigma, prod(contract.shape)) if self.soundness == Soundness.GRID else 0.0


@dataclass(frozen=True, kw_only=True)
class Settings(Sampling, Question):
    """How to certify: a question, and how noise is drawn.

    Arguments:
        family_wise: Share alpha among all images of a data set, so that it is the chance that any certificate is
            false.

    Raises:
        InputError: If an option cannot be used.
    """

    family_wise: bool = False

    def __post_init__(self) -> None:
        check_flags(family_wise=self.family_wise)
        Sampling.__post_init__(self)
        Question.__post_init__(self)

    def over(self, images: int) -> "Settings":
        """The settings of each of so many images: alpha is divided among them where it is for the family.

        Raises:
            InputError: If `n` draws could then never certify.
        """
        check_count("images", images)
        return replace(self, alpha=self.alpha / images) if self.family_wise else self


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Sampling):
    """How to predict.

    Arguments:
        n: Draws per image.
        alpha: Allowed chance, for each image, that the label is not the smoothed classifier's.

    Raises:
        InputError: If an option cannot be used.
    """

    n: int = 1_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("n", self.n)
        check_alpha(self.alpha)


@dataclass(frozen=True, kw_only=True)
class CertifyOptions(Settings):
    """How to certify, and who is told of progress.

    Arguments:
        progress: Called with the number of draws just finished; where None, a bar appears when it takes a while.
    """

    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class PredictOptions(PredictSettings):
    """How to predict, and who is told of progress.

    Arguments:
        progress: Called with the number of draws just finished; where None, a bar appears when it takes a while.
    """

    progress: Progress | None = None
