"""Gaussian noise that is addressed, not streamed.

Block `b` of stage `k` of sample `s` is a function of (seed, s, k, b) alone, drawn on the CPU by
Philox, a counter-based generator. Batch size, order of images, number of devices and restarts
never change a draw.

References:
    Parallel Random Numbers: As Easy as 1, 2, 3, Salmon, Moraes, Dror, Shaw, 2011,
    https://doi.org/10.1145/2063384.2063405
"""

import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import final

import numpy as np
import torch
from torch import Tensor

BLOCK = 32
"""Draws per address."""

SELECTION, ESTIMATION, PREDICTION = 0, 1, 2
"""Stages: their draws are disjoint by construction."""


def fresh_seed() -> int:
    """128 bits from the operating system."""
    return secrets.randbits(128)


@final
@dataclass(frozen=True)
class NoiseAddress:
    """Where the draws of one stage of one sample live.

    Arguments:
        seed: At least 0; of the whole run.
        sample: Names the image within the run.
        stage: SELECTION, ESTIMATION or PREDICTION.
    """

    seed: int
    sample: str
    stage: int

    def block(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal draws of shape (BLOCK, *shape), float32.

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
        return normal.float()
