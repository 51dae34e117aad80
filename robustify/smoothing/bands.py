"""Bands of an image: copies of which only a band is kept."""

from typing import final

import torch
from torch import Tensor

from robustify.certificates.bands import Bands
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.smoothing.laws import Enumerated, as_pixels
from robustify.smoothing.noise import Array
from robustify.types import Bytes, Image, Pixels

MISSING = -torch.inf
"""The value of pixels that a base function leaves out, which no image has."""


@final
class Banded(Enumerated):
    """The i-th band of the image, bit by bit as it is, and the colour of the rest around it.

    Where the base function leaves out what is not kept, the rest is `MISSING` instead.

    Arguments:
        view: A view whose change is a `Bands`.
        soundness: Either; nothing is drawn.

    Raises:
        InputError: If the view's change is another one.
    """

    def __init__(self, view: View, soundness: str) -> None:
        del soundness
        if not isinstance(view.change, Bands):
            raise InputError(f"expected a view of bands; got {view}")
        self._bands = view.change
        rest = (MISSING,) if view.change.drop_tokens else view.change.fill
        self._rest = torch.tensor(rest, dtype=torch.float32).view(-1, 1, 1)

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        bands = self._bands
        (height, width), number = bands.size, torch.from_numpy(noise)
        rows = _arcs(torch.tensor(bands.tops)[number // len(bands.lefts)], bands.height, height)
        columns = _arcs(torch.tensor(bands.lefts)[number % len(bands.lefts)], bands.width, width)
        kept = (rows[:, :, None] & columns[:, None, :]).unsqueeze(1).to(image.device)
        torch.where(kept, as_pixels(image), self._rest.to(image.device), out=out)


def _arcs(starts: Tensor, length: int, size: int) -> Tensor:
    """Whether each pixel of an axis is in the arc that begins at a start, shape (starts, length)."""
    return (torch.arange(length) - starts[:, None]) % length < size
