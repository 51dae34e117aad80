"""The noise law of a view: Gaussian noise, no noise, or what the view's change says."""

import pkgutil
from typing import final

import numpy as np
import torch

from robustify.certificates.views import View
from robustify.smoothing.noise import Array, FloatNoise, GridNoise, NoiseAddress, NoiseLaw, noise_law, per_block
from robustify.smoothing.settings import Soundness
from robustify.types import Bytes, Image, Pixels


def law_of(view: View, soundness: str) -> NoiseLaw:
    """The law of the draws of a view.

    Raises:
        InputError: If soundness is neither "grid" nor "float", or sigma is out of the range of noise on the grid.
    """
    if view.change is not None:
        law: NoiseLaw = pkgutil.resolve_name(view.change.law)(view, soundness)
        return law
    return noise_law(soundness, view.sigma) if view.sigma > 0 else Unchanged(soundness)


def accepted(image: Image | Bytes, soundness: str) -> Image | Bytes:
    """The image as it will be certified: bytes for "grid", floats for "float".

    Raises:
        InputError: If soundness is neither, or "grid" is not sound for the image, which is not 8-bit.
    """
    grid = Soundness(soundness) is Soundness.GRID
    return GridNoise(1.0).check(image) if grid else FloatNoise(1.0).check(image)


class Enumerated(NoiseLaw):
    """A law without chance: the i-th draw of every image is changed in the i-th way.

    Arguments:
        soundness: "grid" for 8-bit images, "float" for any.
    """

    sigma = 0.0
    alike = False

    def __init__(self, soundness: str) -> None:
        self.soundness = soundness

    def evidence(self) -> None:
        return None

    def check(self, image: Image | Bytes) -> Image | Bytes:
        return accepted(image, self.soundness)

    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        """Numbers of the draws of a block, shape (draws)."""
        del address
        each = per_block(shape)
        return np.arange(index * each, (index + 1) * each)


@final
class Unchanged(Enumerated):
    """The image as it is."""

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        del noise
        out.copy_(as_pixels(image))


def as_pixels(image: Image | Bytes) -> Image:
    """The image in [0, 1], to the bits that noise on the grid would give it with noise of 0."""
    if image.is_floating_point():
        return image
    # Of a number, a GPU would take the reciprocal.
    whole = torch.tensor(255.0, device=image.device, dtype=torch.float32)
    return image.float() / whole
