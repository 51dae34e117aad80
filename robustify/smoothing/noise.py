"""Gaussian noise that is addressed, not streamed, and sound for 8-bit images.

Block `b` of stage `k` of sample `s` is a function of (seed, s, k, b) alone, drawn on the CPU by Philox, a
counter-based generator. Batch size, which images share a batch, devices and restarts never change a draw.

References:
    Parallel Random Numbers: As Easy as 1, 2, 3, Salmon, Moraes, Dror, Shaw, 2011,
    https://doi.org/10.1145/2063384.2063405
    Sound Randomized Smoothing in Floating-Point Arithmetic, Voráček, Hein, 2023,
    https://arxiv.org/abs/2207.07209
"""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import final

import numpy as np
import torch
from torch import Tensor

from robustify.errors import InputError
from robustify.types import Image, Pixels

BLOCK = 32
"""Draws per address."""


def fresh_seed() -> int:
    """128 bits from the operating system."""
    return secrets.randbits(128)


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

    def add(self, image: Image, normal: Tensor, sigma: float) -> Pixels:
        """Noisy copies of `image`, one per standard normal draw in `normal`, float64 (B, *image.shape)."""
        if self is Soundness.FLOAT:
            return image + sigma * normal.float().to(image.device)
        steps = (255 * sigma * normal).round().float().to(image.device)
        return ((255 * image).round() + steps) / 255

    def check(self, image: Image) -> Image:
        """The image that will be certified.

        Raises:
            InputError: If whole steps of noise are asked for an image that is not 8-bit.
        """
        if self is Soundness.FLOAT:
            return image
        nearest = (255 * image).round()
        if bool(((255 * image - nearest).abs() > 1e-3).any()):  # float32 cannot miss a multiple of 1/255 by more
            raise InputError(
                "expected an 8-bit image (multiples of 1/255), for which noise in whole steps is sound; got others.\n"
                "  Quantise it, (255 * image).round() / 255, or accept certificates in real arithmetic: "
                "soundness='float'."
            )
        return nearest / 255


@final
@dataclass(frozen=True)
class NoiseAddress:
    """Where the draws of one stage of one sample live.

    Arguments:
        seed: At least 0; of the whole run.
        sample: Names the image within the run.
        stage: Selection, estimation or prediction.
    """

    seed: int
    sample: str
    stage: int

    def block(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal draws of shape (BLOCK, *shape), float64.

        By inverting the normal distribution function at 53-bit uniforms: the same numbers on every machine with the
        same libraries, and no rejection, so each draw sits at a fixed place of the counter.
        """
        text = f"{self.seed}|{self.stage}|{self.sample}".encode()
        key = int.from_bytes(blake2b(text, digest_size=16, person=b"robustify-noise").digest(), "little")
        # The counter's low 64 bits count numbers inside a block, the high ones count blocks.
        generator = np.random.Generator(np.random.Philox(key=key, counter=index << 64))
        uniform = torch.from_numpy(generator.random((BLOCK, *shape)))
        # A uniform of exactly 0 (chance 2^-53) stands for its cell's middle, as all others do to within rounding.
        normal: Tensor = torch.special.ndtri(uniform.clamp_(min=2.0**-54))
        return normal


@final
@dataclass
class NoiseStream:
    """The draws at an address, one after the other.

    Arguments:
        address: Where they live.
        shape: Of one draw.
    """

    address: NoiseAddress
    shape: tuple[int, ...]
    _next: int = field(init=False, default=0)
    _rest: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._rest = torch.empty(0, *self.shape, dtype=torch.float64)

    def take(self, draws: int) -> Tensor:
        """The next so many draws, float64 of shape (draws, *shape)."""
        blocks = [self._rest]
        missing = draws - len(self._rest)
        while missing > 0:
            blocks.append(self.address.block(self._next, self.shape))
            self._next += 1
            missing -= BLOCK
        drawn = torch.cat(blocks)
        self._rest = drawn[draws:].clone()
        return drawn[:draws]
