"""Masked copies of an image, and the classifier that sees them without any denoiser."""

from itertools import chain, repeat
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from robustify.certificates.masks import Masking
from robustify.certificates.views import View
from robustify.errors import InputError
from robustify.smoothing.laws import Enumerated, as_pixels
from robustify.smoothing.noise import Array
from robustify.types import Bytes, Image, Pixels


@final
class Masked(Enumerated):
    """The image with the i-th set of masks over it, in the colour of the masks; all other pixels are as they are.

    Arguments:
        view: A view whose change is a `Masking`.
        soundness: Either; nothing is drawn.

    Raises:
        InputError: If the view's change is another one.
    """

    def __init__(self, view: View, soundness: str) -> None:
        del soundness
        masking = view.change
        if not isinstance(masking, Masking):
            raise InputError(f"expected a view of masked copies; got {view}")
        count = len(masking.rectangles)
        self._covered = F.pad(covered(masking), (0, 0, 0, 0, 0, 1))  # the last covers nothing
        most = 2 * masking.patches
        padded = chain.from_iterable(chain(found, repeat(count, most - len(found))) for found in masking.sets)
        self._sets = torch.tensor(list(padded)).view(-1, most)
        self._fill = torch.tensor(masking.fill, dtype=torch.float32).view(-1, 1, 1)

    def add(self, image: Image | Bytes, noise: Array, out: Pixels) -> None:
        self._covered = self._covered.to(image.device)
        sets = self._sets[torch.from_numpy(noise)].to(image.device)
        hidden = self._covered[sets].any(dim=1, keepdim=True)
        torch.where(hidden, self._fill.to(image.device), as_pixels(image), out=out)


def covered(masking: Masking) -> Bool[Tensor, "rectangles height width"]:
    """Whether each rectangle covers each pixel."""
    found = torch.zeros(len(masking.rectangles), masking.height, masking.width, dtype=torch.bool)
    for pixels, (top, left, height, width) in zip(found, masking.rectangles, strict=True):
        pixels[top : top + height, left : left + width] = True
    return found
