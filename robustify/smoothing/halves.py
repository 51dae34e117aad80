"""Noise in one half of the pixels, the other half blanked: what each half of a partition sees."""

import torch
from torch import Tensor

from robustify.certificates.partition import Half
from robustify.certificates.views import View
from robustify.errors import InputError, ModelError
from robustify.smoothing.checks.evidence import Evidence
from robustify.smoothing.noise import Array, NoiseAddress, NoiseLaw, noise_law
from robustify.types import Bytes, Image, Pixels

GRAY = 0.5
"""Colour of the other half."""


def law(view: View, soundness: str) -> "HalfNoise":
    """The law of a view of one half.

    Raises:
        InputError: If the view is of no half, soundness is neither "grid" nor "float", or sigma is out of the range of
            noise on the grid.
    """
    if not isinstance(view.change, Half):
        raise InputError(f"expected a view of a half; got {view}")
    return HalfNoise(noise_law(soundness, view.sigma), view.change.parity)


class HalfNoise(NoiseLaw):
    """Noise on every second pixel of a chessboard, gray on all others: what is written there depends on no image.

    Arguments:
        whole: Noise on all pixels.
        parity: Sum of row and column of the pixels that are kept, modulo 2.
    """

    def __init__(self, whole: NoiseLaw, parity: int) -> None:
        self.whole, self.parity = whole, parity
        self.sigma = whole.sigma

    def evidence(self) -> "HalfEvidence | None":
        found = self.whole.evidence()
        return None if found is None else HalfEvidence(found, self.parity)

    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        """Noise of all pixels, shape (draws, *shape); half of it is not used."""
        return self.whole.block(address, index, shape)

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        self.whole.add(image, noise, out)
        out.masked_fill_(~kept(out, self.parity), GRAY)


class HalfEvidence:
    """A test of the noise of the kept half, and of the other, which must be gray.

    Arguments:
        noise: A test of noise on all pixels, which is shown those of the half alone.
        parity: Sum of row and column of the pixels that are kept, modulo 2.
    """

    def __init__(self, noise: Evidence, parity: int) -> None:
        self._noise, self._parity = noise, parity
        self._seen = self.sampled = 0

    def add(self, noisy: Pixels, clean: Tensor) -> None:
        """Takes consecutive draws, shape (B, C, H, W), and the image of each, of the same shape."""
        mask = kept(noisy, self._parity)
        self._seen += int((noisy[..., ~mask] != GRAY).sum())
        one = clean[:1] if clean.stride(0) == 0 else clean
        self._noise.add(_compact(noisy, mask), _compact(one, mask).expand(len(noisy), -1, -1, -1))
        self.sampled = self._noise.sampled

    def verify(self) -> None:
        """Raises `ModelError` where the half is not under its noise, or sees pixels of the other."""
        if self._seen:
            raise ModelError(
                f"{self._seen:,} pixels outside of the half were not gray: no certificate of a partition would hold.\n"
                "  Look for something that writes to batches on their way to the network."
            )
        self._noise.verify()


def kept(pixels: Tensor, parity: int) -> Tensor:
    """Which pixels of images of shape (…, H, W) belong to a half, shape (H, W), on their device."""
    height, width = pixels.shape[-2:]
    rows = torch.arange(height, device=pixels.device)[:, None]
    return (rows + torch.arange(width, device=pixels.device)) % 2 == parity


def _compact(pixels: Tensor, mask: Tensor) -> Tensor:
    """The pixels of a half, shape (B, C, H, W / 2); in one row where W is odd."""
    height, width = mask.shape
    return pixels[..., mask].reshape(*pixels.shape[:2], height if width % 2 == 0 else 1, -1)
