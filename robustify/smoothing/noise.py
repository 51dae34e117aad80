"""Interim noise."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import blake2b
from typing import final

import numpy as np
import torch
from torch import Tensor

from robustify.errors import InputError
from robustify.smoothing.settings import Soundness
from robustify.types import Pixels

BLOCK = 32


@final
@dataclass(frozen=True)
class NoiseAddress:
    """Address of draws."""

    seed: int
    sample: str
    view: int
    stage: str

    def block(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal draws."""
        text = f"{self.seed}|{self.view}|{self.stage}|{self.sample}".encode()
        key = int.from_bytes(blake2b(text, digest_size=16, person=b"robustify-noise").digest(), "little")
        generator = np.random.Generator(np.random.Philox(key=key, counter=index << 64))
        uniform = torch.from_numpy(generator.random((BLOCK, *shape)))
        normal: Tensor = torch.special.ndtri(uniform.clamp_(min=2.0**-54))
        return normal


class NoiseLaw(ABC):
    """Noise."""

    sigma: float

    @abstractmethod
    def check(self, image: Tensor) -> Tensor:
        """The image."""

    @abstractmethod
    def add(self, image: Tensor, normal: Tensor) -> Pixels:
        """Noisy copies."""


@final
@dataclass(frozen=True)
class GridNoise(NoiseLaw):
    """Grid."""

    sigma: float

    def check(self, image: Tensor) -> Tensor:
        if image.dtype == torch.uint8:
            return image
        nearest = (255 * image).round()
        if bool(((255 * image - nearest).abs() > 1e-3).any()):
            raise InputError(
                "expected an 8-bit image (multiples of 1/255), for which noise in whole steps is sound; got others.\n"
                "  Quantise it, (255 * image).round() / 255, or accept certificates in real arithmetic: "
                "soundness='float'."
            )
        return nearest.to(torch.uint8)

    def add(self, image: Tensor, normal: Tensor) -> Pixels:
        return (image.float() + (255 * self.sigma * normal).round().float().to(image.device)) / 255


@final
@dataclass(frozen=True)
class FloatNoise(NoiseLaw):
    """Float."""

    sigma: float

    def check(self, image: Tensor) -> Tensor:
        return image.float() / 255 if image.dtype == torch.uint8 else image

    def add(self, image: Tensor, normal: Tensor) -> Pixels:
        return image + self.sigma * normal.float().to(image.device)


def noise_law(soundness: str, sigma: float) -> NoiseLaw:
    """The law."""
    return GridNoise(sigma) if Soundness(soundness) is Soundness.GRID else FloatNoise(sigma)


@final
class NoiseStream:
    """Stream."""

    def __init__(self, law: NoiseLaw, image: Tensor, address: NoiseAddress) -> None:
        self.law, self.image, self.address = law, image, address
        self._next = 0
        self._rest = torch.empty(0, *image.shape, dtype=torch.float64)

    def ahead(self, draws: int) -> None:
        """Nothing yet."""

    def take(self, draws: int) -> Pixels:
        """The next copies."""
        blocks, missing = [self._rest], draws - len(self._rest)
        while missing > 0:
            blocks.append(self.address.block(self._next, tuple(self.image.shape)))
            self._next += 1
            missing -= BLOCK
        drawn = torch.cat(blocks)
        self._rest = drawn[draws:].clone()
        return self.law.add(self.image, drawn[:draws])
