"""Shapes and units, named once.

Above classifiers and denoisers everything is pixels in [0, 1]; sigma and radius too.
"""

from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float, UInt8
from torch import Tensor

Pixels: TypeAlias = Float[Tensor, "batch channels height width"]
"""Clean values lie in [0, 1]; noisy ones anywhere."""

Image: TypeAlias = Float[Tensor, "channels height width"]
"""One image, in the units of `Pixels`."""

Bytes: TypeAlias = UInt8[Tensor, "channels height width"]
"""One image as it comes from a file; divided by 255 it is an `Image`."""

NetworkInput: TypeAlias = Float[Tensor, "batch network_channels network_height network_width"]
"""Normalised pixels at the network's own size."""

Logits: TypeAlias = Float[Tensor, "batch classes"]


@dataclass(frozen=True)
class InputContract:
    """The space in which noise is added and the radius lives.

    Pixels in [0, 1] of this shape, after resize and crop, before noise; what is measured is never clipped.
    """

    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.channels}×{self.height}×{self.width} pixels in [0, 1], after resize and crop"
