"""The noise law of a view: Gaussian noise, no noise, or what the view's change says."""

import pkgutil
from typing import final

import numpy as np
import torch

from robustify.certificates.views import View
from robustify.smoothing.noise import Array, NoiseAddress, NoiseLaw, noise_law, per_block
from robustify.types import Bytes, Image, Pixels


def law_of(view: View, soundness: str) -> NoiseLaw:
    """The law of the draws of a view.

    Raises:
        InputError: If soundness is neither "grid" nor "float", or sigma is out of the range of noise on the grid.
    """
    if view.change is not None:
        law: NoiseLaw = pkgutil.resolve_name(view.change.law)(view, soundness)
        return law
    return noise_law(soundness, view.sigma) if view.sigma > 0 else Unchanged()


class Enumerated(NoiseLaw):
    """A law without chance: the i-th draw of every image is changed in the i-th way."""

    sigma = 0.0
    alike = False

    def evidence(self) -> None:
        return None

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
