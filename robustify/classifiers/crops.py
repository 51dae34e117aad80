r"""Classification of a crop that the image itself chooses, so that circular shifts cannot change the class.

A fixed filter responds at every pixel; the crop around the strongest response is classified. A shift moves responses
and content alike, so the crop has the same pixels. Where all of the image stays visible, as under circular shifts, this
is exact, to the bit: the same crop, hence the same class, for every shift. Under real shifts, where one side enters and
the other leaves, the crop stays unless what enters wins, or what won leaves.

It is exact because each response is computed by the same operations in the same order, and ties are broken by content:
of crops with the same response, the one whose pixels come last in order is taken; crops with the same pixels are one.
The filter's weights are whole numbers whose sum is 0, so even areas never win.

References:
    Lost in Translation: Modern Neural Networks Still Struggle With Small Realistic Image Transformations, Shifman,
    Weiss, 2024, https://arxiv.org/abs/2404.07153 (Robust Inference by Crop Selection; the filter and the way to break
    ties are ours)
"""

from dataclasses import replace
from itertools import product
from typing import final

import torch
from torch import Tensor, nn

from robustify.classifiers.base import ImageClassifier
from robustify.errors import InputError
from robustify.types import Logits, NetworkInput

_TAPS = 5
"""Side of the filter, in pixels."""

_TOGETHER = 64
"""Crops that are compared at once, where responses tie."""


@final
class CropByContent(nn.Module):
    """A network that sees the crop around the strongest response to a fixed filter, on a torus.

    Arguments:
        network: Maps normalised input of the crop's size to logits.
        size: Height and width of the crop, in pixels.
    """

    weights: Tensor

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size
        generator = torch.Generator().manual_seed(37)
        weights = torch.randint(-8, 9, (_TAPS, _TAPS), generator=generator)
        weights[_TAPS // 2, _TAPS // 2] -= weights.sum()
        self.register_buffer("weights", weights)
        self.eval()

    def forward(self, images: NetworkInput) -> Logits:
        """Logits of the crops, shape (B, classes)."""
        logits: Logits = self.network(self.crops(images))
        return logits

    def crops(self, images: NetworkInput) -> Tensor:
        """The crop of each image, shape (B, C, *size)."""
        responses = self._responses(images)
        return torch.stack([self._crop(image, found) for image, found in zip(images, responses, strict=True)])

    def _responses(self, images: NetworkInput) -> Tensor:
        """The filter's response around each pixel, shape (B, H, W); one operation after the other, at all pixels."""
        gray = images[:, 0]
        for channel in range(1, images.shape[1]):
            gray = gray + images[:, channel]
        total = torch.zeros_like(gray)
        for (down, right), weight in zip(product(range(_TAPS), repeat=2), self.weights.flatten().tolist(), strict=True):
            total = total + weight * gray.roll((_TAPS // 2 - down, _TAPS // 2 - right), dims=(1, 2))
        return total.nan_to_num()  # what is not finite still has a strongest response

    def _crop(self, image: Tensor, responses: Tensor) -> Tensor:
        """The crop around the strongest response; of several, the one whose pixels come last in order."""
        if bool((image == image[:, :1, :1]).all()):  # an even image: all crops are the same
            return image[:, : self.size[0], : self.size[1]]
        places = (responses == responses.max()).nonzero()
        best = self._around(image, places[:1])
        for some in torch.split(places[1:], _TOGETHER):
            rivals = torch.cat([best, self._around(image, some)])
            best = torch.unique(rivals.flatten(1), dim=0)[-1:].view_as(best)  # sorted, row by row
        return best[0]

    def _around(self, image: Tensor, places: Tensor) -> Tensor:
        """The crops around so many places, shape (places, C, *size)."""
        (height, width), device = image.shape[1:], image.device
        rows = (places[:, :1] - self.size[0] // 2 + torch.arange(self.size[0], device=device)) % height
        columns = (places[:, 1:] - self.size[1] // 2 + torch.arange(self.size[1], device=device)) % width
        return image[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)

    def extra_repr(self) -> str:
        """The size of the crop."""
        return f"size={self.size}"


def crop_by_content(classifier: ImageClassifier, size: tuple[int, int]) -> ImageClassifier:
    """A classifier of larger images, which shows the given one the crop that each image's content chooses.

    Arguments:
        classifier: Its input is the crop.
        size: Height and width of the larger images, in pixels.

    Raises:
        InputError: If the images are smaller than the crop.
    """
    crop = classifier.preprocessing.size
    if not (size[0] >= crop[0] and size[1] >= crop[1]):
        raise InputError(f"expected images of at least {crop[0]}×{crop[1]} pixels, the crop's; got {size[0]}×{size[1]}")
    return ImageClassifier(
        CropByContent(classifier.network, crop),
        replace(classifier.preprocessing, size=size),
        labels=classifier.labels,
        name=f"{classifier.name} on a crop by content",
        licence=classifier.licence,
    )
