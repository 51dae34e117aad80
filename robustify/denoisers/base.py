"""What stands between the noise and the classifier."""

from abc import ABC, abstractmethod
from typing import final

from torch import nn

from robustify.types import Pixels


class Denoiser(nn.Module, ABC):
    """Estimates clean pixels from noisy ones. It never adds noise: the smoother adds exactly sigma.

    A certificate does not depend on what a denoiser does, only its size does.
    """

    name: str
    channels: int | None
    """Image channels it works on; any where None."""
    size: tuple[int, int] | None
    """Height and width it was made for; any where None."""
    licence: str | None

    @abstractmethod
    def forward(self, noisy: Pixels, sigma: float) -> Pixels:
        """Clean pixels in [0, 1], from clean pixels plus Gaussian noise of standard deviation `sigma`."""

    @abstractmethod
    def describe(self, sigma: float) -> str:
        """How it works at `sigma`, without its name: one line for the input contract, and part of its hash."""


@final
class Identity(Denoiser):
    """Leaves the noise in: plain randomized smoothing, the baseline that every denoiser must beat.

    Arguments:
        channels: Where the noise is added: 1 for gray, also before an RGB classifier; the classifier's where None.
    """

    name = "none"
    size = None
    licence = None

    def __init__(self, channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.eval()

    def forward(self, noisy: Pixels, sigma: float) -> Pixels:
        del sigma
        return noisy

    def describe(self, sigma: float) -> str:
        del sigma
        return "plain smoothing"
