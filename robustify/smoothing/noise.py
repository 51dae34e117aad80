"""Gaussian noise that is addressed, not streamed, and sound for 8-bit images.

Block `b` of a stage of a view of a sample is a function of (seed, sample, view, stage, b) alone: its random bits come
from Philox, a counter-based generator, whose key is a hash of the address. Batch size, which images share a batch,
devices and restarts never change a draw. On the grid it is integer arithmetic up to one division by 255, so the same
bits everywhere.

References:
    Sound Randomized Smoothing in Floating-Point Arithmetic, Voráček, Hein, 2023,
    https://arxiv.org/abs/2207.07209
"""

from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from robustify.errors import InputError
from robustify.smoothing.background import background
from robustify.smoothing.checks.evidence import Evidence
from robustify.smoothing.checks.noise_law import NoiseCheck
from robustify.smoothing.sampler import LEADING, lattice_sampler
from robustify.smoothing.settings import Soundness
from robustify.types import Bytes, Image, Pixels

Array: TypeAlias = NDArray[Any]

BLOCK = 131_072
"""Values of a block, at least one draw: enough that small images are drawn many at a time, and large ones singly."""

_RESERVED = 1 << 192
"""Where, in the counter of 256 bits, the words begin that complete undecided values."""


@final
@dataclass(frozen=True)
class NoiseAddress:
    """The address of the draws of one stage of one view of one sample.

    Arguments:
        seed: Seed of the whole run, at least 0.
        sample: Name of the image within the run.
        view: Index of the view.
        stage: What the draws are for: selection, estimation or prediction.
    """

    seed: int
    sample: str
    view: int
    stage: str

    def __post_init__(self) -> None:
        if "|" in self.stage:
            raise InputError(
                f"expected a stage without '|', which separates the parts of an address; got {self.stage!r}"
            )

    def words(self, block: int, count: int, *, reserved: bool = False) -> Array:
        """Random words of a block, uint64 of shape (count), from its own range of the counter.

        Arguments:
            block: Index of the block.
            count: Number of words.
            reserved: Whether to take them from the range that completes undecided values.
        """
        # The counter's low 64 bits count words inside a block, the next 128 count blocks.
        counter = (block << 64) + (_RESERVED if reserved else 0)
        words: Array = np.random.Philox(key=self._key(), counter=counter).random_raw(count)
        return words

    def _key(self) -> int:
        text = f"{self.seed}|{self.view}|{self.stage}|{self.sample}".encode()
        return int.from_bytes(blake2b(text, digest_size=16, person=b"robustify-noise").digest(), "little")


class NoiseLaw(ABC):
    """How noise is drawn, and how it meets pixels."""

    sigma: float
    """Standard deviation of the noise, in [0, 1] pixels."""

    alike: ClassVar[bool] = True
    """Whether the draws of an image are independent and alike, so that their votes must spread evenly."""

    @abstractmethod
    def evidence(self) -> Evidence | None:
        """A new test, for one run, of whether this is the noise that is fed; None where draws are not random."""

    @abstractmethod
    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        """The noise of `per_block(shape)` draws, shape (draws, *shape)."""

    @abstractmethod
    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        """Writes noisy copies of an image, one for each draw, to float32 memory on its device."""


@final
@dataclass(frozen=True)
class GridNoise(NoiseLaw):
    """Whole multiples of 1/255 on an 8-bit image: what the network sees is the ideal noisy image, rounded.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
    """

    sigma: float

    def evidence(self) -> Evidence:
        return NoiseCheck(self.sigma, grid=True)

    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        steps = self.values(address, index, per_block(shape) * prod(shape))
        return steps.reshape(-1, *shape)

    def values(self, address: NoiseAddress, index: int, count: int) -> Array:
        """So many values of a block, whole steps of 1/255."""
        words = address.words(index, -(-count * LEADING // 64))
        leading = words.astype("<u8", copy=False).view("<u2")[:count]
        return lattice_sampler(self.sigma).draw(leading, lambda n: address.words(index, n, reserved=True))

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        if image.device.type == "cpu":  # by numpy, which starts no threads beside those of the network
            noisy = np.add(noise, image.numpy(), out=out.numpy(), dtype=np.float32)
            np.divide(noisy, np.float32(255), out=noisy)
            return
        # Of a number, a GPU would take the reciprocal.
        whole = torch.tensor(255.0, device=image.device, dtype=torch.float32)
        torch.div((torch.from_numpy(noise).to(image.device) + image).float(), whole, out=out)


@final
@dataclass(frozen=True)
class FloatNoise(NoiseLaw):
    """Float32 noise on any image: certificates hold in real arithmetic only.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
    """

    sigma: float

    def evidence(self) -> Evidence:
        return NoiseCheck(self.sigma, grid=False)

    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        return self.values(address, index, per_block(shape) * prod(shape)).reshape(-1, *shape)

    def values(self, address: NoiseAddress, index: int, count: int) -> Array:
        """So many values of a block, by inverting the normal distribution function at 53-bit uniforms, float32."""
        # A uniform of exactly 0 (chance 2^-53) stands for its cell's middle, as all others do to within rounding.
        uniform = np.maximum((address.words(index, count) >> np.uint64(11)) * 2.0**-53, 2.0**-54)
        noise: Array = (self.sigma * ndtri(uniform)).astype(np.float32)
        return noise

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        if image.device.type == "cpu":
            np.add(noise, image.numpy(), out=out.numpy())
        else:
            torch.add(torch.from_numpy(noise).to(image.device), image, out=out)


def accepted(image: Image | Bytes, soundness: str) -> Image | Bytes:
    """The image as it will be certified: bytes for "grid", floats for "float".

    Raises:
        InputError: If soundness is neither, or "grid" is not sound for the image, which is not 8-bit.
    """
    if Soundness(soundness) is Soundness.FLOAT:
        return image.float() / 255 if image.dtype == torch.uint8 else image
    if image.dtype == torch.uint8:
        return image
    nearest = (255 * image).round()
    on_grid = (255 * image - nearest).abs() <= 1e-4  # float32 misses a multiple of 1/255 by at most 3e-5
    if not bool((on_grid & (nearest >= 0) & (nearest <= 255)).all()):  # also refuses NaN
        raise InputError(
            "expected an 8-bit image (multiples of 1/255), for which noise in whole steps is sound; got others.\n"
            "  Quantise it, (255 * image).round() / 255, or accept certificates in real arithmetic: "
            "soundness='float'."
        )
    return nearest.to(torch.uint8)


def noise_law(soundness: str, sigma: float) -> GridNoise | FloatNoise:
    """The law for "grid" or "float".

    Raises:
        InputError: If soundness is neither, or sigma is out of the range of noise on the grid.
    """
    if Soundness(soundness) is Soundness.FLOAT:
        return FloatNoise(sigma)
    lattice_sampler(sigma)  # raises before anything is drawn, and keeps the table
    return GridNoise(sigma)


def per_block(shape: tuple[int, ...]) -> int:
    """Number of draws in a block, for images of this shape."""
    return max(1, BLOCK // prod(shape))


@final
class NoiseStream:
    """Noisy copies of one image, one after the other.

    Arguments:
        law: The noise, and how it meets pixels.
        image: The clean image, as `accepted` gives it, shape (C, H, W).
        address: Address of the draws.
    """

    def __init__(self, law: NoiseLaw, image: Image | Bytes, address: NoiseAddress) -> None:
        self.law, self.image, self.address = law, image, address
        self._each = per_block(tuple(image.shape))
        self._ready: list[Array] = []
        self._drawing: Future[Array] | None = None
        self._blocks = 0

    def ahead(self, draws: int) -> None:
        """Starts to draw in the background what is missing of the next so many copies; what was begun is awaited."""
        self._collect()
        if (blocks := self._missing(draws)) > 0:
            first = self._blocks
            self._blocks += blocks
            self._drawing = background.submit(lambda: self._draw(first, blocks))

    def skip(self, draws: int) -> None:
        """Leaves out the next so many copies, without drawing more than a part of a block."""
        self._collect()
        drawn = np.concatenate(self._ready) if self._ready else np.empty(0)
        beyond = draws - len(drawn)
        self._ready = [drawn[draws:]] if beyond < 0 else []
        blocks, rest = divmod(max(0, beyond), self._each)
        self._blocks += blocks
        if rest:
            self._ready = [self._draw(self._blocks, 1)[rest:]]
            self._blocks += 1

    def take(self, draws: int) -> Pixels:
        """The next so many copies, at least one, float32 of shape (draws, C, H, W) on the image's device."""
        out = torch.empty(draws, *self.image.shape, device=self.image.device, dtype=torch.float32)
        self.fill(out)
        return out

    def fill(self, out: Pixels) -> None:
        """Writes the next copies to float32 memory of shape (draws, C, H, W), at least one draw, on the same device."""
        draws = len(out)
        self._collect()
        if (blocks := self._missing(draws)) > 0:
            self._ready.append(self._draw(self._blocks, blocks))
            self._blocks += blocks
        drawn = self._ready[0] if len(self._ready) == 1 else np.concatenate(self._ready)
        self._ready = [drawn[draws:]] if len(drawn) > draws else []
        # Here, not in the background: on a GPU this must come in the order of the caller's own work.
        self.law.add(self.image, drawn[:draws], out)

    def _missing(self, draws: int) -> int:
        """How many more blocks hold the next so many copies."""
        return -(-(draws - sum(map(len, self._ready))) // self._each)

    def _collect(self) -> None:
        """Awaits what is being drawn."""
        if self._drawing is not None:
            self._ready.append(self._drawing.result())
            self._drawing = None

    def _draw(self, first: int, blocks: int) -> Array:
        """The noise of so many blocks."""
        shape = tuple(self.image.shape)
        noise = [self.law.block(self.address, index, shape) for index in range(first, first + blocks)]
        return np.concatenate(noise) if blocks > 1 else noise[0]
