"""Draws that change all of an image by one random number, and the classifier that sees them."""

from typing import final

import numpy as np
import torch

from robustify.certificates.contrast import REAL
from robustify.certificates.parameters import ParameterNoise
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.smoothing.checks.parameter_law import ParameterCheck, factor_of, number_of
from robustify.smoothing.noise import Array, FloatNoise, NoiseAddress, NoiseLaw, noise_law, per_block
from robustify.smoothing.settings import Soundness
from robustify.types import Bytes, Image, Pixels


@final
class BrightnessLaw(NoiseLaw):
    """One Gaussian number for each draw, added to all pixels: the noise of a single pixel, for all of them.

    Arguments:
        view: A view whose change is a `ParameterNoise`.
        soundness: "grid" for whole multiples of 1/255 on 8-bit images, "float" for any images.

    Raises:
        InputError: If soundness is neither, or sigma is out of the range of noise on the grid.
    """

    sigma = 0.0

    def __init__(self, view: View, soundness: str) -> None:
        self._number = noise_law(soundness, sigma_of(view))

    def evidence(self) -> ParameterCheck:
        grid = not isinstance(self._number, FloatNoise)
        return ParameterCheck(self._number.sigma, grid=grid, recover=number_of, what="changes of brightness")

    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        """Numbers of the draws of a block, shape (draws)."""
        return self._number.values(address, index, per_block(shape))

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        self._number.add(image, noise.reshape(-1, 1, 1, 1), out)


@final
class ContrastLaw(NoiseLaw):
    """One factor for each draw, the exponential of a Gaussian number, on all pixels.

    Arguments:
        view: A view whose change is a `ParameterNoise`.
        soundness: "float".

    Raises:
        InputError: If soundness is another.
    """

    sigma = 0.0

    def __init__(self, view: View, soundness: str) -> None:
        if Soundness(soundness) is Soundness.GRID:
            raise InputError(REAL)
        self._logarithm = FloatNoise(sigma_of(view))

    def evidence(self) -> ParameterCheck:
        return ParameterCheck(self._logarithm.sigma, grid=False, recover=factor_of, what="changes of contrast")

    def block(self, address: NoiseAddress, index: int, shape: tuple[int, ...]) -> Array:
        """Logarithms of the factors of a block, shape (draws)."""
        return self._logarithm.values(address, index, per_block(shape))

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        factors = np.exp(noise.astype(np.float64)).astype(np.float32).reshape(-1, 1, 1, 1)
        if image.device.type == "cpu":
            np.multiply(factors, image.numpy(), out=out.numpy())
        else:
            torch.mul(torch.from_numpy(factors).to(image.device), image, out=out)


def sigma_of(view: View) -> float:
    """Standard deviation of the number that a view's draws change images by.

    Raises:
        InputError: If the view's draws are of another kind.
    """
    if not isinstance(view.change, ParameterNoise):
        raise InputError(f"expected a view that changes images by one random number; got {view}")
    return view.change.sigma
