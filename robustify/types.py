"""Types of tensors, with their shapes and units.

Outside the networks, images, noise levels and radii are in [0, 1] pixels.
"""

from typing import TypeAlias

from jaxtyping import Float, UInt8
from torch import Tensor

Pixels: TypeAlias = Float[Tensor, "batch channels height width"]
"""A batch of images: clean ones have values in [0, 1], noisy ones any."""

Image: TypeAlias = Float[Tensor, "channels height width"]
"""One image, in the units of `Pixels`."""

Bytes: TypeAlias = UInt8[Tensor, "channels height width"]
"""One image of bytes, 0 to 255, as files have it; divided by 255 it is an `Image`."""

NetworkInput: TypeAlias = Float[Tensor, "batch network_channels network_height network_width"]
"""A batch of normalised images at the network's own size."""

Levels: TypeAlias = float | Float[Tensor, " batch"]
"""Standard deviation of noise in [0, 1] pixels: one number for a whole batch, or a tensor with one for each image."""

Logits: TypeAlias = Float[Tensor, "batch classes"]
"""Logits of a batch of images."""
