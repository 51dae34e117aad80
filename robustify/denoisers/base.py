"""The interface of denoisers, which clean noisy pixels for the classifier."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import nn

from robustify.errors import ModelError, RobustifyError
from robustify.types import Levels, Pixels


class Denoiser(nn.Module, ABC):
    """Estimates clean pixels from noisy ones. It never adds noise: the smoother adds exactly sigma.

    A certificate is valid whatever a denoiser does; how large its radius is depends on the denoiser.
    """

    name: str
    """Name in certificates and reports."""

    channels: int | None
    """Number of image channels it works on; None for any."""

    size: tuple[int, int] | None
    """Height and width of the images it works on; None for any."""

    licence: str | None
    """Licence of the weights; None where it is unknown."""

    @abstractmethod
    def forward(self, noisy: Pixels, sigma: Levels) -> Pixels:
        """Estimates of the clean pixels, in [0, 1].

        Arguments:
            noisy: Clean pixels plus Gaussian noise, shape (B, C, H, W).
            sigma: Standard deviation of the noise, in [0, 1] pixels: one number for all images, or one for each in a
                float64 tensor of shape (B) on the CPU. A model with one noise level always gives a number, so a
                denoiser that takes nothing else works there; it should refuse tensors with `InputError`.
        """

    @abstractmethod
    def describe(self, sigma: float) -> str:
        """How the denoiser works at `sigma`, in one line without its name; part of its fingerprint.

        Raises:
            InputError: If it cannot work at this noise level.
        """


@final
class Identity(Denoiser):
    """No denoiser: plain randomized smoothing, the baseline that every denoiser must beat.

    Arguments:
        channels: Number of channels of the images that noise is added to: 1 for gray ones, also before an RGB
            classifier; None for the classifier's own.
    """

    name = "none"
    size = None
    licence = None

    def __init__(self, channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.eval()

    def forward(self, noisy: Pixels, sigma: Levels) -> Pixels:
        del sigma
        return noisy

    def describe(self, sigma: float) -> str:
        del sigma
        return "plain smoothing"


@contextmanager
def faults_of(what: str, hint: str = "") -> Iterator[None]:
    """Tells whatever a denoiser raises as its fault; errors of ours and a lack of memory stay what they are.

    Arguments:
        what: The denoiser with what it is asked to do, before "fails".
        hint: What was expected of it, a line for the end of the text.

    Raises:
        ModelError: If anything is raised.
    """
    try:
        yield
    except (RobustifyError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever a stranger's network raises, the user should read whose it is
        raise ModelError(f"{what} fails: {type(error).__name__}: {error}{hint}") from error
